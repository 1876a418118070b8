"""Edits, quotes, polls, long and withheld posts, as the platform's payloads have them."""

from __future__ import annotations

from looking import codes, kept, rejects, samples

from pathclip.ingest import IngestConfig, ingest
from pathclip.tweets import Tweet, chunks, read


def run(dump, out, **more):
    return ingest(IngestConfig(sources=(dump.tweets,), media=dump.media, out=out, **more))


def test_a_quote_captions_its_own_picture_and_not_the_quoted_one(dump, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        dump.picture(f"{name}.jpg", seed)
    quoted = [{"type": "quoted", "id": "1"}]
    dump.post("1", "Melanoma of the skin", "a")
    dump.post("2", "Another melanoma, of the eye", "b", referenced_tweets=quoted)
    dump.post("3", "Great melanoma of a colleague", referenced_tweets=quoted)
    run(dump, tmp_path / "out")
    texts = {place[0]: [c["text"] for c in r["captions"]] for place, r in kept(tmp_path / "out").items()}
    assert texts == {"1": ["Melanoma of the skin"], "2": ["Another melanoma, of the eye"]}
    assert codes(tmp_path / "out") == {"x:3": "no_media"}


def test_a_poll_asks_and_a_reply_may_answer(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma, nevus, lentigo", "a")
    dump.pages[0]["data"][0]["attachments"]["poll_ids"] = ["9"]
    run(dump, tmp_path / "alone")
    assert list(codes(tmp_path / "alone").values()) == ["question"]
    dump.post("2", "@x It is a spindle cell melanoma", referenced_tweets=[{"type": "replied_to", "id": "1"}])
    run(dump, tmp_path / "out")
    assert [c["text"] for r in samples(tmp_path / "out") for c in r["captions"]] == [
        "It is a spindle cell melanoma"
    ]


def test_a_long_post_is_captioned_by_all_of_it(dump, tmp_path):
    dump.picture("a.jpg", 1)
    long = "Melanoma of the skin with " + "many words on every cell " * 20
    dump.post("1", f"{long[:270]}… https://t.co/x", "a", note_tweet={"text": long})
    run(dump, tmp_path / "out")
    assert [c["text"] for r in samples(tmp_path / "out") for c in r["captions"]] == [long.strip()]


def test_a_cut_post_loses_its_last_broken_word(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma of the skin, broad epidermotro… https://t.co/x", "a")
    run(dump, tmp_path / "out")
    assert [c["text"] for r in samples(tmp_path / "out") for c in r["captions"]] == [
        "Melanoma of the skin, broad"
    ]


def test_what_happened_to_the_posts_of_real_payloads(data_dir, tmp_path):
    sources = tuple((data_dir / "payloads").glob("v2_*.jsonl"))
    ingest(IngestConfig(sources=sources, out=tmp_path / "out"))
    code_of = {row["tweet_id"]: row["code"] for row in rejects(tmp_path / "out")}
    posts = {
        item.id: item
        for source in sources
        for chunk in chunks(source)
        for _, item in read(chunk)
        if isinstance(item, Tweet)
    }
    assert code_of["1576994746142764995"] == "superseded_edit", "an older version"
    assert code_of["1576994789117992899"] != "superseded_edit", "the last one"
    assert {code_of[t.id] for t in posts.values() if t.is_withheld} == {"withheld"}
    assert {code_of[t.id] for t in posts.values() if t.kind == "retweet"} == {"retweet"}
    assert posts.keys() <= code_of.keys()
