"""Shards of stores that lie here only while they are needed: fetched ahead, checked, removed behind."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import claim, size_text
from pathclip.shards.fetch import LostShardError, fetch_shard
from pathclip.shards.mirror import CONNECTIONS, cache_base
from pathclip.shards.read import Dataset
from pathclip.shards.urls import Puller, shard_name
from pathclip.shards.write import ShardInfo

__all__ = ["Passed", "ShardWindow"]

POLL_S = 0.1


@dataclass(slots=True)
class Passed:
    """What went through a window.

    Attributes:
        shards: Fetched, each as often as it was.
        bytes: Fetched.
        retried: Attempts that failed and were made again.
        peak_shards: That lay here at a time, at most.
        peak_bytes: Of those.
    """

    shards: int = 0
    bytes: int = 0
    retried: int = 0
    peak_shards: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    shard: ShardInfo
    url: str | None  # None: it lies at ``path`` for good
    index_url: str | None
    path: Path


class ShardWindow:
    """The shards of a split, of which those that are wanted lie here.

    Processes of one machine that want the same shard share it: the first fetches, the others link to what it
    fetched, and the bytes go when the last of them is done. What a killed process leaves is removed by the
    next one to start.

    Args:
        datasets: Their shards are numbered through.
        split: For example ``train``.

    Attributes:
        passed: What went through.
    """

    def __init__(self, datasets: Sequence[Dataset], split: str) -> None:
        self.base = cache_base() / "windows"
        self.folder = self.base / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._parts = [[self._entry(d, shard) for shard in d.shards(split)] for d in datasets]
        self.entries = [entry for part in self._parts for entry in part]
        self.passed = Passed()
        self._held: Counter[int] = Counter()
        self._coming: dict[int, Future[None]] = {}
        self._here: dict[int, int] = {}  # shard -> bytes
        self._stopped = threading.Event()
        self._puller = Puller(self._stopped)
        self._pool: ThreadPoolExecutor | None = None
        self._resources = contextlib.ExitStack()
        self._lock = threading.Lock()

    def _entry(self, dataset: Dataset, shard: ShardInfo) -> _Entry:
        url = dataset.locate(shard)
        if url is None:
            return _Entry(shard, None, None, dataset.root / shard.path)
        place = self.folder / hashlib.sha256(f"{url} {shard.sha256}".encode()).hexdigest()[:20]
        index = (
            f"{dataset.url}/{PurePosixPath(shard.path).with_suffix('.idx')}" if shard.path != url else None
        )
        return _Entry(shard, url, index, place / (shard_name(url) or f"{place.name}.tar"))

    @property
    def paths(self) -> list[Path]:
        """Where each shard lies while it is wanted."""
        return [entry.path for entry in self.entries]

    def most_bytes(self, window: int) -> int | None:
        """Room that two windows of each dataset take at most; None if nobody states it or none is fetched."""
        sizes = [sorted((e.shard.bytes for e in part if e.url), reverse=True) for part in self._parts]
        if not any(sizes) or not all(size for part in sizes for size in part):
            return None
        return sum(sum(part[: 2 * window]) for part in sizes)

    def check_room(self, window: int) -> None:
        """Meet too small a disk before anything is fetched.

        Raises:
            UserError: If two windows of each dataset do not fit, or the place cannot be written to.
        """
        if all(entry.url is None for entry in self.entries):
            return
        try:
            self.base.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {self.base}: {error.strerror}; set PATHCLIP_CACHE") from None
        _sweep(self.base)
        need = self.most_bytes(window) or 0
        free = shutil.disk_usage(self.base).free
        if need > free:
            raise UserError(
                f"data.stream_shards = {window} takes up to {size_text(need)} and {self.base} has room for "
                f"{size_text(free)}; lower it, or set PATHCLIP_CACHE to a larger disk"
            )

    def want(self, numbers: Iterable[int]) -> None:
        """Begin to fetch what is not here; each shard stays until it is dropped as often as it was wanted."""
        for number in numbers:
            self._held[number] += 1
            if number not in self._coming and self.entries[number].url is not None:
                self._coming[number] = self._started().submit(self._bring, number)

    def wait(self, numbers: Iterable[int]) -> None:
        """Return when the shards are here.

        Raises:
            LostShardError: If one of them cannot be had.
            FaultError: If the window was closed meanwhile.
        """
        for number in numbers:
            coming = self._coming.get(number)
            while coming is not None:
                if self._stopped.is_set():
                    raise FaultError("stopped while shards were being fetched")
                with contextlib.suppress(TimeoutError):
                    coming.result(timeout=POLL_S)
                    break

    def drop(self, numbers: Iterable[int]) -> None:
        """Remove those that nobody wants any more."""
        self._held.subtract(numbers)
        for number in [n for n, coming in self._coming.items() if self._held[n] == 0]:
            coming = self._coming[number]
            if coming.done() or coming.cancel():  # one under way goes another time
                del self._coming[number], self._held[number]
                self._here.pop(number, None)
                _remove(self.entries[number].path)

    def stop(self) -> None:
        """End what is being fetched, and whoever waits for it; `close` follows."""
        self._stopped.set()

    def close(self) -> None:
        """End what is being fetched and remove everything; may be used again afterwards."""
        self.stop()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        self._resources.close()
        self._held.clear()
        self._coming.clear()
        self._here.clear()
        self._stopped.clear()

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._resources.enter_context(_own_folder(self.folder))
            self._pool = ThreadPoolExecutor(CONNECTIONS, "fetch")
        return self._pool

    def _bring(self, number: int) -> None:
        entry = self.entries[number]
        try:
            self._link_or_fetch(entry)
        except OSError as error:
            raise LostShardError(f"{entry.url}: cannot be kept in {self.folder}: {error}") from error
        self._here[number] = entry.path.stat().st_size
        here = list(self._here.values())
        with self._lock:
            self.passed.peak_shards = max(self.passed.peak_shards, len(here))
            self.passed.peak_bytes = max(self.passed.peak_bytes, sum(here))

    def _link_or_fetch(self, entry: _Entry) -> None:
        lock = self.base / f"{entry.path.parent.name}.{socket.gethostname()}.fetch"
        while not self._link(entry.path):
            with claim(lock) as owned:
                if owned:
                    if not self._link(entry.path):
                        self._fetch(entry)
                    return
            if self._stopped.wait(POLL_S):
                raise FaultError(f"{entry.url}: stopped while another process fetched it")

    def _link(self, path: Path) -> bool:
        """Take a shard that another process of this machine holds; index first, as a tar says it is there."""
        path.parent.mkdir(exist_ok=True)
        for folder in self.base.iterdir():
            other = folder / path.parent.name / path.name
            try:
                path.with_suffix(".idx").unlink(missing_ok=True)
                os.link(other.with_suffix(".idx"), path.with_suffix(".idx"))
                os.link(other, path)
            except OSError:  # it has none, dropped it just now, or cannot link
                continue
            return True
        return False

    def _fetch(self, entry: _Entry) -> None:
        assert entry.url is not None
        retried = fetch_shard(self._puller, entry.url, entry.path, entry.shard, entry.index_url)[1]
        with self._lock:
            self.passed.shards += 1
            self.passed.bytes += entry.path.stat().st_size
            self.passed.retried += retried


@contextlib.contextmanager
def _own_folder(folder: Path) -> Iterator[None]:
    """A folder that others can tell from one whose process is gone: its lock goes with the process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    lock = folder.with_suffix(".lock")
    with contextlib.ExitStack() as stack:
        while not lock.exists():  # a sweep may take it before it is locked
            fcntl.flock(stack.enter_context(open(lock, "w")), fcntl.LOCK_EX)
        folder.mkdir()
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _sweep(base: Path) -> None:
    """Remove what processes left that were killed."""
    for lock in base.glob("*.lock"):
        with contextlib.suppress(OSError), open(lock) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".idx").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()
