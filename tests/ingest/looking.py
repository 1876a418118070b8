"""Read a dataset folder back, and the dump it came from, for assertions."""

from __future__ import annotations

import json
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


def posts_of(tweets: Path) -> tuple[list[dict], dict[str, dict], dict[str, dict]]:
    """Posts, users and media of a dump of v2 pages."""
    posts, users, media = [], {}, {}
    for line in tweets.read_text("utf-8", "replace").splitlines():
        try:
            page = json.loads(line)
        except ValueError:
            continue
        found = page.get("data", []) if isinstance(page, dict) else []
        includes = page.get("includes", {}) if isinstance(page, dict) else {}
        posts += [*(found if isinstance(found, list) else [found]), *includes.get("tweets", [])]
        users.update({u["id"]: u for u in includes.get("users", [])})
        media.update({m["media_key"]: m for m in includes.get("media", [])})
    return [p for p in posts if "id" in p], users, media


def needles_of(dump_file: Path, post_ids: set[str], author_ids: set[str]) -> set[str]:
    """What would betray these posts and authors: ids, texts, names, attachments and their files."""
    posts, users, media = posts_of(dump_file)
    texts = [p.get("text", "") for p in posts]
    needles = set(post_ids) | set(author_ids)
    needles |= {users[a]["username"] for a in author_ids if a in users}
    for post in posts:
        if post["id"] not in post_ids and post.get("author_id") not in author_ids:
            continue
        needles.add(post["id"])
        if texts.count(post["text"]) == 1 and len(post["text"]) > 30:
            needles.add(post["text"])
        if "retweeted" in {r.get("type") for r in post.get("referenced_tweets", ())}:
            continue  # its attachments are those of another post
        for key in post.get("attachments", {}).get("media_keys", ()):
            needles |= {key, key[2:]}
            if url := media.get(key, {}).get("url"):
                needles.add(url.rpartition("/")[2].partition(".")[0])
    return needles
