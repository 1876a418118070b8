"""Write a shard exactly once: tar, then index, then the stats file that marks it as complete."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pathclip.core.files import atomic_write, sha256_file, write_json
from pathclip.shards.sample import Sample

__all__ = ["INDEX_MAGIC", "MEMBERS", "ShardInfo", "write_idx", "write_index", "write_shard"]

INDEX_MAGIC = b"PCIDX1\0\0"
MEMBERS = ("jpg", "txt", "json")
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
        rows = _write_tar(handle, samples)
    write_idx(path.with_suffix(".idx"), rows)
    info = ShardInfo(path.relative_to(root).as_posix(), len(rows), path.stat().st_size, sha256_file(path))
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


def _write_tar(handle: io.BufferedIOBase, samples: Iterable[Sample]) -> list[Row]:
    rows: list[Row] = []
    with tarfile.open(fileobj=handle, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            row: list[int] = []
            contents = (sample.jpg, sample.captions[0][0].encode(), sample.to_json())
            for extension, data in zip(MEMBERS, contents, strict=True):
                member = tarfile.TarInfo(f"{sample.sample_id}.{extension}")
                member.size, member.mode = len(data), 0o444
                row += [tar.offset + tarfile.BLOCKSIZE, len(data)]
                tar.addfile(member, io.BytesIO(data))
            rows.append(tuple(row))  # type: ignore[arg-type]
    return rows
