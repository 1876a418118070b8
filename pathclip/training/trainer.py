"""One step of training, readable in a minute, and the state that a step depends on."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import statistics
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pathclip.batches import Batch, ShardLoader, staged
from pathclip.core.errors import FaultError
from pathclip.encoders import DualEncoder
from pathclip.encoders.architecture import build_clip
from pathclip.loss import ContrastiveLoss
from pathclip.training.average import Average
from pathclip.training.captions import caption_loss_weight, targets_per_rank
from pathclip.training.config import ModelConfig, TrainConfig
from pathclip.training.gradcache import cached_backward
from pathclip.training.loss_scale import LossScale
from pathclip.training.optim import build_optimizer, learning_rate, load_named_state, named_state
from pathclip.training.sharding import (
    exchange_scales,
    full,
    gradient_norm,
    is_sharded,
    local,
    scale_gradients,
    shard,
    sliced_like,
)
from pathclip.training.world import World

__all__ = ["MAX_LOGIT_SCALE", "StepResult", "Trainer", "placed", "towers_cast"]

log = logging.getLogger("pathclip")
MAX_LOGIT_SCALE = math.log(100)  # Radford et al. 2021 (arXiv:2103.00020), section 2.5
LOW_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}
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
        parts: What ``loss`` is made of where that is more than one thing: ``contrastive_loss``, and
            ``caption_loss`` in nats per token, before its weight.
    """

    loss: float
    grad_norm: float
    lr: float
    seconds: float
    wait_seconds: float
    flag: bool
    parts: Mapping[str, float]


