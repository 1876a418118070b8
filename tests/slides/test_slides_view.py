"""Deep zoom over slides, and the page that shows it to this machine alone."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import shutil
import socket
import subprocess
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.slides import DeepZoom, SlideInput, Viewer, open_slide

WIDTH, HEIGHT = 700, 530


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Smooth, so that JPEG changes little."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, (x + y) % 256 / 4 + 90], axis=2).astype(np.uint8)
    path = tmp_path / "a <b>.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    (out / ".pathclip").mkdir(parents=True)
    columns = {"x": [0, 256], "y": [10, 10], "width": [256, 256], "height": [256, 256]}
    table = {name: np.array(values, np.int32) for name, values in columns.items()}
    table |= {"prob_fat": np.array([0.25, 1], np.float32), "prob_tumour": np.array([0.75, 0], np.float32)}
    pq.write_table(pa.table(table), out / "a <b>.scores.parquet")
    return out


def ask(viewer: Viewer, path: str, **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", viewer.server.server_port, timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers["Content-Type"], body


def test_the_tiles_of_the_finest_level_are_the_slide(picture: Path) -> None:
    slide = open_slide(picture)
    zoom = DeepZoom(slide)
    assert zoom.size == (WIDTH, HEIGHT)
    assert 2 ** (zoom.num_levels - 2) < WIDTH <= 2 ** (zoom.num_levels - 1)
    whole = Image.new("RGB", zoom.size)
    for row in range(3):
        for column in range(3):
            whole.paste(zoom.tile(zoom.num_levels - 1, column, row), (256 * column, 256 * row))
    assert (np.asarray(whole) == slide.read(0, 0, 0, WIDTH, HEIGHT)).all()


def test_coarser_levels_are_means_of_the_finer_ones(picture: Path) -> None:
    zoom = DeepZoom(open_slide(picture))
    for level in range(zoom.num_levels - 2, 3, -1):
        down = 2 ** (zoom.num_levels - 1 - level)
        tile = np.asarray(zoom.tile(level, 0, 0), float)
        assert tile.shape[:2] == (min(256, -(-HEIGHT // down)), min(256, -(-WIDTH // down)))
        finer = np.asarray(
            Image.open(picture).crop((0, 0, tile.shape[1] * down, tile.shape[0] * down)), float
        )
        inside = HEIGHT // down, WIDTH // down
        shape = min(tile.shape[0], inside[0]), min(tile.shape[1], inside[1])
        blocks = finer[: shape[0] * down, : shape[1] * down].reshape(shape[0], down, shape[1], down, 3)
        assert abs(tile[: shape[0], : shape[1]] - blocks.mean(axis=(1, 3))).max() <= 1
    assert zoom.tile(0, 0, 0).size == (1, 1)


@pytest.mark.parametrize("place", [(99, 0, 0), (-1, 0, 0), (10, 3, 0), (10, 0, 3), (5, 1, 0)])
def test_where_there_is_no_tile_there_is_none(picture: Path, place: tuple[int, int, int]) -> None:
    assert DeepZoom(open_slide(picture)).tile(*place) is None


def test_a_real_slide_is_shown_as_it_is_read(data_dir: Path) -> None:
    slide = open_slide(data_dir / "slides/cmu-1-small-region.svs")
    zoom = DeepZoom(slide)
    tile = np.asarray(zoom.tile(zoom.num_levels - 1, 2, 1))
    assert (tile == slide.read(512, 256, 0, 256, 256)).all()
    coarse = np.asarray(zoom.tile(zoom.num_levels - 4, 0, 0), float)
    fine = slide.read(0, 0, 0, 2048, 2048).astype(float).reshape(256, 8, 256, 8, 3).mean(axis=(1, 3))
    assert abs(coarse - fine).mean() < 3


def test_the_page_its_data_and_its_tiles_are_served(picture: Path, scores: Path) -> None:
    with Viewer([SlideInput("a", picture, mpp=0.5)], scores=scores) as viewer:
        status, kind, page = ask(viewer, "/0/")
        assert (status, kind) == (200, "text/html; charset=utf-8")
        assert b"<title>a &lt;b&gt;.png</title>" in page
        data = json.loads(ask(viewer, "/0/data.json")[2])
        assert (data["width"], data["height"], data["mpp"], data["tiles"]) == (WIDTH, HEIGHT, 0.5, 2)
        assert [c["name"] for c in data["classes"]] == ["fat", "tumour"]
        boxes = np.frombuffer(base64.b64decode(data["boxes"]), "<i4").reshape(-1, 4)
        assert boxes.tolist() == [[0, 10, 256, 256], [256, 10, 256, 256]]
        chances = np.frombuffer(base64.b64decode(data["chances"]), np.uint8).reshape(-1, 2)
        assert chances.tolist() == [[64, 191], [255, 0]]
        status, kind, tile = ask(viewer, f"/0/{data['levels'] - 1}/1_1.jpg")
        assert (status, kind) == (200, "image/jpeg")
        shown = np.asarray(Image.open(io.BytesIO(tile)), float)
        assert abs(shown - np.asarray(Image.open(picture).crop((256, 256, 512, 512)), float)).mean() < 3


def test_nothing_else_is_served_and_to_nobody_else(picture: Path) -> None:
    with Viewer([SlideInput("a", picture)]) as viewer:
        assert viewer.server.server_address[0] == "127.0.0.1"
        for path in ("/1/", "/0/../../etc/passwd", "/0/99/0_0.jpg", "/0/1/9_9.jpg", "/7/1/0_0.jpg", "/x"):
            assert ask(viewer, path)[0] == 404
        assert ask(viewer, "/0/", Host="evil.example.com")[0] == 403
        assert ask(viewer, "/0/", Host=f"localhost:{viewer.server.server_port}")[0] == 200
        data = json.loads(ask(viewer, "/0/data.json")[2])
        assert (data["mpp"], data["tiles"]) == (None, 0)


BROWSER = """
const drawn = [], filled = [], asked = new Set(), listeners = {}, elements = {};
const canvas = new Proxy({}, { get: (o, n) => n in o ? o[n] : (...values) => {
  if (n === "drawImage") drawn.push([values[0].src, ...values.slice(1)]);
  if (n === "fillRect") filled.push([o.fillStyle, o.globalAlpha, ...values]);
} });
function element(id) {
  return elements[id] ??= { id, style: {}, value: id === "opacity" ? "0.5" : "best", length: 2, options: [],
    selectedOptions: [{ text: "name" }], add(option) { this.options.push(option); },
    addEventListener: (name, f) => { listeners[name] = f; },
    getContext: () => canvas, setPointerCapture() {} };
}
globalThis.document = { getElementById: element, querySelectorAll: () => [element("a label")] };
globalThis.location = { pathname: "/0/" };
globalThis.innerWidth = 800; globalThis.innerHeight = 600; globalThis.devicePixelRatio = 1;
globalThis.addEventListener = () => {};
globalThis.Option = class { constructor(text, value) { this.text = text; this.value = value; } };
globalThis.requestAnimationFrame = (f) => setTimeout(f, 0);
globalThis.Image = class { set src(value) {
  this.name = value; asked.add(value); this.complete = true; this.naturalWidth = this.naturalHeight = 256;
  setTimeout(() => this.onload(), 0);
} get src() { return this.name; } };
globalThis.fetch = async () => ({ json: async () => (DATA) });
SCRIPT
setTimeout(() => {
  const whole = filled.splice(0);
  listeners.wheel({ preventDefault() {}, deltaY: -800, clientX: 400, clientY: 300 });
  listeners.pointermove({ buttons: 1, movementX: 5, movementY: 5 });
  filled.length = drawn.length = 0;
  paint();
  setTimeout(() => {
    listeners.pointermove({ buttons: 0, clientX: 400, clientY: 300 });
    console.log(JSON.stringify({ asked: [...asked], drawn, filled, whole, zoom,
      told: element("told").textContent, options: element("show").options.length }));
  }, 50);
}, 50);
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_page_asks_for_tiles_in_view_and_lays_the_scores_over(
    picture: Path, scores: Path, tmp_path: Path
) -> None:
    page = (files("pathclip.slides") / "view.html").read_text()
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", page)  # nothing is fetched from elsewhere
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1].replace('"use strict";', "")
    with Viewer([SlideInput("a", picture, mpp=0.5)], scores=scores) as viewer:
        data = ask(viewer, "/0/data.json")[2].decode()
        program = BROWSER.replace("SCRIPT", script).replace("DATA", data)
        (tmp_path / "page.js").write_text(program)
        done = subprocess.run(["node", str(tmp_path / "page.js")], capture_output=True, text=True, check=True)
        said = json.loads(done.stdout)
        assert said["asked"]
        assert all(ask(viewer, "/0/" + path)[0] == 200 for path in said["asked"])
    assert said["options"] == 4  # best, two classes, none
    assert said["zoom"] == pytest.approx(0.95 * min(800 / WIDTH, 600 / HEIGHT) * np.exp(2))
    assert {path.split("/")[0] for path, *_ in said["drawn"]} >= {"10"}  # the finest level
    assert {colour: alpha for colour, alpha, *_ in said["whole"]} == {"#0072b2": 0.5, "#e69f00": 0.5}
    ((colour, _, _, _, width, height),) = said["filled"]  # of the two tiles the one in view
    assert colour == "#0072b2"
    assert width == height == pytest.approx(256 * said["zoom"])
    assert said["told"] == "10 µm  349, 264  fat 1.00  tumour 0.00"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def off_by(shown: np.ndarray, slide: np.ndarray) -> float:
    """The largest difference of a screenshot from the slide and from the colours laid over its two tiles."""
    covered = np.abs(shown - (244, 245, 247)).max(axis=2) > 8  # all but the page's ground
    across, down = np.flatnonzero(covered[300]), np.flatnonzero(covered[60:540, 400])
    if not len(across) or not len(down):
        return np.inf
    zoom, left = len(across) / WIDTH, across[0]
    upper = 60 + down[-1] + 1 - HEIGHT * zoom
    tumour, fat, none = (0.45 * np.array(c) for c in ((230, 159, 0), (0, 114, 178), (0, 0, 0)))
    places = {(128, 180): tumour, (350, 180): fat, (350, 400): none, (600, 180): none, (60, 480): none}
    return max(
        np.abs(
            shown[round(upper + y * zoom), round(left + x * zoom)]
            - slide[y, x] * (0.55 if colour.any() else 1)
            - colour
        ).max()
        for (x, y), colour in places.items()
    )


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_chromium_shows_the_slide_under_the_colours_of_its_tiles(
    picture: Path, scores: Path, tmp_path: Path
) -> None:
    shot, found = tmp_path / "shot.png", np.inf
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=800,600", f"--screenshot={shot}"]
    with Viewer([SlideInput("a", picture, mpp=0.5)], scores=scores) as viewer:
        url = f"http://127.0.0.1:{viewer.server.server_port}/0/"
        for wait_ms in (4_000, 16_000, 64_000, 256_000):  # by the page's own clock: a busy machine needs more
            command = [CHROMIUM, *flags, f"--virtual-time-budget={wait_ms}", url]
            subprocess.run(command, capture_output=True, check=True, timeout=120)
            found = off_by(
                np.asarray(Image.open(shot).convert("RGB"), float), np.asarray(Image.open(picture), float)
            )
            if found < 6:
                break
    assert found < 6


def test_mistakes_are_named(picture: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no slide was named"):
        Viewer([])
    with pytest.raises(UserError, match="is no folder of `pathclip slide classify`"):
        Viewer([SlideInput("a", picture)], scores=tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="choose another --port"):
            Viewer([SlideInput("a", picture)], port=taken.getsockname()[1])


def test_the_command_tells_where_to_look(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Viewer, "serve", Viewer.close)
    result = CliRunner().invoke(app, ["slide", "view", str(picture), "--no-browser", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["url"].startswith("http://127.0.0.1:")
    assert said["slides"] == ["a <b>.png"]
    missing = CliRunner().invoke(app, ["slide", "view", "absent.svs", "--no-browser"])
    assert missing.exit_code == 2
