"""Pictures in a model's own words, and a record of how they came about."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from pathclip.core.errors import UserError
from pathclip.core.files import atomic_write, strict_json
from pathclip.core.progress import track
from pathclip.encoders import BadPicture, DualEncoder, GenerateConfig, Generated
from pathclip.encoders.feed import prepared_blocks, stacked
from pathclip.encoders.generate import check_decoder, generate
from pathclip.encoders.pictures import describe as describe_item
from pathclip.encoders.pictures import split_batch

__all__ = ["NO_DIAGNOSIS", "Descriptions", "describe"]

DESCRIPTION_SCHEMA = "pathclip.description/1"
NO_DIAGNOSIS = "generated text, no diagnosis"
log = logging.getLogger("pathclip")


@dataclass(frozen=True, slots=True)
class Descriptions:
    """What a model says of N pictures: made up in the manner of its training captions, no diagnosis.

    Attributes:
        names: Name of each picture: its path, or position and type.
        generated: What is said of each, None for one that could not be read.
        bad: The pictures that could not be read, with the reason.
        provenance: Model, options, transform, versions.
    """

    names: tuple[str, ...]
    generated: tuple[Generated | None, ...]
    bad: tuple[BadPicture, ...]
    provenance: dict[str, Any]

    @property
    def texts(self) -> tuple[str | None, ...]:
        """Of each picture, None for one that could not be read."""
        return tuple(g.text if g else None for g in self.generated)

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row per picture, schema ``pathclip.description/1``."""
        reasons = {item.index: item.reason for item in self.bad}
        for index, (name, said) in enumerate(zip(self.names, self.generated, strict=True)):
            yield {
                "schema": DESCRIPTION_SCHEMA,
                "image": name,
                "text": said.text if said else None,
                "logprob": said.logprob if said else None,
                "complete": said.complete if said else None,
                "reason": reasons.get(index),
                "note": NO_DIAGNOSIS,
            }

    def save(self, folder: str | Path) -> Path:
        """Write ``descriptions.jsonl`` and, last, ``result.json`` into a folder."""
        from pathclip.heads.result import write_result

        folder = Path(folder)
        (folder / "result.json").unlink(missing_ok=True)  # it would vouch for lines that are being replaced
        with atomic_write(folder / "descriptions.jsonl", "w") as handle:
            handle.writelines(strict_json(row) + "\n" for row in self.rows())
        bad, total = [{"name": item.name, "reason": item.reason} for item in self.bad], len(self.names)
        write_result(
            folder,
            dataset=None,
            model=self.provenance["model"],
            task="captioning",
            metrics={},
            intervals={},
            provenance=self.provenance,
            details={
                "counts": {"total": total, "scored": total - len(bad), "bad": len(bad)},
                "bad": bad,
                "note": NO_DIAGNOSIS,
            },
        )
        return folder


def describe(
    model: DualEncoder,
    images: Any,
    options: GenerateConfig | None = None,
    *,
    batch_size: int = 64,
    progress: bool = False,
) -> Descriptions:
    """Put pictures into words, with a model that has a decoder (CoCa).

    The text is made up, word after likely word, in the manner of the captions that the model was trained on.
    It names what such captions name, whether the picture shows it or not: it is no finding and no diagnosis.

    Args:
        model: From `pathclip.load`.
        images: One or many paths, PIL pictures, uint8 arrays or tensors.
        options: How words are chosen; by default the likeliest next one, the same each time.
        batch_size: Pictures per pass.
        progress: Show how far along the work is.

    Raises:
        UserError: If the model has no decoder, or ``images`` holds things that are no pictures.

    Example::

        pathclip.describe(pathclip.load("run"), "a.jpg").texts
    """
    options = options or GenerateConfig()
    check_decoder(model, options)
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    items = split_batch(images)
    each = chain.from_iterable(_said(model, items, options, batch_size))
    outcomes = list(track(each, "pictures", len(items)) if progress else each)
    names = tuple(describe_item(item, index) for index, item in enumerate(items))
    bad = tuple(BadPicture(i, names[i], o) for i, o in enumerate(outcomes) if isinstance(o, str))
    if bad:
        listed = "; ".join(f"{item.name}: {item.reason}" for item in bad[:3])
        more = "; ..." if len(bad) > 3 else ""
        log.warning("%d of %d pictures not described: %s%s", len(bad), len(items), listed, more)
    provenance = {**model.provenance(), "generate": options.model_dump()}
    generated = tuple(None if isinstance(outcome, str) else outcome for outcome in outcomes)
    return Descriptions(names, generated, bad, provenance)


def _said(
    model: DualEncoder, items: list[Any], options: GenerateConfig, size: int
) -> Iterator[list[Generated | str]]:
    """Block by block: what is said of each picture, or why nothing is."""
    start = 0
    for block in prepared_blocks(model, items, size):
        good = [(start + i, picture) for i, picture in enumerate(block) if isinstance(picture, Tensor)]
        said: list[Generated] = []
        if good:
            places, pictures = zip(*good, strict=True)
            said = generate(model, stacked(model, list(pictures)), options, places=places)
        start += len(block)
        following = iter(said)
        yield [item if isinstance(item, str) else next(following) for item in block]
