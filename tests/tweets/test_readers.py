from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pathclip.core.errors import UserError
from pathclip.tweets import Fault, Row, Tweet, archive_media, chunks, read, sniff


def items(path: Path, **options: Any) -> list[Any]:
    return [item for chunk in chunks(path, **options) for _, item in read(chunk)]


def lines(path: Path, *records: Any) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n")
    return path


def post(tweet_id: str = "1", **more: Any) -> dict[str, Any]:
    return {"id": tweet_id, "text": "Melanoma of the skin", **more}


PAGE = {
    "data": [
        post(
            "10",
            author_id="7",
            conversation_id="10",
            created_at="2022-03-01T12:00:00.000Z",
            lang="en",
            possibly_sensitive=True,
            edit_history_tweet_ids=["9", "10"],
            public_metrics={"like_count": 5},
            entities={"hashtags": [{"tag": "dermpath"}, {"tag": "BCC"}]},
            attachments={"media_keys": ["3_1", "3_2", "7_3"], "poll_ids": ["p"]},
        ),
        post("11", referenced_tweets=[{"type": "replied_to", "id": "10"}]),
        post("12", referenced_tweets=[{"type": "retweeted", "id": "10"}]),
        post("13", referenced_tweets=[{"type": "quoted", "id": "10"}], withheld={"country_codes": ["IN"]}),
    ],
    "includes": {
        "media": [
            {
                "media_key": "3_1",
                "type": "photo",
                "url": "https://pbs.twimg.com/media/Fa.jpg",
                "alt_text": "skin",
            },
            {"media_key": "7_3", "type": "video", "preview_image_url": "https://pbs.twimg.com/v.jpg"},
        ],
        "users": [{"id": "7", "username": "PathBot"}],
        "tweets": [post("99")],
    },
}


def test_a_v2_page_yields_its_posts_with_media_joined(tmp_path):
    found = items(lines(tmp_path / "a.jsonl", PAGE))
    first = found[0]
    assert [t.id for t in found] == ["10", "11", "12", "13", "99"]
    assert [t.kind for t in found] == ["original", "reply", "retweet", "quote", "original"]
    assert [(m.key, m.kind, m.alt_text) for m in first.media] == [
        ("3_1", "photo", "skin"),
        ("3_2", "unlisted", None),
        ("7_3", "video", None),
    ]
    assert first == Tweet(
        id="10",
        text="Melanoma of the skin",
        lang="en",
        created_at="2022-03-01T12:00:00.000Z",
        conversation_id="10",
        author_id="7",
        like_count=5,
        sensitive=True,
        hashtags=("dermpath", "BCC"),
        media=first.media,
        has_poll=True,
        is_bot=True,
        edit_history=("9", "10"),
        source="a.jsonl:1#0",
    )
    assert found[1].in_reply_to_id == "10"
    assert found[3].is_withheld
    assert [t.is_referenced for t in found] == [False] * 4 + [True]


def test_a_single_post_as_data_is_a_page_too(tmp_path):
    (found,) = items(lines(tmp_path / "a.jsonl", {"data": post("5")}))
    assert found.id == "5"


def test_note_tweet_holds_the_whole_text_and_an_ellipsis_marks_a_cut_one(tmp_path):
    cut, whole = items(
        lines(
            tmp_path / "a.jsonl",
            post("1", text="Long text that is cut… https://t.co/abc"),
            post("2", text="Long text that is cut…", note_tweet={"text": "Long text that is not cut"}),
        )
    )
    assert cut.is_truncated
    assert not whole.is_truncated
    assert whole.text == "Long text that is not cut"


def test_flattened_posts_take_empty_includes_as_absent(tmp_path):
    flat = post(
        "1",
        author_id="7",
        geo=None,
        author={},
        entities=None,
        attachments={"media_keys": ["3_1", "3_2"], "media": [{"media_key": "3_1", "type": "photo"}, {}]},
        referenced_tweets=[
            {"type": "quoted", "id": "2", "text": "quoted words"},
            {"type": "replied_to", "id": "3"},
            {},
        ],
    )
    first, quoted = items(lines(tmp_path / "a.jsonl", flat))
    assert [m.kind for m in first.media] == ["photo", "unlisted"]
    assert first.in_reply_to_id == "3"
    assert (quoted.id, quoted.is_referenced, quoted.source) == ("2", True, "a.jsonl:1>0")


