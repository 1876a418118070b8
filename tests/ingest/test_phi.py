"""Suspects through the ingest: left out, marked, not minded, or cleared by a person."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from looking import codes, kept, samples
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.ingest import IngestConfig, ingest, takedown
from pathclip.ingest.requests import Requests

sys.path.insert(0, str(Path(__file__).parents[1] / "pairs"))
from burnt import labelled
from figures import as_jpeg

from pathclip.synthetic import CLASSES, paint_tile

KEY = "x:1:3_1label"


@pytest.fixture
def posts(dump):
    image = labelled(Image.fromarray(paint_tile(CLASSES[0], 1, 600)), "SMITH, JOHN", "S22-14567 A1")
    (dump.media / "label.jpg").write_bytes(as_jpeg(image, 92))
    dump.picture("plain.jpg", 2)
    dump.post("1", "Melanoma of the skin", "label")
    dump.post("2", "Nevus of the skin", "plain")
    return dump


def config(dump, out, **privacy):
    return IngestConfig(sources=(dump.tweets,), media=dump.media, out=out, privacy=privacy)


def test_suspects_are_quarantined_with_the_reason(posts, tmp_path):
    report = ingest(config(posts, tmp_path / "out"))
    assert codes(tmp_path / "out") == {KEY: "phi_suspect"}
    assert report.by_code == {"phi_suspect": 1}
    (row,) = pq.read_table(tmp_path / "out" / "private" / "rejects").to_pylist()
    assert row["stage"] == "image"
    assert "letters" in row["detail"]


def test_suspects_are_marked_in_the_private_plan_alone(posts, tmp_path):
    out = tmp_path / "out"
    report = ingest(config(posts, out, phi="flag"))
    assert (report.kept, report.data["phi_suspects"]) == (2, 1)
    rows = {r["file"]: r["phi"] for r in pq.read_table(out / "private" / "plan.parquet").to_pylist()}
    assert rows["plain.jpg"] is None
    assert "letters" in rows["label.jpg"]
    assert all("phi" not in record for record in samples(out))
    takedown(out, Requests(posts={"1": "asked"}))
    assert (out / "report.json").read_text().count('"phi_suspects": 0') == 1


def test_off_minds_nothing(posts, tmp_path):
    report = ingest(config(posts, tmp_path / "out", phi="off"))
    assert (report.kept, report.data["phi_suspects"]) == (2, 0)


@pytest.mark.parametrize("name", [KEY, "3_1label"])
def test_a_person_clears_suspects_and_only_the_plan_is_made_anew(posts, tmp_path, name):
    out, cleared = tmp_path / "out", tmp_path / "cleared.txt"
    ingest(config(posts, out))
    cleared.write_text(f"\n{name}\nsomething else\n")
    report = ingest(config(posts, out, cleared=cleared))
    assert report.state == "rebuilt"
    assert ("1", "3_1label") in kept(out)
    cleared.write_text("")
    assert ingest(config(posts, out, cleared=cleared)).by_code == {"phi_suspect": 1}, "its text counts"


def test_a_list_that_cannot_be_read_is_the_users_mistake(posts, tmp_path):
    with pytest.raises(UserError, match=r"privacy\.cleared .*none\.txt cannot be read"):
        ingest(config(posts, tmp_path / "out", cleared=tmp_path / "none.txt"))
    assert not (tmp_path / "out" / "private").exists()
