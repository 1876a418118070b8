"""Posts in portions that fit in memory, none of which cuts a thread.

What a post becomes depends on its thread alone: on its repeats and versions, on the posts it answers and
those that answer it. So portions of whole threads can be planned one after the other. Threads are told by
numbers made of ids; where two ids share a number, two threads stay together and nothing else changes.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pathclip.ingest.tables import SCHEMAS, read_rows, rows_to_tweets
from pathclip.tweets import Tweet

__all__ = ["whole_threads"]

POSTS_AT_ONCE = 50_000
MAX_PORTIONS = 256  # each is an open file for a while
BATCH = 16_384
LINKS = ("conversation_id", "in_reply_to_id", "edit_history")
MIXER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: neighbours land far apart


def whole_threads(files: list[Path], scratch: Path) -> Iterator[Iterable[Tweet]]:
    """Yield portions of the posts in ``files`` (parquet, table ``posts``), about ``POSTS_AT_ONCE`` each.

    Which post is in which portion depends on the posts, not on their order. Memory: 100 bytes a post, and one
    portion. Where there is more than one, they pass through files in ``scratch``, which is removed.
    """
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    total = sum(pq.read_metadata(file).num_rows for file in files)
    portions = min(MAX_PORTIONS, -(-total // POSTS_AT_ONCE))
    if portions <= 1:
        yield rows_to_tweets(read_rows(files))
        return
    scratch.mkdir()
    try:
        for path in _spill(files, scratch, portions):
            yield _posts(path)
            path.unlink()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _posts(path: Path) -> Iterator[Tweet]:
    with pa.ipc.open_stream(path) as stream:
        for batch in stream:
            yield from rows_to_tweets(batch.to_pylist())


def _spill(files: list[Path], scratch: Path, portions: int) -> list[Path]:
    nodes, threads = _threads(files)
    paths = [scratch / f"{number:03d}.arrow" for number in range(portions)]
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with ExitStack() as stack:
        writers = [
            stack.enter_context(pa.ipc.new_stream(path, SCHEMAS["posts"], options=options)) for path in paths
        ]
        for batch in _batches(files):
            ids = _numbers(batch.column("id"))
            portion = (threads[np.searchsorted(nodes, ids)] * MIXER >> np.uint64(32)) % np.uint64(portions)
            for number in np.unique(portion):
                rows = np.flatnonzero(portion == number)
                writers[int(number)].write_batch(
                    pa.RecordBatch.from_struct_array(batch.to_struct_array().take(rows))
                )
    return paths


def _threads(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of all ids, sorted, and for each the smallest number in its thread; both uint64 (N,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends, found = [], []
    for batch in _batches(files, ["id", *LINKS]):
        ids = _numbers(batch.column("id"))
        found.append(np.unique(ids))
        for name in LINKS:
            column, rows = batch.column(name), np.arange(len(ids))
            if pa.types.is_list(column.type):
                column, rows = column.flatten(), column.value_parent_indices().to_numpy()
            there = column.is_valid().to_numpy(zero_copy_only=False)
            pair = np.stack([ids[rows[there]], _numbers(column.drop_null())])
            ends.append(pair[:, pair[0] != pair[1]])
    links = np.concatenate(ends, axis=1)  # (2, E)
    nodes = np.unique(np.concatenate([*found, links.ravel()]))
    places = np.searchsorted(nodes, links)
    graph = coo_array((np.ones(links.shape[1], np.int8), tuple(places)), shape=(len(nodes), len(nodes)))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)  # nodes are sorted: the first of a thread is its smallest
    return nodes, nodes[first][label]


def _batches(files: list[Path], columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    for path in files:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH, columns=columns)


def _numbers(ids: pa.Array) -> np.ndarray:
    """Ids as uint64 (N,): their own value where they are whole numbers of 64 bits, else a hash."""
    try:
        return ids.cast(pa.int64()).to_numpy().astype(np.uint64)
    except pa.ArrowInvalid:
        return np.array([_number(i) for i in ids.to_pylist()], np.int64).astype(np.uint64)


def _number(text: str) -> int:
    try:
        if -(2**63) <= (value := int(text)) < 2**63:
            return value
    except ValueError:
        pass
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)
