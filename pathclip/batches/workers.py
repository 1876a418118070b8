"""Decode ahead: in threads, or in processes where many cores shall feed one accelerator.

Threads share Python's lock with the training loop. A process has its own; it gets sample numbers through a
socket and puts the pictures into memory that it shares with the trainer, so that only captions travel.
"""

from __future__ import annotations

import logging
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection

import numpy as np

from pathclip.batches.source import Item, OwnPictures, Source
from pathclip.core.errors import FaultError, PathclipError

__all__ = ["Decoders", "Places"]

log = logging.getLogger("pathclip")
Places = Sequence[tuple[int, int]]  # (pass, sample index)
MAX_DEATHS = 3  # of worker processes, in a row, before a run gives up


class Decoders:
    """Fills batches of pictures, several at a time.

    Args:
        source: The samples.
        length: Pictures of a batch, at most.
        slots: Batches under way at once.
        workers: Threads or processes; 0 decodes when the result is asked for.
        processes: Whether they are processes.
    """

    def __init__(
        self, source: Source | OwnPictures, length: int, *, slots: int, workers: int, processes: bool
    ) -> None:
        self.source, self.workers, self.slots = source, workers, slots
        shape = (slots, length, *source.shape)
        self.memory = _SharedMemory(shape, source.dtype) if processes and workers else None
        self.free = list(range(slots))
        self.pool = ThreadPoolExecutor(workers, "decode") if workers else None
        self._own = threading.local()
        self._processes: list[_Process] = []

    def stream(self, batches: Iterable[Places]) -> Iterator[tuple[Places, np.ndarray, list[Item]]]:
        """Each batch and its result in order, up to ``slots`` batches begun ahead of the one asked for."""
        left = iter(batches)
        ahead = deque(map(self.start, islice(left, self.slots)))
        while ahead:
            pending = ahead.popleft()
            result = pending.result()
            ahead.extend(map(self.start, islice(left, 1)))
            yield pending.places, *result

    def start(self, places: Places, ready: Callable[[], None] = lambda: None) -> Pending:
        """Begin a batch; at most ``slots`` may be under way. ``ready`` returns when its shards are here."""
        slot = self.free.pop()
        if self.memory is None:
            pictures = np.empty((len(places), *self.source.shape), self.source.dtype)
        else:
            pictures = self.memory.array[slot, : len(places)]
        step = -(-len(places) // max(4 * self.workers, 1))  # short runs even the load out
        runs = [range(i, min(i + step, len(places))) for i in range(0, len(places), step)]
        return Pending(self, slot, places, pictures, runs, ready)

    def close(self) -> None:
        """End threads and processes."""
        if self.pool:
            self.pool.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            process.close()

    def run(self, pending: Pending, run: range) -> list[Item]:
        """Load samples of a batch, in one of the pool's threads or in the process that belongs to it."""
        pending.ready()
        if self.memory is None:
            return [self.source.load(*pending.places[i], pending.pictures[i]) for i in run]
        job = (pending.slot, run.start, [pending.places[i] for i in run])
        for attempt in range(MAX_DEATHS):
            try:
                return self._process().do(job)
            except (EOFError, OSError) as error:
                ended = self._own.process.close()
                del self._own.process
                log.warning(
                    "a decode process ended (exit status %s), it is replaced: %s", ended, error or "killed"
                )
                if attempt == MAX_DEATHS - 1:
                    numbers = ", ".join(str(index) for _, index in job[2][:5])
                    raise FaultError(
                        f"decode processes died {MAX_DEATHS} times at samples {numbers}, ...: is there too "
                        "little memory? lower batch.workers or batch.size"
                    ) from None
        raise AssertionError

    def _process(self) -> _Process:
        if not hasattr(self._own, "process"):
            assert self.memory is not None
            self._own.process = _Process(self.source, self.memory)
            self._processes.append(self._own.process)
        process: _Process = self._own.process
        return process


class Pending:
    """A batch under way."""

    def __init__(
        self,
        decoders: Decoders,
        slot: int,
        places: Places,
        pictures: np.ndarray,
        runs: list[range],
        ready: Callable[[], None],
    ) -> None:
        self.decoders, self.slot, self.places, self.pictures = decoders, slot, places, pictures
        self.ready = ready
        pool = decoders.pool
        self.parts = [pool.submit(decoders.run, self, run) if pool else run for run in runs]

    def result(self) -> tuple[np.ndarray, list[Item]]:
        """The pictures (B, ...), the caller's to keep, and the samples; frees the slot."""
        parts = [
            part.result() if isinstance(part, Future) else self.decoders.run(self, part)
            for part in self.parts
        ]
        self.decoders.free.append(self.slot)
        pictures = self.pictures if self.decoders.memory is None else self.pictures.copy()
        return pictures, [item for part in parts for item in part]


class _SharedMemory:
    """An array in a file without a name: it goes with the last process that holds it, however that ends."""

    def __init__(
        self, shape: tuple[int, ...], dtype: type[np.generic], descriptor: int | None = None
    ) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.shape, self.dtype = shape, dtype
        self.descriptor = _nameless_file() if descriptor is None else descriptor
        if descriptor is None:
            os.ftruncate(self.descriptor, size)
        self.array = np.frombuffer(mmap.mmap(self.descriptor, size), dtype).reshape(shape)

    def __del__(self) -> None:
        os.close(self.descriptor)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("pathclip-batches")
    with tempfile.TemporaryFile() as handle:
        return os.dup(handle.fileno())


class _Process:
    """A worker and the line to it. Started by name: no fork, and no second run of the user's script."""

    def __init__(self, source: Source | OwnPictures, memory: _SharedMemory) -> None:
        mine, other = socket.socketpair()
        inherited = (other.fileno(), memory.descriptor)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", f"from {__name__} import work; work{inherited}"]
        self.process = subprocess.Popen(command, pass_fds=inherited, env=environment)
        other.close()
        self.line = Connection(mine.detach())
        self.line.send((source, memory.shape, memory.dtype))

    def do(self, job: tuple[int, int, Places]) -> list[Item]:
        """Have pictures put into a slot.

        Raises:
            EOFError: If the process is gone; OSError alike.
            PathclipError: As `Source.load`.
        """
        self.line.send(job)
        answer = self.line.recv()
        if isinstance(answer, Exception):
            raise answer
        items: list[Item] = answer
        return items

    def close(self) -> int:
        """End the process; returns its exit status."""
        with suppress(OSError):  # the garbage collector may have closed it first
            self.line.close()
        try:
            return self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def work(line_descriptor: int, memory_descriptor: int) -> None:
    """A worker's whole life: ends when the line does."""
    import torch

    torch.set_num_threads(1)
    line = Connection(line_descriptor)
    try:
        source, shape, dtype = line.recv()
        pictures = _SharedMemory(shape, dtype, memory_descriptor).array
        while True:
            slot, start, places = line.recv()
            source.tidy()
            try:
                line.send([source.load(*place, pictures[slot, start + i]) for i, place in enumerate(places)])
            except PathclipError as error:
                line.send(error)
    except (EOFError, OSError, KeyboardInterrupt):
        return
