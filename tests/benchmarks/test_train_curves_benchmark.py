"""The comparison of curves runs in small, and names the peer that is not there."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from pathclip.synthetic import write_tile_folder

SCRIPT = Path(__file__).resolve().parent / "train_curves.py"


def test_curves_are_written_a_row_per_pass(tmp_path: Path) -> None:
    tiles = tmp_path / "tiles"
    rows = ["image,caption,split"]
    for seed, split in enumerate(("train", "test")):
        write_tile_folder(tiles / split, per_class=4, seed=seed, size_px=160)
        rows += [
            f"{path.relative_to(tiles)},An H&E image of {path.parent.name.replace('_', ' ')},{split}"
            for path in sorted((tiles / split).rglob("*.jpg"))
        ]
    (tiles / "pairs.csv").write_text("\n".join(rows) + "\n")
    command = [sys.executable, str(SCRIPT), "--tiles", str(tiles), "--out", str(tmp_path), "--seeds", "1"]
    command += ["--epochs", "2", "--batch", "4", "--positives", "masked", "--model", "tiny-conv-80"]
    result = subprocess.run(
        [*command, "--workers", "1", "--threads", "1"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "left out: open_clip_train; give --peer-python" in result.stdout
    with next(tmp_path.glob("train_curves-*.csv")).open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [(row["side"], row["positives"], row["pass"]) for row in written] == [
        ("pathclip", "masked", "1"),
        ("pathclip", "masked", "2"),
    ]
    assert [row["accuracy"] != "" for row in written] == [False, True]
    assert 0 <= float(written[1]["accuracy"]) <= 1
