"""Aligned lines of plain text; unlike a table they never cut a path short, however narrow the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["columns", "plain"]


def plain(line: str, style: str = "") -> Any:
    """A line in which brackets are brackets, not markup."""
    from rich.text import Text

    return Text(line, style=style)


def columns(rows: Sequence[Sequence[str]], *, header: Sequence[str] = ()) -> list[Any]:
    """Rows as lines, each column as wide as its longest cell."""
    everything = [*([header] if header else []), *rows]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in everything
    ]
    styled = ["bold" if header and index == 0 else "" for index in range(len(lines))]
    return [plain(line.rstrip(), style) for line, style in zip(lines, styled, strict=True)]
