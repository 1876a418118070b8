"""How much memory a run needs, and whether the machine has it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from pathclip.batches import ShardLoader
from pathclip.core.errors import UserError
from pathclip.core.memory import available_bytes, resident_bytes
from pathclip.encoders import DualEncoder
from pathclip.training.config import TrainConfig
from pathclip.training.image_cache import CHUNK, input_bytes
from pathclip.training.rehearsal import rehearse
from pathclip.training.world import World

__all__ = ["check_memory", "estimate_memory", "memory_room"]

log = logging.getLogger("pathclip")
TOLERANCE = 0.2  # that an estimate may be above what is then seen; see tests/benchmarks/train_memory.py
GIB = 2**30
WORKER = (
    "import pathclip.batches.workers; "
    "print(next(s.split()[1] for s in open('/proc/self/status') if s.startswith('RssAnon')))"
)


def estimate_memory(model: DualEncoder, config: TrainConfig, loader: ShardLoader, ranks: int = 1) -> int:
    """Bytes that one process of the run holds at its highest point, its decode processes included.

    What the process has by now (Python, torch), a rehearsal of two steps on tensors without memory, the
    batches decoded ahead, and with several ranks the buffers in which they exchange gradients. Shards that
    are mapped into memory do not count: the system takes those pages back when it needs them.

    Args:
        model: In the CPU's memory.
        config: The run.
        loader: Of the run; some captions are read.
        ranks: Processes that share each batch.

    Raises:
        UserError: If the model does not run.
    """
    size = -(-config.batch.size // ranks)
    step = rehearse(model, config, loader, size)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    exchanged = weights if ranks > 1 else 0
    base = max(resident_bytes() - weights, 0)
    return base + step + exchanged + _ahead(model, config, loader, size)


def _ahead(model: DualEncoder, config: TrainConfig, loader: ShardLoader, size: int) -> int:
    """Bytes of pictures decoded ahead, and of the processes that decode them."""
    workers = loader.config.workers or 0
    batch = size * input_bytes(config, model)
    if config.model.image_cache:
        batch = max(batch, CHUNK * 3 * model.image_size**2)  # while the cache is filled
    pictures = (loader.config.prefetch if workers else 0) * batch
    return pictures + (workers * _worker_bytes() if loader.config.processes else 0)


def _worker_bytes() -> int:
    """What a decode process has to itself, seen on one started for it; 0 where the system does not tell."""
    started = subprocess.run(
        [sys.executable, "-c", WORKER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    return int(started.stdout) * 1024 if started.returncode == 0 else 0


def memory_room() -> int | None:
    """Bytes that this process has or could have; None where the system does not tell."""
    available = available_bytes()
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return None if available is None else resident_bytes() + available // beside


def check_memory(model: DualEncoder, config: TrainConfig, loader: ShardLoader, world: World) -> None:
    """Refuse a run on the CPU that cannot fit, before the system kills it on the way; warn where it is close.

    A GPU says itself when it is full, and no other program suffers. Weights in slices are not estimated.

    Raises:
        UserError: If the estimate is above what can be had even when it is too high by its tolerance, unless
            ``low_memory`` is ``warn``.
    """
    if world.device.type != "cpu" or (world.size > 1 and config.parallel == "fsdp"):
        return
    need, room = estimate_memory(model, config, loader, world.size), memory_room()
    clearly = room is not None and need > (1 + TOLERANCE) * room
    if world.any(clearly) and config.low_memory == "refuse":  # every rank asks, so that all stop together
        raise UserError(_refusal(model, config, loader, world.size, need, room or need))
    if world.first and room is not None and need > room:
        log.warning(
            "this run needs about %.1f GiB of memory and can have %.1f GiB: it may be killed on the way",
            need / GIB,
            room / GIB,
        )


def _refusal(
    model: DualEncoder, config: TrainConfig, loader: ShardLoader, ranks: int, need: int, room: int
) -> str:
    def fits(**change: Any) -> bool:
        try:
            return estimate_memory(model, config.replace(**change), loader, ranks) <= room
        except UserError:  # batch norm of a single sample
            return False

    size, pieces = config.batch.size, config.accumulation
    smaller = _first(
        [size >> n for n in range(1, size.bit_length()) if size >> n >= ranks],
        lambda k: fits(batch=config.batch.replace(size=k)),
    )
    more = _first(
        [pieces << n for n in range(1, size.bit_length()) if pieces << n <= size // ranks],
        lambda k: fits(accumulation=k),
    )
    remedies = [f"batch.size = {smaller}"] if smaller else []
    remedies += [f"accumulation = {more}"] if more else []
    if not config.grad_checkpointing and fits(grad_checkpointing=True):
        remedies.append("grad_checkpointing = true")
    advice = f"set {' or '.join(remedies)}" if remedies else "no batch.size fits: take a smaller model"
    return (
        f"this run needs about {need / GIB:.1f} GiB of memory and can have {room / GIB:.1f} GiB: {advice} "
        '(low_memory = "warn" starts it all the same)'
    )


def _first(candidates: list[int], fits: Callable[[int], bool]) -> int | None:
    """The first candidate that fits, where all after it do too."""
    index = bisect_left(candidates, True, key=fits)
    return candidates[index] if index < len(candidates) else None
