"""float16, layer decay, compiling, early stopping, what is told elsewhere, and torchrun's restarts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from colour_model import paint
from shard_factory import make_dataset
from train_cases import TINY_MODEL, changed

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, create, load
from pathclip.training import TrainConfig, read_metrics, train
from pathclip.training.best import Best
from pathclip.training.config import EvalConfig, OptimConfig
from pathclip.training.loss_scale import LossScale
from pathclip.training.optim import build_optimizer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"), 24, splits=("train", "val"))


@pytest.fixture
def config(data: Path, tmp_path: Path) -> TrainConfig:
    model = tmp_path / "mini.json"
    model.write_text(json.dumps(TINY_MODEL))
    return TrainConfig.model_validate(
        {
            "out": tmp_path / "run",
            "data": {"dataset": data},
            "model": {"name": str(model)},
            "batch": {"size": 8, "workers": 0},
            "schedule": {"steps": 6},
            "threads": 1,
        }
    )


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run / "metrics.jsonl")]


def test_float16_follows_float32_and_its_scale_survives_a_resume(config: TrainConfig, tmp_path: Path) -> None:
    config = changed(config, checkpoint={"every_steps": 3, "keep": 5})
    single = train(config)
    half = train(changed(config, out=tmp_path / "half", precision="fp16"))
    assert losses(half.run) == pytest.approx(losses(single.run), rel=2e-2)
    assert losses(half.run) != losses(single.run)
    meta = json.loads((half.run / "checkpoints/step-00000003/meta.json").read_text())
    assert meta["loss_scale"][0] >= 1024
    assert meta["loss_scale"][1] >= 1


def test_an_overflow_halves_the_scale_and_good_steps_double_it() -> None:
    scale = LossScale(enabled=True)
    assert scale.update(finite=False)
    assert scale.value == 32768
    assert not any(scale.update(finite=True) for _ in range(LossScale.GROWTH_STEPS))
    assert scale.state() == [65536.0, 0.0]
    other = LossScale(enabled=True)
    other.restore([512.0, 7.0])
    assert other.state() == [512.0, 7.0]
    off = LossScale(enabled=False)
    assert not off.update(finite=False)
    off.restore([512.0, 7.0])
    assert off.value == 1


def test_layer_decay_slows_the_blocks_far_from_the_output(config: TrainConfig) -> None:
    model = create(config.model.name)
    groups = build_optimizer(model, OptimConfig(layer_decay=0.5)).param_groups
    share = {id(p): group["lr_share"] for group in groups for p in group["params"]}
    named = {name: share[id(p)] for name, p in model.named_parameters()}
    layers = TINY_MODEL["model_cfg"]["vision_cfg"]["layers"]
    assert named["clip.visual.proj"] == named["clip.logit_scale"] == 1
    assert named[f"clip.visual.transformer.resblocks.{layers - 1}.mlp.c_fc.weight"] == 0.5
    assert named["clip.visual.transformer.resblocks.0.ln_1.weight"] == 0.5**layers
    for name in ("conv1.weight", "positional_embedding"):
        assert named[f"clip.visual.{name}"] == 0.5 ** (layers + 1)
    text = TINY_MODEL["model_cfg"]["text_cfg"]["layers"]
    assert named["clip.token_embedding.weight"] == 0.5 ** (text + 1)
    plain = build_optimizer(model, OptimConfig())
    assert {group["lr_share"] for group in plain.param_groups} == {1.0}
    assert len(plain.param_groups) == 2


def test_layer_decay_reaches_the_steps(config: TrainConfig, tmp_path: Path) -> None:
    start = create(config.model.name, seed=config.seed).clip.state_dict()
    far = train(changed(config, optim={"layer_decay": 0.1}, schedule={"steps": 1, "warmup_steps": 0}))
    weights = load(far.model).clip.state_dict()
    moved = {name: (weights[name] - start[name]).abs().max().item() for name in start}
    assert 0 < moved["visual.conv1.weight"] < 0.1 * moved["visual.proj"]


def lengths_of_tokens(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """From now on: how many tokens of a caption the text tower gets."""
    lengths, encode = set(), DualEncoder.encode_tokens

    def noted(self: DualEncoder, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
        lengths.add(tokens.shape[1])
        return encode(self, tokens, **options)

    monkeypatch.setattr(DualEncoder, "encode_tokens", noted)
    return lengths


def test_tokens_behind_the_longest_caption_are_left_out_and_nothing_else_changes(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(DualEncoder, "trim_tokens", lambda _, tokens: tokens)
        whole = train(changed(config, out=tmp_path / "whole"))
    lengths = lengths_of_tokens(monkeypatch)
    assert losses(train(config).run) == pytest.approx(losses(whole.run), rel=1e-4)
    full = TINY_MODEL["model_cfg"]["text_cfg"]["context_length"]
    assert min(lengths) > 0
    assert max(lengths) < full  # in the memory estimate's two steps too


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # raised while torch traces
def test_compiled_towers_follow_the_plain_ones(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, compiled = train(config), []
    real = torch.nn.Module.compile

    def through_eager(module: torch.nn.Module) -> None:  # what is traced, without a C++ compiler
        compiled.append(type(module).__name__)
        real(module, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", through_eager)
    lengths = lengths_of_tokens(monkeypatch)
    other = train(changed(config, out=tmp_path / "compiled", compile=True, deterministic=False))
    assert compiled == ["VisionTransformer", "Transformer"]
    assert lengths == {TINY_MODEL["model_cfg"]["text_cfg"]["context_length"]}
    assert losses(other.run) == pytest.approx(losses(plain.run), rel=1e-4)
    assert load(other.model).clip.state_dict().keys() == load(plain.model).clip.state_dict().keys()


def test_a_run_ends_when_its_metric_stops_rising_and_exports_the_best(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathclip.training import run as runs

    values = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    monkeypatch.setattr(runs, "judge", lambda model, config: {"val": {"n": 8, "acc": next(values)}})
    config = changed(
        config,
        schedule={"steps": 20},
        eval={"every_steps": 2, "early_stop": "val.acc", "patience": 2, "retrieval": {"val": {}}},
        checkpoint={"every_steps": 2, "keep": 20},
    )
    result = train(config)
    assert result.steps == 8  # evaluated at 2, 4 (best), 6 and 8
    best = load(config.out / "checkpoints/step-00000004").clip.state_dict()
    got = load(result.model)
    assert all(torch.equal(best[name], value) for name, value in got.clip.state_dict().items())
    assert got.source.training["best_step"] == 4
    meta = json.loads((config.out / "checkpoints/step-00000008/meta.json").read_text())
    assert meta["best"] == {"step": 4, "value": 0.7, "since": 2}


def test_early_stopping_on_what_is_not_measured_is_refused(config: TrainConfig) -> None:
    with pytest.raises(UserError, match=r"eval\.early_stop: there is no set 'tiles'; .* none is named"):
        train(changed(config, eval={"early_stop": "tiles.balanced_accuracy"}))
    best = Best(EvalConfig.model_validate({"early_stop": "val.x", "retrieval": {"val": {}}}))
    with pytest.raises(UserError, match=r"set val has no 'x'; it has: n"):
        best.take({"val": {"n": 1.0}}, 1)


FAKE_WANDB = """
told = []

