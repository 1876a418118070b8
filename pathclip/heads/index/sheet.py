"""The contact sheet of a search: one page with the pictures inside."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from pathclip.core.errors import FaultError
from pathclip.core.files import atomic_write
from pathclip.core.page import document, thumbnail
from pathclip.encoders.pictures import as_rgb
from pathclip.heads.index.hits import Hit
from pathclip.heads.index.index import Index

__all__ = ["contact_sheet"]

SHOWN = ("label", "hashtag", "split")


def contact_sheet(
    index: Index, hits: Sequence[Hit], path: str | Path, *, query: str, image: Any = None, note: str = ""
) -> Path:
    """Write a self-contained page: thumbnails inside, every text escaped, nothing fetched.

    Args:
        index: Where the hits come from.
        hits: From `Index.search`.
        path: The HTML file to write.
        query: What was searched for, for the title.
        image: The picture that was searched by.
        note: A line below the title.
    """
    model = index.record["model"]
    lead = f"{len(hits)} of {len(index)} pictures, most similar first · {model['model']}"
    body = [f"<h1>{escape(query)}</h1>", f'<p class="soft">{escape(lead)}</p>']
    body += [f'<p class="soft">{escape(note)}</p>'] if note else []
    if image is not None:
        body += ["<h2>Searched by</h2>", f'<div class="cards"><figure>{_thumbnail(image)}</figure></div>']
    body += ["<h2>Found</h2>", f'<div class="cards">{"".join(_card(index, hit) for hit in hits)}</div>']
    with atomic_write(path, "w") as handle:
        handle.write(document(query, "\n".join(body)))
    return Path(path)


def _card(index: Index, hit: Hit) -> str:
    try:
        picture = _thumbnail(index.picture(hit))
    except FaultError as error:
        picture = f'<div class="missing">{escape(str(error))}</div>'
    tags = "".join(
        f' <span class="tag">{escape(str(hit.metadata[name]).replace("_", " "))}</span>'
        for name in SHOWN
        if hit.metadata.get(name)
    )
    caption = f"{escape(hit.caption)}<br>" if hit.caption else ""
    where = f'<span class="soft mono">{escape(hit.key)}</span>'
    head = f"<b>{hit.rank}</b> · {hit.score:.3f}{tags}<br>"
    title = escape(hit.location or hit.key)
    return f'<figure title="{title}">{picture}<figcaption>{head}{caption}{where}</figcaption></figure>\n'


def _thumbnail(image: Any) -> str:
    return f'<img alt="" src="{thumbnail(as_rgb(image))}">'
