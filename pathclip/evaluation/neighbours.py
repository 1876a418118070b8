"""Picture -> pictures of the same class: what the nearest other ones are."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pathclip.core.errors import FaultError, UserError
from pathclip.encoders import BadPicture, DualEncoder, encode_pictures
from pathclip.evaluation.config import EvaluateConfig
from pathclip.evaluation.datasets import LabelledImages
from pathclip.evaluation.leaks import Leaks
from pathclip.evaluation.protocol import protocol_record
from pathclip.evaluation.report import EvaluateReport
from pathclip.heads.metrics import mean_interval
from pathclip.heads.retrieval import expected_recall

__all__ = ["evaluate_neighbours", "nearest"]

log = logging.getLogger("pathclip")
CHUNK = 1024


def nearest(features: torch.Tensor, k: int, *, with_self: bool = False) -> NDArray[np.int64]:
    """The k most similar other rows of each row, most similar first; of equal ones the earlier first.

    Args:
        features: (N, D) unit length.
        k: At most N - 1; N with ``with_self``.
        with_self: Leave each row in its own list, as PLIP's evaluation does.

    Returns:
        (N, k) positions.
    """
    found = []
    for start in range(0, len(features), CHUNK):
        block = features[start : start + CHUNK]
        scores = block @ features.T
        if not with_self:
            own = torch.arange(len(block))
            scores[own, own + start] = -torch.inf
        found.append(scores.sort(dim=1, descending=True, stable=True).indices[:, :k])
    return torch.cat(found).numpy()


def evaluate_neighbours(
    model: DualEncoder, data: LabelledImages, config: EvaluateConfig, leaks: Leaks | None = None
) -> EvaluateReport:
    """Every picture asks for its class among the others.

    Per k: ``hit@k`` (any of the class among the k), ``precision@k`` (their share), ``majority@k`` (the most
    frequent class of the k is right; of equal ones the nearest). The query is left out, except under
    ``plip-compat``.

    Raises:
        UserError: If there are fewer than three pictures.
        FaultError: If no picture can be read, or features are not finite.
    """
    features, failed = encode_pictures(
        model, list(data.pictures), batch_size=config.batch_size, progress=True, cache=config.cache
    )
    bad = tuple(BadPicture(b.index, data.relative(data.pictures[b.index]), b.reason) for b in failed)
    good = sorted(set(range(len(data.pictures))) - {item.index for item in bad})
    if not good:
        raise FaultError(f"{data.root}: none of {len(data.pictures)} pictures could be read")
    if not features[good].isfinite().all():
        raise FaultError("the model gives features that are not finite; its weights are damaged")
    if len(good) < 3:
        raise UserError(f"{data.root}: {len(good)} pictures; neighbours need three or more")
    with_self = config.protocol == "plip-compat"
    reach = len(good) - (not with_self)
    ks = tuple(k for k in config.ks if k <= reach)
    if left_out := [k for k in config.ks if k > reach]:
        log.warning("k = %s left out: %d pictures have %d others", left_out, len(good), len(good) - 1)
    if not ks:
        raise UserError(f"ks = {list(config.ks)}: each is more than the {reach} pictures to find")
    names, codes = np.unique([data.truth[i] for i in good], return_inverse=True)
    found = codes[nearest(features[good], max(ks), with_self=with_self)]  # (N, k) classes
    metrics, intervals = _figures(codes, found, ks, config)
    chance = _chance(codes, ks, with_self)
    quirks = (*data.quirks, *(["self_counted"] if with_self else []))
    return EvaluateReport(
        dataset=data.name,
        task="image_retrieval",
        metrics=metrics,
        intervals=intervals,
        baselines={"chance": chance},
        counts={
            "total": len(data.pictures),
            "scored": len(good),
            "bad": len(bad),
            "ignored": len(data.ignored),
        },
        bad=bad,
        provenance={
            **model.provenance(),
            "data": {
                "path": str(data.root),
                "split": data.split,
                "sha256": data.fingerprint(),
                "benchmark": config.benchmark,
            },
            "classes": {str(name): int((codes == c).sum()) for c, name in enumerate(names)},
            "protocol": {
                **protocol_record(config.protocol, quirks, data.how),
                "headline": f"precision@{max(ks)}",
            },
            "ks_left_out": left_out,
            "seed": config.seed,
            "num_resamples": config.num_resamples,
            "resampled": "queries",
        },
        extra={} if leaks is None else {"against": leaks.to_json()},
    )


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


def _chance(codes: NDArray[np.int64], ks: tuple[int, ...], with_self: bool) -> dict[str, float]:
    others = np.bincount(codes)[codes] - (not with_self)
    size = len(codes) - (not with_self)
    hits = {f"hit@{k}": expected_recall(others, size, k) for k in ks}
    return hits | {f"precision@{k}": float(others.mean() / size) for k in ks}
