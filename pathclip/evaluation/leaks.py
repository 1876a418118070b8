"""Test pictures that a model may have learnt from: looked up in its training data."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.evaluation.datasets import CaptionedImages
from pathclip.ingest.leakcheck import leakcheck
from pathclip.shards import Dataset

__all__ = ["Leaks", "find_leaks", "leaks_of"]

log = logging.getLogger("pathclip")


@dataclass(frozen=True, slots=True)
class Leaks:
    """What lies in the training data too.

    Attributes:
        dataset: Path of the training data.
        split: Of it; None where it has none.
        pictures: Pictures of the training data that were compared.
        places: Positions of the test pictures that are among them.
        found: As `ingest.LeakReport.leaks`: benchmark, sample, match (bytes, pixels or near), distance.
        bad: What could not be compared, ``name: why``.
    """

    dataset: str
    split: str | None
    pictures: int
    places: frozenset[int]
    found: tuple[dict[str, Any], ...]
    bad: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As it stands in result.json."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "pictures": self.pictures,
            "also_in_training": len(self.places),
            "leaks": list(self.found),
            "not_compared": list(self.bad),
        }


def leaks_of(data: Any, against: Path | None) -> Leaks | None:
    """The pictures of a data set of any kind that ``against`` holds too; None where nothing is asked."""
    if against is None:
        return None
    if isinstance(data, CaptionedImages):  # these are in memory already
        held = [p if isinstance(p, Path) else functools.partial(bytes, bytes(p)) for p in data.pictures]
        return find_leaks(against, list(zip(data.keys, held, strict=True)))
    return find_leaks(against, [(data.relative(picture), picture) for picture in data.pictures])


def find_leaks(against: Path, named: Sequence[tuple[str, Any]]) -> Leaks:
    """Compare pictures with training data by bytes, by pixels, and by looking alike.

    Args:
        against: A dataset (its split ``train`` if it has one), shards, or a folder of pictures.
        named: (name, picture) of the test set; names are unique.

    Raises:
        UserError: If ``against`` holds no pictures.
    """
    places = {name: i for i, (name, _) in enumerate(named)}
    if len(places) < len(named):
        raise UserError(
            "two test pictures have the same name; their places in the training data cannot be told"
        )
    split = _train_split(against)
    plain = [(name, getattr(picture, "picture", picture)) for name, picture in named]  # before any resizing
    report = leakcheck(against, plain, split=split)
    found = frozenset(places[leak["benchmark"]] for leak in report.leaks)
    if found:
        log.warning(
            "%d of %d test pictures are also in %s, the first %s: see the figures without them",
            len(found),
            len(named),
            against,
            report.leaks[0]["benchmark"],
        )
    return Leaks(str(against), split, report.pictures, found, tuple(report.leaks), tuple(report.bad))


def _train_split(against: Path) -> str | None:
    if not (against / "index.json").is_file():
        return None
    return "train" if "train" in Dataset.open(against).splits else None
