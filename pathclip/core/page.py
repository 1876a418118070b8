"""Pages to look at: one file, no script, nothing fetched; every text escaped, every picture inside."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from PIL import Image

__all__ = ["data_uri", "document", "table", "thumbnail"]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@functools.cache
def _style() -> str:
    return files("pathclip.core").joinpath("page.css").read_text(encoding="utf-8")


def document(title: str, body: str) -> str:
    """A whole page; ``body`` is HTML whose texts are escaped already, ``title`` is plain text."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_style()}</style>\n</head>\n"
        f"<body><main>\n{body}\n</main></body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Iterable[int] = ()) -> str:
    """A table of plain texts, escaped here; ``numbers`` are the columns to align right."""
    right = frozenset(numbers)

    def row(cells: Sequence[Any], tag: str) -> str:
        marked = (
            f"<{tag}{' class=number' if i in right else ''}>{escape(str(c))}</{tag}>"
            for i, c in enumerate(cells)
        )
        return f"<tr>{''.join(marked)}</tr>"

    body = "\n".join(row(cells, "td") for cells in rows)
    top = f"<thead>{row(head, 'th')}</thead>\n" if any(head) else ""
    return f"<table>\n{top}<tbody>{body}</tbody>\n</table>"


def thumbnail(image: Image.Image, side_px: int = 224) -> str:
    """An RGB picture as a small JPEG inside a data URI."""
    small = image.convert("RGB")
    small.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return data_uri(buffer.getvalue(), "image/jpeg")


def data_uri(data: bytes, mime: str) -> str:
    """Bytes inside an address."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
