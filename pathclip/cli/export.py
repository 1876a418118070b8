"""``pathclip export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pathclip.cli.app import JsonOption, Outcome, app, verb


@verb(app, "export")
def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder of `pathclip train`, or any model it loads.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the model folder goes.")],
    format: Annotated[
        str,
        typer.Option(metavar="open_clip|hf", help="Whose files: open_clip's, or Hugging Face's CLIPModel."),
    ] = "open_clip",
    json: JsonOption = False,
) -> Outcome:
    """Write a trained model for open_clip or for Hugging Face transformers; every weight stays as it is.

    A Hugging Face folder has its tokenizer and its image processor with it. Only plain ViT models fit there.

    Example: pathclip export runs/first --format hf --out first-hf
    """
    from pathclip.encoders import export as export_model
    from pathclip.encoders import load

    model = load(run)
    folder = export_model(model, out, format=format)
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    data = {"model": model.name, "format": format, "out": str(folder), "files": files}
    return Outcome(data, [f"{model.name} as {format}: {folder} ({', '.join(files)})"])
