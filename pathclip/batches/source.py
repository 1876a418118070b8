"""Sample number -> decoded, augmented picture with a caption, whatever thread or process asks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pathclip.batches.augment import change, choose_box, draw_change
from pathclip.batches.batch import stable_id
from pathclip.batches.config import BatchConfig
from pathclip.batches.decode import BadImageError, decode_crop
from pathclip.batches.device import Encoded, jpeg_size, unsuited
from pathclip.batches.features import FeatureStore
from pathclip.batches.order import AUGMENT, CAPTION
from pathclip.core.errors import FaultError, UserError
from pathclip.shards import ShardReader

__all__ = ["Item", "OwnPictures", "Source"]

MAX_REPLACED = 100  # neighbours tried for one sample that cannot be used


@dataclass(frozen=True, slots=True)
class Item:
    """What a sample is besides its picture.

    Attributes:
        key: Its sample id.
        caption: The one drawn.
        positive_id: From the sample's ``positive_id``.
        replaced: (sample, reason) of those that could not be used and that this one stands for.
        encoded: Its picture, where the device is to decode it.
        on_cpu: Why the device is not, where it was to.
    """

    key: str
    caption: str
    positive_id: int
    replaced: tuple[tuple[str, str], ...] = ()
    encoded: Encoded | None = None
    on_cpu: str | None = None


class Source:
    """The samples of several shards, numbered through. Can be pickled.

    Args:
        readers: The shards, in order.
        config: Captions and augmentation.
        image_size: Side of the pictures in pixels.
        seed: Of captions and augmentation.
        counts: Samples of each shard, where shards lie here only for a while. What replaces a bad sample is
            then looked for in its own shard.

    Attributes:
        count: Samples.
        features: Of the samples' pictures, to be read in their place; None to decode these.

    Raises:
        UserError: If a shard is missing or cut.
    """

    def __init__(
        self,
        readers: Sequence[ShardReader],
        config: BatchConfig,
        image_size: int,
        seed: int,
        counts: Sequence[int] | None = None,
    ) -> None:
        self.readers, self.config, self.image_size, self.seed = list(readers), config, image_size, seed
        self.passing = counts is not None
        self.ends = np.cumsum([_checked_length(r) for r in self.readers] if counts is None else counts)
        self.count = int(self.ends[-1]) if len(self.ends) else 0
        self.features: FeatureStore | None = None
        self._opened: set[int] = set()  # of shards that pass, those to be let go of again

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what a sample is loaded into: (H, W, 3) of bytes, or (D,) of float32."""
        return (self.image_size, self.image_size, 3) if self.features is None else (self.features.dim,)

    @property
    def dtype(self) -> type[np.generic]:
        """Of what a sample is loaded into."""
        return np.uint8 if self.features is None else np.float32

    def load(self, number: int, index: int, out: np.ndarray, *, on_cpu: str | None = None) -> Item:
        """Decode a sample into ``out``, or copy its feature; the next usable one where it is bad.

        With ``decode = "gpu"`` a picture that suits the device is left as it is, and so is ``out``.

        Args:
            number: The pass, which decides on the randomness together with seed and index.
            index: The sample.
            out: Of `shape` and `dtype`.
            on_cpu: Why not to leave it to the device.

        Raises:
            FaultError: If a hundred samples in a row cannot be used.
        """
        replaced: list[tuple[str, str]] = []
        for candidate in self._candidates(index):
            reader, row = self.locate(candidate)
            try:
                item = self._load(reader, row, number, candidate, out, on_cpu)
            except BadImageError as error:
                replaced.append((_name(reader, row), str(error)))
            except UserError as error:  # the shard was cut meanwhile
                if self.passing:
                    raise FaultError(str(error)) from None
                replaced.append((_name(reader, row), str(error)))
            else:
                return replace(item, replaced=tuple(replaced)) if replaced else item
        raise FaultError(
            f"shard {reader.path}: {len(replaced)} samples in a row cannot be used, the last because "
            f"{replaced[-1][1]}; run `pathclip data verify`"
        )

    def tidy(self) -> None:
        """Let go of shards that were removed: what is mapped still takes its room on the disk."""
        for shard in [s for s in list(self._opened) if not self.readers[s].path.exists()]:
            self.readers[shard].forget()
            self._opened.discard(shard)

    def _candidates(self, index: int) -> Iterator[int]:
        """The sample, then those that may stand for it."""
        first, count = 0, self.count
        if self.passing:
            shard = int(np.searchsorted(self.ends, index, side="right"))
            first = int(self.ends[shard - 1]) if shard else 0
            count = int(self.ends[shard]) - first
        for attempt in range(min(count, MAX_REPLACED)):
            yield first + (index - first + attempt) % count

    def _load(
        self, reader: ShardReader, row: int, number: int, index: int, out: np.ndarray, on_cpu: str | None
    ) -> Item:
        record = _record(reader, row)
        captions = _captions(record)
        if not captions:
            raise BadImageError("it has no caption")
        drawn = 0
        if len(captions) > 1 and self.config.captions == "any":
            drawn = int(np.random.default_rng([self.seed, number, index, CAPTION]).integers(len(captions)))
        view, encoded = self._view(number), None
        if self.features is not None:
            out[...] = self.features.row(view, index)
        elif self.config.decode == "cpu" or (on_cpu := on_cpu or unsuited(reader.jpg(row))):
            self.decode(reader, row, view, index, out)
        else:
            encoded = self._encoded(reader, row, view, index)
        key, positive = str(record["sample_id"]), record.get("positive_id")
        return Item(key, captions[drawn], stable_id(str(positive or key)), (), encoded, on_cpu)

    def captions(self, index: int) -> list[str]:
        """All captions of a sample; none where it cannot be read."""
        try:
            return _captions(_record(*self.locate(index)))
        except (BadImageError, UserError):
            return []

    def _encoded(self, reader: ShardReader, row: int, view: int, index: int) -> Encoded:
        """A picture as it is, with all that `decode` would do to it."""
        rng, augment = self._rng(view, index), self.config.augment
        data = bytes(reader.jpg(row))
        return Encoded(data, choose_box(*jpeg_size(data), augment, rng), draw_change(augment, rng))

    def _rng(self, view: int, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, view, index, AUGMENT])

    def decode(self, reader: ShardReader, row: int, view: int, index: int, out: np.ndarray) -> None:
        """Put a view of a sample's own picture into ``out``, uint8 (H, W, 3).

        Raises:
            BadImageError: If it does not decode.
            UserError: If the shard was cut meanwhile.
        """
        rng, augment = self._rng(view, index), self.config.augment
        image = decode_crop(reader.jpg(row), self.image_size, lambda w, h: choose_box(w, h, augment, rng))
        out[...] = change(image, augment, rng)

    def _view(self, number: int) -> int:
        """Which of a sample's pictures a pass takes."""
        views = self.config.num_views
        return number if views is None else number % views

    def locate(self, index: int) -> tuple[ShardReader, int]:
        """The shard of a sample, and its row there."""
        shard = int(np.searchsorted(self.ends, index, side="right"))
        if self.passing:
            self._opened.add(shard)
        return self.readers[shard], index - int(self.ends[shard - 1] if shard else 0)


