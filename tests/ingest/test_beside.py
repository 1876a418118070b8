"""What may be given beside the posts: a list of ids, a table of attachments."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from looking import codes, kept, rejects, samples

from pathclip.core.errors import UserError
from pathclip.ingest import IngestConfig, ingest, takedown
from pathclip.ingest.requests import Requests


@pytest.fixture
def talk(dump):
    dump.picture("a.jpg", 1)
    dump.picture("b.jpg", 2)
    dump.post("1", "Melanoma of the skin", "a")
    dump.post("2", "Nevus of the skin", "b", edit_history_tweet_ids=["20", "2"])
    dump.post("3", "@x Agree, this is melanoma", referenced_tweets=[{"type": "replied_to", "id": "1"}])
    return dump


def config(dump, out, **more):
    return IngestConfig(sources=(dump.tweets,), media=dump.media, out=out, **more)


def test_only_listed_posts_are_taken_and_ids_without_posts_are_counted(talk, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("1\n99\n20\n")
    report = ingest(config(talk, tmp_path / "out", ids=ids))
    assert sorted(place[0] for place in kept(tmp_path / "out")) == ["1", "2"], "an older version's id counts"
    assert codes(tmp_path / "out") == {"x:3": "not_listed", "l:ids:ids.txt:2": "not_hydrated"}
    assert [c["source"] for r in samples(tmp_path / "out") for c in r["captions"]] == ["tweet", "tweet"]
    assert report.data["in"] == 4
    (row,) = (r for r in rejects(tmp_path / "out") if r["code"] == "not_hydrated")
    assert "99" not in {row["tweet_id"], row["detail"], row["candidate_id"]}, (
        "no id of which nothing is known"
    )


@pytest.mark.parametrize("name", ["ids.csv", "ids.txt.gz", "ids.parquet"])
def test_a_list_may_be_a_table_or_packed(talk, tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"tweet_id": [1, 1]}), path)
    elif name.endswith("gz"):
        path.write_bytes(gzip.compress(b"1\n"))
    else:
        path.write_text("tweet_id,label\n1,melanoma\n")
    assert ingest(config(talk, tmp_path / "out", ids=path)).kept == 1


def test_lists_of_rounded_or_no_ids_are_refused_before_anything_is_written(talk, tmp_path):
    rounded, floats, empty, other = (tmp_path / n for n in ("r.csv", "f.parquet", "e.txt", "o.parquet"))
    rounded.write_text("id\n1.5E+18\n")
    pq.write_table(pa.table({"id": [1.5e18]}), floats)
    empty.write_text("\n")
    pq.write_table(pa.table({"name": ["x"]}), other)
    for path, says in (
        (rounded, "rounded number"),
        (floats, "rounded number"),
        (empty, "holds no ids"),
        (other, "has no column id"),
        (tmp_path / "none", "does not exist"),
    ):
        with pytest.raises(UserError, match=says):
            ingest(config(talk, tmp_path / "out", ids=path))
    assert not (tmp_path / "out" / "private").exists()


def test_another_list_is_another_input(talk, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("1\n")
    ingest(config(talk, tmp_path / "out", ids=ids))
    assert ingest(config(talk, tmp_path / "out", ids=ids)).state == "unchanged"
    ids.write_text("2\n")
    with pytest.raises(UserError, match="1 files are new, 1 gone or changed"):
        ingest(config(talk, tmp_path / "out", ids=ids))


def test_a_listed_post_that_was_taken_down_does_not_come_back(talk, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("1\n2\n")
    ingest(config(talk, tmp_path / "out", ids=ids))
    takedown(tmp_path / "out", Requests(posts={"1": "request"}))
    talk.pages = talk.pages[1:]
    ingest(config(talk, tmp_path / "out", ids=ids, force_new=True))
    assert codes(tmp_path / "out") == {"x:3": "not_listed", "l:ids:ids.txt:1": "taken_down"}


def without_includes(dump):
    for page in dump.pages:
        page.pop("includes")
    return dump


ENTRIES = [
    {
        "media_key": "3_1a",
        "type": "photo",
        "url": "https://pbs.twimg.com/media/a.jpg",
        "alt_text": "Nests of melanocytes",
    },
    {"media_key": "3_2b", "type": "photo", "file": "pictures/b.jpg", "alt_text": ""},
]


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.csv", "m.parquet", "m.jsonl.gz", "page.jsonl"])
def test_a_table_describes_what_was_saved_without_includes(talk, tmp_path, name):
    without_includes(talk)
    assert ingest(config(talk, tmp_path / "bare")).kept == 0
    assert sorted(codes(tmp_path / "bare").values()) == ["media_unlisted", "media_unlisted", "no_media"]
    path = tmp_path / name
    lines = "\n".join(map(json.dumps, ENTRIES))
    if name == "m.csv":
        path.write_text(
            "media_key,type,url,file,alt_text\n"
            "3_1a,photo,https://pbs.twimg.com/media/a.jpg,,Nests of melanocytes\n"
            "3_2b,photo,,pictures/b.jpg,\n"
        )
    elif name == "m.parquet":
        pq.write_table(
            pa.Table.from_pylist([{"file": None, "url": None, **entry} for entry in ENTRIES]), path
        )
    elif name == "page.jsonl":
        path.write_text(json.dumps({"data": [], "includes": {"media": ENTRIES}}))
    elif name == "m.json":
        path.write_text(json.dumps(ENTRIES))
    else:
        path.write_bytes(gzip.compress(lines.encode()) if name.endswith("gz") else lines.encode())
    ingest(config(talk, tmp_path / "out", media_table=path))
    found = {place[1]: [c["source"] for c in r["captions"]] for place, r in kept(tmp_path / "out").items()}
    assert found == {"3_1a": ["tweet", "alt_text", "reply"], "3_2b": ["tweet"]}


def test_what_the_payload_says_wins_over_the_table(talk, tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps([{"media_key": "3_1a", "type": "video", "url": "https://x.org/z.jpg"}]))
    assert ingest(config(talk, tmp_path / "out", media_table=path)).kept == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"url": "x"}', "entry 1: no media_key"),
        ('{"media_key": 1.5e18}', "entry 1: no media_key"),
        ('{"media_key": "3_1"}\n{"media_key": oops}', "entry 2 is not JSON"),
        ("media_key,url\n", "is empty"),
        ("name,url\nx,y\n", "line 2: no media_key"),
        ("PAR1 but no parquet", "cannot be read"),
    ],
)
def test_a_table_that_says_nothing_is_refused_in_one_line(talk, tmp_path, content, says):
    (tmp_path / "m").write_text(content)
    with pytest.raises(UserError, match=says) as caught:
        ingest(config(talk, tmp_path / "out", media_table=tmp_path / "m"))
    assert "\n" not in str(caught.value)
