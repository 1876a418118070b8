"""The benchmark of training runs, and names the peer that is not there."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch


def test_the_benchmark_of_training_runs_in_small_and_writes_its_rows(
    tmp_path: Path,
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train, sides = script("train"), script("train_sides")
    monkeypatch.setattr(train, "_measure", lambda _, spec: sides.main(spec))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # as a side sets it
    arguments = [
        "--input-px",
        "128",
        "--pictures",
        "48",
        "--batch",
        "8",
        "--batches",
        "2",
        "--alternations",
        "1",
    ]
    arguments += ["--workers", "1", "--threads", str(torch.get_num_threads()), "--no-step"]
    train.main([*arguments, "--out", str(tmp_path), "--work", str(tmp_path / "work")])
    assert "left out: open_clip_train; give --peer-python" in capsys.readouterr().out
    with next(tmp_path.glob("train-*.csv")).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["what"], row["side"]) for row in rows] == [
        ("input", "pathclip"),
        ("input+normalise", "pathclip"),
    ]
    assert all(float(row["samples_per_s"]) > 0 for row in rows)
