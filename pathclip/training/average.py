"""A running average of the weights: what is judged and exported where ``optim.ema`` is set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Exponential moving average of everything in a model's state, running means of norms included.

    The decay of update t is ``min(decay, (1 + t) / (10 + t))``, so that the first weights, drawn at random,
    are soon forgotten. Every rank keeps its own; they are equal because the weights are.

    Args:
        model: Averaged from its weights as they are now.
        decay: Share of the old average that an update keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the model's weights after step ``step``, counted from 0."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - keep)
            else:
                self.weights[name].copy_(value)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from another average."""
        for name, value in self.weights.items():
            value.copy_(weights[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the model has the averaged weights."""
        own = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.model.load_state_dict(own)
