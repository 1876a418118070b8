"""The benchmark that kills training runs in small, and its proof from the keys finds what is wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from shard_factory import make_dataset
from train_cases import TINY_MODEL

IDS = [f"sample{i:010d}".encode() for i in range(4)]


@pytest.mark.slow
def test_a_killed_run_is_compared_and_its_row_is_written(
    tmp_path: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "mini.json"
    model.write_text(json.dumps(TINY_MODEL))
    data = make_dataset(tmp_path / "data", 26)
    command = ["--ranks", "1", "--kills", "1", "--per-run", "1", "--start-kills", "0", "--shards", str(data)]
    command += ["--batch", "8", "--epochs", "30", "--save-every", "10", "--model", str(model)]
    assert (
        script("kill_train").main([*command, "--work", str(tmp_path / "work"), "--out", str(tmp_path)]) == 0
    )
    with next(tmp_path.glob("kill_train-*.csv")).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["losses"], row["weights"], row["keys"]) for row in rows] == [("same", "same", "same")]
    assert 1 <= int(rows[0]["step"]) <= 98
    assert "1 kills, 0 of them while starting; 0 in runs that differ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sequence", "fault"),
    [
        ([*IDS, *reversed(IDS), IDS[0], IDS[2]], ""),
        ([*IDS, *IDS[:3], IDS[0]], "EPOCH 2: 1 TWICE, 1 MISSED"),
        ([*IDS, *IDS[:3]], "EPOCH 2: 0 TWICE, 1 MISSED"),
        ([*IDS, *IDS, IDS[1], IDS[1]], "1 TWICE AT THE END"),
    ],
)
def test_a_sample_twice_or_missed_is_found(
    sequence: list[bytes], fault: str, script: Callable[[str], ModuleType]
) -> None:
    assert script("kill_train_run").find_fault(sequence, IDS, epochs=2) == fault


def test_the_sequence_of_two_ranks_and_then_one_is_put_together(
    tmp_path: Path, script: Callable[[str], ModuleType]
) -> None:
    kill_train_run = script("kill_train_run")
    keys = [f"sample{i:010d}".encode() for i in range(9)]
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "rank0.bin").write_bytes(keys[0] + b"".join(keys[3:6]))  # 1 of 3, then all 3
    (tmp_path / "keys" / "rank1.bin").write_bytes(b"".join([*keys[1:3], keys[8]]))  # 2 of 3, and one astray
    run = kill_train_run.Run(tmp_path, tmp_path / "run.toml", total=2, world_at=[2, 1])
    assert kill_train_run.read_sequence(run, 3) == [*keys[:6], keys[8]]
