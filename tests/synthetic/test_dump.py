"""The dump: true shapes, known faults, and a truth that accounts for every candidate."""

from __future__ import annotations

import json
import warnings
from collections import Counter

import pytest
from PIL import Image, ImageOps

from pathclip.core.errors import UserError
from pathclip.synthetic import CLASSES, WORDS, Decision, DumpTruth, paint_tile, write_dump
from pathclip.synthetic.kinds import SHARES
from pathclip.synthetic.pictures import FAULTS, FORMS, Picture, write_picture


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> DumpTruth:
    return write_dump(tmp_path_factory.mktemp("dump"), 3, pictures=60, size_px=144)


@pytest.fixture(scope="module")
def pages(dump) -> list[dict]:
    found = []
    for line in dump.tweets.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def posts(pages) -> dict[str, dict]:
    return {post["id"]: post for page in pages for post in page.get("data", [])}


def rule(dump, name) -> list[Decision]:
    found = [d for d in dump.decisions if d.rule == name]
    assert found, name
    return found


def test_every_kind_of_post_is_there(dump):
    rules = set(dump.by_rule())
    plain = {"plain", "answer", "chatter", *FAULTS}
    assert rules >= plain
    noise = """
        several answered commented described long vague thanks quoting cmyk rotated png transparent edited
        repeated reposted copied retweet unanswered sensitive foreign wordless missing unlisted moving
        words_only off_topic
    """
    assert rules - plain == set(noise.split())
    assert {kind.__name__ for kind in SHARES} - {"broken", "odd", "unspecific"} <= rules


def test_every_candidate_of_the_file_has_one_decision(dump, pages):
    """A candidate is a (post, media) pair; a post without media is one with a null key."""
    wanted = set()
    for post in posts(pages).values():
        keys = post.get("attachments", {}).get("media_keys") or [None]
        wanted |= {(post["id"], key) for key in keys}
    decided = [(d.tweet_id, d.media_key) for d in dump.decisions]
    assert len(decided) == len(set(decided))
    assert set(decided) == wanted


def test_a_decision_is_kept_or_has_a_code(dump):
    for d in dump.decisions:
        assert (d.code is None) == (d.kept is not False), d
    kept = sum(d.kept is True for d in dump.decisions)
    assert 60 <= kept <= 64  # the last post may have several pictures


def test_lines_that_hold_no_post_are_told(dump, pages):
    lines = dump.tweets.read_text().splitlines()
    assert len(lines) - len(pages) == dump.extra_lines["parse_error"] == 1
    assert sum("data" not in page for page in pages) == dump.extra_lines["error_page"] == 1


def test_pages_join_media_and_users_as_the_api_does(dump, pages):
    unlisted = {d.media_key for d in rule(dump, "unlisted")}
    for page in (p for p in pages if "data" in p):
        media = {m["media_key"] for m in page["includes"]["media"]}
        users = {u["id"] for u in page["includes"]["users"]}
        for post in page["data"]:
            assert set(post.get("attachments", {}).get("media_keys", [])) - unlisted <= media
            assert post["author_id"] in users
        assert page["meta"]["result_count"] == len(page["data"]) <= 50
        assert page["__twarc"]["version"]


def test_entities_point_at_what_they_name(pages):
    tags = 0
    for post in posts(pages).values():
        for tag in post.get("entities", {}).get("hashtags", []):
            assert post["text"][tag["start"] : tag["end"]] == f"#{tag['tag']}"
            tags += 1
        for mention in post.get("entities", {}).get("mentions", []):
            assert post["text"][mention["start"] : mention["end"]] == f"@{mention['username']}"
    assert tags > 50


def test_captions_name_the_tissue_that_is_shown(dump, pages):
    by_id = posts(pages)
    named = [d for d in dump.decisions if d.kept and d.caption_from == "tweet" and d.label]
    assert len(named) > 40
    for d in named:
        post = by_id[d.tweet_id]
        text = post.get("note_tweet", post)["text"].lower()
        assert any(word in text for word in WORDS[d.label]), (d.label, text)


def test_captions_vary_in_wording(dump, pages):
    texts = [posts(pages)[d.tweet_id]["text"].split(" #")[0] for d in rule(dump, "plain")]
    assert len(set(texts)) > 0.85 * len(texts)


def test_classes_are_painted_in_about_equal_numbers(dump):
    counts = Counter(d.label for d in dump.decisions if d.kept and d.label)
    assert set(counts) == set(CLASSES)
    assert max(counts.values()) <= 2 * min(counts.values()) + 2


def test_alt_text_names_what_the_text_does_not(dump, pages):
    media = {m["media_key"]: m for p in pages for m in p.get("includes", {}).get("media", [])}
    for d in rule(dump, "described"):
        assert any(word in media[d.media_key]["alt_text"].lower() for word in WORDS[d.label])
        assert not any(word in posts(pages)[d.tweet_id]["text"].lower() for word in WORDS[d.label])


def test_the_answer_is_the_most_liked_reply_of_its_question(dump, pages):
    by_id = posts(pages)
    for d in rule(dump, "answered"):
        assert "?" in by_id[d.tweet_id]["text"] or "ideas" in by_id[d.tweet_id]["text"].lower()
        replies = [p for p in by_id.values() if p["conversation_id"] == d.tweet_id != p["id"]]
        best = max(replies, key=lambda p: p["public_metrics"]["like_count"])
        assert any(word in best["text"].lower() for word in WORDS[d.label])
        assert best["referenced_tweets"] == [{"type": "replied_to", "id": d.tweet_id}]
        assert by_id[d.tweet_id]["public_metrics"]["reply_count"] == len(replies)


