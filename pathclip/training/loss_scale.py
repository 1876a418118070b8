"""float16 needs its gradients lifted above the smallest numbers that it can hold."""

from __future__ import annotations

__all__ = ["LossScale"]


class LossScale:
    """A power of two that the loss is multiplied by; halved where a gradient overflows.

    Args:
        enabled: Whether it is used; 1 throughout where not.

    Source: Micikevicius et al. 2018 (arXiv:1710.03740), section 3.2, with torch's ``GradScaler``'s numbers.
    """

    GROWTH_STEPS = 2000

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.value = 65536.0 if enabled else 1.0
        self.good = 0

    def update(self, finite: bool) -> bool:
        """Take note whether a gradient was finite; True if it is worth forming again, with half the scale."""
        if finite:
            self.good += 1
            if self.good == self.GROWTH_STEPS:
                self.value, self.good = self.value * 2, 0
            return False
        self.good = 0
        if self.value == 1:
            return False
        self.value /= 2
        return True

    def state(self) -> list[float]:
        """For a checkpoint."""
        return [self.value, float(self.good)]

    def restore(self, state: list[float]) -> None:
        """Go on from another's `state`."""
        if self.enabled and state[0] > 1:
            self.value, self.good = state[0], int(state[1])
