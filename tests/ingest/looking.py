"""Read a dataset folder back, for assertions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pathclip.core.files import sha256_file
from pathclip.shards import Dataset


def samples(out: Path) -> list[dict[str, Any]]:
    dataset = Dataset.open(out)
    return [record for split in dataset.splits for _, record in dataset.samples(split)]


def rejects(out: Path) -> list[dict[str, Any]]:
    return [
        row
        for p in sorted((out / "private" / "rejects").glob("*.parquet"))
        for row in pq.read_table(p).to_pylist()
    ]


def codes(out: Path) -> dict[str, str]:
    return {row["candidate_id"]: row["code"] for row in rejects(out)}


def provenance(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "private" / "provenance.parquet").to_pylist()


def kept(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(tweet id, media key) to its record."""
    by_id = {record["sample_id"]: record for record in samples(out)}
    return {
        (row["tweet_id"], row["media_key"]): by_id[row["sample_id"]]
        for row in provenance(out)
        if row["role"] == "image"
    }


def shard_bytes(out: Path) -> dict[str, str]:
    files = [*sorted((out / "shards").iterdir()), out / "index.json", out / "report.json"]
    return {file.relative_to(out).as_posix(): sha256_file(file) for file in files}
