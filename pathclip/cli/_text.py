"""Aligned lines of plain text; unlike a table they never cut a path short, however narrow the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathclip.encoders import BadPicture

__all__ = ["columns", "how_it_ended", "plain"]


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


def how_it_ended(bad: Sequence[BadPicture], out: Path | None) -> list[Any]:
    """The pictures that could not be read, each with its reason, and where the files are."""
    lines = [plain(f"{len(bad)} could not be read:", "red")] if bad else []
    lines += [plain(f"  {item.name}: {item.reason}") for item in bad]
    return lines if out is None else [*lines, plain(f"written to {out}")]
