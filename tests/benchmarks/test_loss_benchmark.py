"""The loss's benchmark runs, and its table says what it measured."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "loss.py"


def test_the_benchmark_of_the_loss_runs_in_small_and_writes_its_rows(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SCRIPT),
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--sizes",
        "96",
        "--width",
        "32",
    ]
    command += [
        "--alternations",
        "1",
        "--no-memory",
        "--out",
        str(tmp_path),
        "--plot",
        str(tmp_path / "p.png"),
    ]
    command += ["--losses", "pathclip:chunked,open_clip,inf_cl"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "left out: inf_cl is not installed" in result.stdout
    with next(tmp_path.glob("loss-*.csv")).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss"] for row in rows] == ["pathclip:chunked", "open_clip"]
    assert float(rows[1]["ratio"]) == 1
    assert all(float(row["gradient_error"]) < 1e-3 for row in rows)
    assert (tmp_path / "p.png").stat().st_size > 1000
