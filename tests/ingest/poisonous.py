"""Stand-ins for the functions of `look` that die on a poisonous input; importable in a spawned worker."""

from __future__ import annotations

import os
from typing import Any

from pathclip.ingest import collect, look
from pathclip.tweets import Item

POISON = "poison"


def rows(task: look.LookTask) -> list[dict[str, Any]]:
    _die_of(task)
    return look._rows(task)


def look_at_many(task: look.LookTask) -> None:
    _die_of(task)
    look.look_at_many(task)


def _die_of(task: look.LookTask) -> None:
    if any(POISON in file for _, file in task.places):
        os._exit(1)


def held_items(task: collect.ReadTask) -> list[tuple[int, Item]]:
    _die_of_line(task)
    return collect._held_items(task)


def read_chunk(task: collect.ReadTask) -> None:
    _die_of_line(task)
    collect._read_chunk(task)


def _die_of_line(task: collect.ReadTask) -> None:
    data = task.chunk.path.read_bytes()
    if POISON.encode() in data[task.chunk.start : task.chunk.end]:
        os._exit(1)
