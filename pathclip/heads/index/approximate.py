"""Past a million pictures: an inverted file of quantised features names candidates, scored exactly."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.core.errors import UserError

__all__ = ["APPROXIMATE_ABOVE", "candidates", "read_searcher", "train_ivfpq"]

log = logging.getLogger("pathclip")

APPROXIMATE_ABOVE = 1_000_000
"""Below, reading every feature takes a quarter of a second at most, and is exact."""

TRAINED_PER_LIST = 64
PROBED_SHARE = 1 / 32
CANDIDATES_PER_HIT, FEWEST_CANDIDATES = 20, 256
ROWS_AT_ONCE = 65536


def train_ivfpq(features: NDArray[np.float32]) -> Any:
    """Make the FAISS index: 4 * sqrt(N) lists, a byte for every eight numbers of a feature.

    Args:
        features: (N, D) unit length; read in pieces, so it may be mapped from disk.

    Source: Jegou et al. 2011, product quantization (IVFADC), as FAISS has it.
    """
    import faiss

    count, dim = features.shape
    lists = max(1, round(4 * math.sqrt(count)))
    parts = next(m for m in range(max(1, dim // 8), 0, -1) if dim % m == 0)
    log.info("%d pictures: training an inverted file of %d lists; search reads a share of it", count, lists)
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFPQ(quantizer, dim, lists, parts, 8, faiss.METRIC_INNER_PRODUCT)
    index.own_fields = True
    quantizer.this.disown()
    index.cp.seed = index.pq.cp.seed = 0
    index.nprobe = max(8, round(lists * PROBED_SHARE))
    chosen = np.random.default_rng(0).choice(
        count, min(count, max(TRAINED_PER_LIST * lists, 256)), replace=False
    )
    index.train(np.ascontiguousarray(features[np.sort(chosen)], np.float32))
    for start in range(0, count, ROWS_AT_ONCE):
        index.add(np.ascontiguousarray(features[start : start + ROWS_AT_ONCE], np.float32))
    return index


def read_searcher(path: Path, count: int) -> Any:
    """Map the index from disk: lists are read when they are searched.

    Raises:
        UserError: If it cannot be read, or holds another number of rows.
    """
    import faiss

    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"{path} cannot be read: {reason}; build the index again, or search exactly (--exact)"
        ) from None
    if index.ntotal != count:
        raise UserError(f"{path} holds {index.ntotal} rows, expected {count}; build the index again")
    return index


def candidates(index: Any, query: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Rows that are likely among the k nearest, ascending; more than k, where the lists probed hold more."""
    wanted = min(max(FEWEST_CANDIDATES, CANDIDATES_PER_HIT * k), index.ntotal)
    _, rows = index.search(np.ascontiguousarray(query[None], np.float32), wanted)
    return np.sort(rows[0][rows[0] >= 0])
