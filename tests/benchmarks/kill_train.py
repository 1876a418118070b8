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
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from train import device_name, painted, slug

from pathclip.core.config import to_toml
from pathclip.encoders import find_architecture
from pathclip.shards import Dataset
from pathclip.training import TrainConfig, read_metrics
from pathclip.training.checkpoint import latest_checkpoint
from pathclip.training.watch import KEY_BYTES, key_row

HERE = Path(__file__).resolve().parent
WORKERS = [(1, False), (2, True), (0, False), (3, False), (1, True)]  # workers, as processes
FIELDS = ["device", "torch", "ranks", "run", "kill", "while", "after_s", "step", "saved_step", "world"]
FIELDS += ["workers", "losses", "weights", "keys"]
TIMES = {"samples_per_s", "data_wait"}


@dataclass
class Run:
    """A run folder, and what was done to it.

    Attributes:
        path: The folder.
        config: What it was started with.
        total: Its steps.
        world_at: Ranks that took each step, as it counts in the end.
        kills: One row per kill.
    """

    path: Path
    config: Path
    total: int
    world_at: list[int]
    kills: list[dict[str, Any]] = field(default_factory=list)

    def saved_step(self) -> int:
        """Of the newest checkpoint; 0 without one."""
        folder = latest_checkpoint(self.path)
        return int(folder.name[5:]) if folder else 0

    def last_step(self) -> int:
        """Of the newest row, which a resume may cut again."""
        rows = read_metrics(self.path / "metrics.jsonl")
        return rows[-1]["step"] if rows else 0

    def start(self, world: int, workers: tuple[int, bool]) -> subprocess.Popen[bytes]:
        """Begin, or go on where the folder holds a run already."""
        self.world_at[self.saved_step() :] = [world] * (self.total - self.saved_step())
        command = [sys.executable, "-m"]
        if world > 1:
            command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={world}", "-m"]
        begun = (self.path / "config.toml").is_file()
        command += ["pathclip", "train", *(["--resume", str(self.path)] if begun else [str(self.config)])]
        for setting in (f"workers={workers[0]}", f"processes={str(workers[1]).lower()}"):
            command += ["--set", f"batch.{setting}"]
        with open(self.path.with_suffix(".log"), "ab") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def finish(self, process: subprocess.Popen[bytes], patience: float) -> None:
        """Wait for the end; a run that fails or hangs ends the benchmark."""
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            kill(process)
            code = f"none after {patience:.0f} s"
        if code != 0:
            raise SystemExit(f"{self.path}: exit status {code}: {_tail(self.path.with_suffix('.log'))}")


@dataclass(frozen=True)
class Whole:
    """The run that was left alone: how long it took to start and to train, and what it came to."""

    starting: float
    training: float
    figures: list[dict[str, Any]]
    weights: dict[str, str]
    sequence: list[bytes]


def main() -> int:
    """All runs; the exit code."""
    options = _parse()
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
    while not run.last_step() and process.poll() is None:
        time.sleep(0.02)
    starting = time.monotonic() - started
    run.finish(process, 3600)
    training = time.monotonic() - started - starting
    sequence = read_sequence(run, options.batch)
    fault = find_fault(sequence, ids, options.epochs)
    print(
        f"{world} ranks undisturbed: {starting:.1f} s to the first step, {training:.1f} s from there to the "
        f"end, keys {fault or 'exact'}",
        flush=True,
    )
    if fault:
        raise SystemExit(1)
    return Whole(starting, training, _figures(run), _weights(run), sequence)


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
                "while": "ending" if step == run.total else phase,
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


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and all that stem from it: torchrun gives each rank a session of its own."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    family = [process.pid]
    for member in family:  # grows while it is walked
        family += [pid for pid, parent in parents if parent == member]
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def read_sequence(run: Run, size: int) -> list[bytes]:
    """The samples of all ranks in the order of the global batches; what a rank has too many comes last."""
    rows = {}
    for path in (run.path / "keys").glob("rank*.bin"):
        data = path.read_bytes()
        cut = [data[i : i + KEY_BYTES] for i in range(0, len(data), KEY_BYTES)]
        rows[int(path.stem[4:])] = iter(cut)
    sequence: list[bytes] = []
    for world in run.world_at:
        for rank in range(world):
            share = size * (rank + 1) // world - size * rank // world
            sequence += [key for _, key in zip(range(share), rows.get(rank, iter(())), strict=False)]
    return sequence + [key for rest in rows.values() for key in rest]


def find_fault(sequence: list[bytes], ids: list[bytes], epochs: int) -> str:
    """What is wrong with the epochs of a sequence; empty if each holds every sample exactly once."""
    count, wanted = len(ids), set(ids)
    for epoch in range(epochs):
        part = sequence[epoch * count : (epoch + 1) * count]
        twice, missed = len(part) - len(set(part)), len(wanted - set(part))
        if twice or missed:
            return f"EPOCH {epoch + 1}: {twice} TWICE, {missed} MISSED"
    rest = sequence[epochs * count :]
    return f"{len(rest) - len(set(rest))} TWICE AT THE END" if len(set(rest)) < len(rest) else ""


def _verdict(
    run: Run, whole: Whole, ids: list[bytes], options: argparse.Namespace, *, exact: bool
) -> dict[str, str]:
    sequence = read_sequence(run, options.batch)
    keys = find_fault(sequence, ids, options.epochs) or _same(sequence, whole.sequence)
    if not exact:
        return {"losses": "", "weights": "", "keys": keys}
    losses, weights = _same(_figures(run), whole.figures), _same(_weights(run), whole.weights)
    return {"losses": losses, "weights": weights, "keys": keys}


def _same(found: object, expected: object) -> str:
    return "same" if found == expected else "DIFFERENT"


def _figures(run: Run) -> list[dict[str, Any]]:
    """Every row without its times; floats are written so that they read back to the same bits."""
    rows = read_metrics(run.path / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def _weights(run: Run) -> dict[str, str]:
    """Checksums of the model, and of weights, optimizer, average and random states at the end."""
    last = run.path / (run.path / "latest").read_text().strip()
    files = [run.path / "model" / "open_clip_model.safetensors", *sorted(last.glob("*.safetensors"))]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


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


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-3000:]


def _parse() -> argparse.Namespace:
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
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
