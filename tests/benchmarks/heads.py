"""Encoding, recall, probe and search, ours and what one would otherwise write, in turn on the same input.

    python tests/benchmarks/heads.py --peer venv-clip-benchmark/bin/python

``--peer`` is a Python that imports clip_benchmark and pathclip's requirements; without it that side is named
and left out. Each measurement is a process of its own; sides alternate, so that a busy machine slows all
alike. Prints medians and ratios, writes results/heads-<machine>.csv beside this file.

- ``encode``: JPEG files to unit features, against open_clip's model and transform in a plain loop and
  behind a DataLoader with two workers; the least cosine with the plain loop's features stands beside, as it
  is and with the mean of all features taken off both sides.
- ``recall``: R@1 and R@10 both ways for N pictures and N texts, against clip_benchmark's recall_at_k.
- ``search``: one query at a time over features in memory, against one matrix product and topk.
- ``probe``: penalty chosen, fitted and judged, against the same folds in plain scikit-learn and
  clip_benchmark's sweep (it asserts CUDA; that one assertion is walked around).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import device_name, slug, write_rows

from pathclip.synthetic import CLASSES, paint_tile

HERE = Path(__file__).resolve().parent
FIELDS = ["machine", "threads", "what", "data", "model", "precision", "side", "wall_s", "cpu_s", "extra_mib"]
FIELDS += ["rate_per_s", "ratio", "cpu_ratio", "value", "cosine_min", "centred_cosine_min", "alternations"]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measures, prints, writes; returns the rows of the CSV."""
    options = _parse(arguments)
    if (
        not options.peer
        or subprocess.run([options.peer, "-c", "import clip_benchmark"], check=False).returncode
    ):
        print(
            "left out: clip_benchmark; give --peer PATH of a Python that has it and pathclip's requirements"
        )
        options.peer = None
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="pathclip-bench-") as scratch:
        work = options.work or Path(scratch)
        for job, sides in _jobs(options, work):
            found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
            for _ in range(options.alternations):
                for side in sides:
                    found[side].append(
                        _measure({**job, "side": side, "out": str(_file(work, side))}, options)
                    )
            rows += _compared(job, found, work, options)
            _show(rows[-len(sides) :])
    write_rows(options.out / f"heads-{slug(device_name())}.csv", FIELDS, rows)
    return rows


def _jobs(options: argparse.Namespace, work: Path) -> list[tuple[dict[str, Any], list[str]]]:
    """Each job and its sides; the first side that is not ours is what ratios refer to."""
    jobs: list[tuple[dict[str, Any], list[str]]] = []
    for side_px in options.pixels if "encode" in options.only else ():
        data = str(painted(work, side_px, options.pictures))
        for model in options.models:
            for precision in options.precisions:
                job = {"what": "encode", "data": data, "model": model, "precision": precision}
                job |= {"batch": options.batch, "pictures": options.pictures}
                jobs.append((job, ["pathclip", "open_clip", "open_clip+workers"]))
    sized = {"recall": (options.recall, 512), "search": (options.search, 512), "probe": (options.probe, 512)}
    peers = {"recall": ["clip_benchmark"], "search": ["torch"], "probe": ["scikit-learn", "clip_benchmark"]}
    for what, (size, width) in sized.items():
        if what in options.only:
            sides = [s for s in ["pathclip", *peers[what]] if s != "clip_benchmark" or options.peer]
            jobs.append(({"what": what, "size": size, "width": width, "classes": 8}, sides))
    return jobs


def painted(work: Path, side_px: int, count: int) -> Path:
    """Painted tiles of one size as JPEG files."""
    import simplejpeg

    folder = work / f"painted-{side_px}"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05d}.jpg"
        if not path.exists():
            tile = paint_tile(CLASSES[number % len(CLASSES)], number, side_px)
            path.write_bytes(simplejpeg.encode_jpeg(tile, quality=90, colorsubsampling="420"))
    return folder


def _file(work: Path, side: str) -> Path:
    return work / f"features-{side}.npy"


