"""Shards named one by one: urls and ``pipe:`` commands with braces, and how one of them gets here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
from itertools import product
from pathlib import Path

from pathclip.core.errors import FaultError, UserError
from pathclip.core.remote import Place, check_url

__all__ = ["PIPE", "Puller", "is_listed", "shard_name", "shard_urls"]

PIPE = "pipe:"
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}\s,]*(?:,[^{}\s,]*)+)\}")
MOST = 1_000_000  # shards of a list
POLL_S = 0.1
TOLD_BYTES = 4096  # of a command's last words


def is_listed(text: str) -> bool:
    """Whether a text names shards one by one: ``pipe:COMMAND`` or a url that ends in ``.tar``."""
    return all(
        p.startswith(PIPE) or ("://" in p and p.partition("?")[0].endswith(".tar")) for p in _parts(text)
    )


def shard_urls(text: str) -> list[str]:
    """Every shard that a text lists; ``::`` joins lists, ``{000..099}`` and ``{a,b}`` stand for several.

    Raises:
        UserError: If a range runs backwards, a shard is listed twice, or a url cannot be used.

    Example:
        >>> shard_urls("https://host/{08..10}.tar")
        ['https://host/08.tar', 'https://host/09.tar', 'https://host/10.tar']
    """
    urls = [url for part in _parts(text) for url in _expanded(part)]
    for url in urls:
        if not url.startswith(PIPE):
            check_url(url)
    if len(set(urls)) < len(urls):
        twice = next(url for url in urls if urls.count(url) > 1)
        raise UserError(f"{twice} is listed twice: a pass takes every shard once; for more set data.weights")
    return urls


def shard_name(url: str) -> str:
    """The last part of a url's path; of a command nothing."""
    return "" if url.startswith(PIPE) else url.partition("?")[0].rpartition("/")[2]


class Puller:
    """Brings files here from anywhere. What is half here when it fails is the caller's to remove.

    Args:
        stopped: Set by another thread to end what is under way.
    """

    def __init__(self, stopped: threading.Event) -> None:
        self.stopped = stopped
        self._places: dict[str, Place] = {}
        self._lock = threading.Lock()

    def pull(self, url: str, path: Path) -> None:
        """Write what lies at a url, or what a command prints, to ``path``.

        Raises:
            FaultError: If the store refuses or the connection breaks, or the command fails.
        """
        if url.startswith(PIPE):
            self._run(url, path)
        else:
            place, name = self._place(url)
            place.get(name, path, self.stopped)

    def read(self, url: str) -> bytes | None:
        """The bytes of a small file; None where it is not there."""
        place, name = self._place(url)
        return place.read(name)

    def _place(self, url: str) -> tuple[Place, str]:
        folder, question, query = url.partition("?")
        folder, _, name = folder.rpartition("/")
        with self._lock:
            if folder not in self._places:
                self._places[folder] = Place(folder)
            return self._places[folder], name + question + query

    def _run(self, url: str, path: Path) -> None:
        with open(path, "wb") as out, tempfile.TemporaryFile() as told:
            process = subprocess.Popen(
                url.removeprefix(PIPE), shell=True, stdout=out, stderr=told, start_new_session=True
            )
            while process.poll() is None:
                if self.stopped.wait(POLL_S):
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if process.returncode:
                told.seek(max(0, told.seek(0, os.SEEK_END) - TOLD_BYTES))
                words = told.read().decode(errors="replace").strip().splitlines()
                raise FaultError(
                    f"{url}: exit status {process.returncode}" + (f": {words[-1].strip()}" if words else "")
                )


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split("::")]


def _expanded(text: str) -> list[str]:
    choices, end = [], 0
    for found in BRACES.finditer(text):
        choices += [[text[end : found.start()]], _choices(found, text)]
        end = found.end()
    size = 1
    for choice in choices:
        size *= len(choice)
    if size > MOST:
        raise UserError(f"{text} stands for {size} shards; at most {MOST} can be listed")
    return ["".join(parts) for parts in product(*choices, [text[end:]])]


def _choices(found: re.Match[str], text: str) -> list[str]:
    first, last, words = found.groups()
    if words is not None:
        return words.split(",")
    if int(first) > int(last):
        raise UserError(f"{text}: {found[0]} runs backwards")
    if int(last) - int(first) >= MOST:
        raise UserError(f"{text}: {found[0]} stands for more than {MOST} shards")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
