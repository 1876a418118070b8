"""Kill `pathclip train` with SIGKILL at random moments, go on, and compare with a run that was left alone.

    python tests/benchmarks/kill_train.py --kills 10

For one rank and for two (torchrun, gloo) a whole run is made first. Then runs are killed, every process of
them, at random moments: once while starting, then between the first step of each start and the end. Each
start has another number of workers, threads and processes in turn. Losses and every other figure of
metrics.jsonl that is no time, the model, and the tensors of the last checkpoint must be those of the whole
run to the bit. From ``keys/`` the one sequence of samples is put together again: every pass must hold each
sample exactly once. ``2+1`` in ``--ranks`` changes the number of ranks at each start; bits then differ, so
only the sequence is compared. The model has patch dropout and a running average of its weights, so that
torch's random state and the average must survive as well.

Prints a line per run, writes results/kill_train-<device>.csv beside this file with a row per kill, and
exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kill_train_run import Run, find_fault, kill, read_figures, read_sequence, read_weights
from machine import device_name, slug
from train import painted

from pathclip.core.config import to_toml
from pathclip.encoders import find_architecture
from pathclip.shards import Dataset
from pathclip.training import TrainConfig
from pathclip.training.watch import key_row

HERE = Path(__file__).resolve().parent
WORKERS = [(1, False), (2, True), (0, False), (3, False), (1, True)]  # workers, as processes
FIELDS = ["device", "torch", "ranks", "run", "kill", "while", "after_s", "step", "saved_step", "world"]
FIELDS += ["workers", "losses", "weights", "keys"]


@dataclass(frozen=True)
class Whole:
    """The run that was left alone: how long it took to start and to train, and what it came to."""

    starting: float
    training: float
    figures: list[dict[str, Any]]
    weights: dict[str, str]
    sequence: list[bytes]


def main(arguments: list[str] | None = None) -> int:
    """All runs; the exit code."""
    options = _parse(arguments)
    work = options.work or Path(tempfile.mkdtemp(prefix="pathclip-kill-"))
    data = options.shards or painted(work, options.side_px, options.pictures)
    ids = [key_row(str(record["sample_id"])) for _, record in Dataset.open(data).samples("train")]
    print(f"{len(ids)} samples, {options.epochs} epochs, {_steps(options, len(ids))} steps", flush=True)
    rng, rows, wholes = random.Random(options.seed), [], {}
    for ranks in options.ranks:
        worlds = [int(part) for part in ranks.split("+")]
        if worlds[0] not in wholes:
            wholes[worlds[0]] = _undisturbed(options, work, data, worlds[0], ids)
        whole, left, number = wholes[worlds[0]], options.kills, 0
        while left > 0:
            number += 1
            run = _new_run(options, work / f"run-{ranks}-{number}", data, len(ids))
            _kill_often(run, whole, worlds, min(left, options.per_run), options.start_kills, rng)
            verdict = _verdict(run, whole, ids, options, exact=len(worlds) == 1)
            left -= sum(row["while"] != "starting" for row in run.kills)
            rows += [{**row, "ranks": ranks, "run": number, **verdict} for row in run.kills]
            _show(ranks, number, run, verdict)
    _write(options.out / f"kill_train-{slug(device_name())}.csv", rows)
    if options.work is None:
        shutil.rmtree(work)
    wrong = sum(any(row[what] not in ("same", "") for what in ("losses", "weights", "keys")) for row in rows)
    starting = sum(row["while"] == "starting" for row in rows)
    print(f"{len(rows)} kills, {starting} of them while starting; {wrong} in runs that differ")
    return 1 if wrong else 0


def _steps(options: argparse.Namespace, count: int) -> int:
    return -(-count * options.epochs // options.batch)


def _new_run(options: argparse.Namespace, path: Path, data: Path, count: int) -> Run:
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = json.loads(json.dumps(find_architecture(options.model).model_cfg))
    if "timm_model_name" not in model["vision_cfg"]:
        model["vision_cfg"]["patch_dropout"] = 0.25
    (path.parent / "model.json").write_text(json.dumps(model))
    config = {
        "out": path,
        "data": {"dataset": data},
        "model": {"name": str(path.parent / "model.json")},
        "batch": {"size": options.batch},
        "optim": {"ema": 0.9},
        "schedule": {"epochs": options.epochs},
        "checkpoint": {"every_steps": options.save_every},
        "threads": 1,
        "device": "cpu",
    }
    path.with_suffix(".toml").write_text(to_toml(TrainConfig.model_validate(config)))
    total = _steps(options, count)
    return Run(path, path.with_suffix(".toml"), total, [0] * total)


def _undisturbed(options: argparse.Namespace, work: Path, data: Path, world: int, ids: list[bytes]) -> Whole:
    run = _new_run(options, work / f"whole-{world}", data, len(ids))
    started = time.monotonic()
    process = run.start(world, WORKERS[0])
    seconds = []  # until the first and until the last step was taken
    for step in (1, run.total):
        while run.last_step() < step and process.poll() is None:
            time.sleep(0.05)
        seconds.append(time.monotonic() - started)
    run.finish(process, 3600)
    starting, training = seconds[0], seconds[1] - seconds[0]
    sequence, figures = read_sequence(run, options.batch), read_figures(run)
    fault = find_fault(sequence, ids, options.epochs)
    if [row["step"] for row in figures] != list(range(1, run.total + 1)):
        fault = "ROWS MISSING"
    print(
        f"{world} ranks undisturbed: {starting:.1f} s to the first step, {training:.1f} s from there to the "
        f"last, keys {fault or 'exact'}",
        flush=True,
    )
    if fault:
        raise SystemExit(1)
    return Whole(starting, training, figures, read_weights(run), sequence)


def _kill_often(
    run: Run, whole: Whole, worlds: list[int], kills: int, start_kills: int, rng: random.Random
) -> None:
    """Kill and go on; at last let it finish. Moments lie so that about ``kills`` of them fill the run."""
    phases = ["training"] * kills
    for _ in range(start_kills):
        phases.insert(rng.randint(0, kills), "starting")
    patience = 60 + 20 * (whole.starting + whole.training)
    for attempt, phase in enumerate([*phases, None]):
        workers, world = WORKERS[attempt % len(WORKERS)], worlds[attempt % len(worlds)]
        saved, started = run.saved_step(), time.time()
        process = run.start(world, workers)
        if phase is None:
            return run.finish(process, patience)
        longest = whole.starting if phase == "starting" else 2 * whole.training / (kills + 1)
        if phase == "training":
            _wait_for_step(run, process, saved, started)
        after = rng.uniform(0, longest)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        if process.poll() is not None:
            return run.finish(process, patience)
        kill(process)
        step = run.last_step()
        run.kills.append(
            {
                "device": device_name(),
                "torch": torch.__version__,
                "kill": len(run.kills) + 1,
                "while": "ending" if phase == "training" and step == run.total else phase,
                "after_s": round(after, 2),
                "step": step,
                "saved_step": run.saved_step(),
                "world": world,
                "workers": f"{workers[0]} {'processes' if workers[1] else 'threads'}",
            }
        )


def _wait_for_step(run: Run, process: subprocess.Popen[bytes], saved: int, started: float) -> None:
    """Until this start has taken a step: rows of an earlier one may stand there until it cuts them."""
    path = run.path / "metrics.jsonl"
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime > started and (run.last_step() > saved or saved == run.total):
                return
        time.sleep(0.02)


def _verdict(
    run: Run, whole: Whole, ids: list[bytes], options: argparse.Namespace, *, exact: bool
) -> dict[str, str]:
    sequence = read_sequence(run, options.batch)
    keys = find_fault(sequence, ids, options.epochs) or _same(sequence, whole.sequence)
    if not exact:
        return {"losses": "", "weights": "", "keys": keys}
    losses, weights = _same(read_figures(run), whole.figures), _same(read_weights(run), whole.weights)
    return {"losses": losses, "weights": weights, "keys": keys}


def _same(found: object, expected: object) -> str:
    return "same" if found == expected else "DIFFERENT"


def _show(ranks: str, number: int, run: Run, verdict: dict[str, str]) -> None:
    moments = ", ".join(
        f"{kill['step']}{'' if kill['while'] == 'training' else ' ' + kill['while']}" for kill in run.kills
    )
    found = ", ".join(f"{what} {value}" for what, value in verdict.items() if value)
    print(f"{ranks} ranks, run {number}: {len(run.kills)} kills (step {moments}): {found}", flush=True)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10, help="while training, for each of --ranks")
    parser.add_argument("--ranks", nargs="+", default=["1", "2", "2+1"], help="2+1: in turn at each start")
    parser.add_argument("--per-run", type=int, default=5)
    parser.add_argument("--start-kills", type=int, default=1, help="per run, and not among --kills")
    parser.add_argument("--shards", type=Path, help="a dataset; unset: painted pictures")
    parser.add_argument("--pictures", type=int, default=307)
    parser.add_argument("--side-px", type=int, default=128)
    parser.add_argument("--model", default="tiny-vit-112", help="a shipped config, or a JSON config")
    parser.add_argument("--batch", type=int, default=15, help="odd, so that two ranks have uneven shares")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--save-every", type=int, default=4, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="keep everything here")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
