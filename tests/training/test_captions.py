"""Captioning as a second objective: what is added up, and that all else of training holds with it."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from open_clip.loss import CoCaLoss
from safetensors.torch import load_file
from shard_factory import COLOURS, make_dataset, picture
from train_cases import TINY_COCA, changed, changed_model, cut_back, on_two_ranks

from pathclip.core.config import to_toml
from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, create, load
from pathclip.encoders.coca import count_targets
from pathclip.loss import ContrastiveLoss
from pathclip.training import TrainConfig, read_metrics, train
from pathclip.training.gradcache import cached_backward
from pathclip.training.inputs import build_loader, build_model, open_datasets
from pathclip.training.optim import build_optimizer
from pathclip.training.plan import make_plan
from pathclip.training.rehearsal import rehearse
from pathclip.training.trainer import Trainer
from pathclip.training.world import World

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs/reference/schemas/metrics.schema.json").read_text(encoding="utf-8")
)
PLAIN = {"loss": {"positives": "diagonal"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"), 24, splits=("train", "val"))


@pytest.fixture
def config(data: Path, tmp_path: Path) -> TrainConfig:
    vision = {"patch_dropout": 0.5}  # draws from torch's random state in every step
    for name, change in (("coca", {}), ("dropout", {"vision_cfg": vision})):
        (tmp_path / f"{name}.json").write_text(json.dumps(changed_model(TINY_COCA, change)))
    return TrainConfig.model_validate(
        {
            "out": tmp_path / "run",
            "data": {"dataset": data},
            "model": {"name": str(tmp_path / "coca.json")},
            "batch": {"size": 8, "workers": 0},
            "schedule": {"steps": 6},
            "checkpoint": {"every_steps": 2},
            "threads": 1,
        }
    )


def trainer(config: TrainConfig) -> Trainer:
    model = build_model(config)
    loader = build_loader(config, open_datasets(config), model)
    return Trainer(config, model, loader, 40, World(0, 1, torch.device("cpu")))


def losses(run: Path) -> list[list[float]]:
    names = ("loss", "contrastive_loss", "caption_loss")
    return [[row[name] for name in names] for row in read_metrics(run / "metrics.jsonl")]


def gradients(model: DualEncoder) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_step_is_open_clips_coca_loss_forward_and_backward(config: TrainConfig, pieces: int) -> None:
    run = trainer(changed(config, caption_loss_weight=0.7, accumulation=pieces, **PLAIN))
    batch = next(run.batches)
    out = run.model.clip(run.model.normalize_pixels(batch.images), batch.tokens)
    contrastive, caption = CoCaLoss(caption_loss_weight=0.7, clip_loss_weight=1.0)(
        *(out[key] for key in ("image_features", "text_features", "logits", "labels", "logit_scale"))
    )
    (contrastive + caption).backward()
    expected = gradients(run.model)
    parts = run._backward(batch)
    assert parts.tolist() == pytest.approx([contrastive.item(), caption.item() / 0.7], rel=1e-6)
    found = gradients(run.model)
    assert found.keys() == expected.keys()
    for name in expected:
        assert (found[name] - expected[name]).abs().max() <= 2e-5 * max(expected[name].abs().max(), 1e-3), (
            name
        )


@pytest.mark.parametrize(("count", "pieces"), [(12, 3), (13, 4), (3, 8)])
def test_a_cached_step_with_captions_equals_the_plain_one_with_dropout_on(
    config: TrainConfig, tmp_path: Path, count: int, pieces: int
) -> None:
    model = create(tmp_path / "dropout.json").train()
    images = torch.randint(0, 256, (count, 3, 16, 16), generator=torch.Generator().manual_seed(1))
    images, tokens = images.to(torch.uint8), model.tokenize(["tissue " * (i % 5) for i in range(count)])
    contrast, share = ContrastiveLoss(), 2.0 / count_targets(model.clip, tokens)

    torch.manual_seed(5)
    parts = [
        model(i, t, captions=True)
        for i, t in zip(images.tensor_split(pieces), tokens.tensor_split(pieces), strict=True)
        if len(i)
    ]
    image, text, _, nats = zip(*parts, strict=True)
    plain = contrast(torch.cat(image), torch.cat(text), parts[0][2])
    (plain + share * sum(nats)).backward()
    expected, after = gradients(model), torch.get_rng_state()

    torch.manual_seed(5)
    value, said = cached_backward(
        model,
        model,
        images,
        tokens,
        lambda i, t, scale, bias: contrast(i, t, scale),
        pieces,
        contextlib.nullcontext,
        share,
    )
    assert torch.equal(value, plain.detach())
    assert said is not None
    assert said.item() == pytest.approx(sum(nats).item(), rel=1e-6)
    assert torch.equal(torch.get_rng_state(), after)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name in expected:
        assert (found[name] - expected[name]).abs().max() <= 2e-5 * max(expected[name].abs().max(), 1e-3), (
            name
        )


def test_rows_and_progress_tell_both_parts(config: TrainConfig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pathclip"):
        result = train(changed(config, loss={"positives": "shared"}))
    rows = read_metrics(result.run / "metrics.jsonl")
    for row in rows:
        jsonschema.validate(row, SCHEMA)
        assert row["loss"] == pytest.approx(row["contrastive_loss"] + 2 * row["caption_loss"])
    assert rows[0]["caption_loss"] == pytest.approx(10.8, abs=1)  # log(49408)
    last = f"loss {rows[-1]['loss']:.4f} (contrastive {rows[-1]['contrastive_loss']:.4f} + caption "
    assert any(last in message for message in caplog.messages)


def test_a_model_that_has_learnt_captions_says_them_of_their_pictures(tmp_path: Path) -> None:
    (tmp_path / "coca.json").write_text(json.dumps(TINY_COCA))
    model = create(tmp_path / "coca.json")
    captions = ["fat.", "smooth muscle of the colon", "nuclei", "mucin, h & e"]
    pictures = [torch.from_numpy(picture(name, 1, 16)).permute(2, 0, 1) for name in COLOURS]
    images, tokens = torch.stack(pictures), model.tokenize(captions)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(images, tokens, captions=True)[3].backward()
        optimizer.step()
    assert [said.text for said in model.generate(images.flip(0))] == [
        "mucin , h & e",
        *captions[2:0:-1],
        "fat .",
    ]


RESUMED: list[dict[str, Any]] = [
    {"accumulation": 3, "grad_checkpointing": True, "optim": {"ema": 0.9, "layer_decay": 0.7}},
    {"loss": {"kind": "siglip"}, "precision": "bf16", "caption_loss_weight": 0.5},
]


@pytest.mark.parametrize("change", RESUMED)
def test_resume_goes_on_to_the_same_bits(config: TrainConfig, tmp_path: Path, change: dict[str, Any]) -> None:
    config = changed(config, model={"name": str(tmp_path / "dropout.json")}, schedule={"steps": 4}, **change)
    whole, half = train(config), train(changed(config, out=tmp_path / "half"))
    cut_back(half.run, 2)
    resumed = train(resume=half.run)
    assert resumed.steps == 4
    assert losses(half.run) == losses(whole.run)
    a, b = (load_file(run / "model" / "open_clip_model.safetensors") for run in (half.run, whole.run))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert load(whole.run / "checkpoints" / "step-00000002").has_decoder


def test_half_precision_follows_float32(config: TrainConfig) -> None:
    full = trainer(config).take_step()
    for precision in ("bf16", "fp16"):
        half = trainer(changed(config, precision=precision)).take_step()
        assert half.loss == pytest.approx(full.loss, rel=0.01)
        assert half.grad_norm == pytest.approx(full.grad_norm, rel=0.05)


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({"model": {"lock_image": True}}, ("visual.",)),
        ({"model": {"lock_text": True}}, ("text.",)),
        ({"model": {"lock_image": True, "lock_text": True}}, ("visual.", "text.")),
        ({"caption_loss_weight": 0.0}, ("text_decoder.",)),
    ],
)
def test_what_is_locked_stays_and_the_rest_moves(
    config: TrainConfig, change: dict[str, Any], stays: tuple[str, ...]
) -> None:
    run = trainer(changed(config, **change))
    before = {name: value.clone() for name, value in run.model.clip.state_dict().items()}
    for _ in range(2):
        result = run.take_step()
    assert (result.parts == {}) is ("caption_loss_weight" in change)
    moved = {
        name for name, value in run.model.clip.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {name for name in before if not name.startswith(stays)}
    parts = {name: module.training for name, module in run.model.clip.named_children()}
    assert parts == {name: f"{name}." not in stays for name in parts}


def test_captions_of_a_model_without_a_decoder_are_refused(config: TrainConfig) -> None:
    config = changed(config, model={"name": "tiny-vit-112"}, caption_loss_weight=1.0)
    with pytest.raises(UserError, match="caption_loss_weight is set, but tiny-vit-112 has no decoder"):
        make_plan(config)


def test_layers_of_the_decoder_count_from_its_own_output(config: TrainConfig) -> None:
    model = build_model(config)
    optim = changed(config, optim={"layer_decay": 0.5, "lr": 1.0}).optim
    groups = build_optimizer(model, optim).param_groups
    share = {id(p): group["lr_share"] for group in groups for p in group["params"]}
    clip = model.clip
    assert share[id(clip.text_decoder.text_projection)] == 1.0
    assert [share[id(block.mlp.c_fc.weight)] for block in clip.text_decoder.cross_attn] == [0.25, 0.5]
    assert share[id(clip.text.transformer.resblocks[0].mlp.c_fc.weight)] == 0.5
    assert share[id(clip.text.cls_emb)] == share[id(clip.text.token_embedding.weight)] == 0.25


def test_memory_is_told_with_one_block_of_words(
    config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    loader, model = build_loader(config, open_datasets(config), build_model(config)), build_model(config)

    def told(size: int = 8, **change: Any) -> int:
        return rehearse(model, changed(config, **change), loader, size)

    with caplog.at_level(logging.WARNING, "pathclip"):
        plain, captions = told(caption_loss_weight=0.0), told()
    assert caplog.messages == []
    words = 8 * 15 * 49408 * 4  # logits of all words at once, in bytes
    assert 2 * words < captions - plain < 6 * words
    assert told(512) - told(256) < 256 * words / 8 / 10  # further ones do not count


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "pieces"), [("ddp", 2), ("fsdp", 1)])
def test_two_ranks_reach_the_weights_of_one(
    config: TrainConfig, tmp_path: Path, parallel: str, pieces: int
) -> None:
    config = changed(config, batch={"size": 9})
    one = train(config)
    file = tmp_path / "two.toml"
    file.write_text(to_toml(changed(config, out=tmp_path / "two", accumulation=pieces, parallel=parallel)))
    done = on_two_ranks(file)
    assert done.returncode == 0, done.stderr[-6000:]
    for row, expected in zip(losses(tmp_path / "two"), losses(one.run), strict=True):
        assert row == pytest.approx(expected, rel=1e-5)
    a, b = (load_file(run / "model" / "open_clip_model.safetensors") for run in (one.run, tmp_path / "two"))
    for name in a:
        if not name.endswith(("in_proj_bias",)):  # softmax does not feel those of keys
            assert torch.allclose(a[name], b[name], rtol=1e-3, atol=2e-4), name
