"""The benchmark of training runs, and names the peer that is not there."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "train.py"


def test_the_benchmark_of_training_runs_in_small_and_writes_its_rows(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--input-px", "128", "--pictures", "48", "--batch", "8"]
    command += ["--batches", "2", "--alternations", "1", "--workers", "1", "--threads", "1", "--no-step"]
    result = subprocess.run(
        [*command, "--out", str(tmp_path), "--work", str(tmp_path / "work")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "left out: open_clip_train; give --peer-python" in result.stdout
    with next(tmp_path.glob("train-*.csv")).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["what"], row["side"]) for row in rows] == [
        ("input", "pathclip"),
        ("input+normalise", "pathclip"),
    ]
    assert all(float(row["samples_per_s"]) > 0 for row in rows)
