"""What became of one post, picture, row or sample, and why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pathclip.core.errors import UserError
from pathclip.ingest.codes import MEANING, Code
from pathclip.ingest.key import load_key
from pathclip.ingest.tombstones import Tombstones

__all__ = ["explain"]

_LINE = re.compile(r":\d+([#>]\w+)*$")
POST_COLUMNS = ("source", "kind", "lang", "created_at", "like_count", "sensitive", "is_referenced", "text")


def explain(out: str | Path, wanted: str) -> dict[str, Any]:
    """The path of one thing through the funnel.

    Args:
        out: The dataset folder, with its private part.
        wanted: A sample id, post id, media key, candidate id, ``file:line``, or a table's picture path.

    Returns:
        ``id``; ``decisions``, one per candidate (kept ones with sample, split, shard and captions, rejected
        ones with stage, code and detail); ``captions``, the samples it captions; ``posts``, what was read.

    Raises:
        UserError: If the folder has no private part, or nothing in it bears the id.
    """
    private = Path(out) / "private"
    if not (private / "plan.parquet").is_file():
        raise UserError(
            f"{out} has no private/plan.parquet; explain needs the folder that ingest wrote, whole"
        )
    line_posts = _posts_of_line(private / "parts", wanted)
    if line_posts:
        return _merged(wanted, [explain(out, tweet_id) for tweet_id in line_posts])
    samples = {row["sample_id"]: row for row in _where(private / "plan.parquet", {"sample_id": wanted})}
    origins = _where(
        private / "provenance.parquet", {"sample_id": wanted, "tweet_id": wanted, "media_key": wanted}
    )
    more = {row["sample_id"] for row in origins} - samples.keys()
    for sample_id in sorted(more):
        samples.update(
            {r["sample_id"]: r for r in _where(private / "plan.parquet", {"sample_id": sample_id})}
        )
    rejects = [
        row for path in sorted((private / "rejects").glob("*.parquet")) for row in _rejects(path, wanted)
    ]
    tweet_ids = {wanted} | {row["tweet_id"] for row in (*origins, *rejects) if row["tweet_id"]}
    decisions = [_kept(row, samples[row["sample_id"]]) for row in origins if row["role"] == "image"]
    decisions += [_rejected(row) for row in rejects]
    if not decisions and not origins:
        decisions = _taken_down(private, wanted)
    if not decisions and not origins:
        raise UserError(
            f"{out} knows nothing of {wanted!r}; expected a sample id, a post id, a media key, a "
            "picture's path or file:line"
        )
    return {
        "id": wanted,
        "decisions": decisions,
        "captions": [
            {
                "sample_id": row["sample_id"],
                "caption_index": row["caption_index"],
                "source": row["caption_source"],
                "text": samples[row["sample_id"]]["captions"][row["caption_index"]]["text"],
            }
            for row in origins
            if row["role"] == "caption"
        ],
        "posts": _posts(private / "parts", tweet_ids),
    }


def _posts_of_line(parts: Path, wanted: str) -> list[str]:
    """Ids of the posts that stood in a line, where ``wanted`` is ``file:line`` or a place within it."""
    if not _LINE.search(wanted):
        return []
    found: set[str] = set()
    for path in sorted(parts.glob("posts-*.parquet")):
        table = pq.read_table(
            path,
            columns=["id", "source"],
            filters=pc.starts_with(pc.field("source"), wanted),  # pyright: ignore[reportAttributeAccessIssue]
        )
        found |= {row["id"] for row in table.to_pylist() if _within(row["source"], wanted)}
    return sorted(found)


def _within(source: str, wanted: str) -> bool:
    return source == wanted or source[len(wanted) : len(wanted) + 1] in ("#", ">")


def _merged(wanted: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    lists = {name: [row for one in found for row in one[name]] for name in ("decisions", "captions", "posts")}
    return {"id": wanted, **lists}


def _where(path: Path, any_of: dict[str, str]) -> list[dict[str, Any]]:
    """Rows in which one of the columns has the value."""
    expression = None
    for column, value in any_of.items():
        term = pc.field(column) == value
        expression = term if expression is None else expression | term
    return pq.read_table(path, filters=expression).to_pylist()


def _rejects(path: Path, wanted: str) -> list[dict[str, Any]]:
    rows = _where(path, {"candidate_id": wanted, "tweet_id": wanted, "media_key": wanted, "source": wanted})
    return rows or _where(path, {"candidate_id": f"l:{wanted}"})


def _kept(origin: dict[str, Any], sample: dict[str, Any]) -> dict[str, Any]:
    names = ("sample_id", "split", "shard", "index", "group_id", "positive_id", "hashtag", "captions")
    return {
        "decision": "kept",
        "tweet_id": origin["tweet_id"],
        "media_key": origin["media_key"],
        **{name: sample[name] for name in names},
    }


def _rejected(row: dict[str, Any]) -> dict[str, Any]:
    names = ("tweet_id", "media_key", "stage", "code", "detail", "source")
    return {"decision": "rejected", **{n: row[n] for n in names}, "meaning": MEANING[Code(row["code"])]}


def _taken_down(private: Path, wanted: str) -> list[dict[str, Any]]:
    """When and why a post left, where the key that knows it again lies in the dataset."""
    if not (private / "key").is_file():
        return []
    gone = Tombstones.load(private, load_key(private, None))
    stone = gone.stones.get(("post", gone.name("post", wanted)))
    if stone is None:
        return []
    row = {"tweet_id": wanted, "media_key": None, "source": None, "code": str(Code.TAKEN_DOWN)}
    return [_rejected({**row, "stage": "select", "detail": f"on {stone.date} ({stone.reason})"})]


def _posts(parts: Path, tweet_ids: set[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(parts.glob("posts-*.parquet")):
        found += pq.read_table(
            path, columns=["id", *POST_COLUMNS], filters=pc.field("id").isin(sorted(tweet_ids))
        ).to_pylist()
    return found
