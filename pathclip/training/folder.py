"""The run folder's beginning: a new one gets its resolved config, an old one is asked for its."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pathclip.core.config import load_config, to_toml
from pathclip.core.errors import UserError
from pathclip.core.files import atomic_write
from pathclip.core.remote import meant_url
from pathclip.training.config import TrainConfig
from pathclip.training.world import World

__all__ = ["load_run_config", "open_run", "resolved", "taken_back"]

FIXED = ("data", "model", "seed")  # what a resumed run may not change


def open_run(config: TrainConfig | None, resume: str | Path | None, world: World) -> tuple[TrainConfig, Path]:
    """The resolved config and the run folder, made or found.

    Where torchrun starts the ranks again after it lost one, the run that they left is the one to go on with.

    Raises:
        UserError: If ``out`` is missing or holds a run, or ``resume`` holds none or was made differently.
    """
    if resume is not None:
        run = Path(resume).resolve()
        return _reopened(config, run), run
    if config is None or config.out is None:
        raise UserError("out is not set: name the run folder, for example --set out=runs/first")
    run = config.out.resolve()
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0 and is_run(run):  # torchrun lost a rank
        return _reopened(config, run), run
    if world.first and is_run(run):
        raise UserError(f"{run} already holds a run; go on with --resume {run}, or choose another out")
    world.wait()
    config = resolved(config)
    if world.first:
        with atomic_write(run / "config.toml", "w") as handle:
            handle.write(to_toml(config))
    world.wait()
    return config, run


@contextlib.contextmanager
def taken_back(run: Path, world: World) -> Iterator[None]:
    """Free the folder of a new run that a user's mistake ends before it starts, so that ``out`` can stay."""
    try:
        yield
    except UserError:
        if world.first and not any((run / name).exists() for name in ("metrics.jsonl", "checkpoints")):
            (run / "config.toml").unlink()
        raise


def is_run(folder: Path) -> bool:
    """Whether a run was started there."""
    return any((folder / name).exists() for name in ("config.toml", "metrics.jsonl", "checkpoints"))


def load_run_config(run: str | Path, overrides: list[str] | None = None) -> TrainConfig:
    """The config a run was started with, with changes.

    Raises:
        UserError: If there is no run.
    """
    path = Path(run) / "config.toml"
    if not path.is_file():
        raise UserError(f"{run} holds no run: {path} is missing")
    return load_config(TrainConfig, path, overrides or ())


def resolved(config: TrainConfig) -> TrainConfig:
    """The same config with absolute paths, so that it means the same from any folder."""
    data: dict[str, Any] = config.model_dump()
    data["out"] = config.out and config.out.resolve()
    data["data"]["dataset"] = tuple(map(_whole, config.data.dataset))
    data["model"]["image_cache"] = config.model.image_cache and config.model.image_cache.resolve()
    for table, key in (("model", "name"), ("model", "init")):
        data[table][key] = _absolute(data[table][key])
    data["prompts"] = _absolute(config.prompts)
    for chosen in data["eval"]["zeroshot"].values():
        chosen["data"], chosen["classes"] = Path(chosen["data"]).resolve(), _absolute(chosen["classes"])
    for chosen in data["eval"]["retrieval"].values():
        chosen["dataset"] = chosen["dataset"] and _whole(Path(chosen["dataset"]))
    for chosen in data["eval"]["probe"].values():
        chosen["train"], chosen["test"] = Path(chosen["train"]).resolve(), Path(chosen["test"]).resolve()
    return TrainConfig.model_validate(data)


def _whole(path: Path | str) -> Path | str:
    return path if isinstance(path, str) or meant_url(path) else path.resolve()


def _absolute(name: str | None) -> str | None:
    """A name that is a path here becomes absolute; other names stay."""
    return str(Path(name).resolve()) if name and Path(name).exists() else name


def _reopened(config: TrainConfig | None, run: Path) -> TrainConfig:
    started = load_run_config(run)
    if config is None:
        return started
    config = resolved(config)
    for part in FIXED:
        if getattr(config, part) != getattr(started, part):
            raise UserError(
                f"{run} was started with {part} = {getattr(started, part)!r}, not {getattr(config, part)!r}; "
                "leave it as it was, or start a new run"
            )
    return config
