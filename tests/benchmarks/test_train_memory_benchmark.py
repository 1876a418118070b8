"""The benchmark of a run's peak memory in small: what the dry run says is near what the run takes."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from shard_factory import make_dataset

SCRIPT = Path(__file__).resolve().parent / "train_memory.py"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells sizes in its own way")
def test_the_memory_that_is_foretold_is_near_what_a_run_takes(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", 64)
    command = [sys.executable, str(SCRIPT), "--shards", str(data), "--steps", "2", "--out", str(tmp_path)]
    result = subprocess.run(
        [*command, "--only", "tiny-conv-112 fp32 64"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    with next(tmp_path.glob("train_memory-*.csv")).open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["case"] == "tiny-conv-112 fp32 64"
    assert float(row["seconds_per_step"]) > 0
    assert 0.8 < float(row["ratio"]) < 1.2


def test_a_case_above_the_bound_is_left_out_and_says_so(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", 128)
    command = [sys.executable, str(SCRIPT), "--shards", str(data), "--below", "0.1", "--out", str(tmp_path)]
    result = subprocess.run(
        [*command, "--only", "tiny-resnet-96"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "'seen_gib': 'left out'" in result.stdout
