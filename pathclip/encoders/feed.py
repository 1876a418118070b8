"""Pictures from anywhere through the image tower: decoded by threads, a batch ahead of the model."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pathclip.core.errors import FaultError, UserError
from pathclip.core.progress import track
from pathclip.encoders.pictures import as_rgb, describe, split_batch

if TYPE_CHECKING:
    from pathclip.encoders.encoder import DualEncoder

__all__ = ["BadPicture", "encode_pictures"]

MAX_THREADS = 8


@dataclass(frozen=True, slots=True)
class BadPicture:
    """A picture that could not be encoded.

    Attributes:
        index: Its position in the input.
        name: Its path, or position and type.
        reason: Why not.
    """

    index: int
    name: str
    reason: str


@torch.no_grad()
def encode_pictures(
    model: DualEncoder,
    images: Any,
    *,
    batch_size: int = 64,
    normalize: bool = True,
    features: str = "projected",
    progress: bool = False,
) -> tuple[Tensor, list[BadPicture]]:
    """The features of `DualEncoder.encode_images` together with the list of the pictures that failed.

    Returns:
        (N, D) float32 on the CPU with a row of NaN for each bad picture, and these in input order.

    Raises:
        UserError: If ``images`` holds things that are no pictures, or ``batch_size`` is below 1.
    """
    items = split_batch(images)
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    encoded: list[Tensor] = []
    good: list[int] = []
    bad: list[BadPicture] = []
    with model.evaluating(), ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        prepared = _prepared(model, items, pool, ahead=2 * batch_size)
        pending: list[Tensor] = []
        for index, outcome in enumerate(track(prepared, "pictures", len(items)) if progress else prepared):
            if isinstance(outcome, str):
                bad.append(BadPicture(index, describe(items[index], index), outcome))
                continue
            good.append(index)
            pending.append(outcome)
            if len(pending) == batch_size:
                encoded.append(_encode(model, pending, normalize, features))
                pending = []
        if pending:
            encoded.append(_encode(model, pending, normalize, features))
    return _scatter(encoded, good, len(items), model.embed_dim), bad


def _prepared(
    model: DualEncoder, items: list[Any], pool: ThreadPoolExecutor, ahead: int
) -> Iterator[Tensor | str]:
    queue: deque[Future[Tensor | str]] = deque()
    for item in items:
        queue.append(pool.submit(_prepare, model, item))
        if len(queue) > ahead:
            yield queue.popleft().result()
    while queue:
        yield queue.popleft().result()


def _prepare(model: DualEncoder, item: Any) -> Tensor | str:
    """A prepared tensor (3, S, S), uint8 or normalised float; or why there is none."""
    if isinstance(item, torch.Tensor) and item.is_floating_point():
        size = model.image_size
        if tuple(item.shape) != (3, size, size):
            return f"float tensor {tuple(item.shape)}; a normalised picture is (3, {size}, {size})"
        return item.detach().cpu().float() if item.isfinite().all() else "holds NaN or infinity"
    try:
        return model.preprocess(as_rgb(item))
    except FaultError as error:
        return str(error)


def _encode(model: DualEncoder, batch: list[Tensor], normalize: bool, features: str) -> Tensor:
    if all(picture.dtype == batch[0].dtype for picture in batch):
        pixels = torch.stack(batch)
    else:
        pixels = torch.stack(
            [p.to(model.device) if p.is_floating_point() else model.normalize_pixels(p) for p in batch]
        )
    return model.encode_pixels(pixels, normalize=normalize, features=features).cpu()


def _scatter(encoded: list[Tensor], good: list[int], total: int, width: int) -> Tensor:
    if not encoded:
        return torch.full((total, width), float("nan"))
    rows = torch.cat(encoded)
    if len(good) == total:
        return rows
    out = torch.full((total, rows.shape[1]), float("nan"))
    out[torch.tensor(good)] = rows
    return out
