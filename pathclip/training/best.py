"""Early stopping: the best evaluation so far, and how long ago that was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pathclip.core.errors import UserError
from pathclip.training.config import EvalConfig

__all__ = ["Best"]


class Best:
    """Follows ``eval.early_stop``; does nothing where that is not set.

    Attributes:
        step: Of the best evaluation, or None.
        value: Of the metric there.
    """

    def __init__(self, config: EvalConfig) -> None:
        self.metric, self.patience = config.early_stop, config.patience
        self.step: int | None = None
        self.value: float | None = None
        self.since = 0
        name = (self.metric or "").partition(".")[0]
        if self.metric is not None and name not in config.names:
            known = ", ".join(config.names) or "none is named"
            raise UserError(f"eval.early_stop: there is no set {name!r}; under eval there are: {known}")

    @property
    def exhausted(self) -> bool:
        """Whether ``patience`` evaluations brought nothing better."""
        return self.since >= self.patience

    def take(self, evaluation: Mapping[str, Mapping[str, float]], step: int) -> bool:
        """Take note of an evaluation; True if it is the best so far.

        Raises:
            UserError: If the set has no such metric.
        """
        if self.metric is None:
            return False
        name, _, metric = self.metric.partition(".")
        if metric not in evaluation[name]:
            raise UserError(
                f"eval.early_stop: set {name} has no {metric!r}; it has: {', '.join(evaluation[name])}"
            )
        value = evaluation[name][metric]
        if self.value is not None and value <= self.value:
            self.since += 1
            return False
        self.step, self.value, self.since = step, value, 0
        return True

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"step": self.step, "value": self.value, "since": self.since}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from another's `state`."""
        self.step, self.value, self.since = state["step"], state["value"], state["since"]
