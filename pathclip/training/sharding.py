"""FSDP2: every rank keeps a slice of each weight, its gradient and its optimizer state."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder
from pathclip.training.world import World

__all__ = ["exchange_scales", "full", "gradient_norm", "local", "scale_gradients", "shard", "sliced_like"]

STACKS = (
    "blocks",
    "layers",
    "resblocks",
    "stages",
    "cross_attn",
)  # what open_clip and timm call a tower's repeated parts


def shard(model: DualEncoder, world: World) -> None:
    """Slice the weights over the world, block by block of the towers, in place.

    The scale and the bias are scalars, which cannot be sliced: every rank keeps them (`exchange_scales`).

    Raises:
        UserError: If torch is too old for that.
    """
    if "ignored_params" not in inspect.signature(fully_shard).parameters:
        raise UserError(f'parallel = "fsdp" needs torch 2.7 or newer, this is {torch.__version__}')
    mesh = init_device_mesh(world.device.type, (world.size,))
    for name, stack in list(model.clip.named_modules()):
        if name.rpartition(".")[2] in STACKS and isinstance(stack, nn.ModuleList | nn.Sequential):
            for block in stack:
                fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=set(_scalars(model)))


def exchange_scales(model: DualEncoder, world: World) -> None:
    """Mean over ranks of the gradients that FSDP leaves to the caller."""
    for parameter in _scalars(model):
        if parameter.grad is not None:
            parameter.grad = world.mean(parameter.grad)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm over all gradients, of which some may be sliced; the same on every rank."""
    grads = [p.grad for p in parameters if p.grad is not None]
    sliced = [g for g in grads if isinstance(g, DTensor)]
    whole = [g for g in grads if not isinstance(g, DTensor)]
    if not sliced:
        return nn.utils.get_total_norm(whole, foreach=True)
    square = nn.utils.get_total_norm([g.to_local() for g in sliced]).square()
    dist.all_reduce(square)
    return (square + nn.utils.get_total_norm(whole).square()).sqrt() if whole else square.sqrt()


def scale_gradients(parameters: Iterable[nn.Parameter], factor: Tensor) -> None:
    """Multiply all gradients by a scalar."""
    torch._foreach_mul_([local(p.grad) for p in parameters if p.grad is not None], factor)


def local(tensor: Tensor) -> Tensor:
    """This rank's slice; the tensor itself where it is not sliced."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, on the CPU; every rank must call it."""
    return {
        name: (t.full_tensor() if isinstance(t, DTensor) else t).detach().cpu() for name, t in tensors.items()
    }


def sliced_like(tensor: Tensor, reference: Tensor | None) -> Tensor:
    """A whole tensor as ``reference`` is: sliced alike and on its device.

    Raises:
        ValueError: If the shapes differ.
    """
    if not isinstance(reference, DTensor):
        return tensor
    if tensor.shape != reference.shape:
        raise ValueError(f"size mismatch: {tuple(tensor.shape)} where {tuple(reference.shape)} is expected")
    return distribute_tensor(tensor.to(reference.device), reference.device_mesh, reference.placements)


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` was applied."""
    return isinstance(module, FSDPModule)


def _scalars(model: DualEncoder) -> list[nn.Parameter]:
    return [p for p in (model.logit_scale, model.logit_bias) if p is not None]
