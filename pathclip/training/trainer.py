"""One step of training, readable in a minute, and the state that a step depends on."""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pathclip.batches import Batch, ShardLoader
from pathclip.core.errors import FaultError
from pathclip.encoders import DualEncoder
from pathclip.loss import ContrastiveLoss
from pathclip.training.average import Average
from pathclip.training.config import ModelConfig, TrainConfig
from pathclip.training.gradcache import cached_backward
from pathclip.training.optim import build_optimizer, learning_rate
from pathclip.training.world import World

__all__ = ["MAX_LOGIT_SCALE", "StepResult", "Trainer"]

log = logging.getLogger("pathclip")
MAX_LOGIT_SCALE = math.log(100)  # Radford et al. 2021 (arXiv:2103.00020), section 2.5
RECENT_NORMS, FEWEST_NORMS = 64, 16  # that a step's gradient norm is compared with


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
        _lock(self.model, config.model)
        if config.grad_checkpointing:
            self.model.clip.set_grad_checkpointing(True)
        self.average = Average(self.model.clip, config.optim.ema) if config.optim.ema else None
        self.wrapped: nn.Module = self.model
        if world.size > 1:
            self.wrapped = nn.parallel.DistributedDataParallel(self.model)
        self.loss = ContrastiveLoss(config.loss)
        self.optimizer = build_optimizer(self.model, config.optim)
        warmup = config.schedule.warmup_steps
        self.warmup = total_steps // 20 if warmup is None else warmup
        self.step = 0
        self.bad_steps = 0
        self.norms: deque[float] = deque(maxlen=RECENT_NORMS)
        self.seen_keys: list[str] = []
        self.batches: Iterator[Batch] = iter(loader)

    def take_step(self, flag: bool = False) -> StepResult:
        """Read a batch, move the weights once.

        A step whose loss or gradient is not finite, or whose gradient is far above the recent ones where
        ``optim.max_norm_ratio`` says so, leaves the weights alone.

        Args:
            flag: Something all ranks must learn of together, such as a request to stop or to save.

        Raises:
            FaultError: If more than ``max_bad_steps`` steps in a row were left out.
        """
        started = time.perf_counter()
        batch = next(self.batches)
        waited = time.perf_counter() - started
        lr = self._set_learning_rate()
        loss = self._backward(batch)
        norm = self._clip()
        mean, any_flag, norm_value = self._share(loss, flag, norm)
        trouble = self._trouble(mean, norm_value)
        if trouble is None:
            self.optimizer.step()
            self._clamp_scale()
            self.norms.append(norm_value)
            self.bad_steps = 0
        else:
            self._count_bad_step(trouble, batch)
        if self.average is not None:
            self.average.update(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.seen_keys = batch.keys
        return StepResult(mean, norm_value, lr, time.perf_counter() - started, waited, any_flag)

    def _backward(self, batch: Batch) -> Tensor:
        """Gradients of the batch's loss; returns the loss, detached."""
        device = self.world.device
        ids = torch.stack([batch.positive_ids, batch.caption_ids], dim=1).to(device)

        def loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
            return self.loss(
                image,
                text,
                scale,
                bias=bias,
                image_ids=ids,
                text_ids=ids,
                process_group=self.world.group,
            )

        if self.config.accumulation > 1:
            return cached_backward(
                self.model,
                self.wrapped,
                batch.images,
                batch.tokens,
                loss,
                self.config.accumulation,
                self._cast,
            )
        with self._cast():
            features = self.wrapped(batch.images.to(device, non_blocking=True), batch.tokens.to(device))
        value = loss(*features, self.model.logit_bias)
        value.backward()
        return value.detach()

    def _cast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

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
            self.step, peak=optim.lr, warmup=self.warmup, total=self.total_steps, schedule=schedule
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

    def _trouble(self, loss: float, norm: float) -> str | None:
        """Why this step must not move the weights; None if it may."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"loss is {loss}, gradient norm {norm}"
        ratio = self.config.optim.max_norm_ratio
        if ratio is not None and len(self.norms) >= FEWEST_NORMS:
            usual = statistics.median(self.norms)
            if norm > ratio * usual:
                return f"gradient norm is {norm:.3g}, {norm / usual:.1f} times the recent median"
        return None

    def _count_bad_step(self, trouble: str, batch: Batch) -> None:
        self.bad_steps += 1
        samples = f"samples {', '.join(batch.keys[:3])}, ..."
        if self.world.first:
            log.warning("step %d left out: %s (%s)", self.step + 1, trouble, samples)
        if self.bad_steps > self.config.max_bad_steps:
            raise FaultError(
                f"step {self.step + 1}: {trouble}; {self.bad_steps} such steps in a row ({samples}): "
                "lower optim.lr or set optim.grad_clip, then --resume"
            )

    def state(self) -> dict[str, Any]:
        """Weights, optimizer state and sampler position."""
        return {
            "weights": self.model.clip.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.loader.state_dict(),
            "average": None if self.average is None else self.average.weights,
            "norms": list(self.norms),
        }

    def restore(self, state: dict[str, Any], step: int) -> None:
        """Go on from another trainer's `state`, taken after ``step`` steps."""
        self.model.clip.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["sampler"])
        self.norms.extend(state["norms"])
        if self.average is not None:
            self.average.restore(state["average"] or state["weights"])
        self.step = step

    def judged(self) -> contextlib.AbstractContextManager[None]:
        """Inside the block the model is as it will be used: with averaged weights, where there are such."""
        return contextlib.nullcontext() if self.average is None else self.average.applied()


def _lock(model: DualEncoder, config: ModelConfig) -> None:
    """Freeze whole towers, their norms' statistics too; the scale and the bias stay free."""
    image, scales = model.clip.visual, {"logit_scale", "logit_bias"}
    if config.lock_image:
        image.requires_grad_(False).eval()
    if config.lock_text:
        for name, parameter in model.clip.named_parameters():
            if not name.startswith("visual.") and name not in scales:
                parameter.requires_grad_(False)
        for name, module in model.clip.named_children():
            if name != "visual":
                module.eval()
