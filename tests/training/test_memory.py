"""The estimate of a run's memory against closed forms, and the refusal of what cannot fit."""

from __future__ import annotations

import copy
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from shard_factory import make_dataset
from train_cases import changed
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.training import TrainConfig, memory, read_metrics, train
from pathclip.training.inputs import build_loader, build_model, open_datasets
from pathclip.training.rehearsal import HOLES, rehearse
from pathclip.training.world import World

ALONE = World(0, 1, torch.device("cpu"))
WIDE_MODEL = {  # 65 tokens a picture: activations outweigh the weights from a few samples on
    "embed_dim": 16,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 64, "layers": 4, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    make_dataset(folder / "data", 32)
    (folder / "wide.json").write_text(json.dumps(WIDE_MODEL))
    return folder


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "out": tmp_path / "run",
            "data": {"dataset": folder / "data"},
            "model": {"name": str(folder / "wide.json")},
            "batch": {"size": 32, "workers": 0},
            "schedule": {"steps": 2},
            "device": "cpu",
            "threads": 1,
        }
    )


def step_bytes(config: TrainConfig, **change: Any) -> int:
    """What a rehearsal says of a config with changes."""
    config = changed(config, **change)
    model = build_model(config)
    return rehearse(model, config, build_loader(config, open_datasets(config), model), config.batch.size)


