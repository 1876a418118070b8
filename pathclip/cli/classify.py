"""``pathclip classify``: pictures against prompts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pathclip.cli.app import JsonOption, Outcome, app, verb

if TYPE_CHECKING:
    from pathclip.heads import ZeroShotResult
    from pathclip.heads.strategies import Strategy

ROWS_ON_SCREEN = 40


@verb(app, "classify")
def classify(
    images: Annotated[list[Path], typer.Argument(help="Pictures, and folders of pictures.")],
    model: Annotated[
        str, typer.Option("--model", help="Model folder, run folder, weights file or hub name.")
    ],
    classes: Annotated[
        str, typer.Option("--classes", help="A class file (JSON, YAML, text) or the name of a shipped set.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for predictions.csv, .parquet and result.json.")
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(help="Prompts to use: ensemble (all), single (the first), screening (what fits)."),
    ] = "ensemble",
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder to keep features in and to find them again.")
    ] = None,
    json: JsonOption = False,
) -> Outcome:
    """Say which class each picture shows, from words alone.

    Example: [bold]pathclip classify tiles/ --model run/model --classes crc --out predictions[/bold]
    """
    from pathclip.core.errors import UserError
    from pathclip.encoders import load
    from pathclip.heads import classify as classify_pictures
    from pathclip.heads import load_prompts
    from pathclip.heads.strategies import check_strategy

    check_strategy(strategy)
    prompts = load_prompts(classes)
    paths = find_pictures(images)
    if not any(path.exists() for path in paths):
        looked = ", ".join(str(path) for path in images[:3])
        raise UserError(f"no pictures in {looked}; give picture files or folders that hold some")
    loaded = load(model, device="auto")
    result = classify_pictures(
        loaded, paths, prompts, progress=True, cache=cache, strategy=cast("Strategy", strategy)
    )
    if out is not None:
        result.save(out)
    return Outcome(as_data(result, prompts.name, out), as_text(result, out), exit_code=1 if result.bad else 0)


def find_pictures(paths: list[Path]) -> list[Path]:
    """Files as given, folders replaced by the pictures below them in sorted order."""
    from pathclip.encoders import PICTURE_SUFFIXES

    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = (p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())
            found += sorted(p for p in below if not p.name.startswith("."))
        else:
            found.append(path)
    return found


def as_data(result: ZeroShotResult, prompts: str, out: Path | None) -> dict[str, Any]:
    """The object of ``--json``."""
    bad = {item.index for item in result.bad}
    images = [
        {
            "image": name,
            "label": result.labels[index],
            "probabilities": dict(zip(result.classnames, result.probabilities[index].tolist(), strict=True)),
        }
        for index, name in enumerate(result.names)
        if index not in bad
    ]
    return {
        "model": result.provenance["model"],
        "prompts": prompts,
        "classes": list(result.classnames),
        "pictures": len(result.names),
        "counts": counts(result),
        "images": images,
        "bad": [{"image": item.name, "reason": item.reason} for item in result.bad],
        "out": out,
    }


def as_text(result: ZeroShotResult, out: Path | None) -> list[Any]:
    """What a person sees: a row per picture, then the sums."""
    from pathclip.cli._text import columns, how_it_ended, plain

    shown = [index for index, label in enumerate(result.labels) if label is not None][:ROWS_ON_SCREEN]
    rows = []
    for index in shown:
        (first, second), (best, next_best) = result.probabilities[index].topk(2)
        rows.append((result.names[index], result.classnames[best], f"{first:.2f}"))
        rows[-1] += (f"{result.classnames[next_best]} {second:.2f}",)
    text = columns(rows, header=("picture", "class", "probability", "next")) if rows else []
    good = len(result.names) - len(result.bad)
    if good > len(shown):
        text.append(f"... and {good - len(shown)} more{'' if out else ' (--out DIR writes them all)'}")
    sums = ", ".join(f"{label} {count}" for label, count in counts(result).items())
    text.append(plain(f"{good} pictures: {sums}" if good else "no picture could be read", "bold"))
    return text + how_it_ended(result.bad, out)


def counts(result: ZeroShotResult) -> dict[str, int]:
    """Pictures per predicted class, in the order of the classes."""
    counter = Counter(label for label in result.labels if label is not None)
    return {label: counter[label] for label in result.classnames if counter[label]}
