"""The run folder: what is in it, that it can be killed and resumed to the bit, and what it refuses."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from shard_factory import COLOURS, make_dataset, picture
from train_cases import TINY_MODEL, changed, cut_back, on_two_ranks

from pathclip.core.config import load_config
from pathclip.core.errors import FaultError, UserError
from pathclip.encoders import load
from pathclip.training import TrainConfig, TrainResult, checkpoint, read_metrics, train
from pathclip.training.plan import make_plan

REPO = Path(__file__).resolve().parents[2]
SCHEMAS = REPO / "docs" / "reference" / "schemas"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"), 24, splits=("train", "val"))


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "mini.json"
    path.write_text(json.dumps(TINY_MODEL))
    return path


@pytest.fixture
def config(data: Path, model_file: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "out": tmp_path / "run",
            "data": {"dataset": data},
            "model": {"name": str(model_file)},
            "batch": {"size": 8, "workers": 1},
            "schedule": {"steps": 6},
            "checkpoint": {"every_steps": 2},
            "threads": 1,
        }
    )


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(run / "metrics.jsonl")]


def validated(data: Any, name: str) -> None:
    jsonschema.validate(data, json.loads((SCHEMAS / f"{name}.schema.json").read_text()))


def test_a_run_folder_holds_what_the_design_lists(config: TrainConfig) -> None:
    result = train(config)
    run = result.run
    assert isinstance(result, TrainResult)
    assert (result.steps, result.samples_seen, result.stopped, result.bad) == (6, 48, None, {})
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        validated(row, "metrics")
        assert 0 <= row["data_wait"] <= 1
        assert row["samples_seen"] == 8 * row["step"]
    assert (result.loss_first, result.loss_last) == (rows[0]["loss"], rows[-1]["loss"])
    assert (run / "latest").read_text() == "checkpoints/step-00000006\n"
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-00000004", "step-00000006"]
    for folder in (run / "checkpoints").iterdir():
        files = ["meta.json", "model.safetensors", "optimizer.safetensors", "rng.safetensors"]
        assert sorted(p.name for p in folder.iterdir()) == files
        validated(json.loads((folder / "meta.json").read_text()), "checkpoint")
    keys = (run / "keys" / "rank0.bin").read_bytes()
    names = [keys[i : i + 16].decode() for i in range(0, len(keys), 16)]
    assert len(names) == 48
    assert len(set(names[:24])) == len(set(names[24:])) == 24  # two passes, every sample once in each
    with Image.open(run / "curves.png") as curves:
        assert curves.size[0] > 600
    assert load_config(TrainConfig, run / "config.toml") == config
    assert sorted(p.name for p in result.model.iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "pathclip.json",
    ]


def test_the_exported_model_is_the_last_checkpoint_with_its_record(config: TrainConfig) -> None:
    config = config.replace(prompts="tissue.json")
    Path("tissue.json").write_text(json.dumps(list(COLOURS)))
    result = train(config)
    last = load_file(result.run / "checkpoints" / "step-00000006" / "model.safetensors")
    exported = load_file(result.model / "open_clip_model.safetensors")
    assert last.keys() == exported.keys()
    assert all(torch.equal(last[name], exported[name]) for name in last)
    model = load(result.run)
    assert model.source.training["steps"] == 6
    assert model.source.training["config"]["batch"]["size"] == 8
    assert model.source.prompts["labels"] == list(COLOURS)


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_training_lowers_the_loss_and_two_runs_are_equal_to_the_bit(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = changed(config, schedule={"steps": 40}, optim={"lr": 3e-3})
    first, second = train(config), train(changed(config, out=tmp_path / "again", batch={"workers": 0}))
    assert losses(first.run) == losses(second.run)
    start, end = losses(first.run)[:5], losses(first.run)[-5:]
    assert sum(end) < 0.8 * sum(start)
    other = train(changed(config, out=tmp_path / "other", seed=1))
    assert losses(other.run) != losses(first.run)


RESUMED: list[tuple[bool, dict[str, Any]]] = [
    (False, {}),
    (True, {}),
    (True, {"accumulation": 3, "grad_checkpointing": True}),
    (False, {"optim": {"ema": 0.9, "max_norm_ratio": 4.0}}),
]


@pytest.mark.parametrize(("dropout", "change"), RESUMED)
def test_resume_goes_on_to_the_same_bits(
    config: TrainConfig, tmp_path: Path, dropout: bool, change: dict[str, Any]
) -> None:
    config = changed(config, **change)
    if dropout:  # patch dropout draws from torch's random state in every step
        vision = {**TINY_MODEL["model_cfg"]["vision_cfg"], "patch_dropout": 0.5}
        path = tmp_path / "dropout.json"
        path.write_text(json.dumps({"model_cfg": {**TINY_MODEL["model_cfg"], "vision_cfg": vision}}))
        config = changed(config, model={"name": str(path)})
    whole = train(config)
    half = train(changed(config, out=tmp_path / "half"))
    cut_back(half.run, 4)
    resumed = train(resume=half.run)
    assert resumed.steps == 6
    assert losses(half.run) == losses(whole.run)
    assert same_weights(half.run, whole.run)
    assert (half.run / "keys/rank0.bin").read_bytes() == (whole.run / "keys/rank0.bin").read_bytes()


def same_weights(first: Path, second: Path) -> bool:
    a, b = (load_file(run / "model" / "open_clip_model.safetensors") for run in (first, second))
    return all(torch.equal(a[name], b[name]) for name in a)


def start(config_file: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pathclip", "train", str(config_file), *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=config_file.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def wait_for_rows(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while len(read_metrics(run / "metrics.jsonl")) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def write_config(config: TrainConfig, path: Path) -> Path:
    from pathclip.core.config import to_toml

    path.write_text(to_toml(config))
    return path


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(config: TrainConfig, tmp_path: Path) -> None:
    config = changed(config, schedule={"steps": 60}, checkpoint={"every_steps": 7})
    whole = train(config)
    file = write_config(changed(config, out=tmp_path / "killed"), tmp_path / "killed.toml")
    process = start(file)
    wait_for_rows(tmp_path / "killed", 17, process)
    process.kill()  # somewhere after step 17, between checkpoints as it comes
    process.communicate()
    killed_at = len(read_metrics(tmp_path / "killed" / "metrics.jsonl"))
    resumed = train(resume=tmp_path / "killed")
    assert killed_at < 60
    assert resumed.steps == 60
    assert losses(tmp_path / "killed") == losses(whole.run)
    assert same_weights(tmp_path / "killed", whole.run)


@pytest.mark.slow
def test_sigterm_saves_and_ends_cleanly(config: TrainConfig, tmp_path: Path) -> None:
    config = changed(config, schedule={"steps": 4000}, checkpoint={"every_steps": 0})
    process = start(write_config(config, tmp_path / "c.toml"))
    wait_for_rows(tmp_path / "run", 3, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["stopped"] == "SIGTERM"
    assert report["model"] is None
    assert 3 <= report["steps"] < 4000
    named = (tmp_path / "run" / "latest").read_text().strip()
    assert json.loads((tmp_path / "run" / named / "meta.json").read_text())["step"] == report["steps"]


def felt(name: str, weights: torch.Tensor) -> torch.Tensor:
    """Without the biases of keys: softmax does not feel them, and AdamW follows the rounding of a zero."""
    if not name.endswith("attn.in_proj_bias"):
        return weights
    query, _, value = weights.chunk(3)
    return torch.cat([query, value])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parallel", "pieces", "change"),
    [
        ("ddp", 1, {}),
        ("ddp", 2, {}),
        ("fsdp", 1, {"optim": {"grad_clip": 0.5, "ema": 0.9}}),
        ("fsdp", 2, {"grad_checkpointing": True}),
    ],
)
def test_two_ranks_reach_the_weights_of_one(
    config: TrainConfig, tmp_path: Path, parallel: str, pieces: int, change: dict[str, Any]
) -> None:
    retrieval = {"retrieval": {"val": {"limit": 8}}}
    config = changed(
        config,
        batch={"size": 9},
        schedule={"steps": 5},
        checkpoint={"every_steps": 3},
        eval=retrieval,
        **change,
    )
    one = train(config)
    config_two = changed(config, out=tmp_path / "two", accumulation=pieces, parallel=parallel)
    file = write_config(config_two, tmp_path / "two.toml")
    done = on_two_ranks(file)
    assert done.returncode == 0, done.stderr[-6000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["evaluation"]["val"] == pytest.approx(one.evaluation["val"])
    assert losses(tmp_path / "two") == pytest.approx(losses(one.run), rel=1e-5)
    a, b = (load_file(run / "model" / "open_clip_model.safetensors") for run in (one.run, tmp_path / "two"))
    for name in a:
        x, y = felt(name, a[name]), felt(name, b[name])
        assert torch.allclose(x, y, rtol=1e-3, atol=2e-4), name
    keys = [(tmp_path / "two" / "keys" / f"rank{r}.bin").read_bytes() for r in (0, 1)]
    whole = (one.run / "keys" / "rank0.bin").read_bytes()
    for step in range(5):  # 9 samples a step: 4 on the first rank, 5 on the second
        parts = keys[0][64 * step : 64 * (step + 1)] + keys[1][80 * step : 80 * (step + 1)]
        assert parts == whole[144 * step : 144 * (step + 1)]
    if parallel == "fsdp":  # each rank wrote its rows, and a step loads like any model
        step = tmp_path / "two/checkpoints/step-00000003"
        names = {p.name for p in step.glob("model-*")}
        assert names == {f"model-{r:05d}-of-00002.safetensors" for r in (1, 2)}
        early = load(step).clip.state_dict()
        assert early.keys() == a.keys()
    for name in ("pair", "two_whole"):
        shutil.copytree(tmp_path / "two", tmp_path / name)
    cut_back(tmp_path / "two", 3)
    resumed = train(resume=tmp_path / "two")  # two ranks' checkpoint, one rank
    assert losses(resumed.run) == pytest.approx(losses(one.run), rel=1e-5)
    counts = [len((resumed.run / "keys" / f"rank{r}.bin").read_bytes()) // 16 for r in (0, 1)]
    assert counts == [4 * 3 + 9 * 2, 5 * 3]  # the second rank's rows beyond the checkpoint are cut too
    if parallel == "fsdp" and pieces == 1:  # and on two again, to the bit
        before = losses(tmp_path / "pair")
        cut_back(tmp_path / "pair", 3)
        done = on_two_ranks(file, "--resume", str(tmp_path / "pair"))
        assert done.returncode == 0, done.stderr[-6000:]
        assert losses(tmp_path / "pair") == before
        assert same_weights(tmp_path / "pair", tmp_path / "two_whole")


DYING = """
import os, signal
from pathclip.cli.__main__ import main
from pathclip.training import trainer

