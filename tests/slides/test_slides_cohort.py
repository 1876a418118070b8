from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from slide_fakes import GLASS, MeanColour, painted, write_slide_at

from pathclip.slides import SlideConfig, run_slides
from pathclip.slides.folder import OutputFolder

CLASSES = {"pink": ["pink"], "purple": ["purple"]}
SCHEMAS = Path(__file__).resolve().parents[2] / "docs/reference/schemas"
NASTY = "</script><b>&amp;"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_slide_at(folder / "a ä#1.tif", painted(1024, 768)[0], 0.5, levels=1)
    shutil.copy(folder / "a ä#1.tif", folder / "index.tif")
    write_slide_at(folder / "blank.tif", np.full((512, 512, 3), GLASS, np.uint8), 0.5, levels=1)
    (folder / "broken.svs").write_text("x")
    rows = [f"a ä#1.tif,{NASTY},pink", "index.tif,p2,purple", "blank.tif,p2,", "broken.svs,,pink"]
    (folder / "s.csv").write_text("slide,patient,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathclip.slides.export.write_heatmap", lambda path, *_: path.touch() or path)
        config = SlideConfig(tile_px=128, page_tiles=0, draws=3)
        run_slides(folder / "s.csv", MeanColour(), CLASSES, config, folder / "out")
    return folder / "out"


