"""Gradient caching, locked towers, averaged weights, the guard against spikes: each against a reference."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from shard_factory import make_dataset
from train_cases import TINY_MODEL, changed

from pathclip.batches import ShardLoader
from pathclip.encoders import DualEncoder, create
from pathclip.loss import ContrastiveLoss, LossConfig
from pathclip.shards import Dataset
from pathclip.training import TrainConfig
from pathclip.training.average import Average
from pathclip.training.gradcache import cached_backward
from pathclip.training.trainer import Trainer
from pathclip.training.world import World


@pytest.fixture
def model(tmp_path: Path) -> DualEncoder:
    vision = {**TINY_MODEL["model_cfg"]["vision_cfg"], "patch_dropout": 0.5}
    path = tmp_path / "dropout.json"
    path.write_text(json.dumps({"model_cfg": {**TINY_MODEL["model_cfg"], "vision_cfg": vision}}))
    return create(path).train()


def batch(model: DualEncoder, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    tokens = model.tokenize([f"tissue {i % 5}" for i in range(count)])
    return images, tokens, torch.arange(count) % 5


def gradients(model: DualEncoder) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("kind", ["infonce", "siglip"])
@pytest.mark.parametrize(("count", "pieces"), [(12, 1), (12, 3), (13, 4), (3, 8)])
def test_a_cached_step_equals_the_plain_one_with_dropout_on(
    model: DualEncoder, kind: str, count: int, pieces: int
) -> None:
    if kind == "siglip":
        model.clip.logit_bias = torch.nn.Parameter(torch.tensor(-2.0))
    images, tokens, ids = batch(model, count)
    contrast = ContrastiveLoss(LossConfig(kind=kind))

    def loss(i: Any, t: Any, scale: Any, bias: Any) -> torch.Tensor:
        return contrast(i, t, scale, bias=bias, image_ids=ids, text_ids=ids)

    torch.manual_seed(5)
    parts = [
        model(i, t)
        for i, t in zip(images.tensor_split(pieces), tokens.tensor_split(pieces), strict=True)
        if len(i)
    ]
    plain = loss(
        torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), parts[0][2], model.logit_bias
    )
    plain.backward()
    expected, after = gradients(model), torch.get_rng_state()

    torch.manual_seed(5)
    value, _ = cached_backward(model, model, images, tokens, loss, pieces, contextlib.nullcontext)
    assert torch.equal(value, plain.detach())
    assert torch.equal(torch.get_rng_state(), after)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name in expected:
        scale = expected[name].abs().max()
        assert (found[name] - expected[name]).abs().max() <= 2e-6 * max(scale, 1e-3), name
    torch.manual_seed(6)  # another draw of the patches: the check above can fail
    cached_backward(model, model, images, tokens, loss, pieces, contextlib.nullcontext)
    other = gradients(model)["clip.visual.conv1.weight"]
    assert not torch.allclose(other, expected["clip.visual.conv1.weight"], rtol=1e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"), 24, splits=("train",))


@pytest.fixture
def config(data: Path, tmp_path: Path) -> TrainConfig:
    path = tmp_path / "mini.json"
    path.write_text(json.dumps(TINY_MODEL))
    return TrainConfig.model_validate(
        {"data": {"dataset": data}, "model": {"name": str(path)}, "batch": {"size": 8, "workers": 0}}
    )


def trainer(config: TrainConfig, steps: int = 40) -> Trainer:
    model = create(config.model.name)
    loader = ShardLoader(
        Dataset.open(config.data.dataset[0]), "train", config.batch, model.tokenize, image_size=16, seed=0
    )
    return Trainer(config, model, loader, steps, World(0, 1, torch.device("cpu")))


@pytest.mark.parametrize("change", [{"accumulation": 3}, {"grad_checkpointing": True}])
def test_saving_memory_changes_no_loss(config: TrainConfig, change: dict[str, Any]) -> None:
    plain, saving = trainer(config), trainer(changed(config, **change))
    for _ in range(5):
        assert saving.take_step().loss == pytest.approx(plain.take_step().loss, rel=1e-5)
    if "accumulation" in change:
        assert saving.model.clip.visual.transformer.grad_checkpointing is False
    else:
        assert saving.model.clip.visual.transformer.grad_checkpointing is True


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_locked_tower_stays_and_the_other_moves(config: TrainConfig, tower: str) -> None:
    run = trainer(changed(config, model={f"lock_{tower}": True}))
    before = {name: value.clone() for name, value in run.model.clip.state_dict().items()}
    for _ in range(3):
        run.take_step()
    moved = {n for n, value in run.model.clip.state_dict().items() if not torch.equal(value, before[n])}
    visual = {name for name in before if name.startswith("visual.")}
    expected = before.keys() - visual if tower == "image" else visual | {"logit_scale"}
    assert moved == expected - {"attn_mask"}
    assert run.model.clip.visual.training is (tower == "text")


def test_the_average_is_the_recursion_and_leaves_the_model_as_it_was(config: TrainConfig) -> None:
    run = trainer(changed(config, optim={"ema": 0.3}))
    name = "visual.conv1.weight"
    expected = run.model.clip.state_dict()[name].double()
    for step in range(6):
        run.take_step()
        keep = min(0.3, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * run.model.clip.state_dict()[name].double()
    assert run.average is not None
    own = run.model.clip.state_dict()[name].clone()
    with run.judged():
        assert torch.allclose(run.model.clip.state_dict()[name].double(), expected, atol=1e-7)
        assert not torch.equal(run.model.clip.state_dict()[name], own)
    assert torch.equal(run.model.clip.state_dict()[name], own)


def test_an_average_copies_counters_and_restores() -> None:
    norm = torch.nn.BatchNorm1d(2)
    first, second = Average(norm, 0.9), Average(norm, 0.9)
    norm(torch.randn(4, 2))
    first.update(100)
    assert first.weights["num_batches_tracked"] == 1
    second.restore(first.weights)
    assert torch.equal(second.weights["running_mean"], first.weights["running_mean"])


def test_a_spike_moves_nothing_and_is_named(config: TrainConfig, caplog: pytest.LogCaptureFixture) -> None:
    run = trainer(changed(config, optim={"max_norm_ratio": 20.0}))
    for _ in range(17):
        run.take_step()
    plain = run.loss.forward
    run.loss.forward = lambda *a, **k: plain(*a, **k) * 1000  # type: ignore[method-assign]
    before = run.model.clip.visual.conv1.weight.clone()
    with caplog.at_level(logging.WARNING, "pathclip"):
        assert math.isfinite(run.take_step().loss)
    assert torch.equal(run.model.clip.visual.conv1.weight, before)
    assert "step 18 left out: gradient norm is" in caplog.text
    run.loss.forward = plain  # type: ignore[method-assign]
    run.take_step()
    assert not torch.equal(run.model.clip.visual.conv1.weight, before)
