"""The benchmark of a run's peak memory in small: what the dry run says is near what the run takes."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from shard_factory import make_dataset

SCRIPT = Path(__file__).resolve().parent / "train_memory.py"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells sizes in its own way")
def test_the_memory_that_is_foretold_is_near_what_a_run_takes(tmp_path: Path) -> None:
    # a process of its own: a child's highest memory counts from that of the process that started it
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


def test_a_case_above_the_bound_is_left_out_and_says_so(
    tmp_path: Path,
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_memory = script("train_memory")
    told = subprocess.CompletedProcess([], 0, stdout='{"memory_bytes": 1e9}')  # by the dry run
    monkeypatch.setattr(train_memory.subprocess, "run", lambda *_, **__: told)
    arguments = ["--shards", str(tmp_path), "--below", "0.1", "--out", str(tmp_path)]
    train_memory.main([*arguments, "--only", "tiny-resnet-96"])
    assert "'seen_gib': 'left out'" in capsys.readouterr().out
