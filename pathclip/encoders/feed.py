"""Pictures from anywhere through the image tower: decoded by threads while the model works."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pathclip.core.errors import FaultError, UserError
from pathclip.core.progress import track
from pathclip.encoders.cache import FeatureCache, content_key, describe_model
from pathclip.encoders.jpeg import prepare_jpeg
from pathclip.encoders.pictures import as_rgb, describe, split_batch

if TYPE_CHECKING:
    from pathclip.encoders.encoder import DualEncoder

__all__ = ["BadPicture", "encode_pictures", "prepared_blocks", "stacked"]

MAX_THREADS = 8
LANE_PICTURES = 16
"""Pictures per pass where threads share the work: few enough for a core's cache."""
BATCHES_AHEAD = 2
STORED_AT_ONCE = 4096
log = logging.getLogger("pathclip")


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


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done with each block of pictures."""

    model: DualEncoder
    normalize: bool
    features: Literal["projected", "pooled"]

    @torch.no_grad()
    def encode(self, block: list[Tensor | str]) -> list[Tensor | str]:
        """Each prepared picture's feature (D,) on the CPU; a reason stays what it is."""
        good = [picture for picture in block if not isinstance(picture, str)]
        if not good:
            return block
        pixels = stacked(self.model, good)
        rows = self.model.encode_pixels(pixels, normalize=self.normalize, features=self.features).cpu()
        row = iter(rows)
        return [item if isinstance(item, str) else next(row) for item in block]


def prepare(model: DualEncoder, item: Any) -> Tensor | str:
    """A prepared tensor (3, S, S), uint8 or normalised float; or why there is none."""
    size = model.image_size
    if isinstance(item, torch.Tensor) and item.is_floating_point():
        if tuple(item.shape) != (3, size, size):
            return f"float tensor {tuple(item.shape)}; a normalised picture is (3, {size}, {size})"
        return item.detach().cpu().float() if item.isfinite().all() else "holds NaN or infinity"
    fast = prepare_jpeg(item, size, model.architecture.preprocess_cfg)
    if fast is not None:
        return fast
    try:
        return model.preprocess(as_rgb(item))
    except FaultError as error:
        return str(error)


def encode_pictures(
    model: DualEncoder,
    images: Any,
    *,
    batch_size: int = 64,
    normalize: bool = True,
    features: Literal["projected", "pooled"] = "projected",
    progress: bool = False,
    cache: str | Path | None = None,
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
    if cache is None:
        outcomes = _encoded(_Work(model, normalize, features), items, batch_size, progress)
    else:
        store = FeatureCache(cache, describe_model(model, "pictures", features))
        outcomes = _remembered(store, _Work(model, False, features), items, batch_size, progress)
    bad = [BadPicture(i, describe(items[i], i), o) for i, o in enumerate(outcomes) if isinstance(o, str)]
    table = _table(outcomes, model.embed_dim)
    return F.normalize(table, dim=-1) if normalize and cache is not None else table, bad


def _encoded(work: _Work, items: list[Any], batch_size: int, progress: bool) -> list[Tensor | str]:
    """The feature, or the reason why there is none, of each."""
    lanes = torch.get_num_threads() if work.model.device.type == "cpu" else 1
    if lanes > 1 and not torch.is_autocast_enabled("cpu"):  # a caller's autocast does not reach other threads
        most = LANE_PICTURES if work.model.precision == "fp32" else batch_size  # each pass casts the weights
        blocks = _side_by_side(work, items, max(1, min(most, batch_size // lanes)), lanes)
    else:
        blocks = map(work.encode, prepared_blocks(work.model, items, batch_size))
    with work.model.evaluating():
        each = chain.from_iterable(blocks)
        return list(track(each, "pictures", len(items)) if progress else each)


def _remembered(
    store: FeatureCache, work: _Work, items: list[Any], batch_size: int, progress: bool
) -> list[Tensor | str]:
    """As `_encoded`, but what the store has is taken from there, and what it lacks is added to it."""
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        keys = list(pool.map(content_key, items))
    first = {key: i for i, key in reversed(list(enumerate(keys))) if key is not None}
    known = {i: row for i, key in enumerate(keys) if (row := store.get(key)) is not None}
    lacking = [i for i, key in enumerate(keys) if i not in known and (key is None or first[key] == i)]
    found: dict[int, Tensor | str] = {**known}
    for start in range(0, len(lacking), STORED_AT_ONCE):
        part = lacking[start : start + STORED_AT_ONCE]
        new = dict(zip(part, _encoded(work, [items[i] for i in part], batch_size, progress), strict=True))
        kept = {key: row for i, row in new.items() if (key := keys[i]) and not isinstance(row, str)}
        store.add(list(kept), list(kept.values()))
        found.update(new)
    log.info("%d of %d pictures encoded, the others found in %s", len(lacking), len(items), store.folder)
    return [found[i if key is None or i in found else first[key]] for i, key in enumerate(keys)]


def prepared_blocks(model: DualEncoder, items: list[Any], size: int) -> Iterator[list[Tensor | str]]:
    """Blocks of ``size`` pictures as the model takes them, or why not; threads decode what comes next."""
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        queue = deque()
        for item in items:
            queue.append(pool.submit(prepare, model, item))
            if len(queue) == (BATCHES_AHEAD + 1) * size:
                yield [queue.popleft().result() for _ in range(size)]
        while queue:
            yield [queue.popleft().result() for _ in range(min(size, len(queue)))]


def _side_by_side(work: _Work, items: list[Any], size: int, lanes: int) -> Iterator[list[Tensor | str]]:
    """Each thread carries a block from file to feature on one core; none waits for another.

    One pass that several threads share leaves cores idle at every small step, and decoding would compete with
    it.
    """

    def whole(start: int) -> list[Tensor | str]:
        return work.encode([prepare(work.model, item) for item in items[start : start + size]])

    pool = ThreadPoolExecutor(lanes, initializer=partial(torch.set_num_threads, 1))
    try:
        yield from pool.map(whole, range(0, len(items), size))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(lanes)  # what the threads were told also holds for threads yet to come


def stacked(model: DualEncoder, pictures: list[Tensor]) -> Tensor:
    """Prepared pictures as one batch for the model; uint8 if all are."""
    if all(picture.dtype == torch.uint8 for picture in pictures):
        return torch.stack(pictures)
    return torch.stack(
        [p.to(model.device) if p.is_floating_point() else model.normalize_pixels(p) for p in pictures]
    )


def _table(outcomes: list[Tensor | str], width: int) -> Tensor:
    row = next((o for o in outcomes if not isinstance(o, str)), torch.empty(width))
    nothing = torch.full_like(row, float("nan"))
    rows = [nothing if isinstance(o, str) else o for o in outcomes]
    return torch.stack(rows) if rows else torch.empty(0, width)
