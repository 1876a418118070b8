"""The comparison of curves runs in small, and names the peer that is not there."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pathclip.synthetic import write_tile_folder


def test_curves_are_written_a_row_per_pass(
    tmp_path: Path,
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiles = tmp_path / "tiles"
    rows = ["image,caption,split"]
    for seed, split in enumerate(("train", "test")):
        write_tile_folder(tiles / split, per_class=4, seed=seed, size_px=160)
        rows += [
            f"{path.relative_to(tiles)},An H&E image of {path.parent.name.replace('_', ' ')},{split}"
            for path in sorted((tiles / split).rglob("*.jpg"))
        ]
    (tiles / "pairs.csv").write_text("\n".join(rows) + "\n")
    curves, run = script("train_curves"), script("train_curves_run")
    monkeypatch.setattr(curves, "_answer", lambda command: run.main(json.loads(command[-1])))
    arguments = [
        "--tiles",
        str(tiles),
        "--out",
        str(tmp_path),
        "--seeds",
        "1",
        "--epochs",
        "2",
        "--batch",
        "4",
    ]
    arguments += ["--positives", "masked", "--model", "tiny-conv-80", "--workers", "1"]
    curves.main([*arguments, "--threads", str(torch.get_num_threads())])
    assert "left out: open_clip_train; give --peer-python" in capsys.readouterr().out
    with next(tmp_path.glob("train_curves-*.csv")).open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [(row["side"], row["positives"], row["pass"]) for row in written] == [
        ("pathclip", "masked", "1"),
        ("pathclip", "masked", "2"),
    ]
    assert [row["accuracy"] != "" for row in written] == [False, True]
    assert 0 <= float(written[1]["accuracy"]) <= 1