class Run:
    def log(self, row, step):
        told.append((step, row["loss"]))

    def finish(self):
        told.append("finished")

def init(project, **options):
    told.append(project)
    return Run()
"""


def test_weights_and_biases_is_told_every_row(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb.py").write_text(FAKE_WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    train(changed(config, watch={"wandb": "tissue"}))
    told: list[Any] = sys.modules.pop("wandb").told
    assert told[0] == "tissue"
    assert [step for step, _ in told[1:-1]] == [1, 2, 3, 4, 5, 6]
    assert told[-1] == "finished"


def test_a_probe_is_measured_on_the_way(config: TrainConfig, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for seed, colour in enumerate(("red", "green")):
            for number in range(6):
                paint(tmp_path / split / colour / f"{number}.png", colour, seed=10 * seed + number)
    sets = {"probe": {"tiles": {"train": tmp_path / "train", "test": tmp_path / "test"}}}
    done = train(changed(config, eval={"every_steps": 3, "early_stop": "tiles.balanced_accuracy", **sets}))
    assert done.evaluation["tiles"] == {"balanced_accuracy": 1.0, "chance": 0.5, "n": 12}
    rows = [row["eval"] for row in read_metrics(done.run / "metrics.jsonl") if "eval" in row]
    assert [row["tiles"]["n"] for row in rows] == [12, 12]
    paint(tmp_path / "test/blue/0.png", "blue")
    with pytest.raises(UserError, match=r"eval\.probe: .* has classes that .* lacks: blue"):
        train(changed(config, out=tmp_path / "two", eval=sets))
    with pytest.raises(ValueError, match="one would hide the other: tiles"):
        changed(config, eval={"retrieval": {"tiles": {}}, **sets})
