"""The demo on a small plan: every stop is passed, every file is there, every number says what it claims."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import pathclip.demo
from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.demo import DemoPlan, run_demo
from pathclip.demo.baseline import mean_colours, nearest_colour
from pathclip.demo.figures import COLOURS
from pathclip.encoders import shipped_configs
from pathclip.synthetic import CLASSES

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "reference" / "schemas" / "demo.schema.json"
SMALL = DemoPlan(
    pictures=40, heldout=2, steps=2, batch=8, watch_every=0, slide_px=(768, 640), slide_mpp=1.0, workers=1
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "d"
    shown: list[object] = []
    summary = run_demo(out, 1, plan=SMALL, show=shown.append)
    return out, summary, shown


def test_the_summary_fits_its_schema_and_is_what_was_returned(demo):
    out, summary, _ = demo
    jsonschema.validate(summary, json.loads(SCHEMA.read_text()))
    written = json.loads((out / "summary.json").read_text())
    assert {k: v for k, v in written.items() if k != "seconds"} == {
        k: json.loads(json.dumps(v)) for k, v in summary.items() if k != "seconds"
    }


def test_every_candidate_of_the_dump_is_accounted_for(demo):
    _, summary, _ = demo
    ingest = summary["ingest"]
    assert ingest["in"] == ingest["kept"] + ingest["rejected"]
    assert ingest["rejected"] == sum(ingest["by_code"].values())
    assert ingest["kept"] >= 40


def test_chance_and_numbers_of_tiles_are_those_of_the_plan(demo):
    _, summary, _ = demo
    assert summary["zeroshot"]["chance"] == 1 / len(CLASSES)
    assert summary["zeroshot"]["n"] == SMALL.heldout * len(CLASSES)
    assert summary["train"]["steps"] == SMALL.steps
    assert 0 < summary["slide"]["tiles"] <= 6 * 5  # 128 micrometres are 128 pixels here


def test_the_seed_decides_which_diagnosis_is_painted(demo):
    _, summary, _ = demo
    assert summary["slide"]["expected"] == "normal_colon_mucosa"
    assert summary["slide"]["label"] in ("adenocarcinoma", "normal_colon_mucosa")


def test_held_out_tiles_are_not_in_the_dump(demo):
    out, _, _ = demo
    heldout = {path.read_bytes() for path in (out / "heldout").rglob("*.jpg")}
    assert len(heldout) == SMALL.heldout * len(CLASSES)
    assert not heldout & {path.read_bytes() for path in (out / "dump" / "media").iterdir()}


def test_every_page_and_file_is_there(demo):
    out, summary, _ = demo
    names = ["tissues.json", "diagnoses.json", "dump/tweets.jsonl", "dataset/index.json", "index/index.json"]
    names += ["run/model/open_clip_config.json", "zeroshot/result.json", "retrieval/result.json"]
    names += ["slide/slide.svs", "slide/truth.json", "slide/tissues/slide.html"]
    for name in (*names, summary["slide"]["html"], summary["page"]):
        assert (out / name).stat().st_size > 0, name


def test_the_page_fetches_nothing_and_names_nobodys_folder(demo):
    out, summary, _ = demo
    page = (out / "index.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=[\"'](?!data:|slide/)", page)
    assert str(out.parent) not in page
    assert f"{summary['zeroshot']['balanced_accuracy']:.1%}" in page
    for label in CLASSES:
        assert label.replace("_", " ") in page
    assert page.count("data:image/jpeg") >= SMALL.heldout * len(CLASSES) + 3
    assert "$" not in re.sub(r"data:[^\"]+", "", page).split("<main>")[1]


def test_a_person_sees_every_stop_and_the_funnel(demo):
    from rich.table import Table

    _, _, shown = demo
    texts = " ".join(item for item in shown if isinstance(item, str))
    for word in ("painting", "ingesting", "training", "classifying held-out", "slide", "searching"):
        assert word in texts
    assert any(isinstance(item, Table) for item in shown)


def test_only_an_earlier_demo_is_replaced(demo, tmp_path):
    out, _, _ = demo
    assert (out / ".pathclip-demo").is_file()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds something else than a demo"):
        run_demo(mine, 0, plan=SMALL)
    assert (mine / "thesis.txt").read_text() == "years of work"
    with pytest.raises(UserError, match="is a file; expected a folder"):
        run_demo(mine / "thesis.txt", 0, plan=SMALL)
    with pytest.raises(UserError, match="seed is -1; expected 0 or more"):
        run_demo(tmp_path / "new", -1, plan=SMALL)


def test_an_earlier_demo_is_replaced_whole(tmp_path, monkeypatch):
    out = tmp_path / "d"
    out.mkdir()
    (out / ".pathclip-demo").touch()
    (out / "old.txt").touch()
    monkeypatch.setattr("pathclip.demo.road.write_classes", lambda folder: 1 / 0)  # no need to go on
    with pytest.raises(ZeroDivisionError):
        run_demo(out, 0, plan=SMALL)
    assert [path.name for path in out.iterdir()] == [".pathclip-demo"]


def test_the_nearest_mean_colour_is_found(tmp_path):
    for name, colour in {"a": (200, 10, 10), "b": (10, 200, 10), "c": (190, 20, 20)}.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    colours = mean_colours([tmp_path / "a.png", tmp_path / "b.png"])
    assert colours == pytest.approx(np.array([[200, 10, 10], [10, 200, 10]]))
    assert nearest_colour(colours, ["red", "green"], mean_colours([tmp_path / "c.png"])) == ["red"]


def test_the_demo_trains_a_shipped_config_and_every_class_has_a_colour():
    assert DemoPlan().model in shipped_configs()
    assert set(COLOURS) == set(CLASSES)
    assert len(set(COLOURS.values())) == len(CLASSES)
    assert DemoPlan().field_um == 128


def test_the_verb_prints_the_summary_last_as_json(monkeypatch, tmp_path):
    summary = {
        "zeroshot": {"balanced_accuracy": 0.9, "n": 10, "chance": 0.125, "baseline": 0.4},
        "slide": {"label": "a", "expected": "a", "tiles": 3, "tissue_accuracy": 0.5},
        "seconds": 12.0,
    }
    calls = []

    def fake(out, seed, *, show):
        calls.append((out, seed))
        show("a stop")
        return summary

    monkeypatch.setattr(pathclip.demo, "run_demo", fake)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "d"), "--seed", "3", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == summary
    assert "a stop" in result.stderr
    assert calls == [(tmp_path / "d", 3)]
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "d")])
    assert (
        "zero-shot balanced accuracy 0.900 on 10 held-out tiles (chance 0.125, nearest mean colour 0.400)"
        in result.stdout
    )
    assert "slide: a (right), 3 tiles" in result.stdout


def test_the_users_mistake_is_exit_code_two(tmp_path):
    (tmp_path / "x").write_text("")
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds something else than a demo" in result.stderr
