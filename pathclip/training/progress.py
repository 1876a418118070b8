"""The line a person watches while a run goes: a bar on a terminal, a log line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Self

from pathclip.training.trainer import StepResult

__all__ = ["Progress"]

log = logging.getLogger("pathclip")
LOG_EVERY_S = 10.0


class Progress:
    """Loss, samples per second, share of waiting for data, time to go.

    Args:
        total: Steps of the run.
        start: Steps done before.
        enabled: False on all ranks but the first.
    """

    def __init__(self, total: int, start: int, *, enabled: bool) -> None:
        self.total, self.start, self.enabled = total, start, enabled
        self.began = self.logged = time.monotonic()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Self:
        if self.enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("steps"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task("", total=self.total, completed=self.start)
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, step: int, result: StepResult, size: int, evaluation: dict[str, Any] | None) -> None:
        """After every step."""
        if not self.enabled:
            return
        parts = " + ".join(f"{name.removesuffix('_loss')} {v:.4f}" for name, v in result.parts.items())
        text = (
            f"loss {result.loss:.4f}{f' ({parts})' if parts else ''}, {size / result.seconds:.0f} samples/s, "
            f"{result.wait_seconds / result.seconds:.0%} waiting for data"
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=step, description=text)
        now = time.monotonic()
        if evaluation:
            log.info("step %d: %s", step, _figures(evaluation))
        elif self.bar is None and (now - self.logged >= LOG_EVERY_S or step == self.total):
            self.logged = now
            left = (now - self.began) / max(step - self.start, 1) * (self.total - step)
            log.info("step %d of %d: %s, %.0f s to go", step, self.total, text, left)


def _figures(evaluation: dict[str, dict[str, float]]) -> str:
    return "; ".join(
        f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in values.items())
        for name, values in evaluation.items()
    )
