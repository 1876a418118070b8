"""A run that streams its shards: the run that reads them from a folder, killed or not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shard_factory import make_dataset
from stores import Store
from train_cases import TINY_MODEL
from typer.testing import CliRunner
from web import serve

from pathclip.cli.__main__ import app
from pathclip.core.config import load_config, to_toml
from pathclip.shards import LostShardError
from pathclip.training import TrainConfig, TrainResult, read_metrics, train
from pathclip.training.checkpoint import latest_checkpoint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATHCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pathclip.shards.fetch.DELAYS_S", (0.01,) * 7)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"), 40, shards=8)


def config(out: Path, dataset: object, **tables: dict[str, object]) -> TrainConfig:
    model = out.parent / "mini.json"
    model.write_text(json.dumps(TINY_MODEL))
    values = {
        "out": out,
        "threads": 1,
        "model": {"name": str(model)},
        "data": {"dataset": dataset, "stream_shards": 2},
        "batch": {"size": 5, "workers": 1},
        "schedule": {"steps": 12},
        "checkpoint": {"every_steps": 4},
    }
    return TrainConfig.model_validate({**values, **tables})


def put(store: Store, data: Path) -> str:
    files = {path.relative_to(data): path.read_bytes() for path in data.rglob("*") if path.is_file()}
    store.fs().pipe({f"{store.root}/{name.as_posix()}": content for name, content in files.items()})
    return store.url


def outcome(result: TrainResult) -> tuple[list[float], dict[str, torch.Tensor], bytes]:
    """Losses, weights, and the samples in the order in which they were seen."""
    losses = [row["loss"] for row in read_metrics(result.run / "metrics.jsonl")]
    weights = load_file(result.run / "model" / "open_clip_model.safetensors")
    return losses, weights, (result.run / "keys" / "rank0.bin").read_bytes()


def same(first: TrainResult, second: TrainResult) -> bool:
    (losses, weights, keys), (other_losses, other_weights, other_keys) = outcome(first), outcome(second)
    return (losses, keys) == (other_losses, other_keys) and all(
        torch.equal(tensor, other_weights[name]) for name, tensor in weights.items()
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> TrainResult:
    return train(config(tmp_path_factory.mktemp("whole") / "run", data))


def test_a_streamed_run_cut_off_and_resumed_is_the_run_from_the_folder(
    memory: Store, data: Path, tmp_path: Path, whole: TrainResult
) -> None:
    streamed = train(config(tmp_path / "streamed", put(memory, data)))
    assert same(streamed, whole)
    assert (whole.streamed, streamed.streamed.peak_shards <= 4) == (None, True)
    run = streamed.run
    for path in (run / "checkpoints" / "step-00000012", run / "model"):
        shutil.rmtree(path)
    (run / "latest").write_text("checkpoints/step-00000008")
    other = load_config(TrainConfig, run / "config.toml", ["batch.workers=3", "batch.prefetch=4"])
    resumed = train(other, resume=run)
    assert same(resumed, whole)
    assert resumed.streamed.shards <= 8  # four steps of five from windows of ten, and what lies ahead


def test_lists_on_the_web_and_commands_train_the_same(data: Path, tmp_path: Path, whole: TrainResult) -> None:
    with serve(data) as web:
        listed = train(config(tmp_path / "web", web.url + "/shards/train-{000000..000007}.tar"))
    piped = train(config(tmp_path / "pipe", f"pipe:cat {data}/shards/train-{{000000..000007}}.tar"))
    assert same(listed, whole)
    assert same(piped, whole)
    reread = load_config(TrainConfig, piped.run / "config.toml")
    assert reread.data.dataset == (f"pipe:cat {data}/shards/train-{{000000..000007}}.tar",)


def test_a_lost_shard_ends_the_run_with_its_last_step_saved(
    memory: Store, data: Path, tmp_path: Path, whole: TrainResult
) -> None:
    put(memory, data)
    lost = "shards/train-000006.tar"
    memory.remove(lost)
    with pytest.raises(LostShardError, match=r"train-000006\.tar: FileNotFoundError.*--resume"):
        train(config(tmp_path / "run", memory.url, checkpoint={"every_steps": 0}))
    memory.write(lost, (data / lost).read_bytes())
    assert latest_checkpoint(tmp_path / "run") is not None
    assert same(train(resume=tmp_path / "run"), whole)


def test_dry_run_fetches_no_shard_and_tells_the_disk(
    memory: Store, data: Path, tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[batch]\nsize = 5\n[data]\nstream_shards = 2\n")
    run = ["train", str(path), "--dry-run", "--set"]
    result = CliRunner().invoke(app, [*run, f"data.dataset={put(memory, data)}", "--json"])
    plan = json.loads(result.stdout.splitlines()[-1])
    assert plan["samples"] == 40
    largest = max(p.stat().st_size for p in data.rglob("*.tar"))
    assert 3.5 * largest < plan["disk_bytes"] <= 4 * largest
    assert not list(cache.rglob("*.tar"))
    people = CliRunner().invoke(app, [*run, f"data.dataset={memory.url}"])
    assert " MB of shards on this disk at a time" in people.stdout
    with serve(data) as web:
        refused = CliRunner().invoke(
            app, [*run, f"data.dataset={web.url}/shards/train-{{000000..000007}}.tar"]
        )
        assert web.asked.keys() == {"sizes.json"}
    assert refused.exit_code == 2
    assert "nothing states how many samples 8 of 8 shards hold" in " ".join(refused.stderr.split())


def test_people_are_told_what_was_streamed(memory: Store, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config(tmp_path / "run", put(memory, data), schedule={"steps": 3})))
    result = CliRunner().invoke(app, ["train", str(path)])
    assert result.exit_code == 0, result.output
    assert " MB) streamed; at most" in result.stdout
