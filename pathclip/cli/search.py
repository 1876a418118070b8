"""``pathclip search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathclip.cli.app import JsonOption, Outcome, app, verb

if TYPE_CHECKING:
    from pathclip.heads.index import Hit

CAPTION_WIDTH = 60  # on screen; --json has it whole


@verb(app, "search")
def search(
    index: Annotated[Path, typer.Argument(metavar="DIR", help="Folder written by `pathclip index build`.")],
    query: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="Search by this picture instead of words.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many pictures to return.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="SQL condition on the metadata, e.g. \"split = 'test'\"."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every picture, of more than a million too.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a contact sheet: one page, pictures inside.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The index's model, if it has moved.")] = None,
    json: JsonOption = False,
) -> Outcome:
    """Find the pictures most similar to a text or a picture.

    The index remembers its model; a different one is refused.

    Example: pathclip search emb "signet ring cells" -k 20 --html hits.html
    """
    from pathclip.core.errors import UserError
    from pathclip.heads.index import Index, contact_sheet

    if (query is None) == (image is None):
        raise UserError("expected one query: words, or --image FILE")
    opened = Index.open(index, model=model)
    hits = opened.search(query, k, image=False if image is None else image, where=where, exact=exact or None)
    title = query if image is None else image.name
    note = "" if len(hits) == k else f"{k} asked for, {len(hits)} there"
    if html is not None:
        contact_sheet(opened, hits, html, query=title, image=image, note=note)
    data = {
        "index": index,
        "query": query,
        "image": image,
        "k": k,
        "where": where,
        "count": len(hits),
        "note": note or None,
        "hits": [hit.to_dict() for hit in hits],
        "html": html,
    }
    return Outcome(data, _show(hits, note, html))


def _show(hits: list[Hit], note: str, html: Path | None) -> list[Any]:
    from pathclip.cli._text import columns, plain

    rows = [(str(h.rank), f"{h.score:.3f}", _caption(h), h.location or h.key) for h in hits]
    table = columns(rows, header=("rank", "score", "caption", "where")) if hits else [plain("nothing found")]
    return [*table, *([plain(note)] if note else []), *([plain(f"look at {html}")] if html else [])]


def _caption(hit: Hit) -> str:
    text = " ".join((hit.caption or hit.metadata.get("label") or "").split())
    return text if len(text) <= CAPTION_WIDTH else text[: CAPTION_WIDTH - 1] + "…"
