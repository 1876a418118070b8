"""Datasets in an object store: their index at once, the shards of a split when they are read, each once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import atomic_path, atomic_write, claim, read_json, sha256_file
from pathclip.core.progress import track
from pathclip.core.remote import Place, check_url
from pathclip.shards.write import ShardInfo

__all__ = ["CONNECTIONS", "bring", "cache_base", "cache_folder", "mirror_index", "owned_folder"]

log = logging.getLogger("pathclip")
CONNECTIONS = 8
PATIENCE_S = 30
INDEX = "index.json"


def cache_folder(url: str) -> Path:
    """Where the files of a url lie on this machine: below ``PATHCLIP_CACHE``, else ``~/.cache/pathclip``."""
    name = PurePosixPath(url).name[:40]
    return cache_base() / "datasets" / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"


def cache_base() -> Path:
    """Where everything that was fetched lies."""
    return Path(os.environ.get("PATHCLIP_CACHE") or Path.home() / ".cache" / "pathclip")


def mirror_index(url: str) -> Path:
    """Fetch ``index.json``; shards that it no longer names, or names with another checksum, are dropped here.

    Where the store cannot be reached and an earlier index is here, that one is used, and a warning says so.

    Returns:
        The folder that `bring` fills.

    Raises:
        UserError: If there is no dataset at the url, or its index names files outside of it.
        FaultError: If the store cannot be reached or refuses.
    """
    root = cache_folder(check_url(url))
    try:
        data = Place(url).read(INDEX)
    except FaultError as error:
        if not (root / INDEX).is_file():
            raise
        log.warning("%s; the index of the last time is used", error)
        return root
    if data is None:
        raise UserError(f"{url} is no dataset: there is no {INDEX} (from `pathclip ingest`)")
    wanted = _shards(_parsed(data, url), url)
    with owned_folder(root):
        if (root / INDEX).is_file():
            for path, sha256 in _shards(read_json(root / INDEX), url).items():
                if wanted.get(path) != sha256:
                    (root / path).unlink(missing_ok=True)
                    (root / path).with_suffix(".idx").unlink(missing_ok=True)
        with atomic_write(root / INDEX) as handle:
            handle.write(data)
    return root


def bring(url: str, root: Path, shards: Sequence[ShardInfo]) -> None:
    """Fetch the shards that are not here yet, several at a time; each is checked before it gets its name.

    May be killed anywhere; whole shards stay. Of several processes one fetches, the others wait.

    Raises:
        FaultError: If the store cannot be reached, or a shard is not the one that the index states.
        UserError: If the disk has too little room.
    """
    with owned_folder(root):
        missing = [shard for shard in shards if not _is_here(root, shard)]
        if not missing:
            return
        need, free = sum(shard.bytes for shard in missing), shutil.disk_usage(root).free
        if need > free:
            raise UserError(
                f"{url}: {need / 1e9:.1f} GB are to be fetched and {root} has room for {free / 1e9:.1f} GB; "
                "set PATHCLIP_CACHE to a larger disk"
            )
        place = Place(url)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            done = pool.map(lambda shard: _fetch(place, root, shard), missing)
            for _ in track(done, "shards fetched", len(missing)):
                pass


def _fetch(place: Place, root: Path, shard: ShardInfo) -> None:
    path = root / shard.path
    path.parent.mkdir(parents=True, exist_ok=True)
    index = PurePosixPath(shard.path).with_suffix(".idx").as_posix()
    rows = place.read(index)
    if rows is not None:  # where there is none, the tar is scanned
        with atomic_write(root / index) as handle:
            handle.write(rows)
    with atomic_path(path) as temporary:
        place.get(shard.path, temporary)
        size = temporary.stat().st_size
        if size != shard.bytes or (shard.sha256 and sha256_file(temporary) != shard.sha256):
            raise FaultError(
                f"{place.url}: {shard.path} is not the shard that {INDEX} states ({size} bytes, expected "
                f"{shard.bytes}; or another checksum): publish the dataset again"
            )


def _is_here(root: Path, shard: ShardInfo) -> bool:
    path = root / shard.path
    return path.is_file() and path.stat().st_size == shard.bytes


def _parsed(data: bytes, url: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("schema") != "pathclip.index/1":
        raise UserError(f"{url}/{INDEX} is no index of schema pathclip.index/1")
    return found


def _shards(index: dict[str, Any], url: str) -> dict[str, str]:
    """Path to checksum of every shard."""
    try:
        found = {s["path"]: s["sha256"] for split in index["splits"].values() for s in split["shards"]}
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{url}/{INDEX} is no index of schema pathclip.index/1") from None
    for path in found:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or pure.suffix != ".tar":
            raise UserError(f"{url}/{INDEX} names {path!r}, which is no shard of its folder")
    return found


@contextmanager
def owned_folder(root: Path) -> Iterator[None]:
    """Wait until no other process of this machine changes the folder."""
    root.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    told = False
    while True:
        with claim(root / "lock") as owned:
            if owned:
                yield
                return
        time.sleep(0.2)
        if not told and time.monotonic() - started > PATIENCE_S:
            log.warning("waiting for another process to fetch; if there is none, remove %s", root / "lock")
            told = True
