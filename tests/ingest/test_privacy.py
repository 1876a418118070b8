from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from looking import provenance
from PIL import Image

from pathclip.ingest import IngestConfig, ingest
from pathclip.ingest.privacy import nameless
from pathclip.shards import Dataset

NAME_KEYS = ("username", "name", "screen_name", "location", "full_name")
ID_KEYS = ("id", "id_str", "author_id", "conversation_id", "in_reply_to_user_id", "media_key", "place_id")
TEXT_KEYS = ("source", "url", "expanded_url", "display_url")
METADATA = (b"Exif\0", b"http://ns.adobe.com/xap", b"Photoshop 3.0", b"GPS", b"ICC_PROFILE\0", b"JFXX\0")


def identities(dump_file: Path) -> tuple[set[bytes], set[bytes]]:
    """All ids and names that a dump's payloads hold: single words, and phrases."""
    found: set[str] = set()

    def walk(value, key=None):
        if isinstance(value, dict):
            for inner_key, inner in value.items():
                walk(inner, inner_key)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, key)
        elif key in (*NAME_KEYS, *ID_KEYS, *TEXT_KEYS) or (key or "").endswith(("_ids", "_keys")):
            found.add(str(value))

    for line in dump_file.read_text("utf-8", "replace").splitlines():
        try:
            walk(json.loads(line))
        except ValueError:
            continue
        found.update(re.findall(r"@\w+", line))
    found = {value for value in found if len(value) >= 6}
    found |= {value.partition("_")[2] for value in found if re.fullmatch(r"\d+_\d{6,}", value)}
    words = {value.encode() for value in found if re.fullmatch(r"\w+", value)}
    return words, {value.encode() for value in found} - words


def public_files(out: Path) -> list[Path]:
    return [p for p in sorted(out.rglob("*")) if p.is_file() and "private" not in p.relative_to(out).parts]


def _shows_nobody(dump_file: Path, media: Path, out: Path, **settings) -> None:
    ingest(IngestConfig(sources=(dump_file,), media=media, out=out, **settings))
    words, phrases = identities(dump_file)
    assert len(words) > 100
    files = {p: p.read_bytes() for p in public_files(out)}
    names = {p.relative_to(out).as_posix().partition("-")[0] for p in files}
    assert {"README.md", "croissant.json", "report.json", "index.json", "shards/train"} <= names
    for path, data in files.items():
        assert not words & set(re.findall(rb"\w+", data)), path
        assert not [phrase for phrase in phrases if phrase in data], path
    for jpg, record in (s for split in Dataset.open(out).splits for s in Dataset.open(out).samples(split)):
        data = bytes(jpg)
        head = data[: data.index(b"\xff\xda")]  # before the pixels, whose bytes may spell anything
        assert not [mark for mark in METADATA if mark in head]
        with Image.open(io.BytesIO(data)) as image:
            assert not image.getexif()
            assert set(image.info) <= {
                "jfif",
                "jfif_version",
                "jfif_unit",
                "jfif_density",
                "adobe",
                "adobe_transform",
            }
        assert not re.search(r"@\w|https?:|www\.", " ".join(c["text"] for c in record["captions"])) or any(
            re.search(r"@\d+[xX]", c["text"]) for c in record["captions"]
        )


def test_no_shard_or_public_file_of_the_real_dump_shows_anybody(data_dir, tmp_path):
    dump = data_dir / "dump"
    assert any(_has_gps(path) for path in (dump / "media").iterdir())
    _shows_nobody(dump / "tweets.jsonl", dump / "media", tmp_path / "d")


def _has_gps(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return bool(image.getexif().get_ifd(0x8825))
    except (OSError, Image.DecompressionBombError):
        return False


@pytest.mark.parametrize("preset", ["plip", "permissive"])
def test_no_shard_or_public_file_of_a_synthetic_dump_shows_anybody(synthetic_dump, tmp_path, preset):
    from pathclip.ingest import preset as settings_of

    _shows_nobody(synthetic_dump.tweets, synthetic_dump.media, tmp_path / "d", **settings_of(preset))


def test_the_dumps_that_are_searched_hold_what_is_searched_for(synthetic_dump):
    """A search that cannot find proves nothing."""
    words, _ = identities(synthetic_dump.tweets)
    text = synthetic_dump.tweets.read_bytes()
    assert words <= set(re.findall(rb"\w+", text)) | {w for w in words if b"_" + w in text}
    assert any(b"Exif\0" in p.read_bytes() for p in synthetic_dump.media.iterdir())


def test_the_private_part_names_no_account_either(synthetic_dump, tmp_path):
    out = tmp_path / "d"
    ingest(IngestConfig(sources=(synthetic_dump.tweets,), media=synthetic_dump.media, out=out))
    rows = [r for p in (out / "private" / "parts").glob("posts-*") for r in pq.read_table(p).to_pylist()]
    handles = {h for row in rows for h in re.findall(r"@[A-Za-z_]\w*", row["text"])}
    assert handles == {"@user"}
    assert all(row["author_id"] for row in provenance(out)), "ids are kept, for takedowns"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("RT @jane_doe: nice", "RT @user: nice"),
        ("@a @b thanks", "@user @user thanks"),
        ("seen @40x and @2.5X", "seen @40x and @2.5X"),
        ("mail me at a@b.org", "mail me at a@b.org"),
        ("see https://twitter.com/jane/status/123456?s=20", "see https://t.co/post"),
        ("see https://x.com/jane/status/1.", "see https://t.co/post"),
        (".@Jane!", ".@user!"),
    ],
)
def test_accounts_and_links_to_them_are_masked_and_magnifications_stay(text, stored):
    assert nameless(text) == stored
