"""Cut a chunk in two, down to one line: to find the line that a reader dies of."""

from __future__ import annotations

import mmap
from dataclasses import replace

from pathclip.tweets.packed import is_packed
from pathclip.tweets.readers import Chunk

__all__ = ["halves"]

BLOCK = 1 << 20


def halves(chunk: Chunk) -> list[Chunk] | None:
    """Two chunks of the same lines; an empty list for a single line, None where lines are not plain."""
    if chunk.shape != "jsonl" or is_packed(chunk.path):
        return None
    with open(chunk.path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = len(data) if chunk.end is None else chunk.end
        middle = (chunk.start + end) // 2
        newline = data.find(b"\n", middle, end - 1)
        if newline < 0:
            newline = data.rfind(b"\n", chunk.start, middle)
        if newline < 0:
            return []
        cut = newline + 1
        lines = sum(data[i : min(i + BLOCK, cut)].count(b"\n") for i in range(chunk.start, cut, BLOCK))
    return [
        replace(chunk, end=cut),
        replace(chunk, start=cut, end=end, first_line=chunk.first_line + lines),
    ]
