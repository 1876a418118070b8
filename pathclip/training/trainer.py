"""One step of training, readable in a minute, and the state that a step depends on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pathclip.batches import Batch, ShardLoader
from pathclip.core.errors import FaultError
from pathclip.encoders import DualEncoder
from pathclip.loss import ContrastiveLoss
from pathclip.training.config import TrainConfig
from pathclip.training.optim import build_optimizer, learning_rate
from pathclip.training.world import World

__all__ = ["MAX_LOGIT_SCALE", "StepResult", "Trainer"]

MAX_LOGIT_SCALE = math.log(100)  # Radford et al. 2021 (arXiv:2103.00020), section 2.5


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did.

    Attributes:
        loss: Mean over the world's samples; NaN or infinite where the update was skipped.
        grad_norm: Of all gradients, before clipping.
        lr: Learning rate used.
        seconds: Wall time, waiting for data included.
        wait_seconds: Of it, waiting for data.
        flag: Whether any rank raised its flag.
    """

    loss: float
    grad_norm: float
    lr: float
    seconds: float
    wait_seconds: float
    flag: bool


class Trainer:
    """Model, optimizer, loader and the loop body that joins them.

    Args:
        config: The run.
        model: Moved to the world's device.
        loader: This rank's batches.
        total_steps: Length of the run, for the schedule.
        world: The processes.
    """

    def __init__(
        self, config: TrainConfig, model: DualEncoder, loader: ShardLoader, total_steps: int, world: World
    ) -> None:
        self.config, self.world, self.loader, self.total_steps = config, world, loader, total_steps
        # channels last: a fifth faster for convolutions on the CPU, more with tensor cores
        model = model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model.train()
        self.wrapped: nn.Module = self.model
        if world.size > 1:
            self.wrapped = nn.parallel.DistributedDataParallel(self.model)
        self.loss = ContrastiveLoss(config.loss)
        self.optimizer = build_optimizer(self.model, config.optim)
        warmup = config.schedule.warmup_steps
        self.warmup = total_steps // 20 if warmup is None else warmup
        self.step = 0
        self.bad_steps = 0
        self.seen_keys: list[str] = []
        self.batches: Iterator[Batch] = iter(loader)

    def take_step(self, flag: bool = False) -> StepResult:
        """Read a batch, move the weights once.

        A step whose loss or gradient is not finite leaves the weights alone.

        Args:
            flag: Something all ranks must learn of together, such as a request to stop or to save.

        Raises:
            FaultError: If ``max_bad_steps`` steps in a row had no finite loss.
        """
        started = time.perf_counter()
        batch = next(self.batches)
        waited = time.perf_counter() - started
        lr = self._set_learning_rate()
        loss = self._loss(batch)
        loss.backward()
        norm = self._clip()
        mean, any_flag, norm_value = self._share(loss.detach(), flag, norm)
        if math.isfinite(mean) and math.isfinite(norm_value):
            self.optimizer.step()
            self._clamp_scale()
            self.bad_steps = 0
        else:
            self._count_bad_step(mean, batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.seen_keys = batch.keys
        return StepResult(mean, norm_value, lr, time.perf_counter() - started, waited, any_flag)

    def _loss(self, batch: Batch) -> Tensor:
        device = self.world.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            image, text, scale = self.wrapped(
                batch.images.to(device, non_blocking=True), batch.tokens.to(device)
            )
        ids = torch.stack([batch.positive_ids, batch.caption_ids], dim=1).to(device)
        return self.loss(
            image,
            text,
            scale,
            bias=self.model.logit_bias,
            image_ids=ids,
            text_ids=ids,
            process_group=self.world.group,
        )

    def _clip(self) -> Tensor:
        """The gradient's norm, before it is clipped where the config says so."""
        wanted = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in wanted], foreach=True)
        if self.config.optim.grad_clip is not None:
            nn.utils.clip_grads_with_norm_(wanted, self.config.optim.grad_clip, norm, foreach=True)
        return norm

    def _set_learning_rate(self) -> float:
        optim, schedule = self.config.optim, self.config.schedule
        lr = learning_rate(
            self.step, peak=optim.lr, warmup=self.warmup, total=self.total_steps, floor=schedule.min_lr
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _share(self, loss: Tensor, flag: bool, norm: Tensor) -> tuple[float, bool, float]:
        """The world's mean loss, whether any rank has a flag, and the gradient's norm: one exchange."""
        if self.world.size == 1:
            return loss.item(), flag, norm.item()
        values = torch.stack([loss, loss.new_tensor(float(flag)), norm.to(loss.dtype)])
        mean, flags, norm_mean = self.world.mean(values).tolist()
        return mean, flags > 0, norm_mean

    @torch.no_grad()
    def _clamp_scale(self) -> None:
        self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

    def _count_bad_step(self, loss: float, batch: Batch) -> None:
        self.bad_steps += 1
        if self.bad_steps > self.config.max_bad_steps:
            raise FaultError(
                f"step {self.step + 1}: loss is {loss} for the {self.bad_steps}th time in a row (samples "
                f"{', '.join(batch.keys[:3])}, ...); lower optim.lr or set optim.grad_clip, then --resume"
            )

    def state(self) -> dict[str, Any]:
        """Weights, optimizer state and sampler position."""
        return {
            "weights": self.model.clip.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.loader.state_dict(),
        }

    def restore(self, weights: dict[str, Tensor], optimizer: dict[str, Any], step: int, sampler: Any) -> None:
        """Go on from another trainer's `state`."""
        self.model.clip.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)
        self.loader.load_state_dict(sampler)
        self.step = step
