"""The benchmark of streaming runs, and its streams hold fewer shards than there are."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from shard_factory import make_dataset

SCRIPT = Path(__file__).resolve().parent / "stream.py"


def test_the_benchmark_of_streaming_runs_in_small_and_writes_its_rows(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", 40, shards=8)
    command = [
        sys.executable,
        str(SCRIPT),
        "--data",
        str(data),
        "--window",
        "1",
        "--batch",
        "4",
        "--turns",
        "1",
    ]
    result = subprocess.run(
        [*command, "--image-size", "16", "--workers", "1", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    with next(tmp_path.glob("stream-*.csv")).open(encoding="utf-8") as file:
        rows = {row["side"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["mapped", "window", "http", "pipe"]
    assert all(float(row["samples_per_s"]) > 0 for row in rows.values())
    assert all(1 <= int(rows[side]["peak_shards"]) < 8 for side in ("http", "pipe"))
