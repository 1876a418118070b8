"""``pathclip evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathclip.cli.app import JsonOption, Outcome, SetOption, app, verb

if TYPE_CHECKING:
    from pathclip.evaluation import EvaluateReport

METRICS = ("balanced_accuracy", "accuracy", "weighted_f1", "macro_f1", "auroc")


@verb(app, "evaluate")
def evaluate(
    model: Annotated[str, typer.Option(help="Hub name, model folder, run folder or checkpoint file.")],
    data: Annotated[
        Path, typer.Option(help="Folder with a subfolder per class, CSV file, or dataset of shards.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for result.json, report.html and the rest.")],
    benchmark: Annotated[
        str, typer.Option(help="folder, csv (path,label[,split,group]) or retrieval (a dataset of shards).")
    ] = "folder",
    split: Annotated[str | None, typer.Option(help="Which split; 'test' where there is one.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Class file or shipped prompt set; by default the names of the folders."),
    ] = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> Outcome:
    """Score a model on labelled pictures or on captioned shards, with intervals and baselines beside.

    Writes result.json, report.html, confusion.png and predictions.parquet into --out. Pictures that cannot be
    read are named, counted and left out, and the command then exits with 1.

    Example: pathclip evaluate --model RUN --data tiles --split test --out scores
    """
    from pathclip.core.config import load_config
    from pathclip.evaluation import EvaluateConfig
    from pathclip.evaluation import evaluate as run

    given = {
        "model": model,
        "benchmark": benchmark,
        "data": data,
        "split": split,
        "classes": classes,
        "out": out,
    }
    report = run(load_config(EvaluateConfig, None, set_ or [], base=given))
    return Outcome(report.to_dict(), show(report), exit_code=1 if report.bad else 0)


def show(report: EvaluateReport) -> list[Any]:
    """Metrics, baselines and what was left out, as text."""
    from pathclip.cli._text import columns, plain

    rows = [
        (
            name,
            f"{value:.3f}",
            "" if ends[0] is None else f"{ends[0]:.3f} to {ends[1]:.3f}",
            "" if chance is None else f"{chance:.3f}",
        )
        for name, value, ends, chance in _rows(report)
    ]
    lines = [f"{report.counts['scored']} pictures scored, {len(report.bad)} left out"]
    if "constant_class" in report.baselines:
        constant = report.baselines["constant_class"]
        lines.append(f"always {constant['label']!r}: weighted F1 {constant['weighted_f1']:.3f}")
    lines += [f"left out: {item.name}: {item.reason}" for item in report.bad[:10]]
    if len(report.bad) > 10:
        lines.append(f"and {len(report.bad) - 10} more; all are named in result.json")
    head = (report.dataset, "value", "95 % interval", "chance")
    return [*columns(rows, header=head), *map(plain, lines), plain(f"look at {report.files['report']}")]


def _rows(report: EvaluateReport) -> list[tuple[str, float, Any, float | None]]:
    chance = report.baselines["chance"]
    if report.confusion is not None:
        known = [name for name in METRICS if report.metrics.get(name) is not None]
        return [(n, report.metrics[n], report.intervals[n], chance.get(n)) for n in known]
    return [
        (f"{way.replace('_', ' ')} {name}", report.metrics[way][name], report.intervals[way][name], random)
        for way in ("image_to_text", "text_to_image")
        for name, random in chance[way].items()
    ]