class OwnPictures:
    """A source's pictures without their captions, and none in another's place. Can be pickled.

    Args:
        source: Of the samples.
    """

    dtype = np.uint8

    def __init__(self, source: Source) -> None:
        self.source = source
        self.shape = (source.image_size, source.image_size, 3)

    def load(self, view: int, index: int, out: np.ndarray) -> Item:
        """Decode a view of a sample; where it does not decode ``replaced`` says why, and ``out`` is black."""
        reader, row = self.source.locate(index)
        try:
            self.source.decode(reader, row, view, index, out)
        except BadImageError as error:
            out[...] = 0
            return Item("", "", 0, ((_name(reader, row), str(error)),))
        return Item("", "", 0)

    def tidy(self) -> None:
        """As the source's."""
        self.source.tidy()


def _name(reader: ShardReader, row: int) -> str:
    try:
        return f"{reader.path.name}, key {reader.key(row)}"
    except UserError:
        return f"{reader.path.name}, row {row}"


def _checked_length(reader: ShardReader) -> int:
    """Samples of a shard; opens it, so that a cut or missing one is met before training starts."""
    count = len(reader)
    if count:
        reader.jpg(0)
    return count


def _captions(record: dict[str, Any]) -> list[str]:
    return [c["text"] for c in record.get("captions") or () if c.get("text", "").strip()]


def _record(reader: ShardReader, row: int) -> dict[str, Any]:
    try:
        return reader.record(row)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadImageError(f"its json member is not JSON: {error}") from None
