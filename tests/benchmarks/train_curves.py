"""Loss by samples and zero-shot accuracy at the end, ours and open_clip's own trainer, over several seeds.

    python tests/benchmarks/train_curves.py --peer-python venv-open-clip/bin/python --tiles DATA/tiles

Both sides train the same model from random weights on the same shards with the same batch, AdamW, warm-up,
cosine and crops (0.9 to 1 of the area). With ``diagonal`` positives both optimise the same loss, and curves
may be compared; ``masked`` and ``shared``, which open_clip lacks, only by their accuracy on ``TILES/test``.
Prints means over the seeds with 95 % intervals (Student's t); writes results/train_curves-<device>.csv beside
this file, a row per pass.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import train as bench
from machine import device_name, slug

HERE = Path(__file__).resolve().parent
FIELDS = ["device", "model", "batch", "side", "positives", "seed", "pass", "samples", "loss", "accuracy"]
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # by number of seeds; Student's t, two-sided


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Trains, prints, writes; returns the rows of the CSV."""
    options = _parse(arguments)
    work = options.work or Path(tempfile.mkdtemp(prefix="pathclip-curves-"))
    work.mkdir(parents=True, exist_ok=True)
    data = work / "dataset"
    if not (data / "index.json").is_file():
        bench._ingest(options.tiles / "pairs.csv", options.tiles, data)
    contenders = [("pathclip", positives) for positives in options.positives]
    if options.peer_python and not bench._lacks_peer(options.peer_python):
        contenders.insert(0, ("open_clip", "diagonal"))
    else:
        print("left out: open_clip_train; give --peer-python PATH of a Python with open_clip_torch[training]")
    model = bench._model_file(work, options.model)
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for side, positives in contenders:
            spec = {
                **{key: getattr(options, key) for key in ("batch", "epochs", "lr", "workers", "threads")},
                "data": str(data),
                "model": model,
                "side": side,
                "positives": positives,
                "seed": seed,
                "tiles": str(options.tiles.resolve()),
                "out": str(work / f"{side}-{positives}-{seed}"),
            }
            rows += _one(spec, options.peer_python if side == "open_clip" else sys.executable)
            _write(rows, options.out)
    _show(rows)
    if options.work is None:
        shutil.rmtree(work)
    return rows


def _one(spec: dict[str, Any], python: str) -> list[dict[str, Any]]:
    """Train, then judge the weights with our own code whoever trained them."""
    shutil.rmtree(spec["out"], ignore_errors=True)
    losses = _answer([python, str(HERE / "train_curves_run.py"), json.dumps(spec)])["losses"]
    judged = {**spec, "side": "judge"}
    accuracy = _answer([sys.executable, str(HERE / "train_curves_run.py"), json.dumps(judged)])["accuracy"]
    passes = spec["epochs"]
    ends = [round((n + 1) * len(losses) / passes) for n in range(passes)]
    common = {"device": device_name(), "model": Path(spec["model"]).stem}
    common |= {key: spec[key] for key in ("batch", "side", "positives", "seed")}
    rows = [
        {
            **common,
            "pass": n + 1,
            "samples": end * spec["batch"],
            "loss": round(statistics.mean(losses[start:end]), 4),
            "accuracy": "",
        }
        for n, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]
    rows[-1]["accuracy"] = round(accuracy, 4)
    print(f"{spec['side']:10s}{spec['positives']:10s}seed {spec['seed']}: loss {rows[-1]['loss']}, ", end="")
    print(f"balanced accuracy {accuracy:.3f}", flush=True)
    return rows


def _answer(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[-1]}: {done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _write(rows: list[dict[str, Any]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"train_curves-{slug(device_name())}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _show(rows: list[dict[str, Any]]) -> None:
    """Means over the seeds: loss over the last quarter of the run, accuracy at its end."""
    for side, positives in dict.fromkeys((row["side"], row["positives"]) for row in rows):
        mine = [row for row in rows if (row["side"], row["positives"]) == (side, positives)]
        late = max(row["pass"] for row in mine) * 3 // 4
        losses = [
            statistics.mean(row["loss"] for row in mine if row["seed"] == seed and row["pass"] > late)
            for seed in sorted({row["seed"] for row in mine})
        ]
        accuracies = [row["accuracy"] for row in mine if row["accuracy"] != ""]
        print(f"{side:10s}{positives:10s}loss {_interval(losses)}   accuracy {_interval(accuracies)}")


def _interval(values: list[float]) -> str:
    if len(values) not in T_95:
        return f"{statistics.mean(values):.3f}"
    half = T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.3f} +- {half:.3f}"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="a Python with open_clip_torch[training]")
    parser.add_argument("--tiles", type=Path, required=True, help="a folder with pairs.csv and test/")
    parser.add_argument("--model", default="tiny-resnet10t-80")
    parser.add_argument(
        "--positives", type=lambda s: s.split(","), default=["diagonal", "masked", "shared"], help="of ours"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="torch's")
    parser.add_argument("--work", type=Path, help="keep datasets and runs here")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
