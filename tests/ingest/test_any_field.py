"""Any field of a payload may be null, absent or of another kind: nothing crashes, all is explained."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest
from looking import kept, provenance, rejects

from pathclip.ingest import IngestConfig, ingest
from pathclip.tweets import chunks, read

WRONG: list[Any] = [None, 7, 1.5e18, float("nan"), "", "x", "\ud83d", [], [None], {}, {"x": 1}, True, 10**400]
GONE = object()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place within a JSON value; of a list the first three elements."""
    inside = (
        value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    )
    for key, inner in inside:
        yield (*path, key)
        yield from places(inner, (*path, key))


def shortened(value: Any) -> Any:
    """The value with three elements of every list."""
    if isinstance(value, dict):
        return {key: shortened(inner) for key, inner in value.items()}
    return [shortened(inner) for inner in value[:3]] if isinstance(value, list) else value


def changed(record: Any, path: tuple[Any, ...], to: Any) -> Any:
    record = copy.deepcopy(record)
    holder = record
    for key in path[:-1]:
        holder = holder[key]
    if to is GONE:
        del holder[path[-1]]
    else:
        holder[path[-1]] = to
    return record


def shape(path: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple("*" if isinstance(key, int) else key for key in path)


def variants(record: Any, values: list[Any]) -> Iterator[Any]:
    """The record with one place of every shape changed in every way."""
    seen = {}
    for path in places(record):
        seen.setdefault(shape(path), path)
    for path in seen.values():
        for value in values:
            yield changed(record, path, value)


def test_no_field_of_any_real_payload_is_needed(data_dir, tmp_path):
    for path in sorted((data_dir / "payloads").glob("*.jsonl")):
        lines = [line for line in path.read_text().split("\n") if line.strip()][:2]
        records = [shortened(json.loads(line)) for line in lines]
        lines = [json.dumps(v) for record in records for v in variants(record, [None, GONE, [None], 1.5e18])]
        changed_file = tmp_path / path.name
        changed_file.write_text("\n".join(lines) + '\n{"id": "1", "text": "x"}\n')
        found = {number for chunk in chunks(changed_file) for number, _ in read(chunk)}
        assert found == set(range(1, len(lines) + 2)), path.name


def part_rows(out: Any, table: str) -> list[dict[str, Any]]:
    files = sorted((out / "private" / "parts").glob(f"{table}-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


PAGE = {
    "data": [
        {
            "id": "100001",
            "text": "Melanoma of the skin #dermpath https://t.co/a",
            "lang": "en",
            "author_id": "500001",
            "conversation_id": "100001",
            "created_at": "2022-03-01T12:00:00.000Z",
            "possibly_sensitive": False,
            "edit_history_tweet_ids": ["100001"],
            "public_metrics": {"like_count": 5},
            "entities": {"hashtags": [{"tag": "dermpath"}]},
            "attachments": {"media_keys": ["3_100001"], "poll_ids": []},
            "note_tweet": {"text": "Melanoma of the skin, ulcerated #dermpath"},
            "referenced_tweets": [{"type": "quoted", "id": "100009"}],
            "withheld": None,
        },
        {
            "id": "100002",
            "text": "@a Agree with melanoma",
            "author_id": "500002",
            "conversation_id": "100001",
            "referenced_tweets": [{"type": "replied_to", "id": "100001"}],
        },
    ],
    "includes": {
        "media": [
            {
                "media_key": "3_100001",
                "type": "photo",
                "url": "https://pbs.twimg.com/media/a.jpg",
                "alt_text": "Nests of melanocytes",
            }
        ],
        "users": [{"id": "500001", "username": "someone"}],
        "tweets": [{"id": "100009", "text": "Quoted melanoma"}],
    },
    "meta": {"result_count": 2},
}
V1 = {
    "id_str": "100001",
    "id": 100001,
    "created_at": "Wed Dec 09 19:40:11 +0000 2015",
    "full_text": "Melanoma of the skin #dermpath",
    "truncated": False,
    "user": {"id_str": "500001", "screen_name": "someone"},
    "entities": {"hashtags": [{"text": "dermpath"}], "media": []},
    "extended_entities": {
        "media": [
            {"id_str": "3100001", "type": "photo", "media_url_https": "https://pbs.twimg.com/media/a.jpg"}
        ]
    },
    "in_reply_to_status_id_str": None,
    "quoted_status": {"id_str": "100009", "full_text": "Nevus", "user": {"id_str": "500003"}},
    "favorite_count": 3,
    "lang": "en",
    "edit_info": {"initial": {"editTweetIds": ["100001"]}},
}


@pytest.mark.parametrize("record", [PAGE, V1], ids=["v2", "v1"])
def test_every_candidate_is_explained_whatever_a_field_holds(dump, tmp_path, record):
    dump.picture("a.jpg", 1)
    lines = [
        json.dumps(variant).replace("10000", f"1{n:04d}0").replace("50000", f"5{n:04d}0")
        for n, variant in enumerate([record, *variants(record, [*WRONG, GONE])])
    ]
    source = dump.folder / "many.jsonl"
    source.write_text("\n".join(lines))
    out = tmp_path / "out"
    report = ingest(IngestConfig(sources=source, media=dump.media, out=out, split={"val": 0, "test": 0}))
    assert report.data["lines"] == len(lines)
    assert report.data["in"] == report.kept + len(rejects(out))
    read_from = {row["source"] for file in ("posts", "faults") for row in part_rows(out, file)}
    assert {source.split(":")[1].split("#")[0].split(">")[0] for source in read_from} == {
        str(n) for n in range(1, len(lines) + 1)
    }
    decided = {row["tweet_id"] for row in (*rejects(out), *provenance(out))}
    assert {row["id"] for row in part_rows(out, "posts")} <= decided
    assert len(kept(out)) >= 1
