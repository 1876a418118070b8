"""``pathclip index build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pathclip.cli.app import JsonOption, Outcome, app, verb

group = typer.Typer(help="Embed pictures once, search them many times.", no_args_is_help=True)
app.add_typer(group, name="index")


@verb(group, "build")
def build(
    data: Annotated[Path, typer.Argument(metavar="SHARDS|IMAGES", help="Dataset or folder of pictures.")],
    model: Annotated[str, typer.Option(help="Hub name, model folder, run folder or checkpoint file.")],
    out: Annotated[Path, typer.Option(help="Folder for the embeddings, metadata and search index.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per pass.")] = 64,
    device: Annotated[
        str, typer.Option(help="auto takes a GPU if there is one; or cpu, cuda, cuda:1.")
    ] = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Folder to keep features in and to find them again.")
    ] = None,
    json: JsonOption = False,
) -> Outcome:
    """Embed every picture (and caption) into a folder that `pathclip search` searches.

    The folder has clip-retrieval's layout. Pictures that cannot be read are named and left out, and the
    command then exits with 1.

    Example: pathclip index build data --model RUN --out emb
    """
    import torch

    from pathclip.cli._text import plain
    from pathclip.encoders import load
    from pathclip.heads.index import Index
    from pathclip.heads.index.sources import open_source

    open_source(data)  # a mistyped folder is named before the model is loaded
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    loaded = load(model, device=chosen)
    index = Index.build(loaded, data, out, batch_size=batch_size, progress=True, cache=cache)
    record = index.record
    text = [f"{record['count']} pictures, {record['dim']} numbers each, in {out}"]
    text += [f"{len(index.bad)} left out"] if index.bad else []
    text += [f"try: pathclip search {out} 'signet ring cells' --html hits.html"]
    data_out = {"out": out, **{k: record[k] for k in ("count", "dim", "has_texts", "source", "bad")}}
    return Outcome(data_out, [plain(line) for line in text], exit_code=1 if index.bad else 0)
