"""AdamW over groups of weights, and the learning rate as a function of the step."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pathclip.training.config import OptimConfig, ScheduleConfig
from pathclip.training.sharding import sliced_like

__all__ = ["build_optimizer", "learning_rate", "load_named_state", "named_state"]

BLOCK = re.compile(r"(?:resblocks|cross_attn|blocks|layers|stages)\.(\d+)\.")
FIRST = re.compile(
    r"(?:conv1|patch_embed|stem|class_embedding|cls_emb|positional_embedding|pos_embed|token_embedding|ln_pre)"
)
NamedState = dict[str, dict[str, Tensor]]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves biases, norms and the scale (fewer than 2 axes) alone.

    With ``layer_decay`` d, a weight that lies n blocks below its tower's output learns at d^n of the rate.
    Each group's share stands in its ``lr_share``.
    """
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    shares = _shares(wanted, config.layer_decay)
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for matrices in (True, False):
        for name, p in wanted.items():
            if (p.ndim >= 2) == matrices:
                groups.setdefault((matrices, shares[name], isinstance(p, DTensor)), []).append(p)
    return torch.optim.AdamW(
        [
            {"params": params, "weight_decay": config.weight_decay if matrices else 0.0, "lr_share": share}
            for (matrices, share, _), params in groups.items()
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def _shares(names: Mapping[str, nn.Parameter], decay: float | None) -> dict[str, float]:
    if decay is None:
        return dict.fromkeys(names, 1.0)
    blocks: dict[str, int] = {}  # of each tower
    depths: dict[str, int | None] = {}
    for name in names:
        tower, block = _tower(name), BLOCK.search(name)
        depths[name] = int(block[1]) + 1 if block else 0 if FIRST.search(name) else None
        if block:
            blocks[tower] = max(blocks.get(tower, 0), int(block[1]) + 1)
    return {
        name: 1.0 if depth is None else decay ** (blocks.get(_tower(name), 0) + 1 - depth)
        for name, depth in depths.items()
    }


def _tower(name: str) -> str:
    return next((tower for tower in ("visual", "text_decoder") if f".{tower}." in f".{name}"), "text")


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> NamedState:
    """AdamW's tensors by the weight's name, so that they fit another grouping or slicing."""
    return {name: dict(optimizer.state[p]) for name, p in model.named_parameters() if p in optimizer.state}


def load_named_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Take over what `named_state` gave.

    Raises:
        KeyError: If a weight that is trained has no state there.
    """
    for name, p in model.named_parameters():
        if p.requires_grad and state:
            optimizer.state[p] = {
                key: value.to(p.device) if key == "step" else _placed(value, p)
                for key, value in state[name].items()
            }


def _placed(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """As AdamW would have made it: sliced like the weight, and in the weight's order of memory."""
    return torch.empty_like(parameter, requires_grad=False).copy_(sliced_like(value, parameter))


def learning_rate(step: int, *, peak: float, warmup: int, total: int, schedule: ScheduleConfig) -> float:
    """Learning rate of a step, counted from 0: linear to ``peak``, then down to ``schedule.min_lr``.

    Example:
        >>> def rates(**schedule):
        ...     run = {"peak": 1.0, "warmup": 2, "total": 6, "schedule": ScheduleConfig(**schedule)}
        ...     return [round(learning_rate(step, **run), 3) for step in range(6)]
        >>> rates(kind="cosine")
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
        >>> rates(kind="constant")
        [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
        >>> rates(kind="cooldown", cooldown=0.5)
        [0.5, 1.0, 1.0, 1.0, 0.667, 0.333]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.kind == "constant":
        return peak
    if schedule.kind == "cooldown":
        left = (total - step) / (schedule.cooldown * total)
        height = min(left, 1.0)
    else:
        done = (step - warmup) / max(total - warmup, 1)
        height = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return schedule.min_lr + (peak - schedule.min_lr) * height