V1 = {
    "id": 674674925830787011,
    "id_str": "674674925830787011",
    "created_at": "Wed Dec 09 19:40:11 +0000 2015",
    "text": "Melanoma… https://t.co/x",
    "truncated": True,
    "extended_tweet": {
        "full_text": "Melanoma of the skin #dermpath",
        "entities": {"hashtags": [{"text": "dermpath"}]},
        "extended_entities": {
            "media": [
                {"id_str": "8", "type": "photo", "media_url_https": "https://pbs.twimg.com/media/A.jpg"},
                {"id_str": "9", "type": "photo", "media_url_https": "https://pbs.twimg.com/media/B.jpg"},
            ]
        },
    },
    "entities": {"media": [{"id_str": "8", "type": "photo"}]},
    "user": {"id_str": "77", "screen_name": "someone"},
    "favorite_count": 3,
    "possibly_sensitive": False,
    "lang": "en",
}


def test_v1_takes_the_full_text_and_all_pictures(tmp_path):
    (found,) = items(lines(tmp_path / "a.jsonl", V1))
    assert found.text == "Melanoma of the skin #dermpath"
    assert [m.key for m in found.media] == ["8", "9"]
    assert not found.is_truncated
    assert found.created_at == "2015-12-09T19:40:11.000Z"
    assert (found.author_id, found.like_count, found.hashtags) == ("77", 3, ("dermpath",))


def test_v1_text_order_is_extended_full_then_short(tmp_path):
    full = {k: v for k, v in V1.items() if k != "extended_tweet"} | {"full_text": "from full_text"}
    short = {k: v for k, v in V1.items() if k != "extended_tweet"}
    found = items(lines(tmp_path / "a.jsonl", full, short))
    assert [(t.text, t.is_truncated) for t in found] == [("from full_text", False), (V1["text"], True)]


def test_v1_retweets_and_quotes_bring_the_inner_post_along(tmp_path):
    retweet = {**V1, "retweeted_status": {**V1, "id_str": "5"}}
    quote = {**V1, "is_quote_status": True, "quoted_status": {**V1, "id_str": "6"}}
    reply = {**V1, "in_reply_to_status_id_str": "5"}
    found = items(lines(tmp_path / "a.jsonl", retweet, quote, reply))
    assert [(t.kind, t.is_referenced) for t in found] == [
        ("retweet", False),
        ("original", True),
        ("quote", False),
        ("original", True),
        ("reply", False),
    ]


def test_old_style_retweets_are_known_by_their_text(tmp_path):
    (found,) = items(lines(tmp_path / "a.jsonl", post("1", text="RT @someone: Melanoma")))
    assert found.kind == "retweet"


@pytest.mark.parametrize("name", ["tweets.js", "tweet.js"])
def test_a_personal_archive_is_read_from_its_folder(tmp_path, name):
    data = tmp_path / "archive" / "data"
    (data / "tweets_media").mkdir(parents=True)
    entry = {
        "tweet": {
            "id_str": "42",
            "full_text": "Melanoma",
            "favorite_count": "12",
            "created_at": "Wed Dec 09 19:40:11 +0000 2015",
            "extended_entities": {
                "media": [
                    {"id_str": "8", "type": "photo", "media_url_https": "https://pbs.twimg.com/media/A.jpg"}
                ]
            },
        }
    }
    (data / name).write_text(f"window.YTD.tweets.part0 = {json.dumps([entry])}")
    (data / "deleted-tweets.js").write_text(f"window.YTD.deleted_tweets.part0 = {json.dumps([entry])}")
    deleted, found = items(tmp_path / "archive")
    assert (found.id, found.like_count, found.media[0].path) == ("42", 12, "42-A.jpg")
    assert found.author_id is not None
    assert deleted == Fault(
        "deleted_post", "deleted by its author; kept by the archive for a while", "deleted-tweets.js:1"
    )
    assert archive_media(tmp_path / "archive") == data / "tweets_media"


def test_deleted_posts_of_an_archive_are_refused(tmp_path):
    path = tmp_path / "deleted-tweets.js"
    path.write_text("window.YTD.deleted_tweets.part0 = []")
    with pytest.raises(UserError, match="deleted posts, which are never ingested"):
        sniff(path)


def test_the_oldest_archives_are_read(tmp_path):
    path = tmp_path / "2012_01.js"
    path.write_text("Grailbird.data.tweets_2012_01 = " + json.dumps([V1]))
    (found,) = items(path)
    assert found.id == V1["id_str"]


