"""Features of a locked image tower, read in the place of pictures: the same training, never wrong ones."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from shard_factory import make_dataset
from train_cases import TINY_MODEL, changed

from pathclip.batches import Batch, FeatureStore, features
from pathclip.core.config import to_toml
from pathclip.core.errors import UserError
from pathclip.encoders import create
from pathclip.shards import Sample
from pathclip.training import TrainConfig, TrainResult, image_cache, read_metrics, rehearsal, run, train
from pathclip.training.inputs import build_loader, build_model, fingerprint, open_datasets
from pathclip.training.plan import make_plan
from pathclip.training.rehearsal import HOLES, rehearse

STILL = {
    "min_scale": 1,
    "max_aspect": 1,
    "flips": False,
    "quarter_turns": False,
    "stain": 0,
    "stain_shift": 0,
}


def spoilt(sample: Sample) -> Sample:
    """Sample 3 is no picture, 10 has no caption, 17 is cut."""
    number = int(sample.sample_id[2:])
    if number == 3:
        return dataclasses.replace(sample, jpg=b"no picture")
    if number == 17:
        return dataclasses.replace(sample, jpg=sample.jpg[:300])
    return dataclasses.replace(sample, captions=((" ", "table"),)) if number == 10 else sample


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"), 24, splits=("train", "val"), change=spoilt)


@pytest.fixture
def config(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setattr(features, "PART", 10)  # three parts, the last one short
    monkeypatch.setattr(image_cache, "CHUNK", 4)
    vision = {**TINY_MODEL["model_cfg"]["vision_cfg"], "patch_dropout": 0.5}
    model = tmp_path / "mini.json"
    model.write_text(json.dumps({"model_cfg": {**TINY_MODEL["model_cfg"], "vision_cfg": vision}}))
    return TrainConfig.model_validate(
        {
            "out": tmp_path / "run",
            "data": {"dataset": data},
            "model": {"name": str(model), "lock_image": True},
            "batch": {"size": 7, "workers": 1, "views": 2},
            "schedule": {"steps": 9},
            "checkpoint": {"every_steps": 3, "keep": 5},
            "threads": 1,
        }
    )


def cached(config: TrainConfig, name: str = "cached", **tables: Any) -> TrainConfig:
    """The same run with features in ``cache`` beside it."""
    folder = config.out.parent
    tables["model"] = {"image_cache": folder / "cache", **tables.get("model", {})}
    return changed(config, out=folder / name, **tables)


def store_of(config: TrainConfig) -> FeatureStore:
    model, datasets = build_model(config), open_datasets(config)
    loader = build_loader(config, datasets, model)
    found = image_cache.feature_store(config, model, loader, fingerprint(datasets, config.data.split))
    assert found is not None
    return found[0]


def losses(result: TrainResult) -> list[float]:
    return [row["loss"] for row in read_metrics(result.run / "metrics.jsonl")]


def weights(result: TrainResult) -> dict[str, torch.Tensor]:
    return load_file(result.model / "open_clip_model.safetensors")


def keys(result: TrainResult) -> bytes:
    return (result.run / "keys/rank0.bin").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"batch": {"views": None, "augment": STILL}},
        {"accumulation": 3, "loss": {"kind": "siglip"}},
        {"precision": "bf16"},
    ],
    ids=["two views", "one view", "pieces", "bf16"],
)
def test_training_from_features_is_training_with_the_tower_locked(
    config: TrainConfig, change: dict[str, Any]
) -> None:
    config = changed(config, **change)
    plain, ours = train(config), train(cached(config))
    bf16 = config.precision == "bf16"
    assert losses(ours) == pytest.approx(losses(plain), rel=1e-3 if bf16 else 1e-6)
    before, after = weights(plain), weights(ours)
    start = create(config.model.name, seed=config.seed).clip.state_dict()
    for name in before:
        if name.startswith("visual."):
            assert torch.equal(after[name], start[name]), name
        elif not name.endswith("attn.in_proj_bias"):  # softmax does not feel the keys' part
            assert torch.allclose(after[name], before[name], rtol=1e-3, atol=1e-2 if bf16 else 2e-5), name
    assert keys(ours) == keys(plain)
    assert ours.bad == plain.bad
    assert len(ours.bad) == 3
    assert any("no caption" in reason for reason in ours.bad.values())


def test_a_full_cache_needs_neither_pictures_nor_tower(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(cached(config))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("not to be called")

    monkeypatch.setattr("pathclip.batches.source.decode_crop", never)
    monkeypatch.setattr("pathclip.encoders.DualEncoder.encode_pixels", never)
    second = train(cached(config, "second", low_memory="warn", schedule={"steps": 5}, batch={"size": 9}))
    assert second.steps == 5  # another order, another size: the same features
    assert losses(train(cached(config, "third"))) == losses(first)


@pytest.fixture(autouse=True)
def no_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs start at once: memory is not what these tests are about."""
    monkeypatch.setattr(run, "check_memory", lambda *_: None)


