from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pathclip.training.config import OptimConfig, ScheduleConfig
from pathclip.training.optim import build_optimizer, learning_rate


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv2d(1, 1, 3))
    model.register_parameter("logit_scale", nn.Parameter(torch.tensor(1.0)))
    decayed, left = build_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], left["weight_decay"]) == (0.3, 0.0)
    assert sorted(p.ndim for p in decayed["params"]) == [2, 4]
    assert sorted(p.ndim for p in left["params"]) == [0, 1, 1, 1, 1]


def test_a_frozen_parameter_is_not_optimised() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    (group,) = build_optimizer(model, OptimConfig()).param_groups
    assert group["params"] == [model.bias]


def test_learning_rate_warms_up_then_follows_half_a_cosine() -> None:
    schedule = ScheduleConfig(min_lr=0.2)
    rates = [learning_rate(s, peak=2.0, warmup=4, total=24, schedule=schedule) for s in range(24)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[14] == pytest.approx(1.1)  # half way down
    assert rates[9] == pytest.approx(0.2 + 1.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert learning_rate(24, peak=2.0, warmup=4, total=24, schedule=schedule) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [({"steps": 7}, 7), ({"epochs": 2}, 7), ({"epochs": 0.1}, 1), ({}, 32)],
)
def test_length_is_given_in_steps_or_passes(schedule: dict, steps: int) -> None:
    assert ScheduleConfig(**schedule).total_steps(count=25, batch_size=8) == steps