def test_retweets_repeat_a_post_and_its_pictures(dump, pages):
    by_id = posts(pages)
    for d in rule(dump, "retweet"):
        post = by_id[d.tweet_id]
        original = by_id[post["referenced_tweets"][0]["id"]]
        assert post["text"].startswith("RT @user_")
        assert post.get("attachments") == original.get("attachments")
        assert not original["text"].startswith("RT ")


def test_a_long_post_is_cut_in_text_and_whole_in_its_note(dump, pages):
    for d in rule(dump, "long"):
        post = posts(pages)[d.tweet_id]
        assert post["text"].endswith(("…", "…")) or "… https" in post["text"]
        assert len(post["note_tweet"]["text"]) > 280


def test_edited_and_repeated_posts_are_told_by_id(dump, pages):
    first, second = sorted(rule(dump, "edited"), key=lambda d: int(d.tweet_id))[:2]
    assert posts(pages)[second.tweet_id]["edit_history_tweet_ids"] == [first.tweet_id, second.tweet_id]
    assert (first.code, second.kept) == ("superseded_edit", True)
    ids = Counter(post["id"] for page in pages for post in page.get("data", []))
    assert {i for i, n in ids.items() if n > 1} == {d.tweet_id for d in rule(dump, "repeated")}


def test_each_broken_file_is_broken_as_its_rule_says(dump):
    def path(name):
        return dump.media / rule(dump, name)[0].file

    with pytest.raises(OSError, match="truncated"), Image.open(path("image_truncated")) as image:
        image.load()
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(path("not_an_image"))
    with Image.open(path("image_tiny")) as image:
        assert image.size == (64, 64)
    with Image.open(path("image_animated")) as image:
        assert image.n_frames == 3
    with Image.open(path("image_aspect")) as image:
        assert image.width > 8 * image.height
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Image.DecompressionBombError):
            Image.open(path("image_oversized"))
    assert path("image_oversized").stat().st_size < 600_000
    for missing in ("missing", "moving", "unlisted"):
        assert rule(dump, missing)[0].file is None


def test_the_bomb_is_a_whole_picture(dump, monkeypatch):
    """Its stream holds every row: who decodes it without looking at the size pays for it."""
    import zlib

    data = (dump.media / rule(dump, "image_oversized")[0].file).read_bytes()
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    inflate, size = zlib.decompressobj(), 0
    for at in range(start, start + length, 4096):
        size += len(inflate.decompress(data[at : min(at + 4096, start + length)]))
    assert size == 30_000 * (1 + 30_000 // 8)


def test_the_rotated_picture_stands_upright_once_its_tag_is_obeyed(tmp_path):
    picture = Picture(tmp_path / "a.jpg", "jpeg_rotated", "smooth_muscle", 5, 144, 0.8)
    write_picture(picture)
    with Image.open(picture.path) as image:
        exif = image.getexif()
        assert exif[0x0112] == 6
        assert exif.get_ifd(0x8825)[1] == "N"
        upright = ImageOps.exif_transpose(image)
        tile = Image.fromarray(paint_tile("smooth_muscle", 5, 144, 0.8))
        difference = [
            abs(a - b)
            for a, b in zip(upright.resize((8, 8)).tobytes(), tile.resize((8, 8)).tobytes(), strict=True)
        ]
        lying = [
            abs(a - b)
            for a, b in zip(image.resize((8, 8)).tobytes(), tile.resize((8, 8)).tobytes(), strict=True)
        ]
    assert sum(difference) < 0.5 * sum(lying)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_readable_form_opens_as_what_it_claims(form, tmp_path):
    path = tmp_path / "a"
    write_picture(Picture(path, form, None if form in ("landscape", "lecture") else "stroma", 1, 160, 0.8))
    modes = {"jpeg_cmyk": "CMYK", "png_transparent": "RGBA"}
    with Image.open(path) as image:
        image.load()
        assert image.mode == modes.get(form, "RGB")
        assert image.format == ("PNG" if form.startswith("png") else "JPEG")
        assert min(image.size) >= 128


def test_copies_are_byte_equal_and_reposts_are_smaller(dump):
    for d in rule(dump, "copied"):
        twins = [p for p in dump.media.iterdir() if p.read_bytes() == (dump.media / d.file).read_bytes()]
        assert len(twins) == 2
    for d in rule(dump, "reposted"):
        with Image.open(dump.media / d.file) as image:
            assert image.size == (132, 132)


def test_equal_arguments_give_equal_bytes_whatever_the_workers(dump, tmp_path):
    again = write_dump(tmp_path / "again", 3, pictures=60, size_px=144, workers=2)
    assert again.tweets.read_bytes() == dump.tweets.read_bytes()
    assert again.decisions == dump.decisions
    assert {p.name: p.read_bytes() for p in again.media.iterdir()} == {
        p.name: p.read_bytes() for p in dump.media.iterdir()
    }


def test_other_seeds_give_other_dumps(dump, tmp_path):
    other = write_dump(tmp_path / "other", 4, pictures=40, size_px=64)
    assert not {p.name for p in other.media.iterdir()} & {p.name for p in dump.media.iterdir()}


def test_a_dump_too_small_for_every_kind_of_post_is_refused(tmp_path):
    with pytest.raises(UserError, match="pictures is 10; below 40"):
        write_dump(tmp_path, 0, pictures=10)
