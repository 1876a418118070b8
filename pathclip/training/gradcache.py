"""A batch larger than memory: features first, the loss once over all, then the towers in pieces."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from pathclip.encoders import DualEncoder

__all__ = ["cached_backward"]

Loss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def cached_backward(
    model: DualEncoder,
    wrapped: nn.Module,
    images: Tensor,
    tokens: Tensor,
    loss: Loss,
    pieces: int,
    cast: Callable[[], contextlib.AbstractContextManager[None]],
    caption_share: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Accumulate the gradients of ``loss`` over the whole batch while the activations of one piece are alive.

    The first pass keeps features only; the loss is taken once, over all of them; the second pass repeats each
    piece with the random numbers of its first pass and takes its features' gradients through the towers. The
    result is that of one pass over the whole batch, except where samples meet inside a tower (batch norm).

    Args:
        model: The towers.
        wrapped: ``model``, or what wraps it for several ranks; gradients are exchanged with the last piece.
        images: (B, 3, S, S) uint8, this rank's share; may lie in the CPU's memory.
        tokens: int64 (B, T).
        loss: (image features (B, D), text features (B, D), scale, bias or None) -> scalar.
        pieces: How many; at most B are used.
        cast: Autocast of the towers.
        caption_share: What a nat of the captions adds to the objective; None where there is no decoder, or it
            is not asked. Captions are a sum over samples, so each piece takes its part in the second pass.

    Returns:
        The loss and the captions' nats, detached.

    Source: Gao et al. 2021 (arXiv:2101.06983), with the random state replayed.
    """
    device = model.device
    parts = list(zip(images.tensor_split(pieces), tokens.tensor_split(pieces), strict=True))
    parts = [(i, t) for i, t in parts if len(i)]

    def encode(module: nn.Module, part: tuple[Tensor, Tensor], captions: bool) -> tuple[Tensor, ...]:
        asked = {"captions": True} if captions else {}
        with cast():
            features: tuple[Tensor, ...] = module(
                part[0].to(device, non_blocking=True), part[1].to(device), **asked
            )
        return features

    states, kept = [], []
    with torch.no_grad(), _buffers_kept(model):
        for part in parts:
            states.append(_random_state(device))
            image, text, scale = encode(model, part, captions=False)
            kept.append((image, text))
    image, text = (torch.cat(f).requires_grad_() for f in zip(*kept, strict=True))
    leaves = [image, text, scale.detach().requires_grad_()]
    bias = None if model.logit_bias is None else model.logit_bias.detach().requires_grad_()
    value = loss(*leaves, bias)
    grads = torch.autograd.grad(value, leaves if bias is None else [*leaves, bias])

    nats = None if caption_share is None else torch.zeros_like(caption_share)
    sizes = [len(i) for i, _ in parts]
    for number, (part, state, image_grad, text_grad) in enumerate(
        zip(parts, states, grads[0].split(sizes), grads[1].split(sizes), strict=True)
    ):
        last = number == len(parts) - 1
        _set_random_state(device, state)
        with contextlib.nullcontext() if last else _not_exchanged(wrapped):
            image, text, scale, *said = encode(wrapped, part, captions=caption_share is not None)
            outputs, wanted = [image, text], [image_grad, text_grad]
            if caption_share is not None and nats is not None:
                outputs += said
                wanted.append(caption_share)
                nats += said[0].detach()
            if last:  # the scale and the bias belong to the whole batch
                outputs.append(scale)
                wanted.append(grads[2])
                if model.logit_bias is not None:
                    outputs.append(model.logit_bias)
                    wanted.append(grads[3])
            reached = [(o, g) for o, g in zip(outputs, wanted, strict=True) if o.requires_grad]
            torch.autograd.backward([o for o, _ in reached], [g for _, g in reached])
    return value.detach(), nats


@contextlib.contextmanager
def _not_exchanged(module: nn.Module) -> Iterator[None]:
    """Inside the block gradients stay on this rank."""
    if isinstance(module, DistributedDataParallel):
        with module.no_sync():
            yield
    elif isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(False)
        yield
        module.set_requires_gradient_sync(True)
    else:
        yield


@contextlib.contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put buffers (running means) back afterwards: the second pass is the one that counts."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    yield
    for buffer, value in before:
        buffer.copy_(value)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