def lack(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Let the process be of no size itself and have ``room`` bytes."""
    monkeypatch.setattr(memory, "resident_bytes", lambda: 0)
    monkeypatch.setattr(memory, "available_bytes", lambda: room)


def room_for_half(config: TrainConfig) -> int:
    """Bytes in which half the batch fits."""
    return int(1.02 * step_bytes(config, batch={"size": config.batch.size // 2}))


def test_weights_gradients_and_moments_are_the_least(config: TrainConfig) -> None:
    weights = sum(4 * p.numel() for p in build_model(config).parameters())
    least = step_bytes(config, batch={"size": 1})
    assert 4 * weights < least / HOLES < 6 * weights
    averaged = step_bytes(config, batch={"size": 1}, optim={"ema": 0.9})
    assert (averaged - least) / HOLES == pytest.approx(weights, rel=0.05)


def test_a_tower_that_is_locked_needs_its_weights_only(config: TrainConfig) -> None:
    model = build_model(config)
    text = sum(4 * p.numel() for n, p in model.clip.named_parameters() if not n.startswith("visual."))
    saved = step_bytes(config, batch={"size": 1}) - step_bytes(
        config, batch={"size": 1}, model={"lock_text": True}
    )
    assert 3 * text <= saved / HOLES <= 4.5 * text


def test_activations_grow_with_the_batch_by_a_known_amount_per_sample(config: TrainConfig) -> None:
    few, some, many = (step_bytes(config, batch={"size": size}) for size in (8, 16, 32))
    assert (many - some) / (some - few) == pytest.approx(2, rel=0.05)
    # a block keeps at least its norms' inputs and outputs, q, k, v, and the MLP's activation before and after
    least = 4 * 65 * 64 * 4 * (1 + 1 + 3 + 1 + 1 + 4 + 4)
    assert least < (many - some) / 16 < 3 * least


def test_pieces_checkpointing_and_half_precision_need_less(config: TrainConfig) -> None:
    whole = step_bytes(config)
    pieces = [step_bytes(config, accumulation=k) for k in (2, 4, 8)]
    assert whole > pieces[0] > pieces[1] > pieces[2]
    assert step_bytes(config, grad_checkpointing=True) < 0.6 * whole
    assert step_bytes(config, precision="bf16") < whole


def test_texts_count_as_long_as_the_datas_longest(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(config)
    loader = build_loader(config, open_datasets(config), model)
    texts = loader.captions(1000)
    lengths = [model.trim_tokens(model.tokenize(text)).shape[1] for text in texts]
    assert 2 < max(lengths) < model.context_length

    def told(captions: list[str]) -> int:
        monkeypatch.setattr(loader, "captions", lambda most: captions)
        return rehearse(model, config, loader, 32)

    short, unknown = told(texts), told([])
    assert short == told([texts[lengths.index(max(lengths))]]) < unknown
    assert told(["gland " * 200]) == unknown  # cut at what the model reads


def test_a_rehearsal_leaves_the_model_and_the_random_state_alone(config: TrainConfig) -> None:
    model = build_model(config)
    loader = build_loader(config, open_datasets(config), model)
    before = copy.deepcopy(model.clip.state_dict())
    random = torch.get_rng_state()
    rehearse(model, changed(config, model={"lock_image": True}), loader, 32)
    assert torch.equal(random, torch.get_rng_state())
    after = model.clip.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert model.training == build_model(config).training
    assert loader.state_dict() == build_loader(config, open_datasets(config), model).state_dict()


def test_decode_processes_and_gradients_under_way_count(config: TrainConfig) -> None:
    model = build_model(config)

    def estimate(ranks: int = 1, **batch: Any) -> int:
        chosen = changed(config, batch=batch)
        return memory.estimate_memory(
            model, chosen, build_loader(chosen, open_datasets(chosen), model), ranks
        )

    weights = sum(4 * p.numel() for p in model.parameters())
    alone, threads, processes = estimate(), estimate(workers=1), estimate(workers=1, processes=True)
    ahead = 2 * 32 * 3 * 64 * 64
    assert threads - alone == pytest.approx(ahead, abs=4 << 20)
    assert processes - threads > 8 << 20  # a Python with numpy at least
    one = estimate(size=16)
    assert estimate(ranks=2) - one == pytest.approx(weights, abs=4 << 20)


def test_a_model_that_does_not_run_is_the_users_mistake(config: TrainConfig) -> None:
    model = build_model(config)
    loader = build_loader(config, open_datasets(config), model)
    model.clip.visual.proj = torch.nn.Parameter(torch.zeros(3, 16))
    with pytest.raises(UserError, match=r"model .*wide.* does not run: "):
        rehearse(model, config, loader, 4)


def test_a_run_that_cannot_fit_is_refused_with_what_would(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    need, room = step_bytes(config), room_for_half(config)
    lack(monkeypatch, room)
    with pytest.raises(UserError) as refused:
        train(config)
    text = str(refused.value)
    assert text.startswith(f"this run needs about {need / 2**30:.1f} GiB of memory and can have ")
    advice = r"set batch.size = 16 or accumulation = (\d+) or grad_checkpointing = true \(low_memory"
    found = re.search(advice, text)
    assert found
    assert "\n" not in text
    pieces = int(found[1])
    for change in ({"batch": {"size": 16}}, {"accumulation": pieces}, {"grad_checkpointing": True}):
        assert step_bytes(config, **change) <= room
    assert pieces == 2 or step_bytes(config, accumulation=pieces // 2) > room
    assert train(changed(config, batch={"size": 16})).steps == 2  # into the same folder


def test_where_nothing_helps_a_smaller_model_is_the_advice(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(monkeypatch, 1 << 20)
    with pytest.raises(UserError, match=r"no batch.size fits: take a smaller model"):
        memory.check_memory(*checked(config))


def checked(config: TrainConfig) -> tuple[Any, ...]:
    """What `check_memory` asks for."""
    model = build_model(config)
    return model, config, build_loader(config, open_datasets(config), model), ALONE


def test_the_command_line_ends_with_a_users_mistake_and_frees_the_folder(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lack(monkeypatch, room_for_half(config))
    file = tmp_path / "config.toml"
    file.write_text("")
    values = {
        "data.dataset": config.data.dataset[0],
        "model.name": config.model.name,
        "batch.size": 32,
        "batch.workers": 0,
        "schedule.steps": 1,
        "out": config.out,
        "device": "cpu",
    }
    arguments = ["train", str(file), "--json"]
    for key, value in values.items():
        arguments += ["--set", f"{key}={value}"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "set batch.size = 16" in json.loads(result.stdout.splitlines()[-1])["error"]
    assert "Traceback" not in result.output
    assert not (config.out / "config.toml").exists()
    dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
    plan = json.loads(dry.stdout.splitlines()[-1])
    assert (dry.exit_code, plan["memory_room_bytes"]) == (0, memory.memory_room())
    assert plan["memory_bytes"] > 1.2 * plan["memory_room_bytes"]


def test_a_warning_is_enough_where_the_config_says_so_or_it_is_close(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    need = step_bytes(config)
    lack(monkeypatch, need // 2)
    with caplog.at_level(logging.WARNING, logger="pathclip"):
        result = train(changed(config, low_memory="warn"))
        assert len(read_metrics(result.run / "metrics.jsonl")) == 2
        lack(monkeypatch, int(need / 1.1))  # within what an estimate may be off
        memory.check_memory(*checked(config))
    told = [record.getMessage() for record in caplog.records if "may be killed" in record.getMessage()]
    assert len(told) == 2


def test_where_the_system_does_not_tell_every_run_may_start(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    assert memory.memory_room() is None
    memory.check_memory(*checked(config))


def test_ranks_share_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    monkeypatch.setattr(memory, "resident_bytes", lambda: 10)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory.memory_room() == 260


def test_gpus_and_slices_are_not_judged_by_the_cpus_memory(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(monkeypatch, 1)
    model, _, loader, _ = checked(config)
    memory.check_memory(model, config, loader, World(0, 1, torch.device("cuda", 0)))
    memory.check_memory(model, changed(config, parallel="fsdp"), loader, World(0, 2, torch.device("cpu")))