def test_resume_goes_on_to_the_same_bits(config: TrainConfig) -> None:
    whole, half = train(cached(config)), train(cached(config, "half"))
    for step in (6, 9):
        shutil.rmtree(half.run / f"checkpoints/step-{step:08d}")
    shutil.rmtree(half.model)
    resumed = train(resume=half.run)
    assert losses(resumed) == losses(whole)
    assert keys(resumed) == keys(whole)
    a, b = weights(resumed), weights(whole)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_killed_fill_goes_on_where_it_was(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, written = FeatureStore.write, []

    def write(self: FeatureStore, part: Any, *rest: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(part)
        plain(self, part, *rest)

    monkeypatch.setattr(FeatureStore, "write", write)
    with pytest.raises(KeyboardInterrupt):
        train(cached(config))
    assert [(p.view, p.start) for p in written] == [(0, 0), (0, 10)]
    plan, folder = make_plan(cached(config)), store_of(cached(config)).folder
    assert (
        f"\n48 image features (0.0 MiB) in {folder}: 28 are computed before the first step\n" in plan.text()
    )
    assert plan.data()["image_features"] == {
        "folder": str(folder),
        "kept": 20,
        "total": 48,
        "bytes": 48 * 16 * 4,
    }
    monkeypatch.setattr(FeatureStore, "write", lambda s, p, *r: written.append(p) or plain(s, p, *r))
    resumed = train(resume=config.out.parent / "cached")
    assert resumed.steps == 9
    assert [(p.view, p.start) for p in written[2:]] == [(0, 20), (1, 0), (1, 10), (1, 20)]
    assert losses(resumed) == losses(train(cached(config, "again")))


def test_sigterm_while_the_cache_is_filled_ends_cleanly(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = image_cache._encode, []

    def encoding(*args: Any) -> torch.Tensor:
        calls.append(len(calls))
        if len(calls) == 5:
            os.kill(os.getpid(), 15)
        return encode(*args)

    monkeypatch.setattr(image_cache, "_encode", encoding)
    stopped = train(cached(config))
    assert (stopped.stopped, stopped.steps, stopped.model) == ("SIGTERM", 0, None)
    assert len(calls) == 5  # the first part is whole, the second is not
    assert train(resume=stopped.run).steps == 9
    assert len(calls) == 5 + 2 * 7 - 3  # the three passes of the first part are not made again


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def swapped(path: Path) -> None:
    shutil.copyfile(path.with_name("view-0001-000000.safetensors"), path)


def of_another_kind(path: Path) -> None:
    save_file({"rows": torch.zeros(10, 16)}, path)


@pytest.mark.parametrize("spoil", [damaged, cut, swapped, of_another_kind])
def test_a_damaged_part_is_named_and_computed_again(
    config: TrainConfig, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    first = train(cached(config))
    path = store_of(cached(config)).folder / "view-0000-000000.safetensors"
    whole = path.read_bytes()
    spoil(path)
    with caplog.at_level(logging.WARNING, "pathclip"):
        second = train(cached(config, "second"))
    assert path.read_bytes() == whole
    assert losses(second) == losses(first)
    assert f"{path} is damaged and removed" in caplog.text


def test_features_of_anything_else_are_not_found(config: TrainConfig, tmp_path: Path) -> None:
    config = cached(config)
    own = store_of(config).folder.name
    tower = {**TINY_MODEL["model_cfg"], "vision_cfg": {**TINY_MODEL["model_cfg"]["vision_cfg"], "layers": 2}}
    (tmp_path / "other.json").write_text(json.dumps({"model_cfg": tower}))
    other = make_dataset(tmp_path / "other", 24)
    for change in (
        {"seed": 1},
        {"precision": "bf16"},
        {"batch": {"augment": {"stain": 0.2}}},
        {"batch": {"augment": STILL}},
        {"model": {"name": str(tmp_path / "other.json")}},
        {"data": {"dataset": (other,)}},
    ):
        assert store_of(changed(config, **change)).folder.name != own, change
    for change in (
        {"batch": {"size": 3, "captions": "first", "views": 5}},
        {"optim": {"lr": 1.0}},
        {"accumulation": 2},
        {"model": {"image_cache": tmp_path / "elsewhere"}},
    ):
        assert store_of(changed(config, **change)).folder.name == own, change
    few = {"batch": {"size": 4, "views": 9}, "schedule": {"steps": 9}}  # and four batches ahead: 52 of 24
    assert store_of(changed(config, **few)).views == 3  # not more than the run comes to
    still = changed(config, batch={"augment": STILL})
    assert store_of(still).views == 1
    model, datasets = build_model(still), open_datasets(still)
    with torch.no_grad():
        model.clip.visual.proj[0, 0] += 1e-6
    found = image_cache.feature_store(
        still, model, build_loader(still, datasets, model), fingerprint(datasets, "train")
    )
    assert found[0].folder.name != store_of(still).folder.name


def test_a_checkpoint_with_another_image_tower_is_refused(config: TrainConfig) -> None:
    done = train(cached(config))
    file = done.run / "checkpoints/step-00000009/model.safetensors"
    content = load_file(file)
    content["visual.conv1.weight"][0, 0, 0, 0] += 1e-3
    save_file(content, file)
    with pytest.raises(UserError, match=r"another image tower than model\.image_cache holds features of"):
        train(resume=done.run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"image_cache": "c", "lock_image": False}}, "set lock_image = true"),
        (
            {"model": {"image_cache": "c"}, "batch": {"views": None}},
            r"no feature is met again: set batch\.views",
        ),
        ({"model": {"image_cache": "c"}, "data": {"stream_shards": 2}}, "leave one of the two unset"),
    ],
)
def test_what_cannot_be_cached_is_refused(config: TrainConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as refused:
        changed(config, **change)
    assert len(refused.value.errors()) == 1


def test_a_decoder_reads_more_than_a_feature(config: TrainConfig) -> None:
    coca = changed(cached(config), model={"name": "tiny-coca-112"})
    with pytest.raises(UserError, match="set caption_loss_weight = 0, or leave image_cache unset"):
        store_of(coca)
    assert store_of(changed(coca, caption_loss_weight=0)).dim == build_model(coca).embed_dim


def test_a_file_in_the_folders_place_is_the_users_mistake(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*about\.json: Not a directory"):
        train(cached(config))
    assert not (tmp_path / "cached/config.toml").exists()  # `out` can be used again


def test_the_memory_of_the_tower_is_its_weights_and_one_pass(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = {
        **TINY_MODEL["model_cfg"],
        "vision_cfg": {**TINY_MODEL["model_cfg"]["vision_cfg"], "image_size": 96},
    }
    (tmp_path / "wide.json").write_text(json.dumps({"model_cfg": wide}))
    config = changed(config, model={"name": str(tmp_path / "wide.json")})
    model = build_model(config)

    def step(config: TrainConfig, size: int) -> int:
        return rehearse(model, config, build_loader(config, open_datasets(config), model), size)

    plain, ours = (step(c, 256) - step(c, 128) for c in (config, cached(config)))
    assert ours < plain / 5  # a sample takes its text only
    weights = sum(4 * p.numel() for p in model.parameters())
    few = step(cached(config), 7)
    monkeypatch.setattr(image_cache, "CHUNK", 256)
    monkeypatch.setattr(rehearsal, "CHUNK", 256)
    assert few / HOLES > weights
    assert step(cached(config), 7) > few + 256 * 3 * 96 * 96 * 4  # filling needs more than a step of 7


def test_batches_hold_features_of_unit_length(config: TrainConfig) -> None:
    config = cached(config)
    train(config)
    model = build_model(config)
    loader = build_loader(config, open_datasets(config), model)
    loader.read_features(store_of(config))
    batch: Batch = next(iter(loader))
    assert batch.images.shape == (7, 16)
    assert batch.images.dtype == torch.float32
    assert torch.allclose(batch.images.norm(dim=1), torch.ones(7))
    assert model(batch.images, batch.tokens)[0].equal(batch.images)


PIECEMEAL = """
from pathclip.batches import features
from pathclip.cli.__main__ import main
from pathclip.training import image_cache
features.PART, image_cache.CHUNK = 10, 4
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_fill_one_cache_and_train_as_one(
    config: TrainConfig, tmp_path: Path, parallel: str
) -> None:
    one = train(cached(config, "one", accumulation=2))
    written = {p.name: p.read_bytes() for p in store_of(cached(config)).folder.glob("*.safetensors")}
    shutil.rmtree(tmp_path / "cache")
    two = cached(config, "two", parallel=parallel, accumulation=2)
    (tmp_path / "two.toml").write_text(to_toml(two))
    (tmp_path / "piecemeal.py").write_text(PIECEMEAL)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "piecemeal.py", "train"]

    def run_on_two(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, *command, *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    run_on_two("two.toml")
    assert {p.name: p.read_bytes() for p in store_of(two).folder.glob("*.safetensors")} == written
    rows = read_metrics(tmp_path / "two/metrics.jsonl")
    assert [row["loss"] for row in rows] == pytest.approx(losses(one), rel=1e-5)
    if parallel == "fsdp":  # the check that the checkpoint's tower is the cached one, in slices
        for path in [tmp_path / "two/model", tmp_path / "two/checkpoints/step-00000009"]:
            shutil.rmtree(path)
        run_on_two("--resume", "two")
        again = read_metrics(tmp_path / "two/metrics.jsonl")
        assert [row["loss"] for row in again] == [row["loss"] for row in rows]
        assert again != rows  # times are new
