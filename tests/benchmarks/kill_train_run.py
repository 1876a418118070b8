"""A training run that is started, killed and started again, and what its folder proves in the end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathclip.training import read_metrics
from pathclip.training.checkpoint import latest_checkpoint
from pathclip.training.watch import KEY_BYTES

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


def read_figures(run: Run) -> list[dict[str, Any]]:
    """Every row without its times; floats are written so that they read back to the same bits."""
    rows = read_metrics(run.path / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def read_weights(run: Run) -> dict[str, str]:
    """Checksums of the model, and of weights, optimizer, average and random states at the end."""
    last = run.path / (run.path / "latest").read_text().strip()
    files = [run.path / "model" / "open_clip_model.safetensors", *sorted(last.glob("*.safetensors"))]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-3000:]
