"""Shards -> batches: any order at once through the index, decoded ahead, exact to resume."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pathclip.batches.batch import Batch, caption_id
from pathclip.batches.config import BatchConfig
from pathclip.batches.device import DeviceDecoder
from pathclip.batches.features import FeatureStore
from pathclip.batches.held import Held
from pathclip.batches.order import Order
from pathclip.batches.source import Item, OwnPictures, Source
from pathclip.batches.windowed import WindowedOrder
from pathclip.batches.workers import Decoders, Pending, Places
from pathclip.core.errors import UserError
from pathclip.shards import Dataset, ShardReader, ShardWindow

__all__ = ["ShardLoader"]

log = logging.getLogger("pathclip")


class ShardLoader:
    """Endless batches of one split, the same for any number of workers and split over any number of ranks.

    Position p of the stream is a sample and its randomness, both functions of (seed, pass, sample index)
    alone: workers, ranks and restarts change nothing. A global batch is ``config.size`` positions; rank r
    gets the r-th of ``world_size`` near-equal runs of it. There is no uneven last batch (see `Order`).

    A sample whose picture or captions cannot be used is named once in the log, kept in `bad`, and replaced
    by the next usable one of the split, so that a damaged file never changes what follows it.

    Args:
        dataset: One dataset, or several read as one.
        split: For example ``train``.
        config: Batch size, captions, augmentation, workers.
        tokenize: Texts -> int64 (n, T).
        image_size: Side of the pictures in pixels.
        seed: Of order, captions and augmentation.
        rank: This process.
        world_size: Processes that share each global batch.
        weights: Passes of each dataset in a pass of the whole; all 1 where left out.
        device: That decodes, with ``decode = "gpu"``.
        window: Stream: of each dataset only so many shards, and as many ahead, lie here at a time, and the
            samples of so many are shuffled together (see `WindowedOrder`). None shuffles, and needs, all.

    Attributes:
        count: Samples in a pass.
        bad: Sample -> why it could not be used.
        on_cpu: Why the device did not decode a picture -> how many of those this loader has given.
        shards: What lies here at a time; None where all of it does.

    Raises:
        UserError: If a shard is missing or cut, the split has fewer samples than a batch, or the device does
            not decode.
        FaultError: While streaming, if a shard cannot be had.
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
        weights: Sequence[float] = (),
        device: torch.device | None = None,
        window: int | None = None,
    ) -> None:
        datasets = [dataset] if isinstance(dataset, Dataset) else list(dataset)
        if weights and len(weights) != len(datasets):
            raise UserError(f"data.weights has {len(weights)} numbers for {len(datasets)} datasets")
        self.shards: ShardWindow | None = None
        self.order: Order | WindowedOrder
        if window is None:
            readers = [each.readers(split) for each in datasets]
            self.source = Source([r for each in readers for r in each], config, image_size, seed)
            self.order = Order([sum(map(len, each)) for each in readers], seed, weights)
        else:
            self.shards = ShardWindow(datasets, split)
            self.shards.check_room(window)
            counts = [[shard.count for shard in each.shards(split)] for each in datasets]
            passing = [ShardReader(path) for path in self.shards.paths]
            self.source = Source(passing, config, image_size, seed, [n for each in counts for n in each])
            self.order = WindowedOrder(counts, seed, window, weights)
        self.count = self.order.count
        if self.count < max(config.size, 1):
            raise UserError(
                f"split {split!r} has {self.count} samples, batch.size is {config.size}: "
                f"set batch.size to at most {self.count}"
            )
        if config.size < world_size:
            raise UserError(f"batch.size is {config.size}, there are {world_size} ranks: each needs a sample")
        self.config, self.seed, self.window = config, seed, window or 0
        self.rank, self.world_size = rank, world_size
        self.position = 0
        self.bad: dict[str, str] = {}
        self.on_cpu: Counter[str] = Counter()
        self._device = None
        if config.decode == "gpu":
            self._device = DeviceDecoder(image_size, device or torch.device("cpu"))
        self._tokens = lru_cache(maxsize=1 << 16)(lambda text: tokenize([text])[0])

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands after the batch yielded last: epoch, position in it, and what fixes it."""
        epoch, position = divmod(self.position, self.count)
        fixed = {"seed": self.seed, "count": self.count, "window": self.window}
        return {"epoch": epoch, "position": position, **fixed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another loader stood, whatever its ranks and workers were.

        Raises:
            UserError: If it read other data or had another seed.
        """
        for name, mine in (("seed", self.seed), ("count", self.count), ("window", self.window)):
            if (saved := state.get(name, 0)) != mine:
                raise UserError(
                    f"the checkpoint was made with {name} {saved}, this run has {mine}: "
                    "resume with the data and seed that the run started with"
                )
        self.position = state["epoch"] * self.count + state["position"]

    def captions(self, most: int) -> list[str]:
        """All captions of at most so many samples, from all over the data; none where shards are streamed."""
        if self.shards is not None:
            return []
        step = max(1, self.source.count // most)
        return [text for i in range(0, self.source.count, step) for text in self.source.captions(i)]

    def read_features(self, features: FeatureStore) -> None:
        """From now on batches hold image features in the place of pictures."""
        self.source.features = features

    def __iter__(self) -> Iterator[Batch]:
        start, size, held = self.position, self.config.size, self._held()
        decoders = self.decoders(self.source, len(self.share(start)))
        ahead: deque[Pending] = deque()
        try:
            while True:
                while len(ahead) < decoders.slots:
                    ahead.append(self._begin(decoders, held, start))
                    start += size
                pending = ahead.popleft()
                batch = self._assemble(pending.places, *pending.result())
                if held:
                    held.leave()
                if decoders.workers:
                    ahead.append(self._begin(decoders, held, start))
                    start += size
                yield batch
        finally:
            if self.shards is not None:
                self.shards.stop()
            decoders.close()
            if self.shards is not None:
                self.shards.close()
                self.source.tidy()

    def decoders(self, source: Source | OwnPictures, length: int) -> Decoders:
        """Workers as the config has them, for batches of at most ``length``."""
        config = self.config
        workers = 2 if config.workers is None else config.workers
        return Decoders(
            source,
            length,
            slots=config.prefetch if workers else 1,
            workers=workers,
            processes=bool(config.processes),
        )

    def _held(self) -> Held | None:
        if self.shards is None or isinstance(self.order, Order):
            return None
        return Held(self.order, self.shards)

    def _begin(self, decoders: Decoders, held: Held | None, start: int) -> Pending:
        if held is None:
            return decoders.start(self.share(start))
        ready = held.enter(start, start + self.config.size)  # of all ranks, so that they hold the same shards
        self.source.tidy()
        return decoders.start(self.share(start), ready)

    def share(self, start: int) -> Places:
        """(pass, sample index) of this rank's part of the global batch that starts at position ``start``."""
        size, rank, world = self.config.size, self.rank, self.world_size
        return self.order.window(start + size * rank // world, start + size * (rank + 1) // world)

    def _assemble(self, places: Places, pictures: np.ndarray, items: list[Item]) -> Batch:
        images = self._images(places, pictures, items)
        self.position += self.config.size
        for name, reason in (bad for item in items for bad in item.replaced):
            if name not in self.bad:
                self.bad[name] = reason
                log.warning("shard %s: sample replaced by the next usable one: %s", name, reason)
        return Batch(
            images=images,
            tokens=torch.stack([self._tokens(item.caption) for item in items]),
            positive_ids=torch.tensor([item.positive_id for item in items]),
            caption_ids=torch.tensor([_caption_id(item.caption) for item in items]),
            keys=[item.key for item in items],
            sampler=self.state_dict(),
        )

    def _images(self, places: Places, pictures: np.ndarray, items: list[Item]) -> Tensor:
        """The pictures (B, 3, H, W), channels last, or features (B, D); the device decodes what it was left.

        What fails there is loaded again without it, which may put another sample in its place.
        """
        if self._device is None:
            images = torch.from_numpy(pictures)
            return images.permute(0, 3, 1, 2) if images.ndim == 4 else images
        images, failed = self._device([item.encoded for item in items])
        for number in failed:
            place, out = places[number], pictures[number]
            items[number] = self.source.load(*place, out, on_cpu="the device failed")
        rest = [number for number, item in enumerate(items) if item.encoded is None]
        self._device.put(images, rest, pictures[rest])
        self._count_on_cpu(items)
        return images

    def _count_on_cpu(self, items: list[Item]) -> None:
        for item in items:
            if item.on_cpu and not self.on_cpu[item.on_cpu]:
                log.warning("sample %s is decoded on the CPU: %s (told once)", item.key, item.on_cpu)
            if item.on_cpu:
                self.on_cpu[item.on_cpu] += 1


_caption_id = lru_cache(maxsize=1 << 16)(caption_id)
