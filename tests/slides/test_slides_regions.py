from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slide_fakes import painted

from pathclip.slides import SlidePrediction, TilePlan
from pathclip.slides.lattice import lattices
from pathclip.slides.regions import TileRegion, merge_tiles, regions_geojson, write_regions

SCHEMAS = Path(__file__).resolve().parents[2] / "docs/reference/schemas"


def plan_of(cells: np.ndarray, stride: float, corner: tuple[int, int] = (0, 0)) -> TilePlan:
    xy = (np.rint(cells * stride) + np.array(corner)).astype(np.int32)
    return TilePlan(xy, round(stride), 0.5, 0, round(stride), 1.0, stride)


def covered(rings: list, x: float, y: float) -> bool:
    """Whether a point lies inside by the even-odd rule, holes taken out."""
    inside = False
    for ring in rings:
        for (x1, y1), (x2, y2) in itertools.pairwise(ring):
            if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
                inside = not inside
    return inside


def flood(image: np.ndarray) -> list[set[tuple[int, int]]]:
    """The slow reference: pieces of equal value that hang together over their sides."""
    left = {(x, y) for y, x in zip(*np.nonzero(image >= 0), strict=True)}
    pieces = []
    while left:
        todo = [left.pop()]
        piece = set(todo)
        while todo:
            x, y = todo.pop()
            for near in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
                if near in left and image[near[1], near[0]] == image[y, x]:
                    left.remove(near)
                    piece.add(near)
                    todo.append(near)
        pieces.append(piece)
    return pieces


def check_simple(region: TileRegion) -> None:
    """Rings closed, along the axes, never twice at a point; the outline runs one way, holes the other."""
    for number, ring in enumerate(region.rings):
        assert ring[0] == ring[-1]
        assert len(set(ring)) == len(ring) - 1
        for (x1, y1), (x2, y2) in itertools.pairwise(ring):
            assert (x1 == x2) != (y1 == y2)
        twice = sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(ring))
        assert (twice > 0) == (number == 0)


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([16.0, 128.257, 31.5]))
def test_regions_are_the_flooded_pieces_and_cover_exactly_their_tiles(
    columns: int, rows: int, seed: int, stride: float
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(-1, 2, (rows, columns))
    y, x = np.nonzero(rng.random((rows, columns)) < 0.8)
    shown = np.full_like(image, -1)
    shown[y, x] = image[y, x]
    cells = np.stack([x, y], axis=1)
    corner = (70, 30)
    found = merge_tiles(plan_of(cells, stride, corner), image[y, x], corner) if len(x) else []
    pieces = {frozenset(piece) for piece in flood(shown)}
    assert {frozenset(map(tuple, cells[region.rows].tolist())) for region in found} == pieces
    for region in found:
        check_simple(region)
        mine = set(map(tuple, cells[region.rows].tolist()))
        assert {image[cy, cx] for cx, cy in mine} == {region.value}
        area = 0
        for cy in range(rows):
            for cx in range(columns):
                left, upper, right, lower = (round(i * stride) for i in (cx, cy, cx + 1, cy + 1))
                middle = (70 + (left + right) / 2, 30 + (upper + lower) / 2)
                assert covered(region.rings, *middle) == ((cx, cy) in mine)
                area += (right - left) * (lower - upper) * ((cx, cy) in mine)
        assert region.area_px == area


def test_a_ring_of_tiles_keeps_its_hole() -> None:
    image = np.zeros((3, 3), int)
    image[1, 1] = 1
    y, x = np.nonzero(image >= 0)
    outer, inner = merge_tiles(plan_of(np.stack([x, y], 1), 10.0), image[y, x], (0, 0))
    outline, hole = map(set, outer.rings)
    assert outline == {(0, 0), (30, 0), (30, 30), (0, 30)}
    assert hole == {(10, 10), (20, 10), (20, 20), (10, 20)}
    assert (outer.area_px, inner.area_px) == (800, 100)


def test_tiles_that_touch_at_a_corner_are_two_regions_and_a_pinched_hole_stays_valid() -> None:
    apart = merge_tiles(plan_of(np.array([[0, 0], [1, 1]]), 8.0), np.zeros(2, int), (0, 0))
    assert [region.area_px for region in apart] == [64, 64]
    # all but two cells of the diagonal: the ring comes to the corner between them from both sides
    image = np.zeros((4, 4), int)
    image[1, 1] = image[2, 2] = -1
    y, x = np.nonzero(image >= 0)
    (region,) = merge_tiles(plan_of(np.stack([x, y], 1), 8.0), image[y, x], (0, 0))
    check_simple(region)
    assert len(region.rings) == 3
    assert region.area_px == 14 * 64


def test_contours_on_grids_of_their_own_are_merged_apart() -> None:
    """CLAM lays a new grid in every contour."""
    first = np.array([[0, 0], [256, 0], [0, 256]])
    second = np.array([[1100, 70], [1356, 70]])
    plan = replace(plan_of(np.zeros((5, 2)), 256.0), xy=np.concatenate([first, second]).astype(np.int32))
    assert len(lattices(plan, (0, 0))) == 2
    found = merge_tiles(plan, np.zeros(5, int), (0, 0))
    assert [region.area_px for region in found] == [3 * 256**2, 2 * 256**2]
    assert found[1].rings == [[(1100, 70), (1612, 70), (1612, 326), (1100, 326), (1100, 70)]]


def test_the_file_is_valid_and_hits_the_painted_blocks(prediction: SlidePrediction, tmp_path: Path) -> None:
    path = write_regions(tmp_path / "a.regions.geojson", prediction)
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data == regions_geojson(prediction)
    jsonschema.validate(data, json.loads((SCHEMAS / "slide-regions.schema.json").read_text()))
    sizes = [feature["properties"]["measurements"]["tiles"] for feature in data["features"]]
    assert sum(sizes) == len(prediction.xy)
    for feature in data["features"][:2]:
        name = feature["properties"]["classification"]["name"]
        left, upper, right, lower = painted()[1][name]
        xs, ys = zip(*feature["geometry"]["coordinates"][0], strict=True)
        assert abs(min(xs) - left) <= 128
        assert abs(max(xs) - right) <= 128
        assert abs(min(ys) - upper) <= 128
        assert abs(max(ys) - lower) <= 128
    assert {f["properties"]["classification"]["name"] for f in data["features"][:2]} == {"pink", "purple"}
    area = sum(f["properties"]["measurements"]["area_mm2"] for f in data["features"])
    assert area == pytest.approx(len(prediction.xy) * prediction.tile_mm2, rel=1e-3)


def test_regions_of_a_cropped_scan_count_from_the_scanned_area(prediction: SlidePrediction) -> None:
    moved = replace(
        prediction,
        slide=replace(
            prediction.slide,
            bounds=(100, 50, 1900, 1400),
            plan=replace(prediction.slide.plan, xy=prediction.xy + np.array([100, 50], np.int32)),
        ),
    )
    assert regions_geojson(moved) == regions_geojson(prediction)


def test_a_slide_without_tiles_has_no_region() -> None:
    assert merge_tiles(plan_of(np.zeros((0, 2)), 128.0), np.zeros(0, int), (0, 0)) == []


def test_forty_thousand_speckled_tiles_take_seconds() -> None:
    y, x = np.divmod(np.arange(40_000), 400)
    values = np.random.default_rng(0).integers(0, 8, 40_000)
    started = time.process_time()
    merge_tiles(plan_of(np.stack([x, y], 1), 256.0), values, (0, 0))
    assert time.process_time() - started < 20
