"""The benchmark of encoding, recall, search and probe runs in small; sides that must agree do."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_of_heads_runs_in_small_and_writes_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(HERE)  # as when it runs as a script: it imports its neighbour
    heads, sides = script("heads"), script("heads_sides")

    def measure(spec: dict[str, Any], options: object) -> dict[str, float]:  # in this process: no start-up
        found: dict[str, float] = getattr(sides, spec["what"])(spec)
        return found

    monkeypatch.setattr(heads, "_measure", measure)
    monkeypatch.setattr(sides, "_loader_loop", sides._plain_loop)
    small = "--pixels 128 --models tiny-vit-112 --precisions fp32 --pictures 6 --batch 4 --recall 50"
    small += " --search 60 --probe 80 --alternations 1 --threads 1 --out"
    heads.main([*small.split(), str(tmp_path)])
    assert "left out: clip_benchmark; give --peer" in capsys.readouterr().out
    with next(tmp_path.glob("heads-*.csv")).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = [("encode", "pathclip"), ("encode", "open_clip"), ("encode", "open_clip+workers")]
    expected += [("recall", "pathclip"), ("search", "pathclip"), ("search", "torch")]
    expected += [("probe", "pathclip"), ("probe", "scikit-learn")]
    assert [(row["what"], row["side"]) for row in rows] == expected
    assert all(float(row["cosine_min"]) > 0.99999 for row in rows[:3])
    assert all(float(row["wall_s"]) > 0 for row in rows)


def test_one_side_runs_as_a_process_and_prints_one_object() -> None:
    spec = '{"what": "recall", "side": "pathclip", "size": 9, "width": 4, "threads": 1}'
    command = [sys.executable, str(HERE / "heads_sides.py"), spec]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert '"text_to_image_R@10": 1.0' in done.stdout
