"""``pathclip probe``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathclip.cli.app import JsonOption, Outcome, SetOption, app, verb

if TYPE_CHECKING:
    from pathclip.evaluation import EvaluateReport


@verb(app, "probe")
def probe(
    model: Annotated[str, typer.Option(help="Hub name, model folder, run folder or checkpoint file.")],
    train: Annotated[Path, typer.Option(help="Folder with a subfolder per class, or CSV, to learn from.")],
    test: Annotated[Path, typer.Option(help="Likewise, to be judged on; may be the same with other splits.")],
    out: Annotated[Path, typer.Option(help="Folder for result.json, report.html and the probe.")],
    shots: Annotated[
        str | None, typer.Option(help="Also learn from so many pictures per class, for example 1,2,4,8,16.")
    ] = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> Outcome:
    """Fit a linear classifier on a model's picture features and score it on other pictures.

    The strength of its penalty is chosen by folds of the training pictures. Writes result.json, report.html,
    confusion.png, predictions.parquet and probe.safetensors into --out. Pictures that cannot be read are
    named, counted and left out, and the command then exits with 1.

    Example: pathclip probe --model RUN --train tiles --test tiles --shots 1,4,16 --out probe
    """
    from pathclip.core.config import load_config
    from pathclip.evaluation import ProbeConfig
    from pathclip.evaluation import probe as run

    given: dict[str, Any] = {"model": model, "train": train, "test": test, "out": out}
    if shots is not None:
        given["shots"] = [part.strip() for part in shots.split(",") if part.strip()]
    report = run(load_config(ProbeConfig, None, set_ or [], base=given))
    failed = report.bad or report.extra["probe"]["training_bad"]
    return Outcome(report.to_dict(), _show(report), exit_code=1 if failed else 0)


def _show(report: EvaluateReport) -> list[Any]:
    from pathclip.cli._text import columns, plain
    from pathclip.cli.evaluate import show

    about, curve = report.extra["probe"], report.extra["few_shot"]
    count = sum(about["training_pictures"].values())
    rows = [
        (str(row["shots"]), f"{row['balanced_accuracy']:.3f}", "{:.3f} to {:.3f}".format(*row["interval"]))
        for row in curve
    ]
    few = columns(rows, header=("pictures per class", "balanced accuracy", "95 % of draws")) if rows else []
    if "plip_probe" in report.extra:
        plip = report.extra["plip_probe"]
        row = next(row for row in plip["grid"] if row["alpha"] == plip["alpha"])
        line = f"macro F1 {row['mean']:.3f} ± {row['sd']:.3f} over {len(plip['seeds'])} seeds"
        few.append(plain(f"{line} at alpha {row['alpha']:g}, which was chosen on the test pictures"))
    learnt = f"learnt from {count} pictures of {len(report.classnames)} classes, C = {about['c']:g}"
    return [*show(report), *few, plain(learnt)]
