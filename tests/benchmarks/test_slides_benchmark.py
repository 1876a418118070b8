"""The benchmark of slides in small: both sides read the same tiles and agree."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent / "slides.py"


def rows_of(tmp_path: Path, *more: str) -> list[dict[str, str]]:
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--work", str(tmp_path), "--turns", "1"]
    result = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    with next(tmp_path.glob("slides*.csv")).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_both_sides_encode_the_same_tiles(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "--size", "2048", "1536", "--what", "mock", "--tiles", "6")
    assert [row["side"] for row in rows] == ["openslide", "pathclip"]
    assert {row["tiles"] for row in rows} == {"6"}
    assert float(rows[0]["ratio_cpu"]) == 1
    assert float(rows[1]["cosine_min"]) > 0.999


def test_a_slide_of_many_tiles_is_a_small_file(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, "--memory", "100")
    assert row["tiles"] == "100"
    assert (tmp_path / "100.tif").stat().st_size < 50_000
