from __future__ import annotations

import json
import random

import numpy as np
import pytest
from looking import rejects, shard_bytes

from pathclip.ingest import IngestConfig, check, ingest, whole_threads
from pathclip.ingest import rejects as rejects_room
from pathclip.ingest.tables import items_to_tables, write_rows
from pathclip.tweets import Tweet


@pytest.fixture
def small_portions(monkeypatch):
    monkeypatch.setattr(whole_threads, "POSTS_AT_ONCE", 20)
    monkeypatch.setattr(whole_threads, "BATCH", 7)


def portions(tmp_path, posts, name="a", files=3):
    paths = []
    for number in range(files):
        path = tmp_path / name / f"posts-{number}.parquet"
        write_rows(path, "posts", items_to_tables(posts[number::files])["posts"])
        paths.append(path)
    found = [list(portion) for portion in whole_threads.whole_threads(paths, tmp_path / "scratch")]
    assert not (tmp_path / "scratch").exists()
    return found


def made_up_posts(draw, count=200):
    posts = []
    for number in range(count):
        links = [f"{draw.randrange(count)}" if draw.random() < 0.25 else None for _ in range(3)]
        identity = str(number) if draw.random() < 0.9 else str(draw.randrange(count))
        history = (links[2], identity) if links[2] else ()
        posts.append(
            Tweet(
                identity,
                f"t{number}",
                conversation_id=links[0],
                in_reply_to_id=links[1],
                edit_history=history,
            )
        )
    return posts


@pytest.mark.parametrize("seed", range(5))
def test_no_portion_cuts_a_thread_and_none_is_lost(tmp_path, small_portions, seed):
    posts = made_up_posts(random.Random(seed), 150)
    found = portions(tmp_path, posts)
    assert len(found) == 8
    assert sorted(repr(p) for portion in found for p in portion) == sorted(map(repr, posts))
    where = {}
    for number, portion in enumerate(found):
        for post in portion:
            for node in {post.id, post.conversation_id, post.in_reply_to_id, *post.edit_history} - {None}:
                assert where.setdefault(node, number) == number, f"{node} is in two portions"


def test_portions_do_not_depend_on_the_order(tmp_path, small_portions):
    posts = made_up_posts(random.Random(7))
    shuffled = random.Random(8).sample(posts, len(posts))
    a, b = portions(tmp_path, posts), portions(tmp_path, shuffled, "b", files=2)
    assert [sorted(map(repr, p)) for p in a] == [sorted(map(repr, p)) for p in b]


def test_few_posts_pass_without_scratch_files(tmp_path):
    assert [[p.id for p in portion] for portion in portions(tmp_path, [Tweet("1", "a")], files=1)] == [["1"]]
    assert [list(portion) for portion in whole_threads.whole_threads([], tmp_path / "scratch")] == [[]]


def test_ids_of_any_kind_have_one_number_each():
    import pyarrow as pa

    numbers = ["12", "007", "-5", str(2**63 - 1)]
    words = ["c12", "", "12345678901234567890", "²"]
    alone = whole_threads._numbers(pa.array(numbers))
    mixed = whole_threads._numbers(pa.array(numbers + words))
    assert alone.dtype == mixed.dtype == np.uint64
    assert mixed[:4].tolist() == alone.tolist()
    assert len(set(mixed.tolist())) == 8


def test_a_plan_in_portions_is_the_plan(synthetic_dump, tmp_path, key_file, monkeypatch):
    config = IngestConfig(
        sources=(synthetic_dump.tweets,),
        media=synthetic_dump.media,
        out=tmp_path / "whole",
        key_file=key_file,
    )
    whole = ingest(config)
    monkeypatch.setattr(whole_threads, "POSTS_AT_ONCE", 20)
    monkeypatch.setattr(rejects_room, "ROWS_PER_FILE", 15)
    config = config.replace(out=tmp_path / "parts")
    in_portions = ingest(config)
    assert in_portions.data == whole.data
    assert shard_bytes(tmp_path / "parts") == shard_bytes(tmp_path / "whole")
    assert len(list((config.out / "private" / "rejects").iterdir())) > 2
    by_id = [sorted(rejects(tmp_path / o), key=lambda row: row["candidate_id"]) for o in ("parts", "whole")]
    assert by_id[0] == by_id[1]
    assert check(config.out).ok
    assert ingest(config.replace(image={"min_side_px": 9999})).kept == 0
    assert check(config.out).ok


def test_text_alone_is_not_held(tmp_path, dump, key_file, monkeypatch):
    from pathclip.ingest import nominate

    dump.picture("a.jpg", 1)
    dump.post("1", "What is it?", "a")
    reply = {"referenced_tweets": [{"type": "replied_to", "id": "1"}], "conversation_id": "1"}
    dump.post("2", "Melanoma of the skin", **reply)
    for n in range(3, 40):
        dump.post(str(n), f"Words {n}")
    held = []
    real = nominate.Nominated
    monkeypatch.setattr(
        nominate, "Nominated", lambda c, *more: held.extend(x.id for x in c) or real(c, *more)
    )
    config = IngestConfig(
        sources=(dump.tweets,), media=dump.media, out=tmp_path / "o", key_file=key_file, ahead=False
    )
    report = ingest(config)
    assert sorted(held) == ["x:1:3_1a", "x:2"]
    assert report.data["by_code"] == {"no_media": 37, "used_as_caption": 1}
    assert json.loads((config.out / "report.json").read_text())["in"] == 39
