"""One shard from a store to here: tried again where that fails, checked before it counts as here."""

from __future__ import annotations

import contextlib
import errno
import logging
from pathlib import Path

import numpy as np

from pathclip.core.errors import FaultError, PathclipError, UserError
from pathclip.core.files import atomic_path, sha256_file
from pathclip.core.remote import is_refusal
from pathclip.shards.rows import parse_idx, scan_tar
from pathclip.shards.urls import Puller
from pathclip.shards.write import ShardInfo, write_idx

__all__ = ["LostShardError", "fetch_shard"]

log = logging.getLogger("pathclip")
DELAYS_S = (1, 2, 4, 8, 16, 32, 60)  # between attempts: two minutes of a store that is away
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class LostShardError(FaultError):
    """A shard cannot be had, whole and as it was, however often it is asked for."""


def fetch_shard(
    puller: Puller, url: str, path: Path, expected: ShardInfo | None = None, index_url: str | None = None
) -> tuple[ShardInfo, int]:
    """Fetch a shard with its index beside it, again and again where that fails, and check that it is whole.

    Args:
        puller: Does it.
        url: Or a ``pipe:`` command.
        path: Where the tar is to lie. It appears whole or not at all.
        expected: What must have come: sha256 and bytes where known, and the count.
        index_url: Of its ``.idx``; the tar is scanned where there is none.

    Returns:
        What came, and how many attempts failed before.

    Raises:
        LostShardError: If all attempts failed, with the reason of the last.
    """
    for attempt, delay in enumerate((*DELAYS_S, 0)):
        try:
            with atomic_path(path) as temporary:
                puller.pull(url, temporary)
                return _checked(puller, url, temporary, path, expected, index_url), attempt
        except PathclipError as error:
            if puller.stopped.is_set():
                raise FaultError(f"{url}: stopped while it was being fetched") from None
            reason = _reason(error, url, path)
            if attempt + 1 >= _attempts(error):
                raise LostShardError(
                    f"{reason}; given up at attempt {attempt + 1}: mend it, and go on with --resume"
                ) from None
        log.warning("%s; tried again in %g s", reason, delay)
        puller.stopped.wait(delay)
    raise AssertionError


class _UnfitError(FaultError):
    """What came is not what was expected."""


def _checked(
    puller: Puller, url: str, tar: Path, path: Path, expected: ShardInfo | None, index_url: str | None
) -> ShardInfo:
    """Compare what came with what is known of it, and lay its index where the tar will lie."""
    size = tar.stat().st_size
    if expected is not None and expected.bytes and size != expected.bytes:
        raise _UnfitError(f"{url}: {size} bytes came, {expected.bytes} are stated")
    sha256 = sha256_file(tar) if expected is None or expected.sha256 else ""
    if expected is not None and sha256 != expected.sha256:
        raise _UnfitError(f"{url}: other bytes came than are stated (SHA-256 differs)")
    rows = _rows(puller, url, tar, path, index_url)
    if expected is not None and len(rows) != expected.count:
        raise _UnfitError(f"{url}: {len(rows)} samples came, {expected.count} are stated")
    write_idx(path.with_suffix(".idx"), rows.tolist())
    return ShardInfo(url, len(rows), size, sha256)


def _rows(puller: Puller, url: str, tar: Path, path: Path, index_url: str | None) -> np.ndarray:
    index = puller.read(index_url) if index_url else None
    if index is not None:
        with contextlib.suppress(UserError):  # a damaged one is made anew
            return parse_idx(index, path.with_suffix(".idx"), path)
    try:
        return scan_tar(tar, marked=True)
    except UserError as error:
        raise _UnfitError(f"{url}: no whole tar came: {str(error).rpartition(': ')[2]}") from None


def _reason(error: PathclipError, url: str, path: Path) -> str:
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in FULL:
        return (
            f"{url}: the disk of {path.parent} is full: make room, set PATHCLIP_CACHE to a larger disk, or "
            "start anew with fewer data.stream_shards"
        )
    return str(error)


def _attempts(error: PathclipError) -> int:
    """How often at most: a store may come back, a file that is not there hardly does."""
    if isinstance(error.__cause__, FileNotFoundError) or is_refusal(error):
        return 2
    return 3 if isinstance(error, _UnfitError) else len(DELAYS_S) + 1
