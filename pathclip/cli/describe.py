"""``pathclip describe``: pictures in a model's own words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathclip.cli.app import JsonOption, Outcome, SetOption, app, verb
from pathclip.cli.classify import ROWS_ON_SCREEN, find_pictures

if TYPE_CHECKING:
    from pathclip.heads import Descriptions


@verb(app, "describe")
def describe(
    images: Annotated[list[Path], typer.Argument(help="Pictures, and folders of pictures.")],
    model: Annotated[
        str,
        typer.Option("--model", help="A model with a decoder (CoCa): model or run folder, hub name."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for descriptions.jsonl and result.json.")
    ] = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> Outcome:
    """Put each picture into words: made-up text in the manner of the training captions, no diagnosis.

    The likeliest word follows each time, so the text is the same each time. --set beams=4 follows four
    candidates; --set top_k=10 draws instead, with temperature and seed; --set max_tokens=20 cuts.

    Example: pathclip describe tiles/ --model runs/coca --out described
    """
    from pathclip.core.config import load_config
    from pathclip.core.errors import UserError
    from pathclip.encoders import GenerateConfig, load
    from pathclip.heads import describe as describe_pictures

    options = load_config(GenerateConfig, None, set_ or [])
    paths = find_pictures(images)
    if not any(path.exists() for path in paths):
        looked = ", ".join(str(path) for path in images[:3])
        raise UserError(f"no pictures in {looked}; give picture files or folders that hold some")
    result = describe_pictures(load(model, device="auto"), paths, options, progress=True)
    if out is not None:
        result.save(out)
    return Outcome(as_data(result, out), as_text(result, out), exit_code=1 if result.bad else 0)


def as_data(result: Descriptions, out: Path | None) -> dict[str, Any]:
    """The object of ``--json``."""
    from pathclip.heads.descriptions import NO_DIAGNOSIS

    kept = ("image", "text", "logprob", "complete")
    return {
        "model": result.provenance["model"],
        "generate": result.provenance["generate"],
        "pictures": len(result.names),
        "images": [{key: row[key] for key in kept} for row in result.rows() if row["reason"] is None],
        "bad": [{"image": item.name, "reason": item.reason} for item in result.bad],
        "note": NO_DIAGNOSIS,
        "out": out,
    }


def as_text(result: Descriptions, out: Path | None) -> list[Any]:
    """What a person sees: a row per picture, then what they are worth."""
    from pathclip.cli._text import columns, how_it_ended, plain

    good = [(row["image"], row["text"]) for row in result.rows() if row["reason"] is None]
    text = columns(good[:ROWS_ON_SCREEN], header=("picture", "generated text")) if good else []
    if len(good) > ROWS_ON_SCREEN:
        text.append(
            f"... and {len(good) - ROWS_ON_SCREEN} more{'' if out else ' (--out DIR writes them all)'}"
        )
    sums = f"{len(good)} pictures put into words" if good else "no picture could be read"
    text.append(plain(f"{sums}; made up by a model: no diagnosis", "bold"))
    return text + how_it_ended(result.bad, out)
