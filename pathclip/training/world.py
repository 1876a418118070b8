"""The processes of a run: one, or what torchrun started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from pathclip.core.errors import UserError

__all__ = ["World", "join_world"]


@dataclass(frozen=True, slots=True)
class World:
    """This process among those of the run.

    Attributes:
        rank: 0 writes the run folder.
        size: Processes.
        device: Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    def group(self) -> dist.ProcessGroup | None:
        """What the loss gathers over; None for one process."""
        return dist.group.WORLD if self.size > 1 else None

    def mean(self, values: Tensor) -> Tensor:
        """Mean over ranks."""
        if self.size == 1:
            return values
        dist.all_reduce(values)
        return values / self.size

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank."""
        if self.size == 1:
            return flag
        value = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def gather(self, values: Tensor) -> list[Tensor]:
        """Everyone's tensor (of one shape), in rank order."""
        if self.size == 1:
            return [values]
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values)
        return parts

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def join_world(device: str) -> Iterator[World]:
    """Join the group that torchrun's environment describes, or be alone.

    Raises:
        UserError: If the device does not exist here.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = _device(device)
    if size == 1:
        yield World(0, 1, place)
        return
    mine = not dist.is_initialized()
    if mine:
        store, rank, size = next(dist.rendezvous("env://"))
        # torchrun's store outlives the ranks that it starts again: what those wrote there is stale
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        dist.init_process_group(
            "nccl" if place.type == "cuda" else "gloo",
            store=dist.PrefixStore(f"attempt{attempt}", store),
            rank=rank,
            world_size=size,
        )
    try:
        yield World(rank, size, place)
    finally:
        if mine:
            dist.destroy_process_group()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r} is unknown; expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device {name!r}: no CUDA device here; use --set device=cpu")
        device = torch.device("cuda", device.index or int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return device
