from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathclip.slides.raster import fill_polygons


def inside(rings: list[np.ndarray], x: float, y: float) -> bool:
    """The even-odd rule at one point, edge by edge."""
    odd = False
    for ring in rings:
        for (x1, y1), (x2, y2) in itertools.pairwise([*ring.tolist(), ring[0].tolist()]):
            if (y1 <= y) != (y2 <= y) and x >= x1 + (y - y1) * (x2 - x1) / (y2 - y1):
                odd = not odd
    return odd


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 25), st.integers(1, 25))
def test_a_pixel_is_filled_where_its_centre_lies_inside(
    seed: int, count: int, width: int, height: int
) -> None:
    rng = np.random.default_rng(seed)
    polygons = [
        [rng.uniform(-6, 30, (rng.integers(3, 9), 2)) for _ in range(rng.integers(1, 3))]
        for _ in range(count)
    ]
    found = fill_polygons(polygons, (height, width))
    for y in range(height):
        for x in range(width):
            assert found[y, x] == any(inside(rings, x + 0.5, y + 0.5) for rings in polygons)


def test_a_square_has_its_area_wherever_it_lies_and_holes_are_empty() -> None:
    square = np.array([[0, 0], [6, 0], [6, 6], [0, 6]], float)
    for shift in (0.0, 0.3, 0.5, 0.9):
        assert fill_polygons([[square + 2 + shift]], (12, 12)).sum() == 36
    holed = fill_polygons([[square + 2, square / 3 + 4]], (12, 12))
    assert holed.sum() == 32
    assert not holed[4:6, 4:6].any()


def test_closed_and_open_rings_are_the_same_and_neighbours_do_not_overlap() -> None:
    ring = np.array([[1.2, 1.1], [7.7, 2.3], [4.4, 9.0]])
    closed = np.concatenate([ring, ring[:1]])
    np.testing.assert_array_equal(fill_polygons([[ring]], (10, 10)), fill_polygons([[closed]], (10, 10)))
    left = np.array([[0, 0], [4.5, 0], [4.5, 8], [0, 8]])
    right = np.array([[4.5, 0], [9, 0], [9, 8], [4.5, 8]])
    first, second = fill_polygons([[left]], (8, 9)), fill_polygons([[right]], (8, 9))
    assert not (first & second).any()
    assert (first | second).all()


@pytest.mark.parametrize("ring", [[[20, 20], [30, 20], [30, 30]], [[0.1, 0.1], [0.2, 0.1], [0.2, 0.2]]])
def test_what_lies_outside_or_between_centres_fills_nothing(ring: list) -> None:
    assert not fill_polygons([[np.array(ring, float)]], (10, 10)).any()
