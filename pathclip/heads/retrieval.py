"""Exact retrieval: recall at k in chunks, what chance would give, and search for one query.

Legend: Q queries, G gallery items, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import comb
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pathclip.core.errors import UserError

__all__ = [
    "NEVER",
    "expected_recall",
    "first_hit_ranks",
    "nearest_rows",
    "random_recall",
    "recall_at_k",
    "retrieval_metrics",
]

CHUNK = 2048
PAIRS = 1 << 15  # recomputed at once
NEVER = np.iinfo(np.int64).max
Ids = Sequence[Any] | NDArray[Any] | torch.Tensor


def recall_at_k(
    query_features: torch.Tensor | NDArray[Any],
    gallery_features: torch.Tensor | NDArray[Any],
    query_ids: Ids,
    gallery_ids: Ids,
    ks: Iterable[int] = (1, 5, 10),
) -> dict[int, float]:
    """Share of queries with any gallery item of their own id among the k most similar.

    Exact and chunked: no (Q, G) matrix is ever held. Of equally similar items the earlier one ranks first.
    A query whose id the gallery lacks is a miss.

    Args:
        query_features: (Q, D), unit length for cosine.
        gallery_features: (G, D).
        query_ids: (Q,) integers or strings.
        gallery_ids: (G,) of the same kind; several items may share an id, and all of them count.
        ks: Cut-offs.

    Returns:
        ``{k: recall}``.

    Raises:
        UserError: If sizes do not fit, a side is empty, or a feature is not finite.
    """
    return _recalls(first_hit_ranks(query_features, gallery_features, query_ids, gallery_ids), _cutoffs(ks))


def first_hit_ranks(
    query_features: torch.Tensor | NDArray[Any],
    gallery_features: torch.Tensor | NDArray[Any],
    query_ids: Ids,
    gallery_ids: Ids,
    *,
    chunk: int = CHUNK,
) -> NDArray[np.int64]:
    """How many gallery items rank before the best one of equal id: (Q,) int64, 0 is a hit at once.

    Args:
        query_features: (Q, D).
        gallery_features: (G, D).
        query_ids: (Q,).
        gallery_ids: (G,).
        chunk: Side of the blocks of the similarity matrix; memory is about 30 * chunk**2 bytes.

    Returns:
        Ranks; ``NEVER`` where the gallery lacks the id.
    """
    queries, gallery = (
        _features(query_features, "query_features"),
        _features(gallery_features, "gallery_features"),
    )
    if queries.shape[1] != gallery.shape[1]:
        raise UserError(f"features differ in width: queries {queries.shape[1]}, gallery {gallery.shape[1]}")
    query_codes, gallery_codes = _codes(query_ids, gallery_ids)
    for name, codes, features in (("query", query_codes, queries), ("gallery", gallery_codes, gallery)):
        if len(codes) != len(features):
            raise UserError(f"{name}_ids holds {len(codes)} ids for {len(features)} features")
    blocks = zip(queries.split(chunk), query_codes.split(chunk), strict=True)
    return torch.cat([_ranks(q, gallery, codes, gallery_codes, chunk) for q, codes in blocks]).numpy()


def random_recall(query_ids: Ids, gallery_ids: Ids, k: int) -> float:
    """Expected recall at k of a random order of the gallery: k / G where each query has one target."""
    query_codes, gallery_codes = (codes.numpy() for codes in _codes(query_ids, gallery_ids))
    occurs = np.bincount(gallery_codes, minlength=int(query_codes.max(initial=-1)) + 1)
    return expected_recall(occurs[query_codes], len(gallery_codes), k)


def expected_recall(num_targets: Sequence[int] | NDArray[np.int64], gallery_size: int, k: int) -> float:
    """Mean chance that a random order of the gallery puts any of a query's targets among the first k.

    Of G items m are right: the chance that none of the first k is right is C(G - m, k) / C(G, k).

    Args:
        num_targets: (Q,) right items per query.
        gallery_size: G.
        k: Cut-off.
    """
    k = min(k, gallery_size)
    ways = comb(gallery_size, k)
    targets, counts = np.unique(np.asarray(num_targets), return_counts=True)
    chances = [(ways - comb(gallery_size - int(m), k)) / ways for m in targets]
    return float(np.average(chances, weights=counts))


def retrieval_metrics(
    image_features: torch.Tensor | NDArray[Any],
    text_features: torch.Tensor | NDArray[Any],
    image_ids: Ids,
    text_ids: Ids,
    ks: Iterable[int] = (1, 10),
) -> dict[str, dict[str, Any]]:
    """Recall both ways, beside what chance would give.

    Args:
        image_features: (N, D).
        text_features: (M, D).
        image_ids: (N,) what picture and caption share, for example the ``positive_id``.
        text_ids: (M,).
        ks: Cut-offs.

    Returns:
        ``{"image_to_text": {"R@1": .., "R@10": .., "random": {"R@1": .., ..}}, "text_to_image": {..}}``.
    """
    ways = {
        "image_to_text": (image_features, text_features, image_ids, text_ids),
        "text_to_image": (text_features, image_features, text_ids, image_ids),
    }
    cutoffs = _cutoffs(ks)
    return {
        way: {
            **{f"R@{k}": recall for k, recall in recall_at_k(*arguments, cutoffs).items()},
            "random": {f"R@{k}": random_recall(arguments[2], arguments[3], k) for k in cutoffs},
        }
        for way, arguments in ways.items()
    }


def nearest_rows(
    features: NDArray[np.float32],
    query: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k rows nearest by inner product, in a settled order: score down, then row up.

    One product of matrix and vector, which reads each row once; the table may be mapped from disk.
    The few best are scored again in float64, so that equal rows score alike and go by position.

    Args:
        features: (G, D).
        query: (D,).
        k: At most the number of rows searched.
        allowed: Rows to search among; all by default.

    Returns:
        Scores (k,) float32 and rows (k,) int64.
    """
    scores = features @ query
    rows = np.arange(len(features)) if allowed is None else allowed
    if allowed is not None:
        scores = scores[allowed]
    wide = min(k + 64, len(rows))
    best = rows[np.argpartition(-scores, wide - 1)[:wide]]
    exact = (features[best].astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    order = np.lexsort((best, -exact))[:k]
    return exact[order], best[order]


def _ranks(
    queries: torch.Tensor, gallery: torch.Tensor, own: torch.Tensor, ids: torch.Tensor, chunk: int
) -> torch.Tensor:
    """Two passes: find each query's best item of equal id, then count what ranks before it."""
    size = len(gallery)
    best = torch.full((len(queries),), -torch.inf)
    place = torch.full((len(queries),), size)
    starts = range(0, size, chunk)
    for start in starts:
        block = gallery[start : start + chunk]
        scores = (queries @ block.T).masked_fill(own[:, None] != ids[None, start : start + chunk], -torch.inf)
        _settle(scores, queries, block, torch.maximum(scores.max(dim=1).values, best))
        top = scores.max(dim=1).values
        first = (scores == top[:, None]).int().argmax(dim=1) + start  # the earliest of equals
        better = top > best
        best, place = torch.where(better, top, best), torch.where(better, first, place)
    before = torch.zeros(len(queries), dtype=torch.int64)
    for start in starts:
        block = gallery[start : start + chunk]
        scores = queries @ block.T
        _settle(scores, queries, block, best)
        earlier = torch.arange(start, start + len(block))[None] < place[:, None]
        before += ((scores > best[:, None]) | ((scores == best[:, None]) & earlier)).sum(dim=1)
    return torch.where(place == size, NEVER, before)


def _settle(
    scores: torch.Tensor, queries: torch.Tensor, block: torch.Tensor, reference: torch.Tensor
) -> None:
    """Recompute, in place, the scores that rounding could put on the wrong side of a row's ``reference``.

    A float32 product depends in its last bits on where a vector lies in a block. In float64, rounded to
    float32, equal vectors score alike everywhere, so that ties are ties.
    """
    norms = queries.norm(dim=1).max() * block.norm(dim=1).max()
    slack = (
        2 * queries.shape[1] * torch.finfo(torch.float32).eps * norms
    )  # above the error bound of the product
    near = (scores - reference[:, None]).abs() <= slack
    if int(near.sum()) * 8 > near.numel():
        exact = (queries.double() @ block.double().T).float()
        scores.copy_(torch.where(near, exact, scores))
        return
    rows, columns = near.nonzero(as_tuple=True)
    for i, j in zip(rows.split(PAIRS), columns.split(PAIRS), strict=True):
        scores[i, j] = (queries[i].double() * block[j].double()).sum(dim=1).float()


def _recalls(ranks: NDArray[np.int64], ks: Sequence[int]) -> dict[int, float]:
    return {k: float((ranks < k).mean()) for k in ks}


def _cutoffs(ks: Iterable[int]) -> tuple[int, ...]:
    cutoffs = tuple(ks)
    if not cutoffs or min(cutoffs) < 1:
        raise UserError(f"ks = {list(cutoffs)}: expected whole numbers from 1 on, for example (1, 5, 10)")
    return cutoffs


def _features(features: torch.Tensor | NDArray[Any], name: str) -> torch.Tensor:
    table = torch.as_tensor(features).detach().cpu().float()
    if table.ndim != 2 or not len(table):
        raise UserError(f"{name} has shape {tuple(table.shape)}; expected (items, D) with at least one item")
    bad = (~table.isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise UserError(
            f"{name}: {len(bad)} of {len(table)} rows are not finite, the first is row {int(bad[0])}"
        )
    return table


def _codes(first: Ids, second: Ids) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of any kind as whole numbers that agree exactly where the ids do."""
    a, b = (np.asarray(ids.cpu() if isinstance(ids, torch.Tensor) else ids) for ids in (first, second))
    if a.size and b.size and (a.dtype.kind in "iu") != (b.dtype.kind in "iu"):
        raise UserError(
            f"ids differ in kind: {a.dtype} and {b.dtype}; expected both strings or both integers"
        )
    codes = torch.from_numpy(np.unique(np.concatenate([a, b]), return_inverse=True)[1])
    return codes[: len(a)], codes[len(a) :]
