"""The painter: seeded, scale-true, and not separable by colour."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.synthetic import CLASSES, WORDS, Stain, paint_tile, write_tile_folder
from pathclip.synthetic.canvas import Canvas
from pathclip.synthetic.nuclei import KINDS, stamp_nuclei
from pathclip.synthetic.stain import REFERENCE, render
from pathclip.synthetic.tiles import generator, paint_region, tile_seed


@pytest.mark.parametrize("label", CLASSES)
def test_equal_arguments_give_equal_pixels_and_other_seeds_other_pixels(label):
    tile = paint_tile(label, 3, 96, 1.0)
    assert tile.shape == (96, 96, 3)
    assert tile.dtype == np.uint8
    assert np.array_equal(tile, paint_tile(label, 3, 96, 1.0))
    assert not np.array_equal(tile, paint_tile(label, 4, 96, 1.0))


def test_a_tile_is_the_same_in_a_fresh_process_whatever_python_hashes():
    code = "import zlib, pathclip.synthetic as s; print(zlib.crc32(s.paint_tile('stroma', 7, 64)))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_the_order_in_which_tiles_are_painted_does_not_matter():
    alone = paint_tile("lymphocytes", 1, 64, 1.0)
    paint_tile("adenocarcinoma", 9, 64, 1.0)
    assert np.array_equal(alone, paint_tile("lymphocytes", 1, 64, 1.0))


def test_every_class_has_words_and_its_plain_name_comes_first():
    assert len(CLASSES) == 8
    for label, words in WORDS.items():
        assert words[0] == label.replace("_", " ")
        assert len(set(words)) == len(words) >= 3


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("lymphocyte", 5.5, 8.0), ("tumour", 7.0, 11.5), ("crypt", 4.5, 7.0)]
)
@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_nuclei_measure_the_same_in_micrometres_at_every_scale(kind, least, most, mpp):
    side = int(120 / mpp)
    canvas = Canvas((side, side), mpp, np.random.default_rng(0))
    points = np.array([[20 + 20 * i, 20 + 20 * j] for i in range(5) for j in range(5)], np.float32)
    stamp_nuclei(canvas, kind, points)
    area_um2 = (canvas.e > 0.11).sum() * mpp**2 / len(points)  # eosin 0.22 times alpha: half covered
    assert least < 2 * np.sqrt(area_um2 / np.pi) < most  # diameter of a circle of that area


def test_a_nucleus_lies_along_its_direction():
    canvas = Canvas((80, 80), 0.5, np.random.default_rng(0))
    stamp_nuclei(canvas, "muscle", np.array([[20.0, 20.0]], np.float32), np.array([np.pi / 2], np.float32))
    y, x = np.nonzero(canvas.h > 0.4)
    assert np.ptp(y) > 2.5 * np.ptp(x)  # counted from x towards y: a quarter turn is downwards


def test_a_nucleus_at_the_border_is_cut_not_moved():
    whole, cut = (Canvas((60, 60), 0.5, np.random.default_rng(0)) for _ in range(2))
    for canvas, row in ((whole, 15.0), (cut, 0.0)):
        canvas.stamp(row, 15.0, np.zeros((9, 9), np.float32), stamp := np.arange(81.0).reshape(9, 9), stamp)
    assert np.array_equal(cut.h[:5], whole.h[30:35])
    assert cut.h[5:].max() == 0
    cut.stamp(
        -50.0, 15.0, np.zeros((9, 9)), np.ones((9, 9)), np.ones((9, 9))
    )  # wholly outside: nothing happens
    assert cut.h.max() == 80


def test_render_is_beer_lambert():
    stain = Stain(
        haematoxylin=(0.6, 0.7, 0.3), eosin=(0.1, 0.9, 0.4), white=(250.0, 240.0, 230.0), blur_px=0, grain=0
    )
    h, e = np.full((4, 4), 0.5, np.float32), np.full((4, 4), 0.25, np.float32)
    pixel = render(h, e, stain, np.random.default_rng(0))[0, 0]
    expected = [250 * np.exp(-0.325), 240 * np.exp(-0.575), 230 * np.exp(-0.25)]
    assert np.abs(pixel - np.array(expected)).max() <= 0.5 + 1e-3


def test_an_empty_section_is_the_colour_of_the_light():
    nothing = np.zeros((8, 8), np.float32)
    stain = Stain(blur_px=0, grain=0)
    assert (
        render(nothing, nothing, stain, np.random.default_rng(0)) == np.array(REFERENCE.white, np.uint8)
    ).all()


def test_haematoxylin_is_blue_and_eosin_is_pink():
    one, nothing = np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32)
    stain = Stain(blur_px=0, grain=0)
    blue = render(one, nothing, stain, np.random.default_rng(0))[0, 0].astype(int)
    pink = render(nothing, one, stain, np.random.default_rng(0))[0, 0].astype(int)
    assert blue[2] > blue[0] > blue[1]
    assert pink[0] > pink[2] > pink[1]


@pytest.mark.parametrize("label", ["stroma", "adipose_tissue", "mucin"])
def test_a_wide_sheet_does_not_repeat_itself(label):
    """Painted tile by tile, halves would be alike or meet at a seam; one sheet does neither."""
    h, _ = paint_region(label, generator("sheet", label), (128, 512), 1.0)
    left, right = h[:, :256].ravel(), h[:, 256:].ravel()
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.25
    steps = np.abs(np.diff(h, axis=1)).mean(axis=0)
    assert steps[255] < steps.mean() + 4 * steps.std()


def test_mean_colour_does_not_tell_the_classes_apart_but_texture_is_there():
    """The baseline of the demo: the nearest mean colour of 30 labelled tiles a class, on 10 others."""

    def colours(seed, count):
        tiles = [paint_tile(c, tile_seed(seed, k), 64, 2.0) for c in CLASSES for k in range(count)]
        return np.array([t.reshape(-1, 3).mean(0) for t in tiles]), np.repeat(np.arange(len(CLASSES)), count)

    known, labels = colours(0, 30)
    seen, truth = colours(1, 10)
    nearest = labels[np.square(seen[:, None] - known[None]).sum(-1).argmin(1)]
    recall = [(nearest[truth == c] == c).mean() for c in range(len(CLASSES))]
    assert 1 / len(CLASSES) < np.mean(recall) <= 0.60


def test_a_tile_folder_holds_a_subfolder_per_class(tmp_path):
    folder = write_tile_folder(tmp_path / "tiles", 2, seed=5, size_px=64, mpp=1.0)
    assert sorted(p.name for p in folder.iterdir()) == sorted(CLASSES)
    files = sorted(folder.rglob("*.jpg"))
    assert len(files) == 16
    with Image.open(files[0]) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")
    again = write_tile_folder(tmp_path / "again", 2, seed=5, size_px=64, mpp=1.0)
    assert [p.read_bytes() for p in files] == [p.read_bytes() for p in sorted(again.rglob("*.jpg"))]


def test_folders_of_other_seeds_share_no_tile():
    assert len({tile_seed(s, n) for s in range(5) for n in range(500)}) == 2500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("glia", 0), "unknown tissue class 'glia'; known: adenocarcinoma"),
        (("stroma", -1), "want seed >= 0"),
        (("stroma", 0, 4), "size >= 8"),
        (("stroma", 0, 64, 0.0), "mpp 0.05..10"),
    ],
)
def test_what_cannot_be_painted_is_said_in_a_line(arguments, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        paint_tile(*arguments)


def test_an_empty_tile_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least one tile per class"):
        write_tile_folder(tmp_path, 0, 0)


def test_kinds_of_nuclei_lie_within_what_histology_knows():
    for kind, look in KINDS.items():
        assert look.length_um[0] <= look.length_um[1] <= 25, kind
        assert look.width_um[1] <= look.length_um[1], kind


def test_the_room_loads_without_torch():
    heavy = "{'torch', 'matplotlib', 'sklearn', 'tifffile'}"
    code = f"import sys, pathclip.synthetic; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
