from __future__ import annotations

import gzip
import io
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from looking import codes, kept, provenance, rejects, samples, shard_bytes
from PIL import Image

import pathclip.ingest
from pathclip.ingest import STAGES, IngestConfig, ingest, preset
from pathclip.shards import Dataset


def run(dump, out, **more):
    return ingest(IngestConfig(sources=(dump.tweets,), media=dump.media, out=out, **more))


def test_the_module_is_the_function(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma of the skin", "a")
    config = IngestConfig(sources=(dump.tweets,), media=dump.media, out=tmp_path / "out")
    assert pathclip.ingest(config).kept == 1


def test_every_candidate_of_the_synthetic_dump_is_decided_as_it_was_made(synthetic_dump, tmp_path):
    truth = synthetic_dump
    report = run(truth, tmp_path / "out")
    found = kept(tmp_path / "out")
    reasons = {(r["tweet_id"], r["media_key"]): r["code"] for r in rejects(tmp_path / "out")}
    for decision in truth.decisions:
        place = (decision.tweet_id, decision.media_key)
        if decision.kept is not None:
            assert reasons.get(place, "kept") == ("kept" if decision.kept else decision.code), decision
        if decision.kept and decision.caption_from:
            assert decision.caption_from in {c["source"] for c in found[place]["captions"]}
    assert report.data["in"] == len(truth.decisions) + sum(truth.extra_lines.values())
    assert {code: report.data["by_code"][code] for code in truth.extra_lines} == truth.extra_lines


def test_candidates_are_conserved(synthetic_dump, tmp_path):
    data = run(synthetic_dump, tmp_path / "out").data
    rows = rejects(tmp_path / "out")
    assert data["in"] == data["kept"] + data["rejected"]
    assert len(rows) == data["rejected"] == sum(data["by_code"].values()) == sum(data["by_stage"].values())
    assert Counter(row["code"] for row in rows) == data["by_code"]
    assert Counter(row["stage"] for row in rows) == data["by_stage"]
    assert len({row["candidate_id"] for row in rows}) == len(rows)
    assert data["kept"] == data["samples"] == sum(data["splits"].values()) == len(samples(tmp_path / "out"))
    assert sum(data["by_source"].values()) == sum(sum(row.values()) for row in data["by_hashtag"].values())


def test_workers_and_the_order_of_lines_do_not_change_a_byte(synthetic_dump, tmp_path, key_file):
    truth = synthetic_dump
    lines = truth.tweets.read_bytes().splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    pages = [json.loads(line) for line in lines if b'"includes"' in line]
    for page in pages:
        random.Random(2).shuffle(page["data"])
    others = [line for line in lines if b'"includes"' not in line]
    shuffled = tmp_path / "shuffled.jsonl"
    shuffled.write_bytes(b"".join([*others, *(json.dumps(p).encode() + b"\n" for p in pages)]))
    run(truth, tmp_path / "one", key_file=key_file)
    ingest(
        IngestConfig(
            sources=(shuffled,),
            media=truth.media,
            out=tmp_path / "two",
            key_file=key_file,
            engine="processes",
            workers=2,
        )
    )
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two")
    assert len(shard_bytes(tmp_path / "one")) == 11


def test_another_key_gives_other_ids_and_the_same_pictures(dump, tmp_path, key_file):
    for n in range(5):
        dump.picture(f"p{n}.jpg", n)
        dump.post(str(n + 1), f"Melanoma number {n} of the skin", f"p{n}")
    first, second = run(dump, tmp_path / "a", key_file=key_file), run(dump, tmp_path / "b")
    ids = [{r["sample_id"] for r in samples(tmp_path / name)} for name in "ab"]
    assert first.kept == second.kept == 5
    assert not ids[0] & ids[1]
    assert (tmp_path / "b" / "private" / "key").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "a" / "private" / "key").exists()
    assert all(len(i) == 16 and set(i) <= set("abcdefghijklmnopqrstuvwxyz234567") for i in ids[0])


