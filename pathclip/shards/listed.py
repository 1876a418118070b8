"""Foreign shards, named one by one: how many samples each holds."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import read_json, write_json
from pathclip.core.progress import track
from pathclip.core.remote import is_refusal
from pathclip.shards.fetch import fetch_shard
from pathclip.shards.mirror import CONNECTIONS, cache_folder, owned_folder
from pathclip.shards.urls import PIPE, Puller, shard_name, shard_urls
from pathclip.shards.write import ShardInfo

__all__ = ["COUNTED", "SIZES", "open_listed", "split_of"]

log = logging.getLogger("pathclip")
SIZES = "sizes.json"  # shard -> samples, as open_clip and webdataset's tools read it
COUNTED = "counted.json"
SCHEMA = "pathclip.counted/1"
KEEP_S = 10.0  # so much work is repeated at most after a kill


def open_listed(text: str, *, count: bool = True) -> tuple[Path, dict[str, tuple[ShardInfo, ...]]]:
    """The shards that a text lists, by split, with their samples.

    What a ``sizes.json`` beside them states is believed and checked when a shard comes. Other shards are read
    once, a few at a time, and what was counted (with bytes and sha256) is kept in the folder of the list.

    Returns:
        That folder, and split to shards.

    Raises:
        UserError: If the list is wrong, or shards would have to be counted and ``count`` is off.
        FaultError: If a shard cannot be had.
    """
    urls, root = shard_urls(text), cache_folder(text)
    known = _kept(root)
    known |= _stated([url for url in urls if url not in known])
    missing = [url for url in urls if url not in known]
    if missing and not count:
        raise UserError(
            f"{text}: nothing states how many samples {len(missing)} of {len(urls)} shards hold: put a "
            f"{SIZES} beside them, or start the run itself, which reads each of them once to count"
        )
    if missing:
        with owned_folder(root):
            known |= _kept(root)  # another process may have counted meanwhile
            known |= _count(root, [url for url in missing if url not in known], known)
    splits: dict[str, list[ShardInfo]] = {}
    for url in urls:
        splits.setdefault(split_of(shard_name(url)), []).append(known[url])
    return root, {split: tuple(shards) for split, shards in splits.items()}


def split_of(name: str) -> str:
    """The split that a shard's name tells: ``val-000000.tar`` is of val; without one it is of train."""
    stem = name.removesuffix(".tar").rpartition("-")[0]
    return stem if stem in ("train", "val", "test") else "train"


def _count(root: Path, urls: Sequence[str], known: dict[str, ShardInfo]) -> dict[str, ShardInfo]:
    """Fetch each shard, look at it and remove it again."""
    log.info("%d shards are read once to count their samples", len(urls))
    puller, found, kept_at = Puller(threading.Event()), dict[str, ShardInfo](), time.monotonic()

    def look(number: int) -> ShardInfo:
        path = root / f"counting-{number}.tar"
        try:
            return fetch_shard(puller, urls[number], path)[0]
        finally:
            path.unlink(missing_ok=True)
            path.with_suffix(".idx").unlink(missing_ok=True)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            for info in track(pool.map(look, range(len(urls))), "shards counted", len(urls)):
                found[info.path] = info
                if time.monotonic() - kept_at > KEEP_S:
                    _keep(root, {**known, **found})
                    kept_at = time.monotonic()
        finally:
            _keep(root, {**known, **found})
            puller.stopped.set()  # where one shard is lost, the others need not come
            pool.shutdown(cancel_futures=True)
    return found


def _kept(root: Path) -> dict[str, ShardInfo]:
    if not (root / COUNTED).is_file():
        return {}
    said = read_json(root / COUNTED)
    if not isinstance(said, dict) or said.get("schema") != SCHEMA:
        raise UserError(
            f"{root / COUNTED} is not of schema {SCHEMA}; delete it, and the shards are counted anew"
        )
    return {url: ShardInfo(url, *values) for url, values in said["shards"].items()}


def _keep(root: Path, shards: dict[str, ShardInfo]) -> None:
    table = {url: [s.count, s.bytes, s.sha256] for url, s in shards.items() if s.sha256}
    write_json(root / COUNTED, {"schema": SCHEMA, "shards": table})


def _stated(urls: Sequence[str]) -> dict[str, ShardInfo]:
    """What the ``sizes.json`` of each folder states."""
    puller, folders, found = Puller(threading.Event()), dict[str, dict[str, int]](), dict[str, ShardInfo]()
    for url in (url for url in urls if not url.startswith(PIPE)):
        folder = url.partition("?")[0].rpartition("/")[0]
        if folder not in folders:
            folders[folder] = _sizes(puller, f"{folder}/{SIZES}")
        if (samples := folders[folder].get(shard_name(url))) is not None:
            found[url] = ShardInfo(url, samples, 0, "")
    return found


def _sizes(puller: Puller, url: str) -> dict[str, int]:
    try:
        data = puller.read(url)
    except FaultError as error:
        if is_refusal(error):  # how a store says that nothing is there to those who may not list it
            return {}
        raise
    try:
        said = json.loads(data or b"{}")
        return {str(name): int(samples) for name, samples in said.items()}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{url} is no table of shards and their samples") from None
