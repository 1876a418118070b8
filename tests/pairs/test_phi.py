"""Pictures that may name a patient are suspects; pictures of tissue, with a scale or a word, are not."""

from __future__ import annotations

import numpy as np
import pytest
from burnt import NAMES, coded, labelled, written
from figures import as_jpeg, opened
from PIL import Image

from pathclip.pairs import why_phi
from pathclip.pairs.phi import BASE, GAP, HIGH, _longest_line
from pathclip.synthetic import CLASSES, paint_tile


def tissue(seed: int, side: int = 700) -> Image.Image:
    return Image.fromarray(paint_tile(CLASSES[seed % len(CLASSES)], seed, side))


def longest_line_slow(boxes: np.ndarray) -> int:
    """All pairs, as the rule reads: like base and height, and not far to the right."""
    length = [1] * len(boxes)
    for j, (left, _, top, base) in enumerate(boxes.tolist()):
        for i, (_, right, its_top, its_base) in enumerate(boxes[:j].tolist()):
            high, gap = base - top, left - right
            like = (
                abs(base - its_base) <= max(1, BASE * high) and abs(high - its_base + its_top) <= HIGH * high
            )
            if like and -0.1 * high <= gap <= GAP * high:
                length[j] = max(length[j], length[i] + 1)
    return max(length)


@pytest.mark.parametrize("seed", range(12))
def test_the_longest_line_is_that_of_a_slow_reference(seed):
    rng = np.random.default_rng(seed)
    number, wide = int(rng.integers(1, 90)), int(rng.integers(60, 500))
    high = rng.integers(7, 12 if seed % 2 else 60, number)
    left, top = rng.integers(0, wide, number), rng.integers(0, 25, number)
    boxes = np.stack([left, left + rng.integers(1, 2 * high), top, top + high], axis=1).astype(np.int32)
    boxes = boxes[np.argsort(left, kind="stable")]
    assert _longest_line(boxes) == longest_line_slow(boxes)


def suspects(pictures: list[Image.Image]) -> list[str | None]:
    return [why_phi(opened(as_jpeg(picture))) for picture in pictures]


def test_a_name_on_a_bar_is_suspect():
    found = suspects([written(tissue(n), name, box="black") for n, name in enumerate(NAMES)])
    assert sum(why is not None for why in found) >= len(NAMES) - 1, found
    assert "letters or figures" in str(next(filter(None, found)))


@pytest.mark.parametrize("colour", ["white", "black"])
def test_most_names_on_the_tissue_itself_are_suspect(colour):
    found = suspects([written(tissue(n), name, colour=colour) for n, name in enumerate(NAMES)])
    assert sum(why is not None for why in found) >= len(NAMES) / 2, found


def test_labels_of_slides_are_suspect():
    found = suspects([labelled(tissue(n), *NAMES[n : n + 3]) for n in range(len(NAMES) - 2)])
    assert None not in found


def test_codes_of_bars_are_suspect_and_most_of_squares():
    assert None not in suspects([coded(tissue(n), n) for n in range(8)])
    squares = suspects([coded(tissue(n), n, square=True) for n in range(8)])
    assert sum(why is not None for why in squares) >= 4, squares
    assert set(squares) - {None} == {"a code of bars or squares"}


def test_tissue_is_not_suspect():
    tiles = [tissue(n, side) for side in (224, 512, 900) for n in range(2 * len(CLASSES))]
    assert set(suspects(tiles)) == {None}


@pytest.mark.parametrize("text", ["100 µm", "H&E", "40x", "Ki-67", "A", "CD20"])
def test_scales_and_short_words_are_not_suspect(text):
    pictures = [written(tissue(n), text, colour=colour) for n in range(4) for colour in ("white", "black")]
    assert set(suspects(pictures)) == {None}


@pytest.mark.parametrize("size", [(1, 1), (7, 500), (500, 7), (63, 63)])
def test_tiny_pictures_are_not_suspect(size):
    assert why_phi(Image.new("RGB", size, "white")) is None


def test_of_real_tiles_none_is_suspect(data_dir):
    tiles = sorted((data_dir / "tiles" / "test").rglob("*.jpg"))
    assert len(tiles) > 400
    assert [t.name for t in tiles if why_phi(opened(t.read_bytes()))] == []