def test_a_question_is_captioned_by_its_answer_and_never_by_itself(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.picture("b.jpg", 2)
    dump.post("1", "What is your diagnosis?", "a")
    dump.post("2", "@x Agree, melanoma of the skin", conversation_id="1", public_metrics={"like_count": 3})
    dump.post("3", "@x Blue nevus of the skin", conversation_id="1", public_metrics={"like_count": 9})
    dump.post("4", "@x Congrats!!", conversation_id="1", public_metrics={"like_count": 99})
    dump.post("5", "Any ideas?", "b")
    run(dump, tmp_path / "out")
    (record,) = samples(tmp_path / "out")
    assert [(c["text"], c["source"]) for c in record["captions"]] == [
        ("Blue nevus of the skin", "reply"),
        ("Agree, melanoma of the skin", "reply"),
    ]
    assert codes(tmp_path / "out") == {
        "x:2": "used_as_caption",
        "x:3": "used_as_caption",
        "x:4": "no_media",
        "x:5:3_5b": "question",
    }


def test_replies_of_a_rejected_picture_are_not_used(dump, tmp_path):
    dump.picture("a.jpg", 1, side=40)
    dump.post("1", "What is your diagnosis?", "a")
    dump.post("2", "Agree, melanoma of the skin", conversation_id="1")
    dump.post("3", "Melanoma of the skin", "gone", sensitive=True, possibly_sensitive=True)
    dump.post("4", "Agree, melanoma of the skin", conversation_id="3")
    run(dump, tmp_path / "out")
    assert codes(tmp_path / "out") == {
        "x:1:3_1a": "image_tiny",
        "x:2": "no_media",
        "x:3:3_3gone": "sensitive",
        "x:4": "no_media",
    }


def test_sensitive_foreign_and_retweeted_replies_never_caption(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.post("1", "Your diagnosis?", "a")
    dump.post("2", "Melanoma of the skin", conversation_id="1", possibly_sensitive=True)
    dump.post("3", "Derinin melanoma olgusu", conversation_id="1", lang="tr")
    dump.post("4", "RT @a: Melanoma of the skin", conversation_id="1")
    dump.post("5", "Is it melanoma?", conversation_id="1")
    run(dump, tmp_path / "out")
    assert codes(tmp_path / "out")["x:1:3_1a"] == "question"


def test_byte_identical_pictures_merge_their_captions(dump, tmp_path):
    data = dump.picture("a.jpg", 1)
    (dump.media / "b.jpg").write_bytes(data)
    dump.post("1", "Melanoma of the skin #dermpath", "a", entities={"hashtags": [{"tag": "dermpath"}]})
    dump.post("2", "Shared again: malignant melanoma", "b")
    report = run(dump, tmp_path / "out")
    (record,) = samples(tmp_path / "out")
    assert [c["text"] for c in record["captions"]] == [
        "Melanoma of the skin",
        "Shared again: malignant melanoma",
    ]
    assert codes(tmp_path / "out") == {"x:2:3_2b": "duplicate_exact"}
    assert report.data["by_hashtag"] == {"dermpath": {"tweets": 2, "replies": 0}}
    authors = {(row["role"], row["caption_index"]): row["author_id"] for row in provenance(tmp_path / "out")}
    assert authors == {("image", None): "a1", ("caption", 0): "a1", ("caption", 1): "a2"}


def test_of_near_identical_pictures_the_largest_is_kept(dump, tmp_path):
    for name, side in (("a", 160), ("b", 240), ("c", 140)):
        dump.picture(f"{name}.jpg", 1, side=side)
    for number, name in enumerate("abc", 1):
        dump.post(str(number), f"Melanoma version {name}", name)
    run(dump, tmp_path / "out")
    assert list(kept(tmp_path / "out")) == [("2", "3_2b")]
    assert set(codes(tmp_path / "out").values()) == {"duplicate_near"}


def test_alike_pictures_share_group_and_positive_and_split(dump, tmp_path):
    for name, side in (("a", 160), ("b", 240)):
        dump.picture(f"{name}.jpg", 1, side=side)
    dump.picture("z.jpg", 9)
    dump.post("1", "Melanoma version a", "a")
    dump.post("2", "Melanoma version b", "b")
    dump.post("3", "Nevus of the skin", "z")
    run(dump, tmp_path / "out", dedup={"drop_radius": -1})
    found = kept(tmp_path / "out")
    a, b, z = (found[str(n), f"3_{n}{name}"] for n, name in ((1, "a"), (2, "b"), (3, "z")))
    for name in ("group_id", "positive_id", "split"):
        assert a[name] == b[name]
    assert a["group_id"] != z["group_id"]
    assert a["positive_id"] != z["positive_id"]


def test_one_author_shares_a_group_and_not_a_positive_id(dump, tmp_path):
    for n in range(3):
        dump.picture(f"p{n}.jpg", n)
    dump.post("1", "Melanoma of the skin", "p0", author_id="same")
    dump.post("2", "Adenoma of the colon", "p1", author_id="same")
    dump.post("3", "What is this?", "p2", author_id="other")
    dump.post("4", "Nevus of the skin", conversation_id="3", author_id="same")
    run(dump, tmp_path / "out")
    found = kept(tmp_path / "out")
    one, two, three = found["1", "3_1p0"], found["2", "3_2p1"], found["3", "3_3p2"]
    assert one["group_id"] == two["group_id"]
    assert one["positive_id"] != two["positive_id"]
    assert three["group_id"] != one["group_id"], "the author of a reply never ties"
    assert not {one["group_id"], one["positive_id"]} & {r["sample_id"] for r in found.values()}
    run(dump, tmp_path / "free", split={"tie_authors": False})
    assert len({r["group_id"] for r in samples(tmp_path / "free")}) == 3


def test_pictures_of_one_post_share_positive_id_and_caption(dump, tmp_path):
    for n in range(3):
        dump.picture(f"p{n}.jpg", n)
    dump.post("1", "Melanoma of the skin", "p0", "p1", "p2")
    run(dump, tmp_path / "out")
    records = samples(tmp_path / "out")
    assert len(records) == 3
    assert len({r["positive_id"] for r in records}) == len({r["group_id"] for r in records}) == 1
    assert {c["text"] for r in records for c in r["captions"]} == {"Melanoma of the skin"}


def test_the_last_edit_of_a_post_is_used(dump, tmp_path):
    dump.picture("a.jpg", 1)
    history = {"edit_history_tweet_ids": ["1", "2"], "conversation_id": "1"}
    dump.post("1", "Melanome of teh skin", "a", **history)
    dump.post("2", "Melanoma of the skin", "a", **history)
    dump.post("2", "Melanoma of the skin", "a", **history)
    report = run(dump, tmp_path / "out")
    assert [c["text"] for r in samples(tmp_path / "out") for c in r["captions"]] == ["Melanoma of the skin"]
    assert codes(tmp_path / "out") == {"x:1:3_1a": "superseded_edit"}
    assert (report.data["posts"], report.data["repeated"]) == (2, 1)


def test_alt_text_and_media_without_a_description_or_file(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.picture("3_2b.jpg", 2)
    dump.post("1", "Your diagnosis?", "a")
    dump.pages[0]["includes"]["media"][0]["alt_text"] = "Nests of melanocytes in the dermis"
    dump.post("2", "Nevus of the skin", "b")
    dump.pages[1]["includes"] = {}
    dump.post("3", "Nevus of the skin", "c")
    dump.pages[2]["includes"] = {}
    dump.post("4", "Nevus of the skin", "d")
    dump.post("5", "Nevus of the skin", "e")
    dump.pages[4]["includes"]["media"][0]["type"] = "animated_gif"
    run(dump, tmp_path / "out")
    assert [c["source"] for c in kept(tmp_path / "out")["1", "3_1a"]["captions"]] == ["alt_text"]
    assert ("2", "3_2b") in kept(tmp_path / "out"), "a file named by the media key is found"
    assert codes(tmp_path / "out") == {
        "x:3:3_3c": "media_unlisted",
        "x:4:3_4d": "image_missing",
        "x:5:3_5e": "video",
    }


def test_referenced_posts_are_posts_too_unless_left_out(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.post("2", "RT @a: Melanoma of…", "a", referenced_tweets=[{"type": "retweeted", "id": "1"}])
    page = dump.pages[0]
    page["includes"]["tweets"] = [
        {
            "id": "1",
            "text": "Melanoma of the skin",
            "lang": "en",
            "attachments": page["data"][0]["attachments"],
        }
    ]
    run(dump, tmp_path / "out")
    assert codes(tmp_path / "out") == {"x:2:3_2a": "retweet"}
    assert list(kept(tmp_path / "out")) == [("1", "3_2a")]
    assert run(dump, tmp_path / "without", collect={"referenced": False}).kept == 0


def test_links_never_lead_out_of_the_media_folder(dump, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(dump.picture("a.jpg", 1))
    (dump.media / "b.jpg").symlink_to(secret)
    (dump.media / "c.jpg").symlink_to(dump.media / "nowhere.jpg")
    dump.post("1", "Melanoma of the skin", "b")
    dump.post("2", "Melanoma of the skin", "c")
    run(dump, tmp_path / "out")
    assert codes(tmp_path / "out") == {"x:1:3_1b": "image_outside", "x:2:3_2c": "image_missing"}


@pytest.mark.parametrize("place", ["in a folder", "itself"])
def test_links_to_folders_lead_out_of_no_media_folder_but_may_be_one(dump, tmp_path, place):
    dump.picture("a.jpg", 1)
    linked = tmp_path / "linked"
    if place == "in a folder":
        linked.mkdir()
        (linked / "sub").symlink_to(dump.media)
        (linked / "own").mkdir()
        (linked / "own" / "link").symlink_to(linked / "own")
        (linked / "own" / "b.jpg").write_bytes(dump.picture("b.jpg", 2))
        rows = "sub/a.jpg,Nevus of the skin\nown/link/b.jpg,Melanoma of the skin\n"
    else:
        linked.symlink_to(dump.media)
        rows = "a.jpg,Nevus of the skin\n"
    (tmp_path / "pairs.csv").write_text(f"image,caption\n{rows}")
    report = ingest(IngestConfig(sources=(tmp_path / "pairs.csv",), media=linked, out=tmp_path / "out"))
    assert report.kept == 1
    assert report.data["by_code"] == ({"image_outside": 1} if place == "in a folder" else {})


def test_circles_of_replies_and_of_edits_are_decided_like_any_post(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.picture("b.jpg", 2)
    for own, above, more in (("1", "2", ("a",)), ("2", "3", ()), ("3", "1", ()), ("4", "4", ("b",))):
        reply = [{"type": "replied_to", "id": above}]
        text = f"A melanoma of the skin, part {own}"
        dump.post(own, text, *more, referenced_tweets=reply, conversation_id="1", author_id="a")
    dump.post("5", "Nevus of the skin", edit_history_tweet_ids=["6", "5"], author_id="b")
    dump.post("6", "Nevus of the skin", edit_history_tweet_ids=["5", "6"], author_id="b")
    report = run(dump, tmp_path / "out")
    assert report.kept + sum(report.data["by_code"].values()) == report.data["in"] == 6
    assert sorted(post for post, _ in kept(tmp_path / "out")) == ["1", "4"]


def test_files_over_the_limit_are_refused_unopened(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma of the skin", "a")
    run(dump, tmp_path / "out", collect={"max_bytes": 100})
    (row,) = rejects(tmp_path / "out")
    assert row["code"] == "image_oversized"
    assert "at most 100" in row["detail"]
    assert json.loads(row["scores"])["bytes"] > 100


def test_nothing_private_leaves_the_private_folder(dump, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "PhoneMaker"
    dump.picture("a.jpg", 1, exif=exif.tobytes())
    dump.post("1234567890123", "Melanoma, thanks @handle_x https://t.co/zzz", "a", author_id="987654321098")
    run(dump, tmp_path / "out")
    public = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and "private" not in p.parts]
    assert len(public) == 7
    for path in public:
        data = path.read_bytes()
        for secret in (
            b"1234567890123",
            b"987654321098",
            b"handle_x",
            b"t.co",
            b"PhoneMaker",
            b"Exif",
            b"3_1234",
        ):
            assert secret not in data, (path, secret)
    assert (tmp_path / "out" / "private").stat().st_mode & 0o777 == 0o700


def test_stored_pictures_are_what_their_record_says(synthetic_dump, tmp_path):
    run(synthetic_dump, tmp_path / "out", pack={"short_side_px": 120})
    dataset = Dataset.open(tmp_path / "out")
    for split in dataset.splits:
        for jpg, record in dataset.samples(split):
            image = Image.open(io.BytesIO(jpg))
            assert image.mode == "RGB"
            assert image.size == (record["width"], record["height"])
            assert min(image.size) <= 120
            assert not image.getexif()
            assert np.asarray(image).std() > 2


def test_a_large_group_is_reported(dump, tmp_path):
    for n in range(12):
        dump.picture(f"p{n}.jpg", n)
        dump.post(str(n + 1), f"Melanoma {n} of the skin", f"p{n}", author_id="one" if n < 6 else f"a{n}")
    report = run(dump, tmp_path / "out")
    (large,) = report.data["large_groups"]
    assert large["samples"] == 6
    assert any("holds 6 of 12 samples" in message for message in report.messages)


def test_the_preset_plip_writes_one_pair_per_caption_and_keeps_duplicates(dump, tmp_path):
    data = dump.picture("a.jpg", 1)
    (dump.media / "b.jpg").write_bytes(data)
    dump.post("1", "Melanoma of the #skin #dermpath", "a")
    dump.post("2", "Agree, melanoma", conversation_id="1", public_metrics={"like_count": 2})
    dump.post("3", "Clearly a melanoma", conversation_id="1", public_metrics={"like_count": 1})
    dump.post("4", "Nevus of the skin", "b")
    report = run(dump, tmp_path / "out", **preset("plip"))
    texts = sorted(c["text"] for r in samples(tmp_path / "out") for c in r["captions"])
    assert texts == ["Agree, melanoma", "Melanoma of the", "Nevus of the skin"]
    assert (report.kept, report.data["samples"]) == (2, 3)
    assert len({r["sample_id"] for r in samples(tmp_path / "out")}) == 3
    assert len({r["positive_id"] for r in samples(tmp_path / "out")}) == 1


@pytest.mark.parametrize("name", ["strict", "permissive"])
def test_presets_keep_less_and_more(synthetic_dump, tmp_path, name):
    usual = run(synthetic_dump, tmp_path / "usual").kept
    other = run(synthetic_dump, tmp_path / name, **preset(name)).kept
    assert other < usual if name == "strict" else other > usual


def test_every_code_has_a_stage_and_a_meaning():
    listed = [code for names in STAGES.values() for code in names]
    assert sorted(listed) == sorted(pathclip.ingest.Code)
    assert set(listed) == {str(code) for code in pathclip.ingest.MEANING}


def test_a_personal_archive_brings_its_own_pictures(dump, tmp_path, key_file):
    data = tmp_path / "archive" / "data"
    (data / "tweets_media").mkdir(parents=True)
    (data / "tweets_media" / "42-A.jpg").write_bytes(dump.picture("x.jpg", 1))
    media = [{"id_str": "8", "type": "photo", "media_url_https": "https://pbs.twimg.com/media/A.jpg"}]
    posts = [
        {"id_str": "42", "full_text": "Melanoma of the skin", "extended_entities": {"media": media}},
        {"id_str": "43", "full_text": "@x More of this melanoma", "in_reply_to_status_id_str": "42"},
    ]
    text = json.dumps([{"tweet": post} for post in posts])
    (data / "tweets.js").write_text(f"window.YTD.tweets.part0 = {text}")
    (data / "deleted-tweets.js").write_text(f"window.YTD.deleted_tweets.part0 = {text}")
    (data / "deleted_tweets_media").mkdir()
    (data / "deleted_tweets_media" / "42-A.jpg").write_bytes(dump.picture("y.jpg", 2))
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "archive"))
    for source in (tmp_path / "archive", packed):
        ingest(IngestConfig(sources=source, out=tmp_path / f"out-{source.stem}", key_file=key_file))
        assert list(kept(tmp_path / f"out-{source.stem}")) == [("42", "8")]
        reasons = codes(tmp_path / f"out-{source.stem}")
        assert reasons.pop("x:43") == "used_as_caption"
        assert sorted(reasons.values()) == ["deleted_post", "deleted_post"]
    folder, unzipped = (shard_bytes(tmp_path / f"out-{name}") for name in ("archive", "packed"))
    assert folder == unzipped, "a folder and its zip give the same dataset"


def test_sources_may_be_mixed_and_repeated(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma of the skin", "a")
    table = tmp_path / "t.csv"
    table.write_text("image,caption\na.jpg,Malignant melanoma\n")
    sources = (dump.tweets, table, dump.folder / ".." / "dump" / "tweets.jsonl")
    report = ingest(IngestConfig(sources=sources, media=dump.media, out=tmp_path / "out"))
    assert (report.data["in"], report.kept, report.data["repeated"]) == (2, 1, 0)
    assert {c["source"] for r in samples(tmp_path / "out") for c in r["captions"]} == {"tweet", "table"}


def test_parts_written_in_groups_of_rows_hold_the_same(synthetic_dump, tmp_path, key_file, monkeypatch):
    run(synthetic_dump, tmp_path / "one", key_file=key_file)
    monkeypatch.setattr("pathclip.ingest.tables.GROUP_ROWS", 3)
    run(synthetic_dump, tmp_path / "many", key_file=key_file)
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "many")
    first, *_ = (tmp_path / "many" / "private" / "parts").glob("posts-*.parquet")
    assert pq.ParquetFile(first).num_row_groups > 10


def test_a_dump_given_again_packed_changes_no_sample(dump, tmp_path, key_file):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma of the skin", "a")
    dump.pages.append({"nothing": "known"})
    packed = dump.folder / "again.jsonl.gz"
    packed.write_bytes(gzip.compress(dump.tweets.read_bytes()))
    zipped = Path(shutil.make_archive(str(dump.folder / "zipped"), "zip", dump.folder, "tweets.jsonl"))
    run(dump, tmp_path / "one", key_file=key_file)
    config = IngestConfig(
        sources=(dump.tweets, packed, zipped),
        media=dump.media,
        out=tmp_path / "many",
        key_file=key_file,
        engine="processes",
        workers=2,
    )
    report = ingest(config)
    assert samples(tmp_path / "one") == samples(tmp_path / "many")
    assert (report.data["posts"], report.data["repeated"]) == (1, 2)
    assert list(codes(tmp_path / "many").values()) == ["unknown_shape"] * 3


def test_a_line_is_explained_by_the_posts_that_stood_in_it(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma of the skin", "a")
    dump.post("1", "Melanoma of the skin", "a")
    run(dump, tmp_path / "out")
    for place in ("tweets.jsonl:1", "tweets.jsonl:2", "tweets.jsonl:2#0"):
        (decision,) = pathclip.ingest.explain(tmp_path / "out", place)["decisions"]
        assert decision["decision"] == "kept"


def replies_to(dump, target, *replies):
    for tweet_id, text, likes, author in replies:
        dump.post(
            tweet_id, text, author_id=author, conversation_id=target, public_metrics={"like_count": likes},
            referenced_tweets=[{"type": "replied_to", "id": target}],
        )  # fmt: skip


def texts(out):
    return {caption["text"] for record in samples(out) for caption in record["captions"]}


def test_the_preset_plip_takes_the_most_liked_reply_and_not_the_authors_own(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma of the skin", "a", author_id="me")
    replies_to(
        dump, "1", ("2", "My melanoma has spindle cells", 1, "me"), ("3", "Nice nevoid melanoma", 9, "you")
    )
    run(dump, tmp_path / "plip", **preset("plip"))
    assert texts(tmp_path / "plip") == {"Melanoma of the skin", "Nice nevoid melanoma"}
    run(dump, tmp_path / "own", caption={"max_replies": 1})
    (record,) = samples(tmp_path / "own")
    assert [(c["text"], c["source"]) for c in record["captions"]] == [
        ("Melanoma of the skin", "tweet"),
        ("My melanoma has spindle cells", "continuation"),
        ("Nice nevoid melanoma", "reply"),
    ]


def test_the_preset_plip_drops_questions_after_the_reply_was_chosen(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma of the skin", "a")
    replies_to(dump, "1", ("2", "Is it a nevoid melanoma?", 9, "x"), ("3", "Nice nevoid melanoma", 1, "y"))
    run(dump, tmp_path / "plip", **preset("plip"))
    assert texts(tmp_path / "plip") == {"Melanoma of the skin"}
    assert codes(tmp_path / "plip") == {"x:2": "no_media", "x:3": "no_media"}
    run(dump, tmp_path / "default")
    assert texts(tmp_path / "default") == {"Melanoma of the skin", "Nice nevoid melanoma"}


def test_the_preset_plip_knows_a_question_by_its_mark_alone(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.picture("b.jpg", 2)
    dump.post("1", "Guess the diagnosis of this melanoma", "a")
    dump.post("2", "A melanoma?", "b")
    run(dump, tmp_path / "plip", **preset("plip"))
    assert texts(tmp_path / "plip") == {"Guess the diagnosis of this melanoma"}
    assert codes(tmp_path / "plip") == {"x:2:3_2b": "question"}


def test_the_preset_plip_takes_english_by_the_platforms_word_only(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma of the skin and more", "a", lang="und")
    run(dump, tmp_path / "plip", **preset("plip"))
    assert codes(tmp_path / "plip") == {"x:1:3_1a": "language"}


def test_every_preset_is_explained():
    from pathclip.ingest import PRESETS

    page = (Path(__file__).parents[2] / "docs" / "how-to" / "ingest.md").read_text()
    for name, sections in PRESETS.items():
        assert f"| `{name}` |" in page
        IngestConfig(**sections)


def test_the_author_goes_on_or_answers_an_own_question(dump, tmp_path):
    dump.picture("a.jpg", 1)
    dump.picture("b.jpg", 2)
    dump.post("1", "Melanoma of the skin", "a", author_id="me")
    replies_to(
        dump, "1", ("2", "The melanoma cells show pigment", 0, "me"), ("3", "Nice nevoid melanoma", 9, "you")
    )
    dump.post("10", "What is your diagnosis?", "b", author_id="me")
    replies_to(
        dump,
        "10",
        ("11", "It is a blue nevus of the skin", 0, "me"),
        ("12", "Agree with blue nevus", 9, "you"),
    )
    run(dump, tmp_path / "out", caption={"max_replies": 1, "max_continuations": 0})
    found = {place[0]: record["captions"] for place, record in kept(tmp_path / "out").items()}
    assert [(c["text"], c["source"]) for c in found["10"]] == [("It is a blue nevus of the skin", "reply")]
    assert [c["source"] for c in found["1"]] == ["tweet", "reply"]
    details = {row["tweet_id"]: row["detail"] for row in rejects(tmp_path / "out")}
    assert details["2"] == "continuation not used: earlier ones are enough"
    run(dump, tmp_path / "more")
    assert codes(tmp_path / "more")["x:2"] == "used_as_caption"


def test_captions_of_several_pictures_are_marked_or_shared_out(dump, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        dump.picture(f"{name}.jpg", seed)
    dump.post("1", "Melanoma. A: low power B: high power", "a", "b")
    run(dump, tmp_path / "out")
    for record in samples(tmp_path / "out"):
        assert record["captions"] == [
            {"text": "Melanoma. A: low power B: high power", "source": "tweet", "positional": True}
        ]
    run(dump, tmp_path / "split", caption={"multi": "split"})
    found = {place[1]: record["captions"] for place, record in kept(tmp_path / "split").items()}
    assert found["3_1a"] == [{"text": "Melanoma. low power", "source": "tweet"}]
    assert found["3_1b"] == [{"text": "Melanoma. high power", "source": "tweet"}]
    run(dump, tmp_path / "first", caption={"multi": "first"})
    assert list(codes(tmp_path / "first").values()) == ["several_pictures"]
    assert list(kept(tmp_path / "first")) == [("1", "3_1a")]
