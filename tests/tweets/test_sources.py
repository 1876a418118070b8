"""Sources as they come: packed, in a zip, damaged, without end."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathclip.core.errors import UserError
from pathclip.tweets import Fault, Tweet, archive_media, chunks, packed, read, readers, sniff
from pathclip.tweets.elements import elements


def items(path: Path, **options: Any) -> list[Any]:
    return [item for chunk in chunks(path, **options) for _, item in read(chunk)]


def post(tweet_id: object = "1", **more: Any) -> dict[str, Any]:
    return {"id": str(tweet_id), "text": f"Melanoma {tweet_id}", **more}


def dump(num: int = 3) -> bytes:
    return "".join(json.dumps(post(n, noise=n * 7919 % 9973)) + "\n" for n in range(num)).encode()


def zstd(data: bytes) -> bytes:
    return pa.compress(data, "zstd", asbytes=True)


@pytest.mark.parametrize(
    ("name", "pack"), [("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd)]
)
def test_a_dump_reads_the_same_however_it_is_packed(tmp_path, name, pack):
    path = tmp_path / name
    path.write_bytes(pack(dump()))
    (tmp_path / "in.zip").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"folder/{name}", pack(dump()))
        archive.writestr("__MACOSX/folder/._a", b"left behind")
    assert [t.id for t in items(path)] == ["0", "1", "2"]
    assert [t.source for t in items(tmp_path / "in.zip")] == [f"in.zip/folder/{name}:{n}" for n in (1, 2, 3)]


def test_members_of_a_packed_stream_follow_each_other(tmp_path):
    path = tmp_path / "a"
    for pack in (gzip.compress, zstd):
        path.write_bytes(pack(dump()) + pack(dump()))
        assert len(items(path)) == 6


def test_a_zip_may_hold_every_shape(tmp_path):
    pq.write_table(pa.table({"image": ["a.jpg"], "caption": ["Melanoma"]}), tmp_path / "t.parquet")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "t.parquet", "t.parquet")
        archive.writestr("t.csv", "image,caption\nb.jpg,Nevus\n")
        archive.writestr("p.json", json.dumps([post(7)], indent=1))
    assert [getattr(i, "image", None) or i.id for i in items(tmp_path / "a.zip")] == ["a.jpg", "b.jpg", "7"]


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_what_comes_before_the_damage_is_read(tmp_path, pack):
    whole = pack(dump(50_000))
    path = tmp_path / "a"
    path.write_bytes(whole[: len(whole) // 2])
    *posts, fault = items(path)
    assert len(posts) > 10_000
    assert all(isinstance(t, Tweet) for t in posts)
    assert (fault.code, fault.source) == ("parse_error", f"a:{len(posts) + 1}")
    assert "stream damaged" in fault.detail


def test_a_bomb_is_passed_over_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "FREE_BYTES", 1 << 16)
    line = json.dumps(post(1)).encode() + b"\n"
    body = line + line * 100_000
    for name, data in (("a.gz", gzip.compress(body)), ("a.zst", zstd(body))):
        (tmp_path / name).write_bytes(data)
        *posts, fault = items(tmp_path / name)
        assert 100 < len(posts) < 100_000
        assert fault.code == "parse_error"
        assert "unpack to more than 200 times that; unpack it yourself" in fault.detail


def test_a_tar_is_refused_packed_or_not(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(dump())
    for name, mode in (("tweets.jsonl", "w"), ("tweets.jsonl.gz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as tar:
            tar.add(tmp_path / "a.jsonl")
        with pytest.raises(UserError, match="is a tar archive; expected posts"):
            sniff(tmp_path / name)


@pytest.mark.parametrize("name", ["../a.jsonl", "/etc/a.jsonl", "a/../../b.jsonl"])
def test_a_zip_that_names_places_outside_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, dump())
    with pytest.raises(UserError, match="leads out of the zip"):
        items(tmp_path / "a.zip")


def test_a_zip_with_a_file_of_no_shape_names_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(UserError, match=r"a\.zip/notes\.txt has no known shape"):
        items(tmp_path / "a.zip")


ENCRYPTED = 0x1


def test_an_encrypted_zip_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", dump())
    data = bytearray(path.read_bytes())
    data[6] |= ENCRYPTED
    data[data.index(b"PK\x01\x02") + 8] |= ENCRYPTED
    path.write_bytes(data)
    with pytest.raises(UserError, match="encrypted"):
        items(path)


LIST = '[{"id": "1", "text": "a [b] {c} \\\\"}, %s, {"id": "3", "text": "x \\"]} y"}]'


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    ("middle", "code"),
    [
        ('{"id": "2", "text": "b"}', None),
        ('{"id": "2", "text": oops}', "parse_error"),
        ('{"id": "2", "text": "bad \\x escape"}', "parse_error"),
        ('{"id": "2", "text": "b",}', "parse_error"),
        ("[[[]]]", "unknown_shape"),
        ("null", "unknown_shape"),
    ],
)
def test_a_fault_in_a_list_costs_itself_alone(tmp_path, monkeypatch, piece, middle, code):
    monkeypatch.setattr("pathclip.tweets.elements.PIECE_BYTES", piece)
    (tmp_path / "a.json").write_text(LIST % middle)
    found = items(tmp_path / "a.json")
    assert [getattr(i, "code", None) for i in found] == [None, code, None]
    assert [i.source.partition("#")[0] for i in found] == ["a.json:1", "a.json:2", "a.json:3"]
    assert found[2].text == 'x "]} y'


def test_invalid_utf8_costs_one_element_line_or_row(tmp_path):
    good, bad = json.dumps(post(1)).encode(), b'{"id": "2", "text": "\xff"}'
    (tmp_path / "a.json").write_bytes(b"[" + good + b"," + bad + b"," + good + b"]")
    (tmp_path / "a.csv").write_bytes(b"image,caption\na.jpg,Melanoma\nb.jpg,\xff\nc.jpg,Nevus\n")
    for name in ("a.json", "a.csv"):
        found = items(tmp_path / name)
        assert [getattr(i, "code", None) for i in found] == [None, "parse_error", None]
        assert "not UTF-8" in found[1].detail


@pytest.mark.parametrize("piece", [1, 5, 1 << 20])
def test_a_missing_quote_costs_one_element_where_lines_are_broken(tmp_path, monkeypatch, piece):
    monkeypatch.setattr("pathclip.tweets.elements.PIECE_BYTES", piece)
    whole = json.dumps([post(n, note='a "quoted" [word] \\') for n in (1, 2, 3)], indent=1)
    for broken in (
        whole.replace('"Melanoma 2",', '"Melanoma 2,'),
        whole.replace('"Melanoma 2",', 'Melanoma 2",'),
    ):
        (tmp_path / "a.json").write_text(broken)
        found = items(tmp_path / "a.json")
        assert [getattr(i, "code", None) for i in found] == [None, "parse_error", None]
        assert [i.source for i in found] == ["a.json:1", "a.json:2", "a.json:3"]


TEXTS = st.text(alphabet='ab"\\[]{},\n é', max_size=8)
VALUES = st.recursive(
    TEXTS | st.none(), lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXTS, v, max_size=3)
)


@given(
    st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=4),
    st.sampled_from([None, 1]),
    st.integers(1, 9),
)
def test_a_list_is_cut_where_a_parser_would_cut_it(records, indent, piece):
    data = io.BytesIO(json.dumps(records, indent=indent, ensure_ascii=False).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathclip.tweets.elements.PIECE_BYTES", piece)
        assert [json.loads(element) for element in elements(data, 1 << 20)] == records


def test_a_list_that_is_cut_off_says_so(tmp_path):
    (tmp_path / "a.json").write_text('[{"id": "1", "text": "a"}, {"id": "2", "te')
    first, cut = items(tmp_path / "a.json")
    assert (first.id, cut.code) == ("1", "parse_error")


def test_json_printed_over_many_lines_is_read(tmp_path):
    text = "\n".join(json.dumps(p, indent=2) for p in ({"data": [post(1), post(2)]}, post(3)))
    (tmp_path / "a.json").write_text(text)
    assert [t.id for t in items(tmp_path / "a.json")] == ["1", "2", "3"]


def test_zeros_in_a_line_are_that_lines_fault(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps(post(1)).encode()
    path.write_bytes(b"\0" * 50 + b"\n" + good + b"\n\xff\0\n" + good)
    assert [getattr(i, "code", None) for i in items(path)] == ["parse_error", None, "parse_error", None]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is no regular file"):
        sniff(tmp_path / "pipe")


@pytest.mark.parametrize("first", ['[{"id": "0", "te', "{", "[", "[1, 2"])
def test_a_broken_first_line_does_not_make_a_list_of_the_lines_after_it(tmp_path, first):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([first, *(json.dumps(post(n)) for n in (1, 2, 3))]))
    fault, *posts = items(path)
    assert fault.code == "parse_error"
    assert [t.id for t in posts] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "text", ["[%s,%s,%s]", "[\n%s,\n%s,\n%s\n]", "[%s]\n[%s,%s]", "[%s\n,%s\n,%s]", "[\n%s, %s]\n%s"]
)
def test_lists_are_known_however_they_are_broken_into_lines(tmp_path, text):
    (tmp_path / "a.json").write_text(text % tuple(json.dumps(post(n)) for n in (1, 2, 3)))
    assert [t.id for t in items(tmp_path / "a.json")] == ["1", "2", "3"]


def test_nothing_is_held_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(readers, "SKIP_BYTES", 100)
    monkeypatch.setattr("pathclip.tweets.table.MAX_FIELD", 1000)
    monkeypatch.setattr("pathclip.tweets.elements.PIECE_BYTES", 100)
    one, long, two = (json.dumps(p).encode() for p in (post(1), post(2, text="x" * 5000), post(3)))
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([one, long, two]))
    (tmp_path / "a.json").write_bytes(b"[" + b",".join([one, long, two]) + b"]")
    (tmp_path / "a.csv").write_text(f"image,caption\na,Nevus\nb,{'x' * 5000}\nc,Melanoma\n")
    for path in tmp_path.iterdir():
        found = items(path)
        assert [getattr(i, "code", None) for i in found] == [None, "line_too_long", None], path
        assert "at most 1000" in found[1].detail


def test_an_open_quote_swallows_no_more_than_a_cell(tmp_path, monkeypatch):
    monkeypatch.setattr("pathclip.tweets.table.MAX_FIELD", 1000)
    rows = "".join(f"{n}.jpg,Nevus\n" for n in range(400))
    (tmp_path / "a.csv").write_text(f'image,caption\na.jpg,"open\n{rows}')
    fault, *found = items(tmp_path / "a.csv")
    assert fault.code == "parse_error"
    assert "lines 2 to" in fault.detail
    assert len(found) > 300


def test_what_others_allow_in_a_csv_stays(tmp_path):
    (tmp_path / "a.csv").write_text("image,caption\na.jpg,Nevus\nb.jpg,Melanoma\n")
    before = csv.field_size_limit(777)
    try:
        assert [row.image for row in items(tmp_path / "a.csv")] == ["a.jpg", "b.jpg"]
        assert csv.field_size_limit() == 777
    finally:
        csv.field_size_limit(before)


def test_nesting_without_end_is_a_fault(tmp_path):
    deep = "[" * 5000 + "]" * 5000
    quotes: dict[str, Any] = {"id_str": "0", "user": {}, "text": "x"}
    merged: dict[str, Any] = post(0)
    for n in range(1, 60):
        quotes = {"id_str": str(n), "user": {}, "text": "x", "quoted_status": quotes}
        merged = post(n, referenced_tweets=[{**merged, "type": "quoted"}])
    lists: Any = []
    for _ in range(60):
        lists = [lists]
    path = tmp_path / "a.jsonl"
    path.write_text(
        "\n".join(
            [deep, json.dumps(quotes), json.dumps(merged), json.dumps(lists), '{"id": "1", "text": "x"}']
        )
    )
    found = items(path)
    assert [i.code for i in found if isinstance(i, Fault)] == ["parse_error", *["unknown_shape"] * 3]
    assert sum(isinstance(i, Tweet) for i in found) == 5 + 5 + 1
    assert isinstance(found[-1], Tweet)


def test_a_file_name_that_is_no_text_does_no_harm(tmp_path):
    path = tmp_path / "a\udcff.jsonl"
    path.write_bytes(dump(1))
    assert items(path)[0].source.encode() == b"a?.jsonl:1"


FLAT = {
    "id": "1",
    "text": "Melanoma of the skin",
    "author_id": "7",
    "lang": "en",
    "public_metrics.like_count": "12",
    "possibly_sensitive": "True",
    "referenced_tweets.replied_to.id": "5",
    "attachments.media": '[{"media_key": "3_1", "type": "photo", "url": "https://pbs.twimg.com/media/A.jpg"}]',
    "attachments.media_keys": '["3_1"]',
    "entities.hashtags": '[{"tag": "dermpath"}]',
    "geo.full_name": "",
}


def test_a_dump_flattened_to_columns_is_read(tmp_path):
    import csv

    with open(tmp_path / "a.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, FLAT)
        writer.writeheader()
        writer.writerow(FLAT)
    pq.write_table(pa.Table.from_pylist([FLAT]), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        (found,) = items(tmp_path / name)
        assert (found.id, found.kind, found.in_reply_to_id, found.like_count) == ("1", "reply", "5", 12)
        assert (found.sensitive, found.hashtags, found.media[0].kind) == (True, ("dermpath",), "photo")


def test_a_parquet_of_rounded_ids_is_rejected_row_by_row(tmp_path):
    pq.write_table(pa.table({"id": [1.5e18, 12.0], "text": ["Melanoma", "Nevus"]}), tmp_path / "a.parquet")
    lost, exact = items(tmp_path / "a.parquet")
    assert (lost.code, exact.id) == ("float_id", "12")


def test_a_damaged_page_of_a_parquet_file_ends_it_with_a_fault(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table(
            {"image": [f"{n}.jpg" for n in range(3000)], "caption": [f"Nevus {n}" for n in range(3000)]}
        ),
        path,
    )
    data = bytearray(path.read_bytes())
    data[10:400] = b"\xff" * 390
    path.write_bytes(data)
    fault = items(path)[-1]
    assert fault.code == "parse_error"
    assert "parquet damaged after row" in fault.detail


ENTRY = {"id_str": "42", "created_at": "Wed Dec 09 19:40:11 +0000 2015"}
START = "A melanoma of the skin that goes on and on, with a description of"
NOTE = {
    "noteTweetId": "41",
    "createdAt": "2015-12-09T19:40:11.000Z",
    "core": {"text": f"{START} every cell", "hashtags": [{"text": "dermpath"}]},
}


def archive(folder: Path, *notes: dict[str, Any], **files: Any) -> Path:
    data = folder / "data"
    (data / "tweets_media").mkdir(parents=True)
    (data / "deleted_tweets_media").mkdir()
    (data / "tweets_media" / "42-A.jpg").write_bytes(b"picture")
    (data / "deleted_tweets_media" / "9-B.jpg").write_bytes(b"deleted picture")
    listed = {
        "tweets.js": ("tweets", [{"tweet": {**ENTRY, "full_text": f"{START}… https://t.co/x"}}]),
        "tweets-part1.js": ("tweets", [{"tweet": {**ENTRY, "id_str": "43", "full_text": "Nevus"}}]),
        "deleted-tweets.js": ("deleted_tweets", [{"tweet": {**ENTRY, "id_str": "9", "full_text": "Gone"}}]),
        "twitter-circle-tweet.js": ("twitter_circle_tweet", [{"tweet": {**ENTRY, "id_str": "8"}}]),
        "tweet-headers.js": ("tweet_headers", [{"tweet": {"tweet_id": "42"}}]),
        "note-tweet.js": ("note_tweet", [{"noteTweet": note} for note in notes]),
        "account.js": ("account", [{"account": {"accountId": "77"}}]),
    }
    for name, (kind, entries) in listed.items():
        (data / name).write_text(f"window.YTD.{kind}.part0 = {json.dumps(entries)}")
    return folder


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as out:
        for file in sorted(folder.rglob("*.*")):
            out.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("pack", [Path, zipped])
def test_an_archive_is_read_from_its_folder_and_its_zip(tmp_path, pack):
    path = pack(archive(tmp_path / "mine", NOTE))
    found = {getattr(i, "id", None) or i.code: i for i in items(path)}
    assert sorted(found) == ["42", "43", "deleted_post"]
    assert found["42"].text == NOTE["core"]["text"]
    assert (found["42"].is_truncated, found["42"].author_id) == (False, "77")
    assert found["42"].hashtags == ("dermpath",)
    assert archive_media(path) == path / "data" / "tweets_media"


@pytest.mark.parametrize(
    "notes",
    [
        [],
        [{**NOTE, "createdAt": "2015-12-09T19:44:11.000Z"}],
        [{**NOTE, "core": {"text": "Another text"}}],
        [NOTE, {**NOTE, "core": {"text": f"{START} something else"}}],
        [{**NOTE, "core": None}, {"createdAt": 7}],
    ],
)
def test_a_cut_post_of_an_archive_stays_cut_without_one_sure_note(tmp_path, notes):
    found = items(archive(tmp_path / "mine", *notes))
    assert [i.is_truncated for i in found if isinstance(i, Tweet) and i.id == "42"] == [True]


@pytest.mark.parametrize("name", ["twitter_circle_tweet", "deleted_tweets", "like", "direct_messages"])
def test_what_is_not_public_is_refused_by_name(tmp_path, name):
    (tmp_path / "some.js").write_text(f"window.YTD.{name}.part0 = [ ]")
    with pytest.raises(UserError, match="leave it out"):
        sniff(tmp_path / "some.js")


def test_versions_of_an_edited_post_are_known_in_an_archive(tmp_path):
    versions = {"editTweetIds": ["1", "2"]}
    entries = [
        {"tweet": {**ENTRY, "id_str": "1", "edit_info": {"initial": versions}}},
        {
            "tweet": {
                **ENTRY,
                "id_str": "2",
                "edit_info": {"edit": {"initialTweetId": "1", "editControlInitial": versions}},
            }
        },
    ]
    (tmp_path / "tweets.js").write_text(f"window.YTD.tweets.part0 = {json.dumps(entries)}")
    assert [t.edit_history for t in items(tmp_path / "tweets.js")] == [("1", "2"), ("1", "2")]
