"""Layouts of other projects that open_clip cannot express, one file each; only the formats are theirs."""

from __future__ import annotations

from collections.abc import Iterable

from pathclip.encoders.formats.conch import CONCH
from pathclip.encoders.formats.keep import KEEP
from pathclip.encoders.formats.layout import Layout
from pathclip.encoders.formats.musk import MUSK

__all__ = ["LAYOUTS", "layout_of"]

LAYOUTS: dict[str, Layout] = {"keep": KEEP, "conch": CONCH, "musk": MUSK}


def layout_of(keys: Iterable[str]) -> str | None:
    """The layout of a weights file, told by its keys; None for open_clip's and unknown ones."""
    present = set(keys)
    return next((name for name, layout in LAYOUTS.items() if layout.mark in present), None)