def _measure(spec: dict[str, Any], options: argparse.Namespace) -> dict[str, float]:
    python = options.peer if spec["side"] == "clip_benchmark" else sys.executable
    command = [python, str(HERE / "heads_sides.py"), json.dumps({**spec, "threads": options.threads})]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{spec['side']}, {spec['what']}: {done.stderr[-3000:]}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _compared(
    job: dict[str, Any], found: dict[str, list[dict[str, float]]], work: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    middle = {s: {k: statistics.median(run[k] for run in runs) for k in runs[0]} for s, runs in found.items()}
    base = middle[next((side for side in middle if side != "pathclip"), "pathclip")]
    rows = []
    for side, values in middle.items():
        row = {
            "machine": device_name(),
            "threads": options.threads,
            "what": job["what"],
            "data": Path(job["data"]).name if "data" in job else f"{job['size']} x {job['width']}",
            "model": Path(job.get("model", "")).name,
            "precision": job.get("precision", "fp32"),
            "side": side,
            "alternations": options.alternations,
            "rate_per_s": values.get("rate", ""),
            "ratio": base["wall_s"] / values["wall_s"],
            "cpu_ratio": base["cpu_s"] / values["cpu_s"],
            "value": _value(job["what"], values),
            **{key: values[key] for key in ("wall_s", "cpu_s", "extra_mib")},
            **(_cosines(work, side) if job["what"] == "encode" else {}),
        }
        rows.append({k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()})
    return rows


def _value(what: str, values: dict[str, float]) -> float | str:
    """Milliseconds per query, mean recall, or accuracy: what both sides should agree in, or be judged by."""
    recalls = [value for name, value in values.items() if "R@" in name]
    known = {"search": values.get("ms", ""), "probe": values.get("accuracy", "")}
    return statistics.mean(recalls) if what == "recall" else known.get(what, "")


def _cosines(work: Path, side: str) -> dict[str, float]:
    """Features of a random model point almost the same way, so their mean is taken off as well."""
    ours, theirs = (np.load(_file(work, s)).astype(np.float64) for s in (side, "open_clip"))
    pairs = {"cosine_min": (ours, theirs)}
    pairs["centred_cosine_min"] = (ours - theirs.mean(axis=0), theirs - theirs.mean(axis=0))
    unit = {n: [x / np.linalg.norm(x, axis=1, keepdims=True) for x in both] for n, both in pairs.items()}
    return {name: float((a * b).sum(axis=1).min()) for name, (a, b) in unit.items()}


def _show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(
            f"{row['what']:7s} {row['data']:14s} {row['model']:13s} {row['precision']:5s} {row['side']:18s}"
            f"{row['wall_s']:9.3f} s, processor {row['cpu_s']:9.3f} s, +{row['extra_mib']:6.0f} MiB"
            f"  {row['ratio']:6.2f} x, by processor {row['cpu_ratio']:5.2f} x  {row['value']}"
            f" {row.get('cosine_min', '')} {row.get('centred_cosine_min', '')}",
            flush=True,
        )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return [part for part in text.split(",") if part]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="a Python with clip_benchmark")
    parser.add_argument("--only", type=words, default=["encode", "recall", "search", "probe"])
    parser.add_argument("--pixels", type=lambda s: [int(x) for x in words(s)], default=[512, 1024])
    parser.add_argument("--models", type=words, default=["tiny-vit-112", "ViT-B-32"])
    parser.add_argument("--precisions", type=words, default=["fp32", "bf16"])
    parser.add_argument("--pictures", type=int, default=192)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--recall", type=int, default=20_000, help="pictures, and as many texts")
    parser.add_argument("--search", type=int, default=208_414, help="pictures that are searched")
    parser.add_argument("--probe", type=int, default=2000, help="pictures to learn from, and to be judged on")
    parser.add_argument("--threads", type=int, default=2, help="torch's")
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--work", type=Path, help="keep the pictures here and use them again")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