class Trainer:
    """Model, optimizer, loader and the loop body that joins them.

    Args:
        config: The run.
        model: Moved to the world's device.
        loader: This rank's batches.
        total_steps: Length of the run, for the schedule.
        world: The processes.

    Raises:
        UserError: If captions are asked of a model without a decoder.
    """

    def __init__(
        self, config: TrainConfig, model: DualEncoder, loader: ShardLoader, total_steps: int, world: World
    ) -> None:
        self.config, self.world, self.loader, self.total_steps = config, world, loader, total_steps
        sharded = world.size > 1 and config.parallel == "fsdp"
        # channels last: a fifth faster for convolutions on the CPU, more with tensor cores; not with FSDP2
        layout = torch.contiguous_format if sharded else torch.channels_last
        self.model = placed(model, world.device, layout).train()
        self.caption_weight = caption_loss_weight(config, model)
        _lock(self.model, config.model, decoder=not self.caption_weight)
        if config.grad_checkpointing:
            self.model.clip.set_grad_checkpointing(True)
        if config.compile:
            _compile(self.model)
        if sharded:
            shard(self.model, world)
        self.average = Average(self.model.clip, config.optim.ema) if config.optim.ema else None
        self.wrapped: nn.Module = self.model
        if world.size > 1 and not sharded:
            self.wrapped = nn.parallel.DistributedDataParallel(self.model)
        self.loss = ContrastiveLoss(config.loss)
        self.optimizer = build_optimizer(self.model, config.optim)
        warmup = config.schedule.warmup_steps
        self.warmup = total_steps // 20 if warmup is None else warmup
        self.step = 0
        self.bad_steps = 0
        self.norms: deque[float] = deque(maxlen=RECENT_NORMS)
        self.loss_scale = LossScale(config.precision == "fp16")
        self.seen_keys: list[str] = []
        self.sampler = loader.state_dict()
        self.batches: Generator[Batch, None, None] = staged(self._trimmed(loader), world.device)

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
        parts, norm = self._gradients(batch)
        self._clip(norm)
        mean, any_flag, norm_value, means = self._share(parts, flag, norm)
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
        self.seen_keys, self.sampler = batch.keys, batch.sampler
        return StepResult(mean, norm_value, lr, time.perf_counter() - started, waited, any_flag, means)

    def _trimmed(self, batches: Iterable[Batch]) -> Generator[Batch, None, None]:
        """Tokens as long as the longest caption needs; a compiled tower wants one length."""
        for batch in batches:
            if not self.config.compile:
                batch = dataclasses.replace(batch, tokens=self.model.trim_tokens(batch.tokens))
            yield batch

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`_backward`'s parts, the gradients' norm; formed again with less lift where float16 overflowed."""
        while True:
            parts = self._backward(batch)
            norm = gradient_norm(self.model.parameters())
            if not self.loss_scale.enabled:
                return parts, norm
            finite = math.isfinite(norm.item())
            if not finite and self.world.any(not math.isfinite(parts.sum().item())):
                return parts, norm  # the batch's fault, not the lift's
            if not self.loss_scale.update(finite):
                return parts, norm
            self.optimizer.zero_grad(set_to_none=True)

    def _backward(self, batch: Batch) -> Tensor:
        """Form the gradients of contrastive + weight x caption loss; gives the two, or the first alone."""
        device = self.world.device
        ids = torch.stack([batch.positive_ids, batch.caption_ids], dim=1).to(device)
        lift = self.loss_scale.value

        def loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
            value: Tensor = self.loss(
                image,
                text,
                scale,
                bias=bias,
                image_ids=ids,
                text_ids=ids,
                process_group=self.world.group,
            )
            return value if lift == 1 else value * lift

        targets = targets_per_rank(self.model, batch, self.world) if self.caption_weight else None
        share = None if targets is None else self.caption_weight * lift / targets
        nats: Tensor | None
        if self.config.accumulation > 1:
            value, nats = cached_backward(
                self.model,
                self.wrapped,
                batch.images,
                batch.tokens,
                loss,
                self.config.accumulation,
                self._cast,
                share,
            )
        else:
            asked = {} if share is None else {"captions": True}
            with self._cast():
                image, text, scale, *said = self.wrapped(
                    batch.images.to(device, non_blocking=True), batch.tokens.to(device), **asked
                )
            value, nats = loss(image, text, scale, self.model.logit_bias), said[0] if said else None
            (value if nats is None else value + share * nats).backward()
        if is_sharded(self.model):
            exchange_scales(self.model, self.world)
        if lift != 1:
            scale_gradients(self.model.parameters(), value.new_tensor(1 / lift))
        contrastive = value.detach() / lift
        return contrastive[None] if nats is None else torch.stack([contrastive, nats.detach() / targets])

    def _cast(self) -> contextlib.AbstractContextManager[None]:
        return towers_cast(self.config, self.world.device)

    def _clip(self, norm: Tensor) -> None:
        limit = self.config.optim.grad_clip
        if limit is not None:
            scale_gradients(self.model.parameters(), (limit / (norm + 1e-6)).clamp(max=1))

    def _set_learning_rate(self) -> float:
        optim, schedule = self.config.optim, self.config.schedule
        lr = learning_rate(
            self.step, peak=optim.lr, warmup=self.warmup, total=self.total_steps, schedule=schedule
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_share"]
        return lr

    def _share(self, parts: Tensor, flag: bool, norm: Tensor) -> tuple[float, bool, float, dict[str, float]]:
        """The world's mean loss, whether any rank has a flag, the gradient norm, the parts: one exchange."""
        values = torch.stack([parts.new_tensor(float(flag)), norm.to(parts.dtype), *parts])
        flags, norm_mean, contrastive, *caption = self.world.mean(values).tolist()
        if not caption:
            return contrastive, flags > 0, norm_mean, {}
        loss = contrastive + self.caption_weight * caption[0]
        return loss, flags > 0, norm_mean, {"contrastive_loss": contrastive, "caption_loss": caption[0]}

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
            "optimizer": named_state(self.model, self.optimizer),
            "sampler": self.sampler,
            "average": None if self.average is None else self.average.weights,
            "norms": list(self.norms),
            "loss_scale": self.loss_scale.state(),
        }

    def has_image_tower(self, weights: Mapping[str, Tensor]) -> bool:
        """Whether the image tower among a state's weights is this one, to the bit; every rank must ask."""
        own = self.model.clip.state_dict()
        names = [name for name in own if name.startswith("visual.")]
        same = [  # of all of them: to slice a weight is the work of all ranks
            name in weights
            and torch.equal(
                local(sliced_like(weights[name], own[name])).to(self.world.device), local(own[name])
            )
            for name in names
        ]
        return not self.world.any(not all(same))

    def restore(self, state: dict[str, Any], step: int) -> None:
        """Go on from another trainer's `state`, taken after ``step`` steps."""
        own = self.model.clip.state_dict()
        self.model.clip.load_state_dict({n: sliced_like(w, own.get(n)) for n, w in state["weights"].items()})
        load_named_state(self.model, self.optimizer, state["optimizer"])
        self.loader.load_state_dict(state["sampler"])
        self.sampler = state["sampler"]
        self.norms.extend(state["norms"])
        self.loss_scale.restore(state["loss_scale"])
        if self.average is not None:
            average = state["average"] or state["weights"]
            self.average.restore({n: sliced_like(w, own.get(n)) for n, w in average.items()})
        self.step = step

    @contextlib.contextmanager
    def judged(self) -> Iterator[DualEncoder]:
        """Yields the model as it will be used: whole, with averaged weights where there are such.

        Every rank must enter; where weights are sliced, only the first may use what it gets.
        """
        with contextlib.nullcontext() if self.average is None else self.average.applied():
            if not is_sharded(self.model):
                yield self.model
                return
            weights = full(self.model.clip.state_dict())
            whole = self.model
            if self.world.first:
                architecture = self.model.architecture
                whole = DualEncoder(build_clip(architecture), architecture, source=self.model.source)
                whole.clip.load_state_dict(weights)
                whole = whole.to(self.world.device)
            yield whole


def towers_cast(config: TrainConfig, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """The autocast that a run's towers work under."""
    dtype = LOW_PRECISION.get(config.precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def placed(model: DualEncoder, device: torch.device, layout: torch.memory_format) -> DualEncoder:
    """The model on the device, its kernels laid out so; untouched if it is (a rehearsal's cannot move)."""
    kernels = [p for p in model.parameters() if p.ndim == 4]
    there = all(p.device == device for p in model.parameters())
    if there and all(k.is_contiguous(memory_format=layout) for k in kernels):
        return model
    return model.to(device, memory_format=layout)  # type: ignore[call-overload,no-any-return]


def _lock(model: DualEncoder, config: ModelConfig, *, decoder: bool) -> None:
    """Freeze whole towers, their norms' statistics too; the scale and the bias stay free."""
    image, others = model.clip.visual, ("visual", "text_decoder")
    if config.lock_image:
        image.requires_grad_(False).eval()
    if config.lock_text:
        for name, parameter in model.clip.named_parameters():
            if name.partition(".")[0] not in (*others, "logit_scale", "logit_bias"):
                parameter.requires_grad_(False)
        for name, module in model.clip.named_children():
            if name not in others:
                module.eval()
    if decoder and model.has_decoder:
        model.clip.text_decoder.requires_grad_(False).eval()


def _compile(model: DualEncoder) -> None:
    """Have torch compile the towers; names of weights stay."""
    for name, tower in model.clip.named_children():
        if name in ("visual", "text", "transformer"):
            tower.compile()
