"""Process-wide settings of a run, put back when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import torch

from pathclip.training.config import TrainConfig
from pathclip.training.world import World

__all__ = ["StopRequest", "settings", "stop_on_signal"]


@contextlib.contextmanager
def settings(config: TrainConfig, world: World) -> Iterator[None]:
    """Threads, determinism and torch's random state; the caller's are restored."""
    threads = torch.get_num_threads()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    exact = world.device.type == "cpu" if config.deterministic is None else config.deterministic
    if exact and world.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            if config.threads is not None:
                torch.set_num_threads(config.threads)
            torch.use_deterministic_algorithms(exact)
            # on by default, to show reads of empty memory; costs a twentieth of a step
            torch.utils.deterministic.fill_uninitialized_memory = False
            torch.manual_seed(config.seed * 1_000_003 + world.rank)
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = fill
            torch.set_num_threads(threads)


class StopRequest:
    """Whether the process was asked to end, and by what."""

    name: str | None = None


@contextlib.contextmanager
def stop_on_signal(*signals: signal.Signals) -> Iterator[StopRequest]:
    """Note the signals instead of dying of them, so that a step can end and a checkpoint be written.

    A second signal of the kind ends the process at once. Does nothing outside the main thread.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {s: signal.getsignal(s) for s in signals}

    def note(number: int, frame: object) -> None:
        request.name = signal.Signals(number).name
        signal.signal(number, before[signal.Signals(number)])

    for s in signals:
        signal.signal(s, note)
    try:
        yield request
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
