"""`train`: open or reopen a run folder, step until done or stopped, export the model."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pathclip._version import __version__
from pathclip.batches import ShardLoader
from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import claim
from pathclip.encoders import DualEncoder, load
from pathclip.shards import LostShardError, Passed
from pathclip.training.best import Best
from pathclip.training.checkpoint import Checkpoint, latest_checkpoint, read_checkpoint, write_checkpoint
from pathclip.training.config import TrainConfig
from pathclip.training.folder import open_run, taken_back
from pathclip.training.image_cache import feature_store, fill
from pathclip.training.inputs import build_loader, build_model, fingerprint, open_datasets
from pathclip.training.judge import check_sets, judge
from pathclip.training.memory import check_memory
from pathclip.training.progress import Progress
from pathclip.training.settings import StopRequest, settings, stop_on_signal
from pathclip.training.sharding import is_sharded
from pathclip.training.trainer import StepResult, Trainer
from pathclip.training.watch import Watch, draw_curves, read_metrics
from pathclip.training.world import World, join_world

__all__ = ["TrainResult", "train"]

LOST = re.compile(r"gloo|NCCL|[Cc]onnection (?:closed|reset)|timed out|socket")
log = logging.getLogger("pathclip")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run came to.

    Attributes:
        run: The run folder.
        model: Its exported model, or None if the run was stopped before its end.
        steps: Steps taken in all, before a resume too.
        samples_seen: Samples in all.
        loss_first: Loss of the first step.
        loss_last: Loss of the last step.
        samples_per_s: Over the steps of this process, waiting for data included.
        seconds: Wall time of this process.
        stopped: The signal that ended the run early, or None.
        evaluation: The last figures of every named set.
        bad: Samples that could not be used, with the reason.
        decoded_on_cpu: With ``batch.decode = "gpu"``: why the CPU decoded -> how many pictures.
        streamed: What went through this process's window of shards; None where nothing was streamed.
    """

    run: Path
    model: Path | None
    steps: int
    samples_seen: int
    loss_first: float | None
    loss_last: float | None
    samples_per_s: float | None
    seconds: float
    stopped: str | None = None
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    decoded_on_cpu: dict[str, int] = field(default_factory=dict)
    streamed: Passed | None = None


def train(config: TrainConfig | None = None, *, resume: str | Path | None = None) -> TrainResult:
    """Train a dual encoder from shards into a run folder.

    Args:
        config: The run; may be left out with ``resume``.
        resume: A run folder. Goes on from its newest checkpoint, to the same bits as if it had never
            stopped; rows and keys written after that checkpoint are cut first. Without a checkpoint it
            starts again from the beginning.

    Raises:
        UserError: If ``out`` holds a run already, or the config, data or checkpoint does not fit.
        FaultError: If the loss stays not finite, or the disk is full.

    Example:
        >>> train(TrainConfig(out="run", data={"dataset": "tiles"}, schedule={"epochs": 20})).model
        PosixPath('run/model')
    """
    with join_world((config or TrainConfig()).device) as world:
        config, run = open_run(config, resume, world)
        lock = claim(run / ".lock") if world.first else contextlib.nullcontext(True)
        with lock as owned, settings(config, world), stop_on_signal(signal.SIGTERM) as stop:
            _warn_of_slow_bf16(config, world)
            if not owned:
                raise UserError(
                    f"{run} is being trained by another process; wait for it or choose another out"
                )
            with taken_back(run, world) if resume is None else contextlib.nullcontext():
                task = _Run(config, run, world, stop)
            return task.execute()


