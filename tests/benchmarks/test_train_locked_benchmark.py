"""The benchmark of steps with a locked tower in small: it fills a cache, reads it, and writes its rows."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "train_locked.py"


def test_both_sides_and_the_fill_are_measured(data_dir: Path, tmp_path: Path) -> None:
    size = ["--batch", "8", "--steps", "1", "--alternations", "1", "--threads", "1", "--pictures", "16"]
    command = [sys.executable, str(SCRIPT), "--tiles", str(data_dir / "tiles"), "--models", "tiny-resnet-96"]
    done = subprocess.run(
        [*command, *size, "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with next(tmp_path.glob("train_locked-*.csv")).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["what"] for row in rows] == ["tower", "features", "fill"]
    assert all(float(row["cpu_ms_per_picture"]) > 0 for row in rows)