step = trainer.Trainer.take_step

def take_step(self, flag=False):
    if self.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, flag)

if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
    trainer.Trainer.take_step = take_step
main()
"""


@pytest.mark.slow
def test_a_rank_that_dies_is_named_and_torchrun_goes_on_from_the_checkpoint(
    config: TrainConfig, tmp_path: Path
) -> None:
    config = changed(config, checkpoint={"every_steps": 2})
    whole = changed(config, out=tmp_path / "whole")
    assert on_two_ranks(write_config(whole, tmp_path / "whole.toml")).returncode == 0
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    file = write_config(config, tmp_path / "config.toml")
    done = on_two_ranks(file, program=[str(script)])
    assert done.returncode == 1
    assert re.search(r"step 6: another rank was lost .* checkpoint is \S+/step-00000004: start", done.stderr)
    shutil.rmtree(config.out)
    done = on_two_ranks(file, program=["--max-restarts=1", str(script)])
    assert done.returncode == 0, done.stderr[-6000:]
    assert "step-00000004, step 4 of 6" in done.stderr
    assert losses(config.out) == losses(tmp_path / "whole")
    assert same_weights(config.out, tmp_path / "whole")


def test_a_run_that_was_never_saved_starts_again(config: TrainConfig, tmp_path: Path) -> None:
    whole = train(changed(config, checkpoint={"every_steps": 0}))
    cut_back(whole.run, 0)
    expected = losses(train(changed(config, out=tmp_path / "again")).run)
    assert train(resume=whole.run).steps == 6
    assert losses(whole.run) == expected


def test_keys_of_ranks_that_are_gone_stay_and_are_cut_to_the_checkpoint(config: TrainConfig) -> None:
    run = train(config).run
    cut_back(run, 4)
    meta = run / "checkpoints" / "step-00000004" / "meta.json"
    values = json.loads(meta.read_text())
    meta.write_text(json.dumps({**values, "keys": [*values["keys"], 2]}))  # as if two ranks had begun it
    for rank in (1, 2):
        (run / "keys" / f"rank{rank}.bin").write_bytes(b"0123456789abcdef" * 5)
    train(resume=run)
    sizes = [len((run / "keys" / f"rank{rank}.bin").read_bytes()) for rank in (0, 1, 2)]
    assert sizes == [48 * 16, 2 * 16, 0]
    last = json.loads((run / "checkpoints" / "step-00000006" / "meta.json").read_text())
    assert last["keys"] == [48, 2]


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(config: TrainConfig) -> None:
    first = train(config)
    before = losses(first.run)
    again = train(resume=first.run)
    assert (again.steps, again.samples_per_s, losses(first.run)) == (6, None, before)


def test_an_out_folder_that_holds_a_run_is_left_alone(config: TrainConfig) -> None:
    train(config)
    with pytest.raises(
        UserError, match=r"already holds a run; go on with --resume .*run, or choose another out"
    ):
        train(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "was started with seed = 0, not 5"),
        ({"model": {"name": "tiny-vit-112"}}, "was started with model"),
    ],
)
def test_a_resumed_run_keeps_what_fixes_it(config: TrainConfig, change: dict[str, Any], message: str) -> None:
    train(config)
    with pytest.raises(UserError, match=message):
        train(changed(config, **change), resume=config.out)


def test_resume_refuses_data_that_changed(config: TrainConfig, tmp_path: Path) -> None:
    own = make_dataset(tmp_path / "own", 24)
    train(changed(config, data={"dataset": own}))
    make_dataset(own, 24, shards=3)
    with pytest.raises(UserError, match="was trained on other data"):
        train(resume=config.out)


def test_resume_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no run: .*config.toml is missing"):
        train(resume=tmp_path)


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(config: TrainConfig) -> None:
    train(config)
    weights = config.out / "checkpoints" / "step-00000006" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"step-00000006 cannot be read: .*remove it"):
        train(resume=config.out)
    for file in weights.parent.iterdir():
        file.unlink()
    assert train(resume=config.out).steps == 6


def test_a_checkpoint_holding_code_is_refused(config: TrainConfig) -> None:
    train(config)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, ("hacked",)

    torch.save(Evil(), config.out / "checkpoints" / "step-00000006" / "optimizer.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        train(resume=config.out)
    assert not Path("hacked").exists()


def test_a_checkpoint_of_another_model_is_named(config: TrainConfig, tmp_path: Path) -> None:
    train(config)
    path = Path(load_config(TrainConfig, config.out / "config.toml").model.name)
    wide = json.loads(path.read_text())
    wide["model_cfg"]["embed_dim"] = 32
    saved = path.read_text()
    try:
        path.write_text(json.dumps(wide))
        with pytest.raises(UserError, match=r"is of another model \(mini\)"):
            train(resume=config.out)
    finally:
        path.write_text(saved)


def test_a_full_disk_keeps_the_last_good_checkpoint(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = checkpoint.write_slices, []

    def fill_up(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 8:  # three files of each checkpoint, this is the last's second
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(*arguments)

    monkeypatch.setattr(checkpoint, "write_slices", fill_up)
    with pytest.raises(
        FaultError, match=r"No space left on device; the newest good checkpoint is .*step-00000004"
    ):
        train(config)
    monkeypatch.setattr(checkpoint, "write_slices", plain)
    assert not list((config.out / "checkpoints").glob(".*.part"))
    assert train(resume=config.out).steps == 6


def test_checkpoints_come_by_the_minute_too(config: TrainConfig) -> None:
    train(changed(config, checkpoint={"every_steps": 0, "every_minutes": 1e-7, "keep": 9}))
    assert len(list((config.out / "checkpoints").iterdir())) == 6


def test_a_loss_that_is_not_finite_moves_nothing_and_then_stops_the_run(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathclip.loss import ContrastiveLoss

    plain = ContrastiveLoss.forward
    seen: list[int] = []

    def poison(self: Any, *arguments: Any, **rest: Any) -> torch.Tensor:
        seen.append(1)
        loss = plain(self, *arguments, **rest)
        return loss * torch.nan if len(seen) in (3, 4) else loss

    monkeypatch.setattr(ContrastiveLoss, "forward", poison)
    monkeypatch.setattr("pathclip.training.run.check_memory", lambda *_: None)  # its rehearsal counts too
    result = train(config)
    assert [loss is None for loss in losses(result.run)] == [False, False, True, True, False, False]
    assert all(t.isfinite().all() for t in load_file(result.model / "open_clip_model.safetensors").values())
    seen.clear()
    with pytest.raises(FaultError, match=r"step 4: loss is nan.*2 such steps in a row.*optim.lr"):
        train(changed(config, out=config.out.with_name("strict"), max_bad_steps=1))


def test_the_scale_stays_between_1_and_100(config: TrainConfig) -> None:
    train(changed(config, optim={"lr": 5.0}, schedule={"steps": 12, "warmup_steps": 0}))
    values = [row["logit_scale"] for row in read_metrics(config.out / "metrics.jsonl")]
    assert min(values) >= 0
    assert max(values) <= 4.60518
    assert min(values) == 0 or max(values) > 4.605  # the clamp was needed


def test_zero_shot_and_retrieval_are_measured_on_the_way(config: TrainConfig, tmp_path: Path) -> None:
    for label in COLOURS:
        (tmp_path / "tiles" / label).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(picture(label, 100 + i)).save(tmp_path / "tiles" / label / f"{i}.png")
    config = changed(
        config,
        schedule={"steps": 30},
        optim={"lr": 3e-3},
        eval={
            "every_steps": 10,
            "zeroshot": {"tiles": {"data": tmp_path / "tiles"}},
            "retrieval": {"pairs": {}},
        },
    )
    result = train(config)
    rows = {row["step"]: row["eval"] for row in read_metrics(result.run / "metrics.jsonl") if "eval" in row}
    assert sorted(rows) == [10, 20, 30]
    assert rows[30] == result.evaluation
    tiles, pairs = rows[30]["tiles"], rows[30]["pairs"]
    assert (tiles["n"], tiles["chance"], pairs["n"]) == (12, 0.25, 24)
    assert 0 <= tiles["balanced_accuracy"] <= 1
    assert pairs["image_to_text_R@10"] >= pairs["image_to_text_R@1"]
    for row in read_metrics(result.run / "metrics.jsonl"):
        validated(row, "metrics")


def test_bad_samples_are_reported_with_the_result(config: TrainConfig, tmp_path: Path) -> None:
    hurt = make_dataset(
        tmp_path / "hurt",
        24,
        change=lambda s: dataclasses.replace(s, jpg=s.jpg[:300]) if s.sample_id.endswith("05") else s,
    )
    result = train(changed(config, data={"dataset": hurt}))
    assert list(result.bad) == ["train-000000.tar, key tr00000000000005"]
    again = train(resume=result.run)
    assert again.bad == result.bad


def test_tensorboard_is_written_when_asked_for(config: TrainConfig) -> None:
    pytest.importorskip("tensorboard")
    train(changed(config, watch={"tensorboard": True}))
    assert list((config.out / "tensorboard").glob("events.*"))


def test_several_datasets_and_starting_weights(config: TrainConfig, data: Path, tmp_path: Path) -> None:
    first = train(config)
    second = make_dataset(tmp_path / "more", 12)
    result = train(
        changed(
            config,
            out=tmp_path / "tuned",
            data={"dataset": (data, second)},
            model={"init": str(first.run)},
            optim={"lr": 1e-12},
            loss={"kind": "siglip"} if load(first.run).logit_bias is not None else {"positives": "shared"},
        )
    )
    a, b = (load_file(r.model / "open_clip_model.safetensors") for r in (first, result))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    assert result.steps == 6


def test_a_dry_run_shows_all_and_writes_nothing(config: TrainConfig) -> None:
    plan = make_plan(changed(config, schedule={"steps": None, "epochs": 5}))
    assert (plan.samples, plan.steps, plan.epochs) == (24, 15, 5.0)
    assert plan.memory_bytes > 4 * 4 * plan.parameters
    assert "24 samples in 2 shard(s)" in plan.text()
    assert not config.out.exists()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"accumulation": 0}, "greater than or equal to 1"),
    ({"schedule": {"steps": 5, "epochs": 2}}, "set steps or epochs, not both"),
    ({"batch": {"size": 0}}, "greater than or equal to 1"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_value_names_its_path_and_remedy(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_config(TrainConfig, None, [], base=change)


def test_wrong_places_are_named_before_any_work(config: TrainConfig, tmp_path: Path) -> None:
    cases = [
        ({"data": {"dataset": ()}}, "data.dataset is not set"),
        ({"data": {"dataset": tmp_path / "none"}}, "is no dataset"),
        ({"data": {"split": "trian"}}, "has no split 'trian'; it has: train, val"),
        ({"batch": {"size": 25}}, "set batch.size to at most 24"),
        ({"device": "cuda9x"}, "device 'cuda9x' is unknown"),
        ({"eval": {"zeroshot": {"t": {"data": tmp_path / "none"}}}}, "is no folder"),
        ({"eval": {"retrieval": {"r": {"split": "test"}}}}, "has no split 'test'"),
        ({"model": {"name": "tiny-vit-113"}}, "tiny-vit-11"),
    ]
    for number, (change, message) in enumerate(cases):
        with pytest.raises(UserError, match=message):
            train(changed(config, out=tmp_path / f"r{number}", **change))
    with pytest.raises(UserError, match="out is not set"):
        train(config.replace(out=None))


def test_settings_of_the_process_are_put_back(config: TrainConfig) -> None:
    torch.manual_seed(1)
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state())
    handler = signal.getsignal(signal.SIGTERM)
    train(config)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_run_in_use_is_refused(config: TrainConfig) -> None:
    train(config)
    (config.out / ".lock").write_text(f"{os.getppid()} {os.uname().nodename}\n")
    with pytest.raises(UserError, match="is being trained by another process"):
        train(resume=config.out)


def test_progress_lines_tell_loss_speed_and_time_left(
    config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pathclip"):
        train(config)
    assert any("step 6 of 6: loss" in m and "samples/s" in m and "to go" in m for m in caplog.messages)
