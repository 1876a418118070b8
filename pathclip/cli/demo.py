"""``pathclip demo``: the whole road on embedded data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pathclip.cli.app import JsonOption, Outcome, app, verb


@verb(app, "demo")
def demo(
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder for everything that is made; an earlier demo in it is replaced."),
    ] = Path("pathclip-demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the data and of training.")] = 0,
    json: JsonOption = False,
) -> Outcome:
    """Go the whole road on painted data, in minutes, on a CPU: from a tweet dump to a classified slide.

    Paints a dump with the noise of real ones, ingests it, trains a tiny model from scratch, classifies
    held-out tiles and a slide by words, searches by text, and writes summary.json and index.html. Nothing is
    downloaded.

    Example: pathclip demo --out demo
    """
    from rich.console import Console

    from pathclip.demo import run_demo

    console = Console(stderr=json, highlight=False)
    summary = run_demo(out, seed, show=lambda item: console.print(item, soft_wrap=True))
    zero, slide = summary["zeroshot"], summary["slide"]
    verdict = "right" if slide["label"] == slide["expected"] else f"painted: {slide['expected']}"
    lines = [
        "",
        f"zero-shot balanced accuracy {zero['balanced_accuracy']:.3f} on {zero['n']} held-out tiles "
        f"(chance {zero['chance']:.3f}, nearest mean colour {zero['baseline']:.3f})",
        f"slide: {slide['label']} ({verdict}), {slide['tiles']} tiles, "
        f"{slide['tissue_accuracy']:.0%} of them named rightly",
        f"{summary['seconds']:.0f} s; open {out / 'index.html'}",
    ]
    return Outcome(data=summary, text=lines)
