"""``pathclip train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pathclip.cli.app import JsonOption, Outcome, SetOption, app, verb


@verb(app, "train")
def train(
    config: Annotated[
        Path | None,
        typer.Argument(help="TOML file, or a preset: plip, quilt, tiny-cpu; none with --resume."),
    ] = None,
    set_: SetOption = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with the run in this folder, to the same bits.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show config, data, steps and memory; train nothing.")
    ] = False,
    json: JsonOption = False,
) -> Outcome:
    """Train an image and a text encoder that understand each other, from a dataset of pictures with captions.

    Writes a run folder: config.toml, metrics.jsonl, curves.png, checkpoints/ and, at the end, model/, which
    `pathclip classify --model RUN` and open_clip both read. Kill it at any time; --resume goes on.

    Example: pathclip train tiny-cpu --set data.dataset=tiles --set out=runs/first
    """
    from pathclip.core.config import load_config
    from pathclip.core.errors import UserError
    from pathclip.training import TrainConfig, load_run_config
    from pathclip.training import train as run_training
    from pathclip.training.plan import make_plan
    from pathclip.training.presets import preset_file

    if config is not None:
        chosen = load_config(TrainConfig, preset_file(config), set_ or ())
    elif resume is not None:
        chosen = load_run_config(resume, set_)
    else:
        raise UserError("nothing to train: give a CONFIG.toml, or --resume RUN")
    if dry_run:
        plan = make_plan(chosen)
        return Outcome(plan.data(), [plan.text()])
    result = run_training(chosen, resume=resume)
    if os.environ.get("RANK", "0") != "0":  # one process of several tells
        return Outcome(None)
    return Outcome(_data(result), [_text(result)])


def _data(result: object) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(result)  # type: ignore[call-overload]


def _text(result: object) -> str:
    from pathclip.core.files import size_text
    from pathclip.training import TrainResult

    assert isinstance(result, TrainResult)
    if result.stopped:
        return (
            f"stopped by {result.stopped} after {result.steps} steps; "
            f"go on with: pathclip train --resume {result.run}"
        )
    lines = [f"{result.steps} steps, {result.samples_seen} samples"]
    if result.samples_per_s is not None:
        lines[0] += f", {result.samples_per_s:.0f} samples/s, {result.seconds:.0f} s"
    if result.loss_first is not None and result.loss_last is not None:
        lines.append(f"loss {result.loss_first:.3f} -> {result.loss_last:.3f}")
    for name, values in result.evaluation.items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in values.items()))
    if result.streamed:
        s = result.streamed
        again = f", {s.retried} attempts made again" if s.retried else ""
        lines.append(
            f"{s.shards} shards ({size_text(s.bytes)}) streamed{again}; at most {s.peak_shards} "
            f"({size_text(s.peak_bytes)}) were here at a time"
        )
    if result.bad:
        lines.append(
            f"{len(result.bad)} samples could not be used and were replaced, e.g. {next(iter(result.bad))}"
        )
    if result.decoded_on_cpu:
        reasons = ", ".join(f"{count} {reason}" for reason, count in result.decoded_on_cpu.items())
        lines.append(f"pictures decoded on the CPU: {reasons}")
    return "\n".join([*lines, f"model: {result.model}", f"curves: {result.run / 'curves.png'}"])