def data_of(out: Path) -> dict:
    text = (out / "index.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_the_page_is_one_file_under_a_policy_that_forbids_the_network(out: Path) -> None:
    text = (out / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'" in text
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", re.sub(r"<script.*?</script>", "", text))
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("</script>") == 2
    assert "@@" not in text


def test_every_slide_has_a_row_and_the_data_fit_the_schema(out: Path) -> None:
    data = data_of(out)
    jsonschema.validate(data, json.loads((SCHEMAS / "slide-cohort.schema.json").read_text()))
    rows = {Path(row["slide"]).stem: row for row in data["slides"]}
    assert list(rows) == ["a ä#1", "index", "blank", "broken"]
    assert [row["state"] for row in rows.values()] == ["done", "done", "empty", "failed"]
    assert "cannot be opened" in rows["broken"]["reason"]
    assert (rows["broken"]["page"], rows["broken"]["jpeg"]) == (None, None)
    for name in ("a ä#1", "index", "blank"):
        assert (out / rows[name]["page"]).is_file()
    assert sum(rows["a ä#1"]["shares"].values()) == pytest.approx(1)
    assert rows["a ä#1"]["patient"] == NASTY
    assert data["quality"]["slide"]["judged"] == 2
    assert data["quality"]["slide"]["metrics"]["accuracy"][0] == 0.5
    assert data["quality"]["patient"]["judged"] == 2
    assert data["pooling"].endswith("(MI-Zero), K = 10")
    assert set(data["draws"]) == {"count", "median", "q25", "q75"}
    assert data["files"] == ["results.csv", "fractions.csv", "patients.csv", "status.jsonl", "result.json"]


def test_a_slide_named_index_does_not_take_the_pages_place(out: Path) -> None:
    assert "index.tif" in {row["name"] for row in data_of(out)["slides"]}
    assert (out / "index.tif.html").is_file()
    names = OutputFolder(out).names([Path("x.regions.svs"), Path("Index.svs"), Path("x.svs")])
    assert names == ["x.regions.svs", "Index.svs", "x"]


def test_the_picture_is_the_slide_and_beside_it_its_classes(out: Path) -> None:
    rows = {row["name"]: row for row in data_of(out)["slides"]}
    picture = Image.open(io.BytesIO(base64.b64decode(rows["a ä#1"]["jpeg"])))
    assert picture.height <= 110
    half = (picture.width - 4) // 2
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    slide, classes = pixels[:, :half], pixels[:, half + 4 :]
    y, x = int(picture.height * 0.7), int(half * 0.5)  # within the pink block
    assert np.abs(slide[y, x] - (225, 130, 175)).max() < 25
    blended = 0.45 * np.array((225, 130, 175)) + 0.55 * np.array((0, 114, 178))
    assert np.abs(classes[y, x] - blended).max() < 25
    assert Image.open(io.BytesIO(base64.b64decode(rows["blank"]["jpeg"]))).width < picture.width


def test_beyond_a_thousand_slides_the_page_stays_small(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathclip.core.files import read_json
    from pathclip.slides.cohort import cohort_data

    monkeypatch.setattr("pathclip.slides.cohort.MAX_PICTURES", 1)
    folder = OutputFolder(out)
    records = sorted(folder.records().values(), key=lambda record: record.name)
    data = cohort_data(folder, records, [], ["pink", "purple"], read_json(out / "result.json"))
    assert [row["jpeg"] is not None for row in data["slides"]] == [True, False, False, False]
    assert data["pictured"] == 1


BROWSER = """
const made = [];
class Element {
  constructor(tag) { Object.assign(this, { tagName: tag, children: [], style: {}, attributes: {},
    listeners: {}, value: "", id: "", text: "" }); made.push(this); }
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren(...nodes) { this.children = nodes; }
  addEventListener(name, f) { this.listeners[name] = f; }
  setAttribute(name, value) { this.attributes[name] = value; }
  removeAttribute(name) { delete this.attributes[name]; }
  set textContent(value) { this.text = value; this.children = []; }
  get textContent() {
    return this.text + this.children.map((c) => typeof c === "string" ? c : c.textContent).join("");
  }
}
const byId = {};
globalThis.document = {
  createElement: (tag) => new Element(tag),
  getElementById: (id) => byId[id] ??= Object.assign(new Element("div"), { id }),
};
globalThis.Image = class extends Element { constructor() { super("img"); } };
byId.data = { textContent: JSON.stringify(DATA) };
SCRIPT
const text = (row) => row.children.map((cell) => cell.textContent);
const cells = (table) => table.children[1].children.map(text);
const body = () => cells(byId.slides);
const head = byId.slides.children[0].children[0].children;
const press = (title) => head.find((cell) => cell.textContent === title).children[0].listeners.click();
const out = { head: head.map((c) => c.textContent), first: body(), answer: byId.answer.textContent,
  numbers: byId.numbers.textContent };
press("tiles"); out.up = body(); press("tiles"); out.down = body();
out.sorted = head.find((c) => c.textContent === "tiles").attributes["aria-sort"];
press("label"); out.label = body();
byId.find.value = "BROKEN"; byId.find.listeners.input();
out.found = body(); out.shown = byId.shown.textContent;
out.links = made.filter((n) => n.tagName === "a").map((n) => n.href);
out.people = cells(byId.patients);
console.log(JSON.stringify(out));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_table_is_sorted_and_searched(out: Path, tmp_path: Path) -> None:
    text = (out / "index.html").read_text(encoding="utf-8")
    script = re.findall(r"<script>(.*?)</script>", text, re.S)[0].replace('"use strict";', "")
    program = BROWSER.replace("DATA", json.dumps(data_of(out))).replace("SCRIPT", script)
    (tmp_path / "page.js").write_text(program, encoding="utf-8")
    done = subprocess.run(["node", str(tmp_path / "page.js")], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["answer"] == "4 slides: 2 done, 1 empty, 1 failed"
    columns = ["", "slide", "label", "true label", "patient", "K agree", "tiles", "tissue by class", "state"]
    assert said["head"] == columns
    assert [row[1] for row in said["first"]] == ["a ä#1.tif", "index.tif", "blank.tif", "broken.svs"]
    tiles = [int(row[6]) for row in said["first"]]
    assert [int(row[6]) for row in said["up"]] == sorted(tiles)
    assert [int(row[6]) for row in said["down"]] == sorted(tiles, reverse=True)
    assert said["sorted"] == "descending"
    assert [row[2] for row in said["label"]] == ["pink", "pink", "", ""]  # the unknown come last
    assert [row[1] for row in said["found"]] == ["broken.svs"]
    assert said["shown"] == "1 of 4"
    assert "a%20%C3%A4%231.html" in said["links"]
    assert {row[0] for row in said["people"]} == {NASTY, "p2"}
    assert "by slide, 2 judged" in said["numbers"]
    assert "by patient, 2 judged" in said["numbers"]
