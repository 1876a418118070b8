from __future__ import annotations

import json
from pathlib import Path

import pytest
from shard_factory import make_dataset
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.config import load_config
from pathclip.encoders import shipped_configs
from pathclip.training import TrainConfig
from pathclip.training.presets import preset_file, presets

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "data", 12)
    Path("mini.json").write_text(json.dumps(MODEL))
    path = tmp_path / "config.toml"
    path.write_text(
        'out = "run"\nthreads = 1\n[data]\ndataset = "data"\n[model]\nname = "mini.json"\n'
        "[batch]\nsize = 6\nworkers = 0\n[schedule]\nsteps = 3\n"
    )
    return path


def invoke(*arguments: str) -> tuple[int, dict]:
    result = CliRunner().invoke(app, ["train", *arguments, "--json"])
    return result.exit_code, json.loads(result.stdout.splitlines()[-1])


def test_train_prints_what_came_out_and_resume_needs_no_config(config: Path) -> None:
    code, report = invoke(str(config))
    assert (code, report["steps"], report["stopped"]) == (0, 3, None)
    assert Path(report["model"], "open_clip_model.safetensors").is_file()
    assert report["loss_first"] > 0
    code, longer = invoke("--resume", "run", "--set", "schedule.steps=5")
    assert (code, longer["steps"]) == (0, 5)
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 5


def test_people_see_loss_model_and_curves(config: Path) -> None:
    result = CliRunner().invoke(app, ["train", str(config)])
    assert result.exit_code == 0
    assert "3 steps, 18 samples" in result.stdout
    assert "model: " in result.stdout
    assert "curves.png" in result.stdout


def test_dry_run_shows_the_plan_and_trains_nothing(config: Path) -> None:
    code, plan = invoke(str(config), "--dry-run")
    assert (code, plan["steps"], plan["samples"]) == (0, 3, 12)
    assert plan["memory_bytes"] > 0
    shown = CliRunner().invoke(app, ["train", str(config), "--dry-run"]).stdout
    assert "[data]" in shown
    assert "3 steps of 6 = 1.5 passes over the data" in shown
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a CONFIG.toml, or --resume RUN"),
        (["none.toml"], "config file none.toml does not exist"),
        (["config.toml", "--set", "optim.lrr=1"], "unknown key optim.lrr; did you mean optim.lr?"),
        (["config.toml", "--set", "batch.size=many"], "batch.size = 'many'"),
        (
            ["config.toml", "--set", "batch.decode=gpu", "--set", "device=cpu"],
            'batch.decode = "gpu" needs a CUDA device, this run is on the CPU: set batch.decode = "cpu"',
        ),
        (
            ["config.toml", "--set", "batch.decode=gpu", "--set", "device=cpu", "--dry-run"],
            'batch.decode = "gpu" needs a CUDA device',
        ),
        (
            ["config.toml", "--set", "accumulation=0"],
            "accumulation = 0: Input should be greater than or equal to 1",
        ),
        (["config.toml", "--set", "data.dataset=nowhere"], "is no dataset"),
        (["--resume", "nowhere"], "nowhere holds no run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(config: Path, arguments: list[str], message: str) -> None:
    code, report = invoke(*arguments)
    assert code == 2
    assert message in report["error"]
    assert "\n" not in report["error"]


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_a_whole_config(name: str) -> None:
    config = load_config(TrainConfig, preset_file(name))
    assert config.model.name in (*shipped_configs(), "ViT-B-32-quickgelu")
    assert config.schedule.epochs


def test_a_preset_goes_by_its_name(config: Path) -> None:
    code, plan = invoke("tiny-cpu", "--set", "data.dataset=data", "--set", "batch.size=6", "--dry-run")
    assert code == 0
    assert plan["config"]["batch"]["augment"]["restain"] == 0.5
    assert plan["steps"] == 12 * 36 // 6


def test_a_file_of_a_presets_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plip").write_text("seed = 3\n")
    assert preset_file("plip") == Path("plip")
    assert preset_file("quilt").name == "quilt.toml"


def test_a_second_run_into_the_same_folder_names_resume(config: Path) -> None:
    invoke(str(config))
    code, report = invoke(str(config))
    assert code == 2
    assert "--resume" in report["error"]
