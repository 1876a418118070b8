"""Batches from shards that are here, and from shards that pass through: samples per second, CPU, room.

    python tests/benchmarks/stream.py --data DATASET --window 4

DATASET is a folder of `pathclip ingest`. ``mapped`` reads it as `pathclip train` does by default, ``window``
in the order of a stream without fetching, ``http`` from a web server on this machine (Python's own, in
another process), ``pipe`` through ``cat``. The input path alone, one pass each, in turn; medians of the
turns. Writes results/stream-<device>.csv beside this file.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from machine import device_name, slug, write_rows

from pathclip.batches import BatchConfig, ShardLoader
from pathclip.shards import Dataset

HERE = Path(__file__).resolve().parent
FIELDS = ["device", "side", "samples", "shards", "bytes", "window", "workers", "image_size", "turns"]
FIELDS += ["samples_per_s", "cpu_ms", "ratio", "peak_shards", "peak_bytes"]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measures, prints, writes; returns the rows of the CSV."""
    options = _parse(arguments)
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as cache, _served(options.data) as url:
        os.environ["PATHCLIP_CACHE"] = cache
        names = ",".join(shard.path for shard in Dataset.open(options.data).shards("train"))
        sides = {
            "mapped": str(options.data),
            "window": str(options.data),
            "http": url,
            "pipe": f"pipe:cat {options.data}/{{{names}}}",
        }
        for side in [*sides] * options.turns:
            window = None if side == "mapped" else options.window
            found.setdefault(side, []).append(_pass(sides[side], window, options))
    rows = [_row(side, turns, found["mapped"], options) for side, turns in found.items()]
    for row in rows:
        print({name: row[name] for name in ("side", "samples_per_s", "cpu_ms", "ratio", "peak_bytes")})
    write_rows(options.out / f"stream-{slug(device_name())}.csv", FIELDS, rows)
    return rows


def _pass(where: str, window: int | None, options: argparse.Namespace) -> dict[str, float]:
    """One pass over the split, from its first batch on."""
    config = BatchConfig(size=options.batch, workers=options.workers)
    dataset = Dataset.open(where, stream=window is not None)
    side = options.image_size
    loader = ShardLoader(dataset, "train", config, _tokenize, image_size=side, seed=0, window=window)
    batches = iter(loader)
    next(batches)
    cpu, started = _cpu(), time.perf_counter()
    samples = sum(len(batch.keys) for batch in islice(batches, loader.count // options.batch - 1))
    seconds, cpu = time.perf_counter() - started, _cpu() - cpu
    batches.close()
    peak = (loader.shards.passed.peak_shards, loader.shards.passed.peak_bytes) if loader.shards else (0, 0)
    return {"samples_per_s": samples / seconds, "cpu_ms": 1e3 * cpu / samples, "peak": peak}


def _row(
    side: str, turns: list[dict[str, Any]], mapped: list[dict[str, Any]], options: argparse.Namespace
) -> dict[str, Any]:
    shards = Dataset.open(options.data).shards("train")
    ratios = [a["samples_per_s"] / b["samples_per_s"] for a, b in zip(turns, mapped, strict=True)]
    return {
        "device": device_name(),
        "side": side,
        "samples": sum(shard.count for shard in shards),
        "shards": len(shards),
        "bytes": sum(shard.bytes for shard in shards),
        "window": 0 if side == "mapped" else options.window,
        "workers": options.workers,
        "image_size": options.image_size,
        "turns": options.turns,
        "samples_per_s": round(statistics.median(turn["samples_per_s"] for turn in turns)),
        "cpu_ms": round(statistics.median(turn["cpu_ms"] for turn in turns), 3),
        "ratio": round(statistics.median(ratios), 3),
        "peak_shards": max(turn["peak"][0] for turn in turns),
        "peak_bytes": max(turn["peak"][1] for turn in turns),
    }


def _tokenize(texts: list[str]) -> torch.Tensor:
    return torch.zeros(len(texts), 1, dtype=torch.int64)


def _cpu() -> float:
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """A web server in a process of its own."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(folder),
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        yield "http://127.0.0.1:" + server.stdout.readline().split(" port ")[1].split()[0]
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a dataset folder")
    parser.add_argument("--window", type=int, default=4, help="shards of a window")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args(arguments)
    options.data = options.data.resolve()
    return options


if __name__ == "__main__":
    main()
