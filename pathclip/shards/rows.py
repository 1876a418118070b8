"""Where the members of a tar lie: read from its index, or found in the tar itself."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np

from pathclip.core.errors import UserError
from pathclip.shards.write import INDEX_MAGIC, MEMBERS

__all__ = ["parse_idx", "scan_tar"]

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp"})


def scan_tar(path: Path, *, marked: bool = False) -> np.ndarray:
    """Index rows of any webdataset tar: (N, 6) uint64 in tar order; samples without a picture are left out.

    Args:
        path: The tar.
        marked: It must have the mark that ends a tar: one cut between two members looks whole otherwise.

    Raises:
        UserError: If the tar cannot be read to its end.
    """
    found: dict[str, list[int]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                key, _, extension = name.partition(".")
                column = (
                    0
                    if extension in IMAGE_EXTENSIONS
                    else MEMBERS.index(extension)
                    if extension in MEMBERS
                    else -1
                )
                if member.isfile() and column >= 0:
                    row = found.setdefault(f"{folder}/{key}", [0] * 6)
                    row[2 * column : 2 * column + 2] = member.offset_data, member.size
            end = tar.offset
        if end + marked * tarfile.BLOCKSIZE > path.stat().st_size:
            raise tarfile.ReadError("unexpected end of data")
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"shard {path} cannot be read as a tar: {error}") from None
    rows = [row for row in found.values() if row[1]]
    return np.array(rows, dtype=np.uint64).reshape(-1, 6)


def parse_idx(data: bytes, path: Path, tar: Path) -> np.ndarray:
    """Index rows from the bytes of an ``.idx``.

    Raises:
        UserError: If they are damaged.
    """
    count = int.from_bytes(data[8:16], "little")
    if data[:8] != INDEX_MAGIC or len(data) != 16 + 48 * count:
        raise UserError(f"index {path} is damaged; delete it and {tar.name} is scanned instead")
    return np.frombuffer(data, dtype="<u8", offset=16).reshape(count, 6)
