"""One distributed mode, no flags: gather the texts, compute one block per rank, add up the columns.

Every rank's result is its share of the world's loss times W, and so are its gradients: what DDP does (the
mean over ranks) then gives exactly the loss and the gradients of one process with the whole batch, the
scale's included, also where ranks hold unequal shares. Images are never gathered.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pathclip.core.errors import UserError

__all__ = ["Ranks"]


class Ranks:
    """The ranks of a process group and what each of them holds.

    Args:
        group: The process group.
        num_local: Texts of this rank; may differ between ranks.
        device: Of the tensors exchanged.

    Raises:
        UserError: If torch.distributed is not initialised, or this process is not in the group.
    """

    def __init__(self, group: dist.ProcessGroup, num_local: int, device: torch.device) -> None:
        if not dist.is_initialized():
            raise UserError("process_group was given, but torch.distributed is not initialised (torchrun)")
        self.group, self.size, self.rank = group, dist.get_world_size(group), dist.get_rank(group)
        if self.rank < 0:
            raise UserError("process_group was given, but this process is not a member of it")
        counts = torch.zeros(self.size, dtype=torch.int64, device=device)
        counts[self.rank] = num_local
        self.counts = self.sum(counts).tolist()
        self.start = sum(self.counts[: self.rank])
        self.total = sum(self.counts)

    def sum(self, value: Tensor) -> Tensor:
        """Sum over ranks; its gradient is the sum of the ranks' gradients."""
        return _Sum.apply(value, self.group)

    def reduce(self, value: Tensor, op: str) -> Tensor:
        """Sum (differentiable) or maximum (not) over ranks."""
        if op == "sum":
            return self.sum(value)
        value = value.detach().clone()
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self.group)
        return value

    def gather(self, value: Tensor) -> Tensor:
        """All ranks' rows, in rank order; the gradient is summed over ranks and each gets its own rows."""
        return _Gather.apply(value, self)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        value = value.clone()
        dist.all_reduce(value, group=group)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        most = max(ranks.counts)  # collectives want equal shapes: pad, gather, cut
        padded = value.new_zeros(most, *value.shape[1:])
        padded[: len(value)] = value
        parts = [torch.empty_like(padded) for _ in range(ranks.size)]
        dist.all_gather(parts, padded, group=ranks.group)
        return torch.cat([part[:count] for part, count in zip(parts, ranks.counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ranks: Ranks = ctx.ranks
        dtype, grad = grad.dtype, grad.float() if grad.itemsize < 4 else grad  # sums of ranks in float32
        if dist.get_backend(ranks.group) == "nccl" and len(set(ranks.counts)) == 1:
            mine = grad.new_empty(ranks.counts[ranks.rank], *grad.shape[1:])
            dist.reduce_scatter_tensor(mine, grad.contiguous(), group=ranks.group)
            return mine.to(dtype), None
        grad = grad.clone()
        dist.all_reduce(grad, group=ranks.group)
        return grad[ranks.start : ranks.start + ranks.counts[ranks.rank]].to(dtype), None
