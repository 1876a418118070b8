"""A post that was flattened to dotted columns (twarc-csv), put together again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["post_of_columns"]

REFERENCE = "referenced_tweets."


def post_of_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """The flattened v2 post behind a row: nested again, JSON in cells read, empty cells absent.

    Example:
        >>> post_of_columns({"id": "1", "public_metrics.like_count": "3", "entities.hashtags": "[]"})
        {'id': '1', 'public_metrics': {'like_count': '3'}, 'entities': {'hashtags': []}}
    """
    post: dict[str, Any] = {}
    references = []
    for column, cell in row.items():
        if cell is None or cell == "" or cell != cell:  # NaN is how tables of numbers spell nothing
            continue
        if column.startswith(REFERENCE):
            kind, _, what = column.removeprefix(REFERENCE).partition(".")
            if what == "id":
                references.append({"type": kind, "id": cell})
            continue
        *path, last = column.split(".")
        place = post
        for name in path:
            inner = place.setdefault(name, {})
            place = inner if isinstance(inner, dict) else {}
        place[last] = _value(cell)
    if references:
        post["referenced_tweets"] = references
    return post


def _value(cell: Any) -> Any:
    """Lists and objects stand in cells as JSON."""
    if isinstance(cell, str) and cell[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell
