"""Every experiment's config loads, and its ``run.py --smoke`` runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pathclip.core.config import load_config
from pathclip.encoders import find_architecture
from pathclip.training import TrainConfig

FOLDERS = sorted(p for p in (Path(__file__).parents[1] / "experiments").iterdir() if p.is_dir())
TRAINING = [c for f in FOLDERS for c in f.glob("*.toml") if "[model]" in c.read_text(encoding="utf-8")]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_every_experiment_says_what_it_claims_and_what_came_out(folder: Path) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("Claim", "Command", "Expected", "Result", "Verdict", "Owner", "Remove by"):
        assert part in readme, part
    assert json.loads((folder / "result.json").read_text())["experiment"] == folder.name


@pytest.mark.parametrize("path", TRAINING, ids=lambda p: p.parent.name)
def test_every_shipped_config_loads_and_names_a_model(path: Path) -> None:
    config = load_config(TrainConfig, path)
    assert config.model.init or find_architecture(config.model.name)


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_every_experiment_runs_in_small(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(folder / "run.py"), "--smoke"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"'experiment': '{folder.name}'" in done.stdout
