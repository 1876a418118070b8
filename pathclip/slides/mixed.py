"""Batches filled with tiles of several slides, so that small slides do not leave an encoder half empty."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from pathclip.slides.encode import Gathering, encode_batch
from pathclip.slides.folder import SlideRecord
from pathclip.slides.spool import FeatureSpool
from pathclip.slides.tasks import SlideJob, SlideTask, model_of
from pathclip.slides.work import BegunSlide, begin, failing, finish

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder

__all__ = ["work_mixed"]

OPENED_AHEAD = 4
MAX_OPEN = 32
"""Slides that may wait for the batch with their last tiles; each is claimed and holds its files open."""


@dataclass(slots=True)
class _Stream:
    """A slide whose tiles are in the stream.

    Attributes:
        begun: The slide.
        gathering: Its features so far; none come where it has no tiles to encode.
        waiting: Tiles given to the batch whose features are not there yet.
    """

    begun: BegunSlide
    gathering: Gathering
    waiting: int = 0


def work_mixed(
    tasks: Iterable[SlideTask], job: SlideJob
) -> Iterator[tuple[SlideTask, tuple[SlideRecord | None, str]]]:
    """Slides in the order given, as `work_ahead` does them, but batches do not end where a slide does."""
    model, size = model_of(job), job.config.batch_size
    opened: deque[_Stream] = deque()
    batch: list[tuple[_Stream, np.ndarray]] = []
    with model.evaluating(), closing(_begun(tasks, job)) as slides:
        try:
            for begun in slides:
                stream = _Stream(begun, _gathering(begun, job, model))
                opened.append(stream)
                for tile in _tiles(stream):
                    batch.append((stream, tile))
                    stream.waiting += 1
                    if len(batch) == size:
                        _encode(model, batch, size)
                if len(opened) >= MAX_OPEN:
                    _encode(model, batch, size)
                yield from _finished(opened, job)
            _encode(model, batch, size)
            yield from _finished(opened, job)
        finally:
            for stream in opened:  # interrupted: give the slides back
                stream.begun.held.close()


def _begun(tasks: Iterable[SlideTask], job: SlideJob) -> Generator[BegunSlide]:
    """Slides opened and their first tiles read by threads, a few ahead, in order."""
    queue: deque[Future[BegunSlide]] = deque()
    with ThreadPoolExecutor(OPENED_AHEAD, thread_name_prefix="next-slide") as pool:
        try:
            for task in tasks:
                queue.append(pool.submit(begin, task, job))
                if len(queue) > OPENED_AHEAD:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            for future in queue:
                future.result().held.close()


def _gathering(begun: BegunSlide, job: SlideJob, model: DualEncoder) -> Gathering:
    count = len(begun.prepared.plan.xy) if begun.prepared is not None else 0
    spool = FeatureSpool(model.embed_dim, job.out)
    return Gathering(begun.task.slide.path, count, model.embed_dim, job.config.max_unreadable, spool)


def _tiles(stream: _Stream) -> Iterator[np.ndarray]:
    """The readable tiles of a slide; one that fails on the way has its outcome, and gives no more."""
    if stream.begun.prepared is None:
        return
    with failing(stream.begun):
        for tile in stream.begun.prepared.tiles:
            if stream.gathering.expects(tile) and isinstance(tile, np.ndarray):
                yield tile
            else:
                stream.gathering.check()


def _encode(model: DualEncoder, batch: list[tuple[_Stream, np.ndarray]], size: int) -> None:
    """One forward pass; its rows go to the slides that they belong to."""
    if not batch:
        return
    tiles = [tile for _, tile in batch]
    parts = [list(part) for _, part in groupby((stream for stream, _ in batch), key=id)]
    batch.clear()
    try:
        rows = encode_batch(model, tiles, size)
    except Exception as error:  # such as a GPU without memory: each slide in the batch fails of it
        rows = error
    start = 0
    for part in parts:
        stream, stop = part[0], start + len(part)
        with failing(stream.begun):
            if isinstance(rows, Exception):
                raise rows
            stream.gathering.add(rows[start:stop])
        stream.waiting -= len(part)
        start = stop


def _finished(
    opened: deque[_Stream], job: SlideJob
) -> Iterator[tuple[SlideTask, tuple[SlideRecord | None, str]]]:
    """Scores and files of those at the front of the line that wait for nothing."""
    while opened and not opened[0].waiting:
        stream = opened[0]
        if stream.begun.prepared is not None and not stream.begun.outcome:
            with failing(stream.begun):
                stream.begun.encoded = stream.gathering.result()
        yield stream.begun.task, finish(stream.begun, job)
        opened.popleft()