def test_every_line_without_a_post_is_a_fault_that_names_its_place(tmp_path):
    records = [
        '{"data": [{"id": "1", "text": "cut off',
        {"errors": [{"title": "Not Found Error"}], "meta": {"result_count": 0}},
        {"id": "1", "action": "delete", "created_at": "x", "reason": "deleted"},
        {"delete": {"status": {"id": 1}}},
        {"id": "1"},
        {"something": "else"},
        "[]",
        "42",
        {"data": []},
        {"data": [{"text": "no id"}]},
        "",
        post("1"),
    ]
    found = items(lines(tmp_path / "a.jsonl", *records))
    assert [f.code for f in found[:-1]] == [
        "parse_error",
        "error_page",
        "compliance_event",
        "compliance_event",
        "not_hydrated",
        "unknown_shape",
        "unknown_shape",
        "unknown_shape",
        "error_page",
        "unknown_shape",
    ]
    assert [f.source.partition("#")[0] for f in found] == [f"a.jsonl:{n}" for n in (*range(1, 11), 12)]
    assert isinstance(found[-1], Tweet)


def test_events_of_compliance_streams_are_told_from_posts(tmp_path):
    events = [
        {"data": {"delete": {"tweet": {"id": "1", "author_id": "7"}, "event_at": "x"}}},
        {"data": {"user_suspend": {"user": {"id": "7"}, "event_at": "x"}}},
        {"data": {"tweet_edit": {"tweet": {"id": "1"}, "initial_tweet_id": "1"}}},
        {"user_withheld": {"id": 7, "withheld_in_countries": ["DE"]}},
    ]
    assert [f.code for f in items(lines(tmp_path / "a.jsonl", *events))] == ["compliance_event"] * 4


def test_bad_bytes_and_deep_nesting_do_not_stop_the_reader(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps(post("1")).encode()
    path.write_bytes(good + b'\n{"text": "\xff\xfe"}\n' + b"[" * 200_000 + b"\n" + good + b"\n")
    found = items(path)
    assert [type(f) for f in found] == [Tweet, Fault, Fault, Tweet]
    assert "not UTF-8 at byte 10" in found[1].detail


def test_a_line_too_long_to_hold_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr("pathclip.tweets.readers.MAX_LINE_BYTES", 100)
    path = lines(tmp_path / "a.jsonl", post("1"), post("2", text="x" * 1000), post("3"))
    for size in (50, 1 << 20):
        found = items(path, chunk_bytes=size)
        assert [getattr(f, "id", f.source) for f in found] == ["1", "a.jsonl:2", "3"]
    assert "at most 100" in found[1].detail


def test_lone_surrogates_and_float_ids_do_no_harm(tmp_path):
    surrogate, exact, *rounded = items(
        lines(
            tmp_path / "a.jsonl",
            '{"id": "1", "text": "Melanoma \\ud83d", "\\ud83d": 1}',
            '{"id": 12345.0, "text": "x"}',
            '{"id": 1.5000010008116225e18, "text": "x", "author_id": "1"}',
            '{"id": "1.50000100081162E+18", "text": "x"}',
            '{"id": "1500001000811622500.0", "text": "x"}',
            '{"id": "2", "text": "x", "author_id": 1.5e18}',
            '{"id": "2", "text": "x", "conversation_id": 1.5e18}',
            '{"id": "2", "text": "x", "referenced_tweets": [{"type": "replied_to", "id": 1.5e18}]}',
            '{"id": 1.5e18, "text": "x", "user": {"id": 1}}',
            '{"id": 1, "text": "x", "user": {"id": 1.5e18}}',
            '{"id": 1, "text": "x", "user": {"id": 2}, "in_reply_to_status_id": 1.5e18}',
            '{"id": 1.5e18}',
        )
    )
    assert surrogate.text == "Melanoma"
    assert exact.id == "12345"
    assert [fault.code for fault in rounded] == ["float_id"] * 10


def test_gzip_json_arrays_and_byte_order_marks_are_read(tmp_path):
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress((json.dumps(PAGE) + "\n").encode()))
    array = tmp_path / "b.json"
    array.write_text(json.dumps([V1, post("2")]))
    marked = tmp_path / "c.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + json.dumps(post("3")).encode())
    assert len(items(packed)) == 5
    assert [t.source for t in items(array)] == ["b.json:1", "b.json:2"]
    assert items(marked)[0].id == "3"


