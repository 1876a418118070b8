"""Picture -> pictures of the same class: what the nearest other ones are."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder
from pathclip.evaluation.config import EvaluateConfig
from pathclip.evaluation.datasets import LabelledImages
from pathclip.evaluation.encoded import encode_labelled
from pathclip.evaluation.leaks import Leaks
from pathclip.evaluation.protocol import protocol_record
from pathclip.evaluation.report import EvaluateReport
from pathclip.heads.metrics import mean_interval
from pathclip.heads.retrieval import expected_recall

__all__ = ["evaluate_neighbours", "nearest"]

log = logging.getLogger("pathclip")
CHUNK = 1024


def nearest(features: torch.Tensor, k: int, left_out: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """The k most similar rows of each row, most similar first; of equal ones the earlier first.

    Args:
        features: (N, D) unit length.
        k: At most the rows that are left to each row.
        left_out: (N,) rows of the same number do not find each other; ``arange(N)`` leaves out the row
            itself, a patient's number all of the patient's. None lets each row find itself, as PLIP did.

    Returns:
        (N, k) positions.
    """
    codes = None if left_out is None else torch.from_numpy(left_out)
    found = []
    for start in range(0, len(features), CHUNK):
        block = features[start : start + CHUNK]
        scores = block @ features.T
        if codes is not None:
            scores.masked_fill_(codes[start : start + CHUNK, None] == codes[None], -torch.inf)
        found.append(scores.sort(dim=1, descending=True, stable=True).indices[:, :k])
    return torch.cat(found).numpy()


def evaluate_neighbours(
    model: DualEncoder, data: LabelledImages, config: EvaluateConfig, leaks: Leaks | None = None
) -> EvaluateReport:
    """Every picture asks for its class among the others.

    Per k: ``hit@k`` (any of the class among the k), ``precision@k`` (their share), ``majority@k`` (the most
    frequent class of the k is right; of equal ones the nearest). The query is left out, and all of its slide
    or patient where the data name it; under ``plip-compat`` nothing is.

    Raises:
        UserError: If there are fewer than three pictures.
        FaultError: If no picture can be read, or features are not finite.
    """
    seen = encode_labelled(model, data, config)
    left_out = None if config.protocol == "plip-compat" else _own(data, seen.good)
    ks = _reached(config.ks, len(seen.good), left_out, data)
    names, codes = np.unique([data.truth[i] for i in seen.good], return_inverse=True)
    found = codes[nearest(seen.rows, max(ks), left_out)]  # (N, k) classes
    metrics, intervals = _figures(codes, found, ks, config)
    quirks = (*data.quirks, *(["self_counted"] if left_out is None else []))
    return EvaluateReport(
        dataset=data.name,
        task="image_retrieval",
        metrics=metrics,
        intervals=intervals,
        baselines={"chance": _chance(codes, ks, left_out)},
        counts={
            "total": len(data.pictures),
            "scored": len(seen.good),
            "bad": len(seen.bad),
            "ignored": len(data.ignored),
            **({} if leaks is None else {"also_in_training": len(leaks.places)}),
        },
        bad=seen.bad,
        provenance={
            **model.provenance(),
            "data": data.provenance(config.benchmark),
            "classes": {str(name): int((codes == c).sum()) for c, name in enumerate(names)},
            "protocol": {
                **protocol_record(config.protocol, quirks, data.how),
                "headline": f"precision@{max(ks)}",
            },
            "ks_left_out": [k for k in config.ks if k not in ks],
            "seed": config.seed,
            "num_resamples": config.num_resamples,
            "resampled": "queries",
            "left_out": _told(left_out, data),
        },
        extra={} if leaks is None else {"against": leaks.to_json()},
    )


def _told(left_out: NDArray[np.int64] | None, data: LabelledImages) -> str:
    if left_out is None:
        return "nothing"
    return "the query" if data.groups is None else "the query and its group"


def _own(data: LabelledImages, good: list[int]) -> NDArray[np.int64]:
    """What each picture must not find: itself, or its slide or patient where known."""
    if data.groups is None:
        return np.arange(len(good))
    return np.unique([data.groups[i] for i in good], return_inverse=True)[1]


def _reached(
    ks: tuple[int, ...], count: int, left_out: NDArray[np.int64] | None, data: LabelledImages
) -> tuple[int, ...]:
    """The cut-offs that every picture can fill; the others are told of."""
    if count < 3:
        raise UserError(f"{data.root}: {count} pictures; neighbours need three or more")
    reach = count if left_out is None else count - int(np.bincount(left_out).max())
    kept = tuple(k for k in ks if k <= reach)
    if not kept:
        raise UserError(f"ks = {list(ks)}: each is more than the {reach} pictures to find")
    if len(kept) < len(ks):
        log.warning("k = %s left out: there are %d pictures to find", list(ks[len(kept) :]), reach)
    return kept


def _figures(
    codes: NDArray[np.int64], found: NDArray[np.int64], ks: tuple[int, ...], config: EvaluateConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    same = found == codes[:, None]
    metrics, intervals = {}, {}
    for k in ks:
        values = {
            f"hit@{k}": same[:, :k].any(axis=1),
            f"precision@{k}": same[:, :k].mean(axis=1),
            f"majority@{k}": np.array([_majority(row[:k]) for row in found]) == codes,
        }
        for name, each in values.items():
            metrics[name] = float(np.mean(each))
            intervals[name] = mean_interval(each, seed=config.seed, num_resamples=config.num_resamples)
    return metrics, intervals


def _majority(classes: NDArray[np.int64]) -> int:
    counts = Counter(classes.tolist())  # in the order of nearness, so the nearest wins among equals
    return max(counts, key=lambda c: counts[c])


def _chance(
    codes: NDArray[np.int64], ks: tuple[int, ...], left_out: NDArray[np.int64] | None
) -> dict[str, float]:
    """What a random order would find among the pictures that each query may find."""
    if left_out is None:
        right, size = np.bincount(codes)[codes], np.full(len(codes), len(codes))
    else:
        kinds, kind = np.unique(np.stack([codes, left_out]), axis=1, return_inverse=True)
        both = np.bincount(kind.ravel(), minlength=kinds.shape[1])[kind.ravel()]
        right = np.bincount(codes)[codes] - both
        size = len(codes) - np.bincount(left_out)[left_out]
    chances = {f"precision@{k}": float((right / size).mean()) for k in ks}
    for k in ks:
        each = [expected_recall([r], int(n), k) for r, n in zip(right, size, strict=True)]
        chances[f"hit@{k}"] = float(np.mean(each))
    return chances
