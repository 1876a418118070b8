"""Figures of several panels: found by gutters and seams, and single pictures left alone."""

from __future__ import annotations

import numpy as np
import pytest
from figures import LAYOUTS, as_jpeg, figure, opened, overlap
from PIL import Image, ImageDraw

from pathclip.pairs import find_panels
from pathclip.synthetic import CLASSES, paint_tile

COLOURS = [(255, 255, 255), (0, 0, 0), (128, 128, 128), (40, 60, 120)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gutter", [4, 12, 30])
def test_panels_between_gutters_are_found_to_the_pixel_or_two(layout, gutter):
    found = total = 0
    for seed, colour in enumerate(COLOURS):
        image, boxes = figure(layout, gutter, colour=colour, seed=seed)
        panels = find_panels(opened(as_jpeg(image)))
        total += 1
        found += len(panels) == len(boxes) and all(
            max(overlap(box, panel) for panel in panels) > 0.95 for box in boxes
        )
    assert found >= total - 1


def test_panels_that_touch_are_found_by_their_seam_where_they_differ():
    """Not all: a seam between alike tissues, or between two pieces of glass, shows in nothing."""
    figures = [figure(layout, 0, seed=seed) for layout in ("2x1", "1x2") for seed in range(12)]
    found = [(find_panels(opened(as_jpeg(image))), boxes) for image, boxes in figures]
    cut = [(panels, boxes) for panels, boxes in found if panels]
    assert len(cut) >= len(found) / 2
    assert all(
        len(panels) == 2 and all(overlap(p, b) > 0.97 for p, b in zip(panels, boxes, strict=True))
        for panels, boxes in cut
    )


def test_a_frame_around_the_figure_is_no_panel():
    image, boxes = figure("2x1", 20)
    framed = Image.new("RGB", (image.width + 40, image.height + 40), "white")
    framed.paste(image, (20, 20))
    panels = find_panels(opened(as_jpeg(framed)))
    assert len(panels) == 2
    assert all(
        abs(edge - wanted - 20) <= 3
        for p, b in zip(panels, boxes, strict=True)
        for edge, wanted in zip(p, b, strict=True)
    )


def test_single_pictures_have_no_panels():
    tiles = [Image.fromarray(paint_tile(label, seed, 300)) for label in CLASSES for seed in range(12)]
    assert [n for n, tile in enumerate(tiles) if find_panels(opened(as_jpeg(tile)))] == []


def test_a_gap_between_two_pieces_of_tissue_is_no_gutter():
    """Glass from edge to edge, but its rim is not straight."""
    tissue = np.asarray(Image.fromarray(paint_tile(CLASSES[1], 3, 400))).copy()
    for x in range(400):
        rim = round(190 + 12 * np.sin(x / 40))
        tissue[rim : rim + 60, x] = 240
    assert find_panels(Image.fromarray(tissue)) == ()


def test_margins_of_a_screen_are_no_panels():
    screen = Image.new("RGB", (900, 600), "white")
    screen.paste(Image.fromarray(paint_tile(CLASSES[0], 1, 480)), (210, 0))
    draw = ImageDraw.Draw(screen)
    for x in range(5):
        draw.ellipse((10 + 24 * x, 10, 28 + 24 * x, 28), outline="grey")
    assert find_panels(screen) == ()


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (95, 95), (20, 20)])
def test_tiny_pictures_are_single(size):
    assert find_panels(Image.new("RGB", size, "white")) == ()


def test_boxes_are_in_pixels_of_the_picture_however_large():
    image, boxes = figure("2x2", 24, size=(2400, 1800))
    panels = find_panels(image)
    assert [tuple(round(edge / 10) for edge in box) for box in panels] == [
        tuple(round(edge / 10) for edge in box) for box in boxes
    ]


def test_of_real_tiles_none_is_a_figure(data_dir):
    tiles = sorted((data_dir / "tiles" / "test").rglob("*.jpg"))
    assert len(tiles) > 400
    assert [t.name for t in tiles if find_panels(opened(t.read_bytes()))] == []
