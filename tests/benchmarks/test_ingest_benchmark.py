"""The ingest's benchmark runs, and its table says what it measured."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "ingest.py"


def test_the_benchmark_of_the_ingest_runs_in_small_and_writes_its_rows(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--pictures", "3", "--alternations", "1", "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "left out: img2dataset" in result.stdout
    with next(tmp_path.glob("ingest-*.csv")).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["mode"] for row in rows] == ["curated", "curated 4:4:4", "same work", "passthrough"]
    assert all(row["pairs"] == "3" and float(row["pairs_per_cpu_s"]) > 0 for row in rows)
    assert all(float(row["peak_mib"]) > 20 for row in rows)
    resized, kept = float(rows[2]["out_mb"]), float(rows[3]["out_mb"])
    assert resized != kept
