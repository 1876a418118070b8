"""Peak memory of `pathclip train` against what its dry run says, and seconds per step.

    python tests/benchmarks/train_memory.py --shards T [--only vit-b-32] [--below 12]

Every case is `pathclip train --dry-run` and then `pathclip train` for a few steps, each in a process of its
own, from weights drawn at random. Seen is the kernel's highest resident size of the training process; where
batches are decoded in processes, the highest sum of proportional sizes over the tree, read ten times a
second. Cases whose estimate is above ``--below`` GiB are left out, and say so. ``T`` is a dataset folder with
at least as many samples as the largest batch. Writes results/train_memory-<device>.csv beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from machine import device_name, slug
from train import HERE

GIB = 2**30
VIT = {"model.name": "ViT-B-32"}
CACHE = "a folder of the case's own"
CASES: dict[str, dict[str, Any]] = {
    "vit-b-32 fp32 32": {**VIT, "batch.size": 32},
    "vit-b-32 fp32 64": {**VIT, "batch.size": 64},
    "vit-b-32 fp32 128": {**VIT, "batch.size": 128},
    "vit-b-32 bf16 32": {**VIT, "batch.size": 32, "precision": "bf16"},
    "vit-b-32 bf16 64": {**VIT, "batch.size": 64, "precision": "bf16"},
    "vit-b-32 bf16 128": {**VIT, "batch.size": 128, "precision": "bf16"},
    "vit-b-32 fp32 128, 4 pieces": {**VIT, "batch.size": 128, "accumulation": 4},
    "vit-b-32 bf16 128, 4 pieces": {**VIT, "batch.size": 128, "accumulation": 4, "precision": "bf16"},
    "vit-b-32 fp32 64, checkpointing": {**VIT, "batch.size": 64, "grad_checkpointing": True},
    "vit-b-32 bf16 64, checkpointing": {
        **VIT,
        "batch.size": 64,
        "grad_checkpointing": True,
        "precision": "bf16",
    },
    "vit-b-32 fp32 32, average": {**VIT, "batch.size": 32, "optim.ema": 0.99},
    "vit-b-32 fp32 128, 4 pieces, checkpointing, average": {
        **VIT,
        "batch.size": 128,
        "accumulation": 4,
        "grad_checkpointing": True,
        "optim.ema": 0.99,
    },
    "vit-b-32 fp32 64, image tower locked": {**VIT, "batch.size": 64, "model.lock_image": True},
    "vit-b-32 fp32 64, image features cached": {
        **VIT,
        "batch.size": 64,
        "batch.views": 1,
        "model.lock_image": True,
        "model.image_cache": CACHE,
    },
    "tiny-vit-112 fp32 64": {"model.name": "tiny-vit-112", "batch.size": 64},
    "tiny-vit-112 bf16 256": {"model.name": "tiny-vit-112", "batch.size": 256, "precision": "bf16"},
    "tiny-vit-112 fp32 512, 4 pieces, average": {
        "model.name": "tiny-vit-112",
        "batch.size": 512,
        "accumulation": 4,
        "optim.ema": 0.99,
    },
    "tiny-vit-112 fp32 64, decoded in processes": {
        "model.name": "tiny-vit-112",
        "batch.size": 64,
        "batch.processes": True,
    },
    "tiny-conv-112 fp32 64": {"model.name": "tiny-conv-112", "batch.size": 64},
    "tiny-conv-112 fp32 256": {"model.name": "tiny-conv-112", "batch.size": 256},
    "tiny-resnet-96 fp32 128": {"model.name": "tiny-resnet-96", "batch.size": 128},
}


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3, help="of each run")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--below", type=float, default=12.0, help="GiB; larger cases are left out")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the CSV")
    options = parser.parse_args(arguments)
    rows = []
    for name, values in CASES.items():
        if options.only in name:
            rows.append(measure(name, values, options))
            print(rows[-1], flush=True)
    with open(options.out / f"train_memory-{slug(device_name())}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def measure(name: str, values: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One case: estimate, seen, their ratio, and the median time of its steps."""
    with tempfile.TemporaryDirectory(prefix="train-memory-") as folder:
        run = Path(folder) / "run"
        config = write_config(Path(folder), options.steps)
        command = [sys.executable, "-m", "pathclip", "train", str(config)]
        values = {key: Path(folder) / "cache" if value == CACHE else value for key, value in values.items()}
        for key, value in {"data.dataset": options.shards.resolve(), "out": run, **values}.items():
            command += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
        dry = subprocess.run([*command, "--dry-run", "--json"], check=True, stdout=subprocess.PIPE, text=True)
        estimate = json.loads(dry.stdout.splitlines()[-1])["memory_bytes"] / GIB
        row: dict[str, Any] = {
            "device": device_name(),
            "torch": torch.__version__,
            "case": name,
            "estimate_gib": round(estimate, 3),
            "seen_gib": "left out",
            "ratio": "",
            "seconds_per_step": "",
        }
        if estimate <= options.below:
            seen = peak(command, tree=bool(values.get("batch.processes"))) / GIB
            row |= {"seen_gib": round(seen, 3), "ratio": round(estimate / seen, 3)}
            row["seconds_per_step"] = round(seconds_per_step(run / "metrics.jsonl", values["batch.size"]), 3)
        return row


def write_config(folder: Path, steps: int) -> Path:
    """The part of a config that all cases share."""
    path = folder / "config.toml"
    path.write_text(f"[schedule]\nsteps = {steps}\n")
    return path


def seconds_per_step(metrics: Path, size: int) -> float:
    """Median over the steps but the first, which also builds the optimizer's state."""
    rates = sorted(json.loads(line)["samples_per_s"] for line in metrics.read_text().splitlines()[1:])
    return float(size / rates[len(rates) // 2])


def peak(command: list[str], *, tree: bool) -> int:
    """Bytes at the highest point of a process, or of it and its children together."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    sums = [0]
    watcher = threading.Thread(target=_watch, args=(process.pid, sums), daemon=True)
    if tree:
        watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return max(sums) if tree else usage.ru_maxrss * 1024


def _watch(pid: int, sums: list[int]) -> None:
    while Path(f"/proc/{pid}").exists():
        sums.append(sum(_proportional(each) for each in _tree(pid)))
        time.sleep(0.1)


def _tree(pid: int) -> list[int]:
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    except OSError:  # ended meanwhile
        pass
    return found


def _proportional(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
