"""Write a shard exactly once: tar, then index, then the stats file that marks it as complete."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pathclip.core.files import atomic_write, write_json
from pathclip.shards.sample import Sample

__all__ = ["INDEX_MAGIC", "MEMBERS", "ShardInfo", "write_idx", "write_index", "write_shard"]

INDEX_MAGIC = b"PCIDX1\0\0"
MEMBERS = ("jpg", "txt", "json")
MODE_AT, SIZE_AT, SIZE_DIGITS, SUM_AT = 100, 124, 11, 148  # in a header; source: POSIX.1-1988, ustar
Row = tuple[int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """A complete shard: path relative to the dataset folder, samples, bytes and SHA-256 of the tar."""

    path: str
    count: int
    bytes: int
    sha256: str


def write_shard(path: Path, samples: Iterable[Sample], *, root: Path) -> ShardInfo:
    """Write ``NAME.tar``, ``NAME.idx`` and, last, ``NAME.stats.json``.

    Equal samples in equal order give equal bytes: times, owners and modes are fixed.

    Args:
        path: The tar to write, for example ``DIR/shards/train-000000.tar``.
        samples: In the order they shall lie.
        root: The dataset folder that the reported path is relative to.
    """
    stats = path.with_suffix(".stats.json")
    stats.unlink(missing_ok=True)  # from here until the end the shard counts as absent
    with atomic_write(path) as handle:
        rows, size, sha256 = _write_tar(handle, samples)
    write_idx(path.with_suffix(".idx"), rows)
    info = ShardInfo(path.relative_to(root).as_posix(), len(rows), size, sha256)
    write_json(stats, {"schema": "pathclip.shard-stats/1", **asdict(info)})
    return info


def write_idx(path: Path, rows: Iterable[Row]) -> None:
    """Write the index: magic, u64 count, then six u64 per sample (offset, size of jpg, txt, json)."""
    rows = list(rows)
    with atomic_write(path) as handle:
        handle.write(INDEX_MAGIC + struct.pack("<Q", len(rows)))
        handle.writelines(struct.pack("<6Q", *row) for row in rows)


def write_index(root: Path, splits: dict[str, list[ShardInfo]]) -> None:
    """Write ``index.json``, last of all: what it names exists and is whole."""
    table = {
        split: {
            "count": sum(shard.count for shard in shards),
            "bytes": sum(shard.bytes for shard in shards),
            "shards": [asdict(shard) for shard in shards],
        }
        for split, shards in splits.items()
    }
    write_json(root / "index.json", {"schema": "pathclip.index/1", "splits": table})


def _write_tar(handle: io.BufferedIOBase, samples: Iterable[Sample]) -> tuple[list[Row], int, str]:
    """Rows of the index, bytes and SHA-256 of what was written."""
    rows: list[Row] = []
    digest, at = hashlib.sha256(), 0
    for sample in samples:
        row: list[int] = []
        contents = (sample.jpg, sample.captions[0][0].encode(), sample.to_json())
        for extension, data in zip(MEMBERS, contents, strict=True):
            row += [at + tarfile.BLOCKSIZE, len(data)]
            padding = bytes(-len(data) % tarfile.BLOCKSIZE)
            for part in (_header(f"{sample.sample_id}.{extension}", len(data)), data, padding):
                handle.write(part)
                digest.update(part)
                at += len(part)
        rows.append(tuple(row))  # type: ignore[arg-type]
    end = bytes(2 * tarfile.BLOCKSIZE + -(at + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)
    handle.write(end)
    digest.update(end)
    return rows, at + len(end), digest.hexdigest()


def _header(name: str, size: int) -> bytes:
    """What `tarfile` writes before a member of this name and size, in a fraction of its time."""
    named = name.encode()
    assert len(named) < MODE_AT, name
    assert size < 8**SIZE_DIGITS, size
    digits = b"%0*o" % (SIZE_DIGITS, size)
    body = named + _BLANK[len(named) : SIZE_AT] + digits + _BLANK[SIZE_AT + SIZE_DIGITS :]
    return body[:SUM_AT] + b"%06o\0" % sum(body) + body[SUM_AT + 7 :]


def _blank_header() -> bytes:
    """A header without name and size, spaces in place of its checksum."""
    member = tarfile.TarInfo()
    member.mode = 0o444
    header = member.tobuf(tarfile.USTAR_FORMAT)
    return header[:SUM_AT] + b" " * 8 + header[SUM_AT + 8 :]


_BLANK = _blank_header()