class _Run:
    """One process's work on a run folder."""

    def __init__(self, config: TrainConfig, run: Path, world: World, stop: StopRequest) -> None:
        self.config, self.path, self.world, self.stop = config, run, world, stop
        self.started = time.monotonic()
        datasets = open_datasets(config)
        check_sets(config)
        self.fingerprint = fingerprint(datasets, config.data.split)
        model = build_model(config)
        loader = build_loader(config, datasets, model, world)
        check_memory(model, config, loader, world)
        self.cached = self._fill_cache(model, loader)
        self.total = config.schedule.total_steps(loader.count, config.batch.size)
        self.trainer = Trainer(config, model, loader, self.total, world)
        self.best = Best(config.eval)
        saved = self._restore()
        self.num_keys = saved[world.rank] if world.rank < len(saved) else 0
        self.keys_of_gone = saved[world.size :]  # of ranks that an earlier start had
        self.watch = Watch(
            run, world.rank, world.size, step=self.trainer.step, num_keys=saved, config=config.watch
        )
        self.saved_at, self.saved_step = time.monotonic(), self.trainer.step
        self.busy_seconds, self.busy_samples = 0.0, 0
        self.evaluation: dict[str, dict[str, float]] = {}
        self.evaluated_at, self.early = -1, False

    def _fill_cache(self, model: DualEncoder, loader: ShardLoader) -> bool:
        """Have batches hold image features where the config keeps such; False if stopped on the way."""
        found = feature_store(self.config, model, loader, self.fingerprint)
        if found is None:
            return True
        loader.read_features(found[0])
        return fill(*found, model, self.config, loader, self.world, lambda: self.stop.name is not None)

    def execute(self) -> TrainResult:
        """Step to the end or until stopped; then save, draw, export."""
        stopped = not self.cached  # by a signal; the end may also come early
        progress = Progress(self.total, self.trainer.step, enabled=self.world.first)
        try:
            with progress:
                while self.trainer.step < self.total and not (stopped or self.early):
                    result = self.trainer.take_step(flag=self._wants_attention())
                    self._note(result, progress)
                    stopped = self._attend(result)
            if self.trainer.step > self.saved_step:
                self._save()
        except LostShardError:
            if self.world.size == 1 and self.trainer.step > self.saved_step:  # several could not meet to save
                self._save()
            raise
        except RuntimeError as error:
            if self.world.size == 1 or not LOST.search(str(error)):
                raise
            raise FaultError(
                f"step {self.trainer.step + 1}: another rank was lost ({str(error).splitlines()[0]}); the "
                f"newest good checkpoint is {latest_checkpoint(self.path) or 'none'}: start the same command "
                f"with --resume {self.path}, or let torchrun do it (--max-restarts)"
            ) from error
        finally:
            self.trainer.batches.close()
            self.watch.close()
        return self._finish(stopped)

    def _wants_attention(self) -> bool:
        """Whether this rank was asked to stop, or the time for a checkpoint has come (rank 0's clock)."""
        minutes = self.config.checkpoint.every_minutes
        due = self.world.first and minutes > 0 and time.monotonic() - self.saved_at >= 60 * minutes
        return self.stop.name is not None or due

    def _note(self, result: StepResult, progress: Progress) -> None:
        config, trainer, step = self.config, self.trainer, self.trainer.step
        size = config.batch.size
        self.busy_seconds += result.seconds
        self.busy_samples += size
        self.num_keys += len(trainer.seen_keys)
        self.watch.add_keys(trainer.seen_keys)
        every, last = config.eval.every_steps, step == self.total
        evaluation = self._judge() if last or (every and step % every == 0) else None
        if evaluation is not None:
            self.evaluated_at = step
        if step % config.watch.every_steps == 0 or last or step == 1 or evaluation:
            row: dict[str, Any] = {
                "schema": "pathclip.metrics/1",
                "step": step,
                "loss": result.loss,
                **result.parts,
                "logit_scale": trainer.model.logit_scale.item(),
                "lr": result.lr,
                "samples_seen": step * size,
                "samples_per_s": size / result.seconds,
                "data_wait": result.wait_seconds / result.seconds,
                "grad_norm": result.grad_norm,
            }
            self.watch.add_row({**row, "eval": evaluation} if evaluation else row)
        progress.show(step, result, size, evaluation)

    def _judge(self) -> dict[str, dict[str, float]]:
        """Rank 0 measures; the others wait."""
        with self.trainer.judged() as model:
            if self.world.first:
                self.evaluation = judge(model, self.config)
                if self.best.take(self.evaluation, self.trainer.step):
                    record = {"step": self.trainer.step, "evaluation": self.evaluation}
                    model.save(self.path / "best", training=record)
        self.world.wait()
        return self.evaluation

    def _attend(self, result: StepResult) -> bool:
        """Save where due; True if the run shall stop."""
        every = self.config.checkpoint.every_steps
        by_step = every > 0 and self.trainer.step % every == 0
        stop = False
        if self.config.eval.early_stop and self.evaluated_at == self.trainer.step:
            self.early = self.world.any(self.best.exhausted)
        if result.flag:  # some rank wants something: find out together whether it is to stop
            stop = self.world.any(self.stop.name is not None)
        if by_step or result.flag:
            self._save()
        return stop

    def _save(self) -> None:
        state, world = self.trainer.state(), self.world
        rng = torch.stack([r.cpu() for r in world.gather(_rng_state(world).to(world.device))])
        keys = world.gather(torch.tensor([self.num_keys], device=world.device))
        meta = {
            "step": self.trainer.step,
            "total_steps": self.total,
            "samples_seen": self.trainer.step * self.config.batch.size,
            "sampler": state["sampler"],
            "norms": state["norms"],
            "loss_scale": state["loss_scale"],
            "best": self.best.state(),
            "keys": [*map(int, keys), *self.keys_of_gone],
            "world_size": world.size,
            "data": self.fingerprint,
            "model": self.trainer.model.name,
            "bad": self.trainer.loader.bad,
            "versions": {"pathclip": __version__, "torch": torch.__version__},
        }
        checkpoint = Checkpoint(state["weights"], state["optimizer"], rng, state["average"], meta)
        sharded = is_sharded(self.trainer.model)
        if world.first or sharded:
            keep = self.config.checkpoint.keep
            write_checkpoint(self.path, checkpoint, keep=keep, world=world if sharded else None)
        world.wait()
        self.saved_at, self.saved_step = time.monotonic(), self.trainer.step

    def _restore(self) -> list[int]:
        """Load the newest checkpoint, if there is one; returns each rank's samples seen up to it."""
        folder = latest_checkpoint(self.path)
        if folder is None:
            return []
        checkpoint = read_checkpoint(folder)
        meta, world = checkpoint.meta, self.world
        if meta["data"] != self.fingerprint:
            raise UserError(
                f"{self.path} was trained on other data than {', '.join(map(str, self.config.data.dataset))} "
                "holds now; resume with the dataset it started with, or start a new run"
            )
        try:
            state = {
                "weights": checkpoint.weights,
                "optimizer": checkpoint.optimizer,
                "average": checkpoint.average,
                "sampler": meta["sampler"],
                "norms": meta["norms"],
                "loss_scale": meta["loss_scale"],
            }
            if self.config.model.image_cache and not self.trainer.has_image_tower(checkpoint.weights):
                raise UserError(
                    f"checkpoint {folder} has another image tower than model.image_cache holds features of: "
                    "is model.init still what the run started with?"
                )
            self.trainer.restore(state, meta["step"])
        except (RuntimeError, ValueError, KeyError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"checkpoint {folder} is of another model ({meta['model']}) than this config builds "
                f"({self.trainer.model.name}): {str(error).splitlines()[0]}"
            ) from None
        if world.first:
            log.info("going on from %s, step %d of %d", folder, meta["step"], self.total)
        self.trainer.loader.bad.update(meta["bad"])
        self.best.restore(meta["best"])
        if meta["world_size"] == world.size:
            _set_rng_state(world, checkpoint.rng[world.rank])
        elif world.first:
            log.warning("resumed on %d ranks, saved on %d: not to the bit", world.size, meta["world_size"])
        return list(meta["keys"])

    def _finish(self, stopped: bool) -> TrainResult:
        rows: list[dict[str, Any]] = []
        if self.world.first:
            rows = read_metrics(self.path / "metrics.jsonl")
            draw_curves(self.path)
            self.evaluation = next((r["eval"] for r in reversed(rows) if "eval" in r), self.evaluation)
        model = None if stopped else self._export(rows)
        self.world.wait()
        losses = [row["loss"] for row in rows]
        return TrainResult(
            run=self.path,
            model=model,
            steps=self.trainer.step,
            samples_seen=self.trainer.step * self.config.batch.size,
            loss_first=losses[0] if losses else None,
            loss_last=losses[-1] if losses else None,
            samples_per_s=self.busy_samples / self.busy_seconds if self.busy_seconds else None,
            seconds=time.monotonic() - self.started,
            stopped=(self.stop.name or "another rank was stopped") if stopped else None,
            evaluation=self.evaluation,
            bad=dict(self.trainer.loader.bad),
            decoded_on_cpu=dict(self.trainer.loader.on_cpu),
            streamed=self._streamed(),
        )

    def _streamed(self) -> Passed | None:
        shards = self.trainer.loader.shards
        return shards.passed if shards is not None and shards.passed.shards else None

    def _export(self, rows: list[dict[str, Any]]) -> Path:
        from pathclip.heads import load_prompts

        prompts = load_prompts(self.config.prompts).to_dict() if self.config.prompts else None
        record = {
            "config": self.config.model_dump(mode="json"),
            "steps": self.trainer.step,
            "samples_seen": self.trainer.step * self.config.batch.size,
            "loss_last": rows[-1]["loss"] if rows else None,
            "data": self.fingerprint,
            "bad": len(self.trainer.loader.bad),
            "evaluation": self.evaluation,
        }
        with self.trainer.judged() as model:
            if self.world.first:
                if self.best.step is not None:
                    model, record["best_step"] = load(self.path / "best"), self.best.step
                model.save(self.path / "model", prompts=prompts, training=record)
        return self.path / "model"


def _rng_state(world: World) -> torch.Tensor:
    cpu = torch.get_rng_state()
    return torch.cat([cpu, torch.cuda.get_rng_state(world.device)]) if world.device.type == "cuda" else cpu


def _set_rng_state(world: World, state: torch.Tensor) -> None:
    length = len(torch.get_rng_state())
    torch.set_rng_state(state[:length].clone())
    if world.device.type == "cuda" and len(state) > length:
        torch.cuda.set_rng_state(state[length:].clone(), world.device)


def _warn_of_slow_bf16(config: TrainConfig, world: World) -> None:
    native = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86, Arm
    path = Path("/proc/cpuinfo")
    if config.precision != "bf16" or world.device.type != "cpu" or not (world.first and path.is_file()):
        return
    if not any(f" {flag} " in path.read_text().replace("\n", " ") for flag in native):
        log.warning('this CPU emulates bfloat16, many times slower than float32: set precision = "fp32"')
