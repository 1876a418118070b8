"""Figures through the ingest: left alone, marked, or split into a sample per panel."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from looking import codes, kept, samples, shard_bytes
from PIL import Image, ImageDraw

from pathclip.core.errors import UserError
from pathclip.ingest import IngestConfig, check, explain, ingest, takedown
from pathclip.ingest.requests import Requests
from pathclip.shards import Dataset

sys.path.insert(0, str(Path(__file__).parents[1] / "pairs"))
from figures import as_jpeg, figure, opened


@pytest.fixture
def posts(dump):
    image, boxes = figure("2x1", 16, size=(656, 400))
    (dump.media / "fig.jpg").write_bytes(as_jpeg(image, 95))
    dump.picture("one.jpg", 2)
    dump.post("1", "Nodular melanoma of the skin. A: H&E low power B: S100 stain", "fig")
    dump.post("2", "Nevus of the skin", "one")
    dump.boxes, dump.image = boxes, image
    return dump


def config(dump, out, **more):
    more.setdefault("key_file", None)
    return IngestConfig(sources=(dump.tweets,), media=dump.media, out=out, **more)


def test_figures_are_left_alone_unless_asked(posts, tmp_path):
    report = ingest(config(posts, tmp_path / "out"))
    assert (report.kept, report.data["samples"], report.data["figures"]) == (2, 2, 0)
    assert all("panels" not in record and "panel" not in record for record in samples(tmp_path / "out"))


def test_figures_are_marked(posts, tmp_path):
    report = ingest(config(posts, tmp_path / "out", image={"panels": "flag"}))
    assert (report.data["samples"], report.data["figures"]) == (2, 1)
    assert kept(tmp_path / "out")[("1", "3_1fig")]["panels"] == 2
    assert "panels" not in kept(tmp_path / "out")[("2", "3_2one")]


def test_each_panel_becomes_a_sample_of_one_candidate(posts, tmp_path):
    out = tmp_path / "out"
    report = ingest(
        config(posts, out, image={"panels": "split"}, caption={"multi": "split"}, pack={"quality": 95})
    )
    assert (report.data["in"], report.kept, report.data["samples"], report.data["figures"]) == (2, 2, 3, 2)
    panels = sorted((r for r in samples(out) if "panel" in r), key=lambda r: r["panel"])
    assert [(r["panel"], r["panels"]) for r in panels] == [(1, 2), (2, 2)]
    assert [r["captions"][0]["text"] for r in panels] == [
        "Nodular melanoma of the skin. H&E low power",
        "Nodular melanoma of the skin. S100 stain",
    ]
    assert len({r["sample_id"] for r in panels}) == len({r["phash"] for r in panels}) == 2
    assert len({r["group_id"] for r in panels}) == len({r["positive_id"] for r in panels}) == 1
    pixels = {
        r["sample_id"]: jpg for s in Dataset.open(out).splits for jpg, r in Dataset.open(out).samples(s)
    }
    for record, box in zip(panels, posts.boxes, strict=True):
        stored = opened(pixels[record["sample_id"]])
        assert abs(stored.width - (box[2] - box[0])) <= 4
        assert abs(stored.height - (box[3] - box[1])) <= 4
        wanted = np.asarray(posts.image.crop(box).resize((64, 64)), int)
        assert abs(np.asarray(stored.resize((64, 64)), int) - wanted).mean() < 8
    assert not check(out).problems
    decisions = explain(out, "1")["decisions"]
    assert [d["decision"] for d in decisions] == ["kept", "kept"]


def test_splitting_is_a_matter_of_the_plan_and_the_same_from_anew(posts, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    ingest(config(posts, tmp_path / "a", key_file=key, collect={"panels": True}))
    report = ingest(config(posts, tmp_path / "a", key_file=key, image={"panels": "split"}))
    assert report.state == "rebuilt"
    ingest(config(posts, tmp_path / "b", key_file=key, image={"panels": "split"}, ahead=False))
    assert shard_bytes(tmp_path / "a") == shard_bytes(tmp_path / "b")


def test_without_marks_every_panel_has_the_whole_caption_marked_as_of_several(posts, tmp_path):
    ingest(config(posts, tmp_path / "out", image={"panels": "split"}))
    panels = [r for r in samples(tmp_path / "out") if "panel" in r]
    assert [c.get("positional") for r in panels for c in r["captions"]] == [True, True]


def test_captions_by_place_are_dropped_for_panels_too(posts, tmp_path):
    out = tmp_path / "out"
    ingest(config(posts, out, image={"panels": "split"}, caption={"positional": "drop"}))
    assert codes(out) == {"x:1:3_1fig": "no_caption"}


def test_a_figure_with_a_small_panel_stays_whole(posts, tmp_path):
    ingest(
        config(
            posts,
            tmp_path / "out",
            image={"panels": "split", "min_side_px": 330},
            filter={"pictures": "keep"},
        )
    )
    assert [r["panels"] for r in samples(tmp_path / "out") if r.get("panels")] == [2]
    assert all("panel" not in r for r in samples(tmp_path / "out"))


def test_a_chart_beside_a_micrograph_is_no_sample(posts, tmp_path):
    chart = Image.new("RGB", (320, 400), "white")
    ImageDraw.Draw(chart).pieslice((40, 80, 280, 320), 0, 250, "#1f77b4")
    image = posts.image.copy()
    black = Image.new("RGB", (656, 400), "black")
    black.paste(image.crop(posts.boxes[0]), (0, 0))
    black.paste(chart, (336, 0))
    (posts.media / "mixed.jpg").write_bytes(as_jpeg(black, 95))
    posts.post("3", "Keratosis of the skin", "mixed")
    ingest(config(posts, tmp_path / "out", image={"panels": "split"}))
    rows = pq.read_table(tmp_path / "out" / "private" / "plan.parquet").to_pylist()
    assert [(r["panel"], r["panels"]) for r in rows if r["file"] == "mixed.jpg"] == [(1, 2)]


def test_a_picture_like_one_panel_shares_its_group_and_positive(posts, tmp_path):
    (posts.media / "alone.jpg").write_bytes(as_jpeg(posts.image.crop(posts.boxes[1]), 95))
    posts.post("4", "Melanoma, S100 stain", "alone")
    out = tmp_path / "out"
    ingest(config(posts, out, image={"panels": "split"}))
    tied = {(r["group_id"], r["positive_id"]) for r in samples(out) if r.get("panel")}
    assert {(r["group_id"], r["positive_id"]) for r in [kept(out)[("4", "3_4alone")]]} == tied
    assert report_of(out)["kept"] == 3


def report_of(out):
    return json.loads((out / "report.json").read_text())


def test_takedown_of_a_figure_takes_every_panel(posts, tmp_path):
    out = tmp_path / "out"
    ingest(config(posts, out, image={"panels": "split"}))
    takedown(out, Requests(posts={"1": "asked"}))
    assert [r.get("panel") for r in samples(out)] == [None]
    assert report_of(out)["figures"] == 0
    assert not check(out).problems
    takedown(out, Requests(posts={"2": "asked"}))


def test_takedown_beside_a_figure_keeps_its_panels(posts, tmp_path):
    out = tmp_path / "out"
    ingest(config(posts, out, image={"panels": "split"}))
    takedown(out, Requests(posts={"2": "asked"}))
    assert sorted(r["panel"] for r in samples(out)) == [1, 2]
    assert report_of(out)["figures"] == 2


def test_one_pair_per_caption_of_each_panel(posts, tmp_path):
    posts.post(
        "5", "Agree, this is melanoma of the skin", referenced_tweets=[{"type": "replied_to", "id": "1"}]
    )
    out = tmp_path / "out"
    ingest(config(posts, out, image={"panels": "split"}, caption={"pairs": "caption"}))
    assert len({r["sample_id"] for r in samples(out)}) == 5


def test_panels_need_scores(posts, tmp_path):
    with pytest.raises((UserError, ValueError), match=r"image\.panels"):
        config(
            posts,
            tmp_path / "o",
            collect={"scores": False},
            filter={"pictures": "keep"},
            image={"panels": "flag"},
        )


def test_a_turned_figure_is_cut_upright(posts, tmp_path):
    """Boxes are those of the upright picture."""
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    posts.image.transpose(Image.Transpose.ROTATE_90).save(out, "JPEG", quality=95, exif=exif)
    (posts.media / "fig.jpg").write_bytes(out.getvalue())
    ingest(config(posts, tmp_path / "out", image={"panels": "split"}))
    assert [(r["width"], r["height"]) for r in samples(tmp_path / "out") if "panel" in r] == [
        (320, 400),
        (320, 400),
    ]


def test_panels_are_looked_for_where_they_are_asked_for(posts, tmp_path):
    assert not IngestConfig(sources=["x"], out=tmp_path).collect.panels
    assert config(posts, tmp_path, image={"panels": "flag"}).collect.panels
    with pytest.raises(ValueError, match=r"collect\.panels is off"):
        config(posts, tmp_path, image={"panels": "flag"}, collect={"panels": False})
    ingest(config(posts, tmp_path / "out"))
    with pytest.raises(UserError, match=r"collect\.panels"):
        ingest(config(posts, tmp_path / "out", image={"panels": "flag"}))
