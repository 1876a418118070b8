"""``pathclip evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathclip.cli.app import JsonOption, Outcome, SetOption, app, verb

if TYPE_CHECKING:
    from pathclip.evaluation import EvaluateReport

METRICS = (
    "balanced_accuracy",
    "accuracy",
    "weighted_f1",
    "macro_f1",
    "mcc",
    "kappa",
    "quadratic_kappa",
    "auroc",
    "auprc",
    "ece",
)


@verb(app, "evaluate")
def evaluate(
    model: Annotated[str, typer.Option(help="Hub name, model folder, run folder or checkpoint file.")],
    data: Annotated[
        Path, typer.Option(help="Folder with a subfolder per class, CSV file, or dataset of shards.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for result.json, report.html and the rest.")],
    benchmark: Annotated[
        str,
        typer.Option(
            help="folder, csv (path,label[,split,group]), retrieval (a dataset of shards), neighbours "
            "(folder or CSV, picture to picture), wds (of clip_benchmark), mcq (JSON of questions), "
            "or a published set: kather, pannuke, digestpath, wsss4luad, kimia, pcam, lc25000, bach, mhist."
        ),
    ] = "folder",
    split: Annotated[str | None, typer.Option(help="Which split; 'test' where there is one.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Class file or shipped prompt set; by default the names of the folders."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Training data to look the test pictures up in: dataset or pictures.")
    ] = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> Outcome:
    """Score a model on labelled pictures or on captioned shards, with intervals and baselines beside.

    Writes result.json, report.html, predictions.parquet, pictures and tables into --out. Pictures that cannot
    be read are named, counted and left out, and the command then exits with 1. --set protocol=plip-compat
    repeats PLIP's splits, prompts, crops and averaging; --against counts test pictures that were learnt from.

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
        "against": against,
        "out": out,
    }
    report = run(load_config(EvaluateConfig, None, set_ or [], base=given))
    return Outcome(report.to_dict(), show(report), exit_code=1 if report.bad else 0)


def show(report: EvaluateReport) -> list[Any]:
    """Metrics, baselines and what was left out, as text."""
    from pathclip.cli._text import columns, plain

    constant = report.baselines.get("constant_class")
    rows = [
        (
            name,
            f"{value:.3f}",
            "" if ends[0] is None else f"{ends[0]:.3f} to {ends[1]:.3f}",
            *([_number(constant.get(name))] if constant else []),
            _number(chance),
        )
        for name, value, ends, chance in _rows(report)
    ]
    lines = [f"{report.counts['scored']} pictures scored, {len(report.bad)} left out"]
    lines += _leaks(report) + _draws(report)
    lines += [f"left out: {item.name}: {item.reason}" for item in report.bad[:10]]
    if len(report.bad) > 10:
        lines.append(f"and {len(report.bad) - 10} more; all are named in result.json")
    always = [f"always {constant['label']!r}"] if constant else []
    head = (report.dataset, "value", "95 % interval", *always, "chance")
    return [*columns(rows, header=head), *map(plain, lines), plain(f"look at {report.files['report']}")]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _draws(report: EvaluateReport) -> list[str]:
    """Balanced accuracy over prompts drawn by chance."""
    if "prompt_draws" not in report.extra:
        return []
    found = report.extra["prompt_draws"]
    values = {name: f"{value:.3f}" for name, value in found["balanced_accuracy"].items()}
    spread = "median {median}, middle 95 % {low} to {high}, {least} to {most} in all".format(**values)
    return [f"balanced accuracy of {found['draws']} prompts drawn by chance: {spread}"]


def _leaks(report: EvaluateReport) -> list[str]:
    found = report.extra.get("against")
    if found is None:
        return []
    line = f"{found['also_in_training']} of the pictures are also in {found['dataset']}"
    headline = report.provenance.get("protocol", {}).get("headline", "balanced_accuracy")
    if "metrics" in found and found["metrics"].get(headline) is not None:
        line += f"; {headline} without them {found['metrics'][headline]:.3f}"
    return [line]


def _rows(report: EvaluateReport) -> list[tuple[str, float, Any, float | None]]:
    chance = report.baselines["chance"]
    if report.task == "zeroshot_retrieval":
        return [
            (
                f"{way.replace('_', ' ')} {name}",
                report.metrics[way][name],
                report.intervals[way][name],
                random,
            )
            for way in ("image_to_text", "text_to_image")
            for name, random in chance[way].items()
        ]
    headline = report.provenance.get("protocol", {}).get("headline")
    order = (
        sorted(METRICS, key=lambda name: name != headline) if report.confusion is not None else report.metrics
    )
    known = [name for name in order if report.metrics.get(name) is not None]
    return [(n, report.metrics[n], report.intervals[n], chance.get(n)) for n in known]
