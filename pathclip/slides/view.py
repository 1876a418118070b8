"""A local page with deep zoom over slides and the scores of their tiles: for this machine's browser alone."""

from __future__ import annotations

import base64
import html
import io
import math
import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.core.files import strict_json
from pathclip.slides.colours import class_colours, css
from pathclip.slides.folder import OutputFolder
from pathclip.slides.inputs import SlideInput
from pathclip.slides.mpp import resolve_mpp
from pathclip.slides.overview import best_level, block
from pathclip.slides.slide import Slide, UnreadableRegion, open_slide

__all__ = ["DeepZoom", "Viewer"]

TILE_PX = 256
CACHED_TILES = 1024
QUALITY = 85
HOST = "127.0.0.1"
TILE = re.compile(r"/(\d+)/(\d+)/(\d+)_(\d+)\.jpg")
PAGE = re.compile(r"/(\d+)/(?:(data\.json))?")


class DeepZoom:
    """A slide's scanned area as a pyramid of square tiles, each level half as large as the next.

    Args:
        slide: Stays open as long as this is used.

    Attributes:
        size: (width, height) of the finest level: level-0 pixels.
        num_levels: The first one is a single pixel.
    """

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self.size = slide.bounds[2:]
        self.num_levels = math.ceil(math.log2(max(self.size))) + 1

    def tile(self, level: int, column: int, row: int) -> Image.Image | None:
        """A tile of at most 256 px a side; None where there is none. What cannot be decoded is grey."""
        if not 0 <= level < self.num_levels:
            return None
        down = 2 ** (self.num_levels - 1 - level)
        width, height = (math.ceil(side / down) for side in self.size)
        left, upper = column * TILE_PX, row * TILE_PX
        right, lower = min(left + TILE_PX, width), min(upper + TILE_PX, height)
        if left >= right or upper >= lower:
            return None
        source = best_level(self.slide, down, slack=1.001)
        try:
            box = left, upper, right, lower
            pixels = block(self.slide, source, box, (down, down), self.slide.bounds[:2])
        except UnreadableRegion:
            return Image.new("RGB", (right - left, lower - upper), (200, 200, 200))
        return Image.fromarray(pixels)


class Viewer:
    """Serves slides to this machine: bound to loopback, reading only.

    Args:
        inputs: The slides.
        scores: A folder of `pathclip slide classify`, whose tiles are laid over.
        port: 0 takes a free one.
        slide_mpp: Scale of level 0, µm/px, instead of what the files say.

    Attributes:
        url: Of the page.

    Raises:
        UserError: If there is no slide, ``scores`` is no folder, or the port is taken.
        FaultError: If a slide cannot be read.
    """

    def __init__(
        self,
        inputs: Sequence[SlideInput],
        *,
        scores: Path | None = None,
        port: int = 0,
        slide_mpp: float | None = None,
    ) -> None:
        if not inputs:
            raise UserError("no slide was named")
        if scores is not None and not (scores / ".pathclip").is_dir():
            raise UserError(f"{scores} is no folder of `pathclip slide classify`")
        paths = [item.path for item in inputs]
        names = OutputFolder(scores).names(paths) if scores else [path.stem for path in paths]
        self.names = [item.path.name for item in inputs]
        self.pyramids = [DeepZoom(open_slide(path)) for path in paths]
        self.data = [
            _data(pyramid, item, scores / f"{name}.scores.parquet" if scores else None, slide_mpp)
            for pyramid, item, name in zip(self.pyramids, inputs, names, strict=True)
        ]
        self.tile = lru_cache(maxsize=CACHED_TILES)(self._tile)
        try:
            self.server = ThreadingHTTPServer((HOST, port), _handler(self))
        except OSError as error:
            raise UserError(f"port {port}: {error.strerror}; choose another --port") from None
        self.url = f"http://{HOST}:{self.server.server_port}/"

    def __enter__(self) -> Viewer:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.close()

    def serve(self) -> None:
        """Until interrupted."""
        try:
            self.server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Give port and files back."""
        self.server.server_close()
        for pyramid in self.pyramids:
            pyramid.slide.close()

    def _tile(self, number: int, level: int, column: int, row: int) -> bytes | None:
        tile = self.pyramids[number].tile(level, column, row)
        if tile is None:
            return None
        out = io.BytesIO()
        tile.save(out, "JPEG", quality=QUALITY)
        return out.getvalue()

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Content type and bytes of what lies at a path; None where nothing does."""
        if path == "/":
            path = "/0/"
        if found := TILE.fullmatch(path):
            number, *place = map(int, found.groups())
            data = self.tile(number, *place) if number < len(self.data) else None
            return None if data is None else ("image/jpeg", data)
        found = PAGE.fullmatch(path)
        if found is None or int(found[1]) >= len(self.data):
            return None
        number = int(found[1])
        if found[2]:
            return "application/json", strict_json(self.data[number]).encode()
        return "text/html; charset=utf-8", self._page(number).encode()

    def _page(self, number: int) -> str:
        page = (files("pathclip.slides") / "view.html").read_text(encoding="utf-8")
        choices = "".join(
            f'<option value="/{i}/"{" selected" if i == number else ""}>{html.escape(name)}</option>'
            for i, name in enumerate(self.names)
        )
        return page.replace("@@TITLE@@", html.escape(self.names[number])).replace("@@SLIDES@@", choices)


