"""Does a dataset folder agree with itself: shards with index, plan with shards, rejects with report?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pathclip.core.errors import UserError
from pathclip.ingest.card import read_card
from pathclip.ingest.codes import STAGES
from pathclip.ingest.report import open_report
from pathclip.shards import Dataset, ShardReader, VerifyReport, verify

__all__ = ["check", "notes_on"]

SAMPLE_KEYS = {
    "schema",
    "sample_id",
    "group_id",
    "positive_id",
    "captions",
    "hashtag",
    "width",
    "height",
    "phash",
    "split",
}
PANEL_KEYS = {"panels", "panel"}  # where figures are marked or split


def check(out: str | Path, *, decode: bool = True) -> VerifyReport:
    """Everything that can be checked without the input.

    The shards (`pathclip.shards.verify`), the sums of the report, and, where the private part is there, that
    plan and rejects hold what the shards and the report say.

    Args:
        out: A dataset folder, or any folder of shards.
        decode: Also decode every picture.

    Raises:
        UserError: If there is no dataset.
    """
    out = Path(out)
    found = verify(out, decode=decode)
    if (out / "report.json").is_file():
        data = open_report(out).data
        _check_report(data, found)
        if (out / "private" / "plan.parquet").is_file():
            _check_private(out, data, found)
    elif (out / "index.json").is_file():
        found.problems.append("report.json: missing")
    return found


def notes_on(out: str | Path) -> list[str]:
    """What is in order but not ready to be shared: a card that states no legal basis."""
    path = Path(out) / "README.md"
    if not path.is_file() or read_card(path).legal_basis is not None:
        return []
    return [
        f'{path.name}: no legal basis is stated; before sharing: pathclip data card {out} --legal-basis "..."'
    ]


def _check_report(data: dict[str, Any], found: VerifyReport) -> None:
    if data["in"] != data["kept"] + data["rejected"]:
        found.problems.append(
            f"report.json: in {data['in']} is not kept {data['kept']} + rejected {data['rejected']}"
        )
    for name in ("by_stage", "by_code"):
        if sum(data[name].values()) != data["rejected"]:
            found.problems.append(f"report.json: {name} does not add up to rejected")
    unknown = set(data["by_code"]) - {code for codes in STAGES.values() for code in codes}
    if unknown:
        found.problems.append(f"report.json: unknown codes {', '.join(sorted(unknown))}")
    if sum(data["splits"].values()) != data["samples"] or data["samples"] != found.samples:
        found.problems.append(f"report.json: {data['samples']} samples, the shards hold {found.samples}")


def _check_private(out: Path, data: dict[str, Any], found: VerifyReport) -> None:
    private = out / "private"
    try:
        plan = pq.read_table(private / "plan.parquet", columns=["sample_id", "shard", "index"]).to_pylist()
        rejected = sum(pq.read_metadata(p).num_rows for p in sorted((private / "rejects").glob("*.parquet")))
    except (pa.ArrowException, OSError) as error:
        found.problems.append(f"private: cannot be read: {error}")
        return
    if rejected != data["rejected"]:
        found.problems.append(f"private/rejects: {rejected} rows, report.json says {data['rejected']}")
    planned = {(row["shard"], row["index"]): row["sample_id"] for row in plan}
    dataset = Dataset.open(out)
    for reader in (r for split in dataset.splits for r in dataset.readers(split)):
        try:
            _check_shard(reader, planned, found)
        except (UserError, ValueError):  # damaged: the shard's own check has said so
            planned = {place: name for place, name in planned.items() if place[0] != reader.path.stem}
    if planned:
        found.problems.append(f"private/plan.parquet: {len(planned)} samples are in no shard")


def _check_shard(reader: ShardReader, planned: dict[tuple[str, int], str], found: VerifyReport) -> None:
    for i in range(len(reader)):
        record = reader.record(i)
        place = f"{reader.path.name}, key {reader.key(i)}"
        if planned.pop((reader.path.stem, i), None) != record.get("sample_id"):
            found.problems.append(f"{place}: not what the plan names here")
        if set(record) - PANEL_KEYS != SAMPLE_KEYS:
            found.problems.append(f"{place}: keys {sorted(record)}")
