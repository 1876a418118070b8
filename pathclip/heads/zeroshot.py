"""Zero-shot classification: pictures against prompts, with a record of how the numbers came about."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pathclip.core.files import atomic_path
from pathclip.encoders import BadPicture, DualEncoder, encode_pictures
from pathclip.encoders.pictures import describe, split_batch
from pathclip.heads.prompts import Prompts, load_prompts
from pathclip.heads.strategies import Strategy, check_strategy, screened_classifier, single_prompts

__all__ = ["ZeroShotResult", "build_classifier", "classify"]

log = logging.getLogger("pathclip")
PREDICTIONS_SCHEMA = "pathclip.predictions/1"


@dataclass(frozen=True, slots=True)
class ZeroShotResult:
    """Scores of N pictures for C classes.

    Attributes:
        scores: (N, C) float32, cosine of picture and class; a row of NaN for an unreadable picture.
        probabilities: (N, C) float32, softmax of scale times scores.
        labels: Best class of each picture, None for one that could not be read.
        classnames: The C classes, in column order.
        names: Name of each picture: its path, or position and type.
        provenance: Model, prompts, temperature, transform, versions.
        bad: The pictures that could not be read, with the reason.
        features: (N, D) of the pictures, unit length, NaN where unreadable; not saved.
    """

    scores: Tensor
    probabilities: Tensor
    labels: tuple[str | None, ...]
    classnames: tuple[str, ...]
    names: tuple[str, ...]
    provenance: dict[str, Any]
    bad: tuple[BadPicture, ...] = field(default=())
    features: Tensor | None = field(default=None, repr=False)

    def table(self) -> Any:
        """One row per picture, as a polars frame: image, label, probability, reason, scores and so on."""
        import polars as pl

        reasons = {item.index: item.reason for item in self.bad}
        best = self.probabilities.max(dim=1).values.tolist() if len(self.names) else []
        columns: dict[str, Any] = {
            "image": list(self.names),
            "label": list(self.labels),
            "probability": best,
            "reason": [reasons.get(index) for index in range(len(self.names))],
        }
        for prefix, values in (("score", self.scores), ("prob", self.probabilities)):
            for column, label in enumerate(self.classnames):
                columns[f"{prefix}_{label}"] = values[:, column].tolist()
        schema = dict.fromkeys(columns, pl.Float32) | dict.fromkeys(("image", "label", "reason"), pl.String)
        return pl.DataFrame(columns, schema=schema).with_columns(pl.selectors.float().fill_nan(None))

    def save(self, folder: str | Path) -> Path:
        """Write ``predictions.parquet``, ``predictions.csv`` and, last, ``result.json`` into a folder."""
        import pyarrow.parquet as pq

        from pathclip.heads.result import write_result

        folder = Path(folder)
        (folder / "result.json").unlink(missing_ok=True)  # it would vouch for files that are being replaced
        table = self.table()
        with atomic_path(folder / "predictions.parquet") as temporary:
            pq.write_table(
                table.to_arrow().replace_schema_metadata({"schema": PREDICTIONS_SCHEMA}), temporary
            )
        with atomic_path(folder / "predictions.csv") as temporary:
            table.write_csv(temporary)
        bad, total = [{"name": item.name, "reason": item.reason} for item in self.bad], len(self.names)
        write_result(
            folder,
            dataset=None,
            model=self.provenance["model"],
            task="zeroshot_classification",
            metrics={},
            intervals={},
            provenance=self.provenance,
            classnames=self.classnames,
            details={"counts": {"total": total, "scored": total - len(bad), "bad": len(bad)}, "bad": bad},
        )
        return folder


def build_classifier(model: DualEncoder, prompts: Any, *, batch_size: int = 256) -> Tensor:
    """One unit column per class.

    Per set, the unit features of all names in all templates are averaged and renormalised. Over several sets
    the columns are averaged and renormalised again, so each set counts equally.

    Args:
        model: Encodes the texts.
        prompts: `Prompts`, or whatever `load_prompts` takes.
        batch_size: Texts per pass.

    Returns:
        (D, C) float32 on the CPU; columns follow ``prompts.labels``.

    Source: Radford et al. 2021 (arXiv:2103.00020), section 3.1.4; Lu et al. 2023 (MI-Zero, arXiv:2306.07831).
    """
    prompts = load_prompts(prompts)
    columns = prompt_set_classifiers(model, prompts, batch_size=batch_size)  # (P, D, C)
    return columns[0] if len(columns) == 1 else F.normalize(columns.mean(dim=0), dim=0)


def prompt_set_classifiers(model: DualEncoder, prompts: Prompts, *, batch_size: int = 256) -> Tensor:
    """The classifier of each set alone: (P, D, C) float32, unit columns; equal texts are encoded once."""
    texts = list(dict.fromkeys(t for s in prompts.sets for label in prompts.labels for t in s.texts(label)))
    row = {text: index for index, text in enumerate(texts)}
    features = model.encode_text(texts, batch_size=batch_size)
    classifiers = []
    for prompt_set in prompts.sets:
        means = [features[[row[t] for t in prompt_set.texts(label)]].mean(dim=0) for label in prompts.labels]
        classifiers.append(F.normalize(torch.stack(means, dim=1), dim=0))
    return torch.stack(classifiers)


def classify(
    model: DualEncoder,
    images: Any,
    classes: Any,
    *,
    templates: Sequence[str] | str | None = None,
    batch_size: int = 64,
    progress: bool = False,
    cache: str | Path | None = None,
    strategy: Strategy = "ensemble",
) -> ZeroShotResult:
    """Classify pictures by text, without training.

    Args:
        model: From `pathclip.load`.
        images: One or many paths, PIL pictures, uint8 arrays or tensors.
        classes: Whatever `load_prompts` takes: names, a dict of label to names, a class file, a shipped set.
        templates: Sentences to use instead of the file's or the default ones.
        batch_size: Pictures per pass.
        progress: Show how far along the work is.
        cache: Folder to keep features in and to find them again.
        strategy: ``ensemble`` of all names in all templates; ``single``, the first name in the first
            template; ``screening``, the combinations that fit these pictures best, by no label (KEEP).

    Raises:
        UserError: If the classes cannot be read, or ``images`` holds things that are no pictures.

    Example::

        pathclip.classify(model, "a.jpg", {"tumour": ["adenocarcinoma"], "fat": ["adipose tissue"]}).labels
    """
    check_strategy(strategy)
    prompts = load_prompts(classes, templates=templates)
    if strategy == "single":
        prompts = single_prompts(prompts)
    items = split_batch(images)
    features, bad = encode_pictures(model, items, batch_size=batch_size, progress=progress, cache=cache)
    failed = {item.index for item in bad}
    how: dict[str, Any] = {"name": strategy}
    if strategy == "screening":
        good = features[[i for i in range(len(items)) if i not in failed]]
        classifier, screened = screened_classifier(model, prompts, good)
        how |= screened
    else:
        classifier = build_classifier(model, prompts)
    scores = features @ classifier
    scale = model.logit_scale.detach().exp().float().cpu()
    probabilities = (scale * scores).softmax(dim=1)
    best = probabilities.argmax(dim=1).tolist() if items else []
    labels = tuple(None if i in failed else prompts.labels[b] for i, b in enumerate(best))
    names = tuple(describe(item, index) for index, item in enumerate(items))
    if bad:
        listed = "; ".join(f"{item.name}: {item.reason}" for item in bad[:3])
        log.warning(
            "%d of %d pictures cannot be read and have no label: %s%s",
            len(bad),
            len(items),
            listed,
            "; ..." if len(bad) > 3 else "",
        )
    provenance = {
        **model.provenance(),
        "prompts": {**prompts.to_dict(), "sha256": prompts.sha256},
        "strategy": how,
        "temperature": 1.0 / scale.item(),
    }
    return ZeroShotResult(
        scores, probabilities, labels, prompts.labels, names, provenance, tuple(bad), features
    )
