"""Features of a set's pictures, and which of them could not be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from pathclip.core.errors import FaultError
from pathclip.encoders import BadPicture, DualEncoder, encode_pictures

if TYPE_CHECKING:
    from pathclip.evaluation.config import EvaluateConfig
    from pathclip.evaluation.datasets import LabelledImages
    from pathclip.evaluation.probe import ProbeConfig
    from pathclip.evaluation.wds import MultiLabelImages

__all__ = ["Encoded", "encode_all", "encode_labelled"]

log = logging.getLogger("pathclip")


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of N pictures.

    Attributes:
        features: (N, D) float32, unit length; NaN where a picture could not be read.
        good: Places of those that could.
        bad: The others, by the set's own names.
    """

    features: Tensor
    good: list[int]
    bad: tuple[BadPicture, ...]

    @property
    def rows(self) -> Tensor:
        """(G, D) features of those that could be read."""
        return self.features[self.good]


def encode_all(
    model: DualEncoder,
    pictures: Sequence[Any],
    name: Callable[[int], str],
    root: Path,
    *,
    batch_size: int,
    features: Literal["projected", "pooled"] = "projected",
    cache: Path | None = None,
) -> Encoded:
    """Encode every picture; what cannot be read is named, counted and left out.

    Args:
        model: The encoder.
        pictures: Paths, bytes, or what gives a picture when called.
        name: Of the picture at a place, for the result.
        root: Of the set, for messages.
        batch_size: Pictures per pass.
        features: Of the shared space, or of the tower before its projection.
        cache: Folder to keep features in and to find them again.

    Raises:
        FaultError: If no picture can be read, or the model gives features that are not finite.
    """
    table, failed = encode_pictures(
        model, list(pictures), batch_size=batch_size, features=features, progress=True, cache=cache
    )
    bad = tuple(BadPicture(item.index, name(item.index), item.reason) for item in failed)
    left_out = {item.index for item in bad}
    good = [i for i in range(len(pictures)) if i not in left_out]
    if not good:
        raise FaultError(
            f"{root}: none of {len(pictures)} pictures could be read; "
            f"the first is {bad[0].name}: {bad[0].reason}"
        )
    if bad:
        log.warning("%s: %d of %d pictures left out", root, len(bad), len(pictures))
    broken = int((~table[good].isfinite().all(dim=1)).sum())
    if broken:
        raise FaultError(
            f"the model gives features that are not finite for {broken} of {len(good)} pictures; its weights "
            "are damaged, or beyond its precision (try --set precision=fp32)"
        )
    return Encoded(table, good, bad)


def encode_labelled(
    model: DualEncoder,
    data: LabelledImages | MultiLabelImages,
    config: EvaluateConfig | ProbeConfig,
    *,
    features: Literal["projected", "pooled"] = "projected",
) -> Encoded:
    """`encode_all` for a set with classes, which names its pictures by their place in it."""
    return encode_all(
        model,
        data.pictures,
        lambda i: data.relative(data.pictures[i]),
        data.root,
        batch_size=config.batch_size,
        features=features,
        cache=config.cache,
    )
