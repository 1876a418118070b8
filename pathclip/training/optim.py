"""AdamW over two groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from pathclip.training.config import OptimConfig, ScheduleConfig

__all__ = ["build_optimizer", "learning_rate"]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves biases, norms and the scale (fewer than 2 axes) alone."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in wanted if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in wanted if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


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
