"""Check a dataset folder against what it says of itself."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.core.files import sha256_file
from pathclip.core.progress import track
from pathclip.shards.read import Dataset, ShardReader
from pathclip.shards.rows import scan_tar
from pathclip.shards.sample import SCHEMA

__all__ = ["VerifyReport", "verify"]


@dataclass(slots=True)
class VerifyReport:
    """What was checked and what is wrong.

    Attributes:
        shards: Shards looked at.
        samples: Samples looked at.
        problems: One line per fault, naming shard and key.
    """

    shards: int = 0
    samples: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if nothing is wrong."""
        return not self.problems


def verify(root: str | Path, *, decode: bool = True) -> VerifyReport:
    """Compare every shard with its checksum, index and stats, decode every picture, and look for split leaks.

    Args:
        root: The dataset folder.
        decode: Also decode every picture (most of the time it takes).

    Raises:
        UserError: If there is no dataset at ``root``.
    """
    dataset = Dataset.open(root)
    report = VerifyReport()
    homes: dict[tuple[str, str], str] = {}
    shards = [(split, shard) for split, shards in dataset.splits.items() for shard in shards]
    for split, shard in track(shards, "shards"):
        path = dataset.root / shard.path
        report.shards += 1
        if not path.is_file():
            report.problems.append(f"{shard.path}: missing")
            continue
        if shard.sha256 and sha256_file(path) != shard.sha256:
            report.problems.append(f"{shard.path}: SHA-256 differs from index.json")
        try:
            reader = ShardReader(path)
            if not np.array_equal(reader.rows, scan_tar(path)):
                report.problems.append(f"{shard.path}: index differs from the tar")
                continue
            if len(reader) != shard.count:
                report.problems.append(f"{shard.path}: {len(reader)} samples, index.json says {shard.count}")
            for i in range(len(reader)):
                report.samples += 1
                _check_sample(report, reader, i, split, homes, decode)
        except UserError as error:
            report.problems.append(str(error))
    return report


def _check_sample(
    report: VerifyReport,
    reader: ShardReader,
    i: int,
    split: str,
    homes: dict[tuple[str, str], str],
    decode: bool,
) -> None:
    place = f"{reader.path.name}, key {reader.key(i)}"
    try:
        record = reader.record(i)
    except json.JSONDecodeError:
        report.problems.append(f"{place}: json member is not JSON")
        return
    if record.get("schema") == SCHEMA:
        if record["split"] != split:
            report.problems.append(f"{place}: says split {record['split']}, lies in {split}")
        for kind in ("sample_id", "group_id", "positive_id"):
            home = homes.setdefault((kind, record[kind]), split if kind != "sample_id" else place)
            if home != (split if kind != "sample_id" else place):
                report.problems.append(f"{place}: {kind} {record[kind]} also lies in {home}")
        if record["captions"][0]["text"] != reader.txt(i):
            report.problems.append(f"{place}: txt differs from the first caption")
    if decode:
        try:
            with Image.open(io.BytesIO(reader.jpg(i))) as image:
                image.load()
                size = image.size
            if record.get("schema") == SCHEMA and size != (record["width"], record["height"]):
                report.problems.append(f"{place}: picture is {size[0]}x{size[1]}, json says otherwise")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            report.problems.append(f"{place}: picture does not decode: {error}")
