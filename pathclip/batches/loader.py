"""Shards -> batches: any order at once through the index, decoded ahead in threads, exact to resume."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pathclip.batches.augment import choose_box, jitter_stain, restain, turn
from pathclip.batches.batch import Batch, caption_id, stable_id
from pathclip.batches.config import BatchConfig
from pathclip.batches.decode import BadImageError, decode_crop
from pathclip.batches.order import AUGMENT, CAPTION, Order
from pathclip.core.errors import FaultError, UserError
from pathclip.shards import Dataset, ShardReader

__all__ = ["ShardLoader"]

log = logging.getLogger("pathclip")
MAX_REPLACED = 100  # neighbours tried for one sample that does not decode


@dataclass(frozen=True, slots=True)
class _Item:
    key: str
    caption: str
    positive_id: int


class ShardLoader:
    """Endless batches of one split, the same for any number of workers and split over any number of ranks.

    Position p of the stream is a sample and its randomness, both functions of (seed, pass, sample index)
    alone: threads, ranks and restarts change nothing. A global batch is ``config.size`` positions; rank r
    gets the r-th of ``world_size`` near-equal runs of it. There is no uneven last batch (see `Order`).

    A sample whose picture or captions cannot be used is named once in the log, kept in `bad`, and replaced
    by the next usable one of the split, so that a damaged file never changes what follows it.

    Args:
        dataset: One dataset, or several read as one.
        split: For example ``train``.
        config: Batch size, captions, augmentation, threads.
        tokenize: Texts -> int64 (n, T).
        image_size: Side of the pictures in pixels.
        seed: Of order, captions and augmentation.
        rank: This process.
        world_size: Processes that share each global batch.

    Raises:
        UserError: If a shard is missing or cut, or the split has fewer samples than a batch.
    """

    def __init__(
        self,
        dataset: Dataset | Sequence[Dataset],
        split: str,
        config: BatchConfig,
        tokenize: Callable[[list[str]], Tensor],
        *,
        image_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        datasets = [dataset] if isinstance(dataset, Dataset) else list(dataset)
        self.readers = [reader for each in datasets for reader in each.readers(split)]
        self.ends = np.cumsum([_checked_length(reader) for reader in self.readers])
        self.count = int(self.ends[-1]) if len(self.ends) else 0
        if self.count < max(config.size, 1):
            raise UserError(
                f"split {split!r} has {self.count} samples, batch.size is {config.size}: "
                f"set batch.size to at most {self.count}"
            )
        if config.size < world_size:
            raise UserError(f"batch.size is {config.size}, there are {world_size} ranks: each needs a sample")
        self.config, self.image_size, self.seed = config, image_size, seed
        self.rank, self.world_size = rank, world_size
        self.order = Order(self.count, seed)
        self.position = 0
        self.bad: dict[str, str] = {}
        self._tokens = lru_cache(maxsize=1 << 16)(lambda text: tokenize([text])[0])

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands after the batch yielded last: epoch, position in it, and what fixes it."""
        epoch, position = divmod(self.position, self.count)
        return {"epoch": epoch, "position": position, "seed": self.seed, "count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another loader stood, whatever its ranks and workers were.

        Raises:
            UserError: If it read other data or had another seed.
        """
        for name, mine in (("seed", self.seed), ("count", self.count)):
            if state[name] != mine:
                raise UserError(
                    f"the checkpoint was made with {name} {state[name]}, this run has {mine}: "
                    "resume with the data and seed that the run started with"
                )
        self.position = state["epoch"] * self.count + state["position"]

    def __iter__(self) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(self.config.workers, "decode") if self.config.workers else None
        ahead: deque[_Pending] = deque()
        start = self.position
        try:
            while True:
                while len(ahead) < (self.config.prefetch if pool else 1):
                    ahead.append(_Pending(self, start, pool))
                    start += self.config.size
                batch = self._assemble(ahead.popleft())
                if pool:
                    ahead.append(_Pending(self, start, pool))
                    start += self.config.size
                self.position += self.config.size
                yield batch
        finally:
            if pool:
                pool.shutdown(wait=True, cancel_futures=True)

    def share(self, start: int) -> list[tuple[int, int]]:
        """(pass, sample index) of this rank's part of the global batch that starts at position ``start``."""
        size, rank, world = self.config.size, self.rank, self.world_size
        return self.order.window(start + size * rank // world, start + size * (rank + 1) // world)

    def load(self, number: int, index: int, out: np.ndarray) -> _Item:
        """Decode one sample into ``out`` (H, W, 3); the next usable one where it is bad."""
        attempts = min(self.count, MAX_REPLACED)
        for attempt in range(attempts):
            candidate = (index + attempt) % self.count
            reader, row = self._locate(candidate)
            try:
                return self._load(reader, row, [self.seed, number, candidate], out)
            except BadImageError as error:
                self._report(reader, row, str(error))
        raise FaultError(
            f"shard {reader.path}: {attempts} samples in a row cannot be used, the last because "
            f"{error_text(self.bad)}; run `pathclip data verify`"
        )

    def _load(self, reader: ShardReader, row: int, seeds: list[int], out: np.ndarray) -> _Item:
        record = _record(reader, row)
        captions = [c["text"] for c in record.get("captions") or () if c.get("text", "").strip()]
        if not captions:
            raise BadImageError("it has no caption")
        drawn = 0
        if len(captions) > 1 and self.config.captions == "any":
            drawn = int(np.random.default_rng([*seeds, CAPTION]).integers(len(captions)))
        rng, augment = np.random.default_rng([*seeds, AUGMENT]), self.config.augment
        image = decode_crop(reader.jpg(row), self.image_size, lambda w, h: choose_box(w, h, augment, rng))
        image = jitter_stain(restain(turn(image, augment, rng), augment, rng), augment, rng)
        out[...] = image
        key = str(record["sample_id"])
        return _Item(key, captions[drawn], stable_id(str(record.get("positive_id") or key)))

    def _locate(self, index: int) -> tuple[ShardReader, int]:
        shard = int(np.searchsorted(self.ends, index, side="right"))
        return self.readers[shard], index - int(self.ends[shard - 1] if shard else 0)

    def _report(self, reader: ShardReader, row: int, reason: str) -> None:
        name = f"{reader.path.name}, key {reader.key(row)}"
        if name not in self.bad:
            self.bad[name] = reason
            log.warning("shard %s: sample replaced by the next usable one: %s", name, reason)

    def _assemble(self, pending: _Pending) -> Batch:
        items = pending.result()
        return Batch(
            images=torch.from_numpy(pending.images).permute(0, 3, 1, 2),  # channels last, as the towers like
            tokens=torch.stack([self._tokens(item.caption) for item in items]),
            positive_ids=torch.tensor([item.positive_id for item in items]),
            caption_ids=torch.tensor([_caption_id(item.caption) for item in items]),
            keys=[item.key for item in items],
        )


class _Pending:
    """A batch under way: its pictures' memory and the threads' promises, one per run of samples."""

    def __init__(self, loader: ShardLoader, start: int, pool: ThreadPoolExecutor | None) -> None:
        self.loader = loader
        self.places = loader.share(start)
        side = loader.image_size
        self.images = np.empty((len(self.places), side, side, 3), np.uint8)
        step = -(-len(self.places) // max(4 * loader.config.workers, 1))  # short runs even the load out
        runs = [range(i, min(i + step, len(self.places))) for i in range(0, len(self.places), step)]
        self.parts: list[Future[list[_Item]] | range] = [
            pool.submit(self._run, r) if pool else r for r in runs
        ]

    def _run(self, run: range) -> list[_Item]:
        return [self.loader.load(*self.places[i], self.images[i]) for i in run]

    def result(self) -> list[_Item]:
        parts = [part.result() if isinstance(part, Future) else self._run(part) for part in self.parts]
        return [item for part in parts for item in part]


_caption_id = lru_cache(maxsize=1 << 16)(caption_id)


def _checked_length(reader: ShardReader) -> int:
    """Samples of a shard; opens it, so that a cut or missing one is met before training starts."""
    count = len(reader)
    if count:
        reader.jpg(0)
    return count


def _record(reader: ShardReader, row: int) -> dict[str, Any]:
    try:
        return reader.record(row)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadImageError(f"its json member is not JSON: {error}") from None


def error_text(bad: dict[str, str]) -> str:
    """The reason reported last."""
    return next(reversed(bad.values()), "unknown")
