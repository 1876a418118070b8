"""A step with a locked image tower: run each time, or its features read from `model.image_cache`.

    python tests/benchmarks/train_locked.py --tiles DATA/tiles

The real tiles are ingested once into ``--work``; models have weights drawn at random, one view per picture,
float32. Both sides take the same steps, in turn; seconds are of the wall, CPU seconds of all threads, so that
these stay comparable on a busy machine. ``fill`` is what the cache costs once, per picture, decoding
included. Writes results/train_locked-<device>.csv beside this file.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from machine import device_name, slug, write_rows
from train import HERE, _ingest

from pathclip.batches import AugmentConfig
from pathclip.training import TrainConfig
from pathclip.training.image_cache import feature_store, fill
from pathclip.training.inputs import build_loader, build_model, fingerprint, open_datasets
from pathclip.training.trainer import Trainer
from pathclip.training.world import World

FIELDS = ["device", "torch", "threads", "model", "batch", "what", "pictures_per_s", "cpu_ms_per_picture"]
FIELDS += ["alternations", "ratio", "cpu_ratio"]


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measures, prints, writes; returns the rows of the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=Path, required=True, help="folder with pairs.csv")
    parser.add_argument("--models", nargs="+", default=["ViT-B-32", "ViT-B-16", "tiny-vit-112"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="measured, after one that is not")
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=int, help="of the data at most; all unless given")
    parser.add_argument("--work", type=Path, help="folder kept for the next run")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the CSV")
    options = parser.parse_args(arguments)
    work = options.work or Path(tempfile.mkdtemp(prefix="pathclip-bench-"))
    torch.set_num_threads(options.threads)
    data = work / "tiles"
    if not (data / "index.json").is_file():
        _ingest(_cut(options.tiles / "pairs.csv", options.pictures, work), options.tiles, data)
    rows = [row for model in options.models for row in _compared(model, data, work, options)]
    write_rows(options.out / f"train_locked-{slug(device_name())}.csv", FIELDS, rows)
    if options.work is None:
        shutil.rmtree(work)
    return rows


def _cut(table: Path, count: int | None, work: Path) -> Path:
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    path = work / "pairs.csv"
    path.write_text("".join(lines if count is None else [lines[0], *lines[1 :: len(lines) // count][:count]]))
    return path


def _compared(model: str, data: Path, work: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    found: dict[str, list[tuple[float, float]]] = {"tower": [], "features": [], "fill": []}
    cache = work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    for _ in range(options.alternations):
        for what, folder in (("tower", None), ("features", cache)):
            values, filled = _measure(_config(model, data, folder, options), options.steps)
            found[what].append(values)
            found["fill"] += filled
    common = {
        "device": device_name(),
        "torch": torch.__version__,
        "threads": options.threads,
        "model": model,
        "batch": options.batch,
    }
    medians = {w: [statistics.median(column) for column in zip(*v, strict=True)] for w, v in found.items()}
    rows = [
        {
            **common,
            "what": what,
            "pictures_per_s": round(1 / seconds, 1),
            "cpu_ms_per_picture": round(1000 * cpu, 3),
            "alternations": len(found[what]),
            "ratio": round(medians["tower"][0] / seconds, 2) if what == "features" else "",
            "cpu_ratio": round(medians["tower"][1] / cpu, 2) if what == "features" else "",
        }
        for what, (seconds, cpu) in medians.items()
    ]
    print(*rows, sep="\n", flush=True)
    return rows


def _config(model: str, data: Path, cache: Path | None, options: argparse.Namespace) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "data": {"dataset": data},
            "model": {"name": model, "lock_image": True, "image_cache": cache},
            "batch": {"size": options.batch, "augment": AugmentConfig.off(), "workers": options.threads},
        }
    )


Cost = tuple[float, float]  # seconds and CPU seconds per picture


def _measure(config: TrainConfig, steps: int) -> tuple[Cost, list[Cost]]:
    """What a step costs, and what filling the cache did, if it was to be filled."""
    world = World(0, 1, torch.device("cpu"))
    datasets, model = open_datasets(config), build_model(config)
    loader = build_loader(config, datasets, model, world)
    filled = []
    found = feature_store(config, model, loader, fingerprint(datasets, config.data.split))
    if found is not None:
        lacks = not any(found[0].path(part).is_file() for part in found[0].parts)
        clock = _Clock()
        fill(*found, model, config, loader, world)
        if lacks:
            filled.append(clock.per(loader.count))
        loader.read_features(found[0])
    trainer = Trainer(config, model, loader, 2 * steps, world)
    trainer.take_step()
    clock = _Clock()
    for _ in range(steps):
        trainer.take_step()
    cost = clock.per(steps * config.batch.size)
    trainer.batches.close()
    return cost, filled


class _Clock:
    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def per(self, count: int) -> Cost:
        """Since the start, per picture."""
        return (time.perf_counter() - self.wall) / count, (time.process_time() - self.cpu) / count


if __name__ == "__main__":
    main()
