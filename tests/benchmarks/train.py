"""Training from shards, ours and open_clip's own trainer (open_clip_train), in turn on the same shards.

    python tests/benchmarks/train.py --peer-python venv-open-clip/bin/python --tiles DATA/tiles

``--peer-python`` is a Python with ``open_clip_torch[training]``; without it the peer is named and left out.
Painted tiles of 512 and of 224 px are ingested once into ``--work``; ``--tiles`` adds the real ones for the
whole step. Prints medians and ratios, writes results/train-<device>.csv beside this file. Both sides read
the same tars with the same model, batch, precision and number of workers, and cut 0.9 to 1 of each
picture's area; sides alternate, so that a busy machine slows both alike. ``input`` ends at a batch as each
side delivers it: bytes here, to be normalised where the model is, normalised float32 there;
``input+normalise`` has both in float32.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from machine import device_name, slug, write_rows

import pathclip
from pathclip.encoders import find_architecture
from pathclip.synthetic import CLASSES, paint_tile

HERE = Path(__file__).resolve().parent
FIELDS = ["device", "torch", "threads", "workers", "precision", "what", "data", "model", "batch", "side"]
FIELDS += ["samples_per_s", "self_cpu_ms", "alternations", "ratio"]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measures, prints, writes; returns the rows of the CSV."""
    options = _parse(arguments)
    work = options.work or Path(tempfile.mkdtemp(prefix="pathclip-bench-"))
    sides = {"pathclip": sys.executable}
    if options.peer_python and not _lacks_peer(options.peer_python):
        sides["open_clip"] = options.peer_python
    else:
        print("left out: open_clip_train; give --peer-python PATH of a Python with open_clip_torch[training]")
    rows: list[dict[str, Any]] = []
    for job in _jobs(options, work):
        found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for turn in range(options.alternations):
            for side, python in sides.items():
                found[side].append(
                    _measure(python, {**job, "side": side, "out": str(work / f"run-{side}-{turn}")})
                )
        rows += _compared(job, found, options)
        _show(rows[-len(sides) :])
    write_rows(options.out / f"train-{slug(device_name())}.csv", FIELDS, rows)
    if options.work is None:
        shutil.rmtree(work)
    return rows


def _jobs(options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    common = {"threads": options.threads, "workers": options.workers, "precision": options.precision}
    jobs: list[dict[str, Any]] = []
    for side_px in options.input_px:
        data = painted(work, side_px, options.pictures)
        model = _model_file(work, "tiny-vit-112", image_size=224)
        jobs += [
            {
                **common,
                "what": what,
                "data": str(data),
                "model": model,
                "batch": options.batch,
                "batches": options.batches,
            }
            for what in ("input", "input+normalise")
        ]
    steps = [painted(work, 512, options.pictures)] if options.step else []
    if options.step and options.tiles:
        out = work / "tiles"
        if not (out / "index.json").is_file():
            _ingest(options.tiles / "pairs.csv", options.tiles, out)
        steps.append(out)
    model = _model_file(work, options.model)
    jobs += [
        {
            **common,
            "what": "step",
            "data": str(data),
            "model": model,
            "batch": options.batch,
            "batches": options.batches,
        }
        for data in steps
    ]
    return jobs


def painted(work: Path, side_px: int, count: int) -> Path:
    """A dataset of painted tiles of one size, ingested as a user would."""
    import simplejpeg

    out = work / f"painted-{side_px}"
    if (out / "index.json").is_file():
        return out
    media = work / f"media-{side_px}"
    media.mkdir(parents=True, exist_ok=True)
    with (work / f"pairs-{side_px}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split"])
        for number in range(count):
            label = CLASSES[number % len(CLASSES)]
            tile = paint_tile(label, number, side_px)
            (media / f"{number}.jpg").write_bytes(
                simplejpeg.encode_jpeg(tile, quality=90, colorsubsampling="420")
            )
            writer.writerow([f"{number}.jpg", f"{label} number {number}", "train"])
    _ingest(work / f"pairs-{side_px}.csv", media, out)
    return out


def _ingest(table: Path, media: Path, out: Path) -> None:
    config = pathclip.IngestConfig.model_validate(
        {"sources": [table], "media": media, "out": out, "pack": {"shard_samples": 128}}
    )
    pathclip.ingest(config)


def _model_file(work: Path, name: str, **overrides: Any) -> str:
    """The config as a file that open_clip reads too."""
    architecture = find_architecture(name)
    if overrides:
        architecture = architecture.overridden(**overrides)
    path = work / f"bench-{Path(name).stem}-{overrides.get('image_size', 0)}.json"
    path.write_text(json.dumps(architecture.model_cfg))
    return str(path)


def _measure(python: str, spec: dict[str, Any]) -> dict[str, float]:
    shutil.rmtree(spec["out"], ignore_errors=True)
    command = [python, str(HERE / "train_sides.py"), json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{spec['side']}, {spec['what']}: {done.stderr[-3000:]}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _compared(
    job: dict[str, Any], found: dict[str, list[dict[str, float]]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    speed = {side: statistics.median(m["samples_per_s"] for m in all_) for side, all_ in found.items()}
    cpu = {
        side: round(statistics.median(m["self_cpu_ms"] for m in all_), 3) if "self_cpu_ms" in all_[0] else ""
        for side, all_ in found.items()
    }
    return [
        {
            "device": device_name(),
            "torch": torch.__version__,
            **{key: job[key] for key in ("threads", "workers", "precision", "what", "batch")},
            "data": Path(job["data"]).name,
            "model": Path(job["model"]).stem,
            "side": side,
            "samples_per_s": round(value, 1),
            "self_cpu_ms": cpu[side],
            "alternations": options.alternations,
            "ratio": round(value / speed["open_clip"], 3) if "open_clip" in speed else "",
        }
        for side, value in speed.items()
    ]


def _show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        ratio = f"  {row['ratio']:.2f} x" if row["ratio"] != "" else ""
        print(
            f"{row['what']:16s}{row['data']:12s} {row['model']:24s} batch {row['batch']:4d} {row['side']:10s}"
            f"{row['samples_per_s']:9.1f} samples/s{ratio}",
            flush=True,
        )


def _lacks_peer(python: str) -> bool:
    return (
        subprocess.run(
            [python, "-c", "import open_clip_train.main"], capture_output=True, check=False
        ).returncode
        != 0
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="a Python with open_clip_torch[training]")
    parser.add_argument("--tiles", type=Path, help="folder with pairs.csv of real tiles, for the whole step")
    parser.add_argument("--input-px", type=lambda s: [int(x) for x in s.split(",") if x], default=[512, 224])
    parser.add_argument("--no-step", dest="step", action="store_false", help="the input path only")
    parser.add_argument("--model", default="tiny-vit-112", help="of the whole step")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=30, help="counted ones")
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="torch's")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--work", type=Path, help="keep the datasets here and use them again")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
