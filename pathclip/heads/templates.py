"""Sentences to put class names into, by the name of a shipped set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pathclip.core.files import read_json

__all__ = ["named_templates", "shipped_templates"]

FOLDER = Path(__file__).parent / "template_sets"


def shipped_templates() -> tuple[str, ...]:
    """Names of the template sets that come with pathclip."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def named_templates(templates: Sequence[str] | str) -> tuple[str, ...]:
    """The sentences of a shipped set by its name; anything else is taken as sentences."""
    if isinstance(templates, str):
        if templates in shipped_templates():
            return tuple(read_json(FOLDER / f"{templates}.json")["templates"])
        return (templates,)
    return tuple(templates)