def _data(
    pyramid: DeepZoom, item: SlideInput, scores: Path | None, slide_mpp: float | None
) -> dict[str, Any]:
    """What the page needs of a slide: size, levels, scale, and the tiles with their classes."""
    slide = pyramid.slide
    try:
        mpp = resolve_mpp(slide, given=slide_mpp, row=item.mpp).value
    except UserError:
        if slide_mpp is not None or item.mpp is not None:
            raise
        mpp = None  # shown without a scale
    found = {
        "width": pyramid.size[0],
        "height": pyramid.size[1],
        "levels": pyramid.num_levels,
        "tile_px": TILE_PX,
        "mpp": mpp,
        "classes": [],
        "tiles": 0,
    }
    return found if scores is None or not scores.is_file() else {**found, **_overlay(scores, slide)}


def _overlay(scores: Path, slide: Slide) -> dict[str, Any]:
    """Tiles as base64: int32 x, y, width, height from the scanned area's corner; uint8 chances, 255 is 1."""
    import pyarrow.parquet as pq

    table = pq.read_table(scores)
    names = [name for name in table.column_names if name.startswith("prob_")]
    boxes = np.stack([table[name].to_numpy() for name in ("x", "y", "width", "height")], axis=1)
    boxes = boxes.astype("<i4") - np.array([*slide.bounds[:2], 0, 0], "<i4")
    chances = np.zeros((len(boxes), len(names)))
    for column, name in enumerate(names):
        chances[:, column] = table[name].to_numpy()
    colours = class_colours(len(names))
    return {
        "classes": [
            {"name": name.removeprefix("prob_"), "colour": css(colour)}
            for name, colour in zip(names, colours, strict=True)
        ],
        "tiles": len(boxes),
        "boxes": base64.b64encode(np.ascontiguousarray(boxes, "<i4").tobytes()).decode(),
        "chances": base64.b64encode(np.rint(chances * 255).astype(np.uint8).tobytes()).decode(),
    }


def _handler(viewer: Viewer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0]
            if host not in (HOST, "localhost"):  # a page elsewhere that has its own name point here
                return self._send(HTTPStatus.FORBIDDEN, "text/plain", b"this page is for this machine\n")
            found = viewer.answer(self.path.partition("?")[0])
            if found is None:
                return self._send(HTTPStatus.NOT_FOUND, "text/plain", b"nothing lies here\n")
            return self._send(HTTPStatus.OK, *found)

        def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: a pan asks for a hundred tiles."""

    return Handler