def test_a_cut_gzip_file_ends_in_a_fault(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    body = "".join(json.dumps(post(str(n), text=f"Melanoma {n * 7919 % 9973}")) + "\n" for n in range(5000))
    whole = gzip.compress(body.encode())
    path.write_bytes(whole[: len(whole) // 2])
    found = items(path)
    assert len(found) > 10
    assert found[-1].code == "parse_error"
    assert "gzip" in found[-1].detail


def test_chunks_cover_every_line_once_with_its_number(tmp_path):
    path = lines(tmp_path / "a.jsonl", *[post(str(n), text="x" * (n % 37)) for n in range(200)])
    whole = [item for chunk in chunks(path) for item in read(chunk)]
    parts = list(chunks(path, chunk_bytes=500))
    assert len(parts) > 10
    assert [item for chunk in parts for item in read(chunk)] == whole
    assert [number for number, _ in whole] == list(range(1, 201))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n ", "is empty"),
        (b"hello world\n", "no known shape"),
        (b"a" * 257 + b"ustar" + b"\0" * 500, "is a tar archive"),
        (b"PK\x03\x04rest", "is a damaged zip"),
        (b"\x28\xb5\x2f\xfdrest", "is damaged: zstd"),
        (b"BZh91AY", "is bzip2-compressed"),
        ("Melanoma".encode("utf-16"), "is UTF-16 text"),
        (b"id\n1500001000811622500\n", "ids without posts.*--set ids="),
        (b"1500001000811622500\n1500001000811622501\n", "ids without posts"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "binary data"),
        (b"\x1f\x8b\x08broken", "is damaged: gzip"),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "source"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        sniff(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_sources_and_plain_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        sniff(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"without data/tweets\.js"):
        sniff(tmp_path)


def test_tables_are_read_in_all_three_forms(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"image": "a.jpg", "caption": 'Nevus, "blue"', "group": "g1", "split": "train"},
        {"image": "b.jpg", "caption": "Two\nlines", "group": "g2", "split": "validation"},
    ]
    csv_file = tmp_path / "t.csv"
    csv_file.write_text(
        'image,caption,group,split\na.jpg,"Nevus, ""blue""",g1,train\nb.jpg,"Two\nlines",g2,validation\n'
    )
    tabbed = tmp_path / "t.tsv"
    tabbed.write_text(
        'Image\tCaption\tgroup\tsplit\na.jpg\t"Nevus, ""blue"""\tg1\ttrain\nb.jpg\t"Two\nlines"\tg2\tdev\n'
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    expected = [("a.jpg", 'Nevus, "blue"', "g1", "train"), ("b.jpg", "Two\nlines", "g2", "val")]
    for path in (csv_file, tabbed, lines(tmp_path / "t.jsonl", *rows), tmp_path / "t.parquet"):
        assert [(r.image, r.caption, r.group, r.split) for r in items(path)] == expected, path


def test_bad_rows_are_faults(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "image,caption,split\n,x,train\na.jpg,,train\na.jpg,x,holdout\na.jpg,x,train,more\na.jpg,x\n"
    )
    found = items(path)
    assert [f.detail for f in found[:4]] == [
        "column image is empty",
        "column caption is empty",
        "split is 'holdout'; expected train, val or test",
        "4 values for 3 columns",
    ]
    assert found[4] == Row("a.jpg", "x", None, None, "t.csv:6")


def test_numeric_groups_of_a_parquet_table_become_text(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": ["a"], "caption": ["x"], "group": [7]}), tmp_path / "t.parquet")
    assert items(tmp_path / "t.parquet")[0].group == "7"


def test_a_table_without_the_columns_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"picture": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="expected image and caption"):
        items(tmp_path / "t.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        items(tmp_path / "broken.parquet")


def test_real_payloads_are_read_whole_and_every_line_explained(data_dir):
    posts = 0
    for path in sorted((data_dir / "payloads").glob("*.jsonl")):
        filled = [n for n, line in enumerate(path.read_text().splitlines(), 1) if line.strip()]
        read_lines = {n for chunk in chunks(path) for n, _ in read(chunk)}
        assert read_lines == set(filled), path.name
        posts += sum(isinstance(item, Tweet) for item in items(path))
    assert posts > 300
