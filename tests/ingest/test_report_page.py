from __future__ import annotations

import re
from html.parser import HTMLParser

import pyarrow.parquet as pq
import pytest

from pathclip.core.files import read_json
from pathclip.ingest import IngestConfig, Requests, ingest, takedown
from pathclip.tweets import OPENPATH


@pytest.fixture
def config(dump, tmp_path):
    for n in range(15):
        dump.picture(f"p{n}.jpg", n, side=60)
        dump.post(str(700 + n), f"Melanoma {n} of the skin", f"p{n}")
    dump.picture("kept.jpg", 50)
    tag = {"entities": {"hashtags": [{"tag": "GIpath"}]}}
    dump.post("800", "<script>alert(1)</script> Nevus & more", "kept", **tag)
    dump.post("801", "Scar of the skin", "broken")
    (dump.media / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    return IngestConfig(sources=(dump.tweets,), media=dump.media, out=tmp_path / "out")


class Outside(HTMLParser):
    """Collects every address that would be fetched."""

    def __init__(self):
        super().__init__()
        self.addresses: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "data") and v]


def test_the_page_is_whole_in_itself_and_runs_nothing(config):
    ingest(config)
    text = (config.out / "private" / "report.html").read_text()
    seen = Outside()
    seen.feed(text)
    assert seen.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in seen.addresses)
    assert seen.scripts == 0
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_it_shows_at_most_twelve_pictures_per_reason_and_says_of_how_many(config):
    ingest(config)
    rows = pq.read_table(config.out / "private" / "thumbs.parquet").to_pylist()
    counts = {code: [r["code"] for r in rows].count(code) for code in {r["code"] for r in rows}}
    assert counts["image_tiny"] == 12
    assert max(counts.values()) == 12
    text = (config.out / "private" / "report.html").read_text()
    assert "12 of 15: short side below image.min_side_px" in text
    assert "cannot be shown" in text, "a file that does not decode has a card all the same"


def test_the_hashtags_stand_in_openpaths_order_with_their_sums(config):
    ingest(config)
    text = (config.out / "private" / "report.html").read_text()
    part = text[text.index("Captions by hashtag") :]
    assert re.search(r"<td>GIPath</td><td class=number>1</td><td class=number>0</td>", part)
    assert re.search(r"<td>all</td><td class=number>1</td><td class=number>0</td>", part)
    absent = [name for name in OPENPATH if name != "GIPath"]
    assert f"No captions under {', '.join(absent)}." in part


def test_the_choice_of_pictures_does_not_depend_on_the_order_of_lines(config, dump, tmp_path):
    ingest(config)
    dump.pages.reverse()
    other = config.replace(sources=(dump.tweets,), out=tmp_path / "other")
    ingest(other)
    shown = [
        pq.read_table(c.out / "private" / "thumbs.parquet", columns=["candidate_id"]) for c in (config, other)
    ]
    assert shown[0] == shown[1]


def test_a_takedown_takes_pictures_and_words_off_the_page(config):
    ingest(config)
    page = config.out / "private" / "report.html"
    assert "Nevus" in page.read_text()
    takedown(config.out, Requests(posts={"800": "request"}))
    text = page.read_text()
    assert "Nevus" not in text
    assert read_json(config.out / "report.json")["kept"] == 0
    assert "0 pairs from 16 posts" in text
