"""Pictures that may name a patient are suspects; pictures of tissue, with a scale or a word, are not."""

from __future__ import annotations

import pytest
from burnt import NAMES, coded, labelled, written
from figures import as_jpeg, opened
from PIL import Image

from pathclip.pairs import why_phi
from pathclip.synthetic import CLASSES, paint_tile


def tissue(seed: int, side: int = 700) -> Image.Image:
    return Image.fromarray(paint_tile(CLASSES[seed % len(CLASSES)], seed, side))


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
