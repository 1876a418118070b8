"""Image <-> caption retrieval over one split of a dataset of shards."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import sha256_file
from pathclip.encoders import DualEncoder
from pathclip.evaluation.config import EvaluateConfig
from pathclip.evaluation.datasets import CaptionedImages
from pathclip.evaluation.encoded import encode_all
from pathclip.evaluation.leaks import Leaks
from pathclip.evaluation.pairs_table import read_pairs
from pathclip.evaluation.protocol import protocol_record
from pathclip.evaluation.report import EvaluateReport, Mistake
from pathclip.heads.metrics import mean_interval
from pathclip.heads.retrieval import NEVER, expected_recall, first_hit_ranks
from pathclip.shards import Dataset

__all__ = ["CaptionedImages", "evaluate_retrieval", "read_shards"]

log = logging.getLogger("pathclip")
NUM_MISTAKES = 10


def read_shards(data: Path, split: str | None = None) -> CaptionedImages:
    """One split of a dataset folder, or a table of image and caption.

    Raises:
        UserError: If there is no dataset, no such split, or fewer than two captioned pictures.
    """
    if data.is_file() and data.suffix.lower() in (".csv", ".tsv", ".tab"):
        return read_pairs(data, split)
    dataset = Dataset.open(data)
    split = split or next((s for s in ("test", "val") if s in dataset.splits), None)
    if split is None:
        raise UserError(f"{data} has no split 'test'; choose one with --split: {', '.join(dataset.splits)}")
    keys, pictures, records = [], [], []
    for reader in dataset.readers(split):
        for i in range(len(reader)):
            keys.append(reader.key(i))
            pictures.append(reader.jpg(i))
            records.append(reader.record(i))
    texts = [tuple(dict.fromkeys(c["text"] for c in r["captions"] if c["text"].strip())) for r in records]
    kept = [i for i, captions in enumerate(texts) if captions]
    if len(kept) < 2:
        raise UserError(
            f"{data}, split {split}: {len(kept)} pictures with captions; retrieval needs at least two"
        )
    index = dataset.root / "index.json"
    return CaptionedImages(
        name=f"{Path(dataset.url or os.path.abspath(dataset.root)).name}/{split}",
        root=dataset.root,
        split=split,
        keys=tuple(keys[i] for i in kept),
        pictures=tuple(pictures[i] for i in kept),
        captions=tuple(texts[i] for i in kept),
        positives=tuple(records[i].get("positive_id") or keys[i] for i in kept),
        groups=tuple(records[i].get("group_id") or keys[i] for i in kept),
        index_sha256=sha256_file(index) if index.is_file() else None,
    )


def evaluate_retrieval(
    model: DualEncoder, data: CaptionedImages, config: EvaluateConfig, leaks: Leaks | None = None
) -> EvaluateReport:
    """Recall at k both ways: pictures against every different caption, and captions against pictures.

    A caption is right for a picture when the picture, or one of the same ``positive_id``, carries that text.

    Raises:
        FaultError: If no picture can be read, or the model gives features that are not finite.
    """
    seen = encode_all(
        model,
        data.pictures,
        lambda i: data.keys[i],
        data.root,
        batch_size=config.batch_size,
        cache=config.cache,
    )
    good = seen.good
    relation = _Relation.of(data, good, rowwise=config.protocol == "plip-compat")
    images, texts = seen.rows, model.encode_text(relation.texts, cache=config.cache)
    if not texts.isfinite().all():
        raise FaultError("the model gives features of captions that are not finite; its weights are damaged")
    ranks = relation.ranks(images, texts)
    metrics, intervals = _figures(relation, ranks, [data.groups[i] for i in good], config)
    smaller = min(len(texts), len(images))
    beyond = [k for k in config.ks if k > smaller]
    if beyond:
        log.warning("k = %s: the gallery has %d items, so R@k is 1 by force", beyond, smaller)
    counts = {"total": len(data.keys), "scored": len(good), "bad": len(seen.bad), "texts": len(texts)}
    extra: dict[str, Any] = {}
    if leaks is not None:
        counts["also_in_training"] = len(leaks.places)
        clean = [i for i in good if i not in leaks.places]
        extra["against"] = leaks.to_json() | _without(data, clean, seen.features, relation, texts, config)
    return EvaluateReport(
        dataset=data.name,
        task="zeroshot_retrieval",
        metrics=metrics,
        intervals=intervals,
        baselines={"chance": {way: metrics[way]["random"] for way in ranks}},
        counts=counts,
        bad=seen.bad,
        mistakes=_mistakes(data, good, relation, ranks["image_to_text"], images, texts),
        provenance={**model.provenance(), **_provenance(data, config, beyond)},
        extra=extra,
    )


def _provenance(data: CaptionedImages, config: EvaluateConfig, beyond: list[int]) -> dict[str, Any]:
    quirks = ("row_to_row",) if config.protocol == "plip-compat" else ()
    return {
        "data": {
            "path": str(data.root),
            "split": data.split,
            "index_sha256": data.index_sha256,
            "benchmark": config.benchmark,
        },
        "protocol": {
            **protocol_record(config.protocol, quirks),
            "headline": f"image_retrieval_recall@{max(config.ks)}",
        },
        "ks_beyond_gallery": beyond,
        "seed": config.seed,
        "num_resamples": config.num_resamples,
    }


def _without(
    data: CaptionedImages,
    clean: list[int],
    features: torch.Tensor,
    relation: _Relation,
    texts: torch.Tensor,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """The figures of the pictures that were not learnt from, among their own captions only."""
    if len(clean) < 2 or len(clean) == len(data.keys):
        return {}
    place = {text: row for row, text in enumerate(relation.texts)}
    own = _Relation.of(data, clean, rowwise=config.protocol == "plip-compat")
    ranks = own.ranks(features[clean], texts[[place[text] for text in own.texts]])
    metrics, intervals = _figures(own, ranks, [data.groups[i] for i in clean], config)
    return {"scored_without": len(clean), "metrics": metrics, "intervals": intervals}


def _figures(
    relation: _Relation, ranks: dict[str, NDArray[np.int64]], groups: list[str], config: EvaluateConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    metrics: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    for way, name, own, size in (
        ("image_to_text", "text_retrieval_recall", groups, len(relation.texts)),
        ("text_to_image", "image_retrieval_recall", None, len(relation.positives)),
    ):
        metrics[way], intervals[way] = _direction(ranks[way], relation.targets[way], size, own, config)
        for k in config.ks:  # clip_benchmark's names
            metrics[f"{name}@{k}"] = metrics[way][f"R@{k}"]
            intervals[f"{name}@{k}"] = intervals[way][f"R@{k}"]
    return metrics, intervals


def _mistakes(
    data: CaptionedImages,
    good: Sequence[int],
    relation: _Relation,
    ranks: NDArray[np.int64],
    images: torch.Tensor,
    texts: torch.Tensor,
) -> tuple[Mistake, ...]:
    """The pictures whose caption ranks lowest, a caption once."""
    chosen: dict[str, int] = {}
    for row in np.argsort(-ranks, kind="stable").tolist():
        if ranks[row] > 0 and len(chosen) < NUM_MISTAKES:
            chosen.setdefault(data.captions[good[row]][0], row)
    first = (images[list(chosen.values())] @ texts.T).argmax(dim=1).tolist()
    return tuple(
        Mistake(
            picture=data.pictures[good[row]],
            name=data.keys[good[row]],
            truth=caption,
            predicted=relation.texts[best],
            note=f"own caption: rank {ranks[row] + 1} of {len(texts)}",
        )
        for (caption, row), best in zip(chosen.items(), first, strict=True)
    )


def _direction(
    ranks: NDArray[np.int64],
    targets: NDArray[np.int64],
    size: int,
    groups: Sequence[str] | None,
    config: EvaluateConfig,
) -> tuple[dict[str, Any], dict[str, Any]]:
    draws = {"seed": config.seed, "num_resamples": config.num_resamples}
    hits = {f"R@{k}": ranks < k for k in config.ks}
    metrics: dict[str, Any] = {name: float(hit.mean()) for name, hit in hits.items()}
    metrics |= {"median_rank": float(np.median(ranks)) + 1, "queries": len(ranks), "gallery": size}
    metrics["random"] = {f"R@{k}": expected_recall(targets, size, k) for k in config.ks}
    return metrics, {name: mean_interval(hit, groups, **draws) for name, hit in hits.items()}


@dataclass(frozen=True, slots=True)
class _Relation:
    """Which of the different texts are right for which pictures.

    A query with several right answers of different ids is asked once per id; its rank is the best of these.
    """

    texts: list[str]
    texts_of: list[list[int]]  # per picture
    positives: list[str]  # per picture
    positives_of: list[list[str]]  # per text

    @classmethod
    def of(cls, data: CaptionedImages, rows: Sequence[int], *, rowwise: bool = False) -> _Relation:
        """Of some rows; ``rowwise``, as PLIP has it, each first caption is right for its own row alone."""
        captions = [data.captions[i] for i in rows]
        positives = [data.positives[i] for i in rows]
        if rowwise:
            keys = [data.keys[i] for i in rows]
            own = [[row] for row in range(len(rows))]
            return cls([texts[0] for texts in captions], own, keys, [[key] for key in keys])
        place: dict[str, int] = {}
        of_positive: dict[str, dict[int, None]] = defaultdict(dict)
        for texts, positive in zip(captions, positives, strict=True):
            of_positive[positive] |= dict.fromkeys(place.setdefault(text, len(place)) for text in texts)
        positives_of: list[list[str]] = [[] for _ in place]
        for positive, texts in of_positive.items():
            for text in texts:
                positives_of[text].append(positive)
        return cls(list(place), [list(of_positive[p]) for p in positives], list(positives), positives_of)

    @property
    def targets(self) -> dict[str, NDArray[np.int64]]:
        """How many items of the gallery are right for each query."""
        pictures: dict[str, int] = defaultdict(int)
        for positive in self.positives:
            pictures[positive] += 1
        return {
            "image_to_text": np.array([len(texts) for texts in self.texts_of]),
            "text_to_image": np.array([sum(pictures[p] for p in ids) for ids in self.positives_of]),
        }

    def ranks(self, images: torch.Tensor, texts: torch.Tensor) -> dict[str, NDArray[np.int64]]:
        """Items that rank before the first right one, per query."""
        return {
            "image_to_text": _best_ranks(images, texts, self.texts_of, list(range(len(texts)))),
            "text_to_image": _best_ranks(texts, images, self.positives_of, self.positives),
        }


def _best_ranks(
    queries: torch.Tensor,
    gallery: torch.Tensor,
    right_ids: Sequence[Sequence[Any]],
    gallery_ids: Sequence[Any],
) -> NDArray[np.int64]:
    repeats = np.repeat(np.arange(len(queries)), [len(ids) for ids in right_ids])
    ranks = first_hit_ranks(queries[repeats], gallery, [i for ids in right_ids for i in ids], gallery_ids)
    best = np.full(len(queries), NEVER)
    np.minimum.at(best, repeats, ranks)
    return best
