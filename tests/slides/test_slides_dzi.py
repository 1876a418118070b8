from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image
from slide_fakes import MeanColour, painted, write_slide_at

from pathclip.core.errors import FaultError
from pathclip.slides import SlideConfig, UnreadableRegion, classify_slide, open_slide
from pathclip.slides.mpp import resolve_mpp

CLASSES = {"pink": ["pink"], "purple": ["purple"]}


def write_dzi(
    path: Path, pixels: np.ndarray, *, overlap: int = 1, suffix: str = "png", side: int = 254
) -> Path:
    """As OpenSlide's own generator cuts it."""
    Image.fromarray(pixels).save(path.with_suffix(".source.png"))
    with openslide.ImageSlide(path.with_suffix(".source.png")) as picture:
        zoom = DeepZoomGenerator(picture, side, overlap)
        path.write_text(zoom.get_dzi(suffix), encoding="utf-8")
        for level in range(zoom.level_count):
            folder = path.with_name(f"{path.stem}_files") / str(level)
            folder.mkdir(parents=True)
            for column, row in np.ndindex(*zoom.level_tiles[level]):
                zoom.get_tile(level, (column, row)).save(folder / f"{column}_{row}.{suffix}")
    return path


@pytest.mark.parametrize(("overlap", "side"), [(0, 256), (1, 254), (7, 100)])
def test_a_deepzoom_folder_reads_as_the_picture_it_was_cut_from(
    tmp_path: Path, overlap: int, side: int
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (600, 777, 3)).astype(np.uint8)
    slide = open_slide(write_dzi(tmp_path / "a.dzi", pixels, overlap=overlap, side=side))
    assert [level.size for level in slide.levels] == [(777, 600), (389, 300)]
    assert [level.downsample for level in slide.levels] == [1, 2]
    np.testing.assert_array_equal(slide.read(0, 0, 0, 777, 600), pixels)
    np.testing.assert_array_equal(slide.read(250, 95, 0, 300, 200), pixels[95:295, 250:550])
    beyond = slide.read(700, -10, 0, 100, 20)
    np.testing.assert_array_equal(beyond[10:, :77], pixels[:10, 700:])
    assert (beyond[:10] == 255).all()
    assert (beyond[:, 77:] == 255).all()


def test_every_level_shows_the_same_place(tmp_path: Path) -> None:
    pixels = painted(1100, 900)[0]
    slide = open_slide(write_dzi(tmp_path / "a.dzi", pixels))
    for index, level in enumerate(slide.levels):
        side = round(256 / level.downsample)
        region = slide.read(512, 512, index, side, side)
        np.testing.assert_allclose(region.mean((0, 1)), pixels[512:768, 512:768].mean((0, 1)), atol=2)


def test_the_same_slide_as_tiff_and_as_deepzoom_has_the_same_tiles_and_label(tmp_path: Path) -> None:
    pixels = painted()[0]
    config = SlideConfig(tile_px=128, batch_size=16, slide_mpp=0.5)
    paths = (
        write_slide_at(tmp_path / "a.tif", pixels, 0.5),
        write_dzi(tmp_path / "b.dzi", pixels, suffix="jpeg"),
    )
    tiff, zoom = (classify_slide(MeanColour(), path, CLASSES, config) for path in paths)
    assert zoom.label == tiff.label == "pink"
    np.testing.assert_array_equal(zoom.xy, tiff.xy)
    np.testing.assert_allclose(zoom.tile_scores, tiff.tile_scores, atol=0.02)


def test_a_missing_or_foreign_tile_is_unreadable_and_the_rest_is_not(tmp_path: Path) -> None:
    slide = open_slide(write_dzi(tmp_path / "a.dzi", painted(1100, 900)[0]))
    top = tmp_path / "a_files" / "11"
    (top / "1_1.png").unlink()
    Image.new("RGB", (30, 30)).save(top / "2_0.png")
    (top / "0_2.png").write_bytes(b"no picture")
    for x, y, said in ((300, 300, "11/1_1.png is missing"), (600, 10, "is 30 x 30 px"), (10, 600, "0_2.png")):
        with pytest.raises(UnreadableRegion, match=said):
            slide.read(x, y, 0, 20, 20)
    assert slide.read(10, 10, 0, 20, 20).shape == (20, 20, 3)


def test_scale_comes_from_what_vips_noted_of_the_scanner(tmp_path: Path) -> None:
    path = write_dzi(tmp_path / "a.dzi", painted(300, 300)[0])
    (tmp_path / "a_files" / "vips-properties.xml").write_text(
        '<image xmlns="http://www.vips.ecs.soton.ac.uk//dzsave"><properties>'
        "<property><name>openslide.mpp-x</name><value type='VipsRefString'>0.2525</value></property>"
        "<property><name>openslide.mpp-y</name><value type='VipsRefString'>0.2525</value></property>"
        "</properties></image>",
        encoding="utf-8",
    )
    mpp = resolve_mpp(open_slide(path))
    assert (mpp.value, mpp.source) == (0.2525, "openslide")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<Image", "is no DeepZoom description"),
        ("<Image TileSize='254' Overlap='1' Format='png'/>", "expected Image with TileSize"),
        ("<a TileSize='254' Overlap='1' Format='png'><Size Width='9' Height='9'/></a>", "expected Image"),
        ("<Image TileSize='254' Overlap='1' Format='png'><Size Width='0' Height='9'/></Image>", "absurd"),
        (
            "<Image TileSize='254' Overlap='1' Format='../x'><Size Width='9' Height='9'/></Image>",
            "known formats",
        ),
        (
            "<Image TileSize='254' Overlap='1' Format='png'><Size Width='9' Height='9'/></Image>",
            "are not there",
        ),
    ],
)
def test_a_bad_description_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.dzi").write_text(text, encoding="utf-8")
    with pytest.raises(FaultError, match=said):
        open_slide(tmp_path / "a.dzi")


def test_levels_that_were_left_out_are_not_offered(tmp_path: Path) -> None:
    import shutil

    path = write_dzi(tmp_path / "a.dzi", painted(1100, 900)[0])
    shutil.rmtree(tmp_path / "a_files" / "10")
    slide = open_slide(path)
    assert [level.downsample for level in slide.levels] == [1, 4]
    assert slide.levels[1].size == (275, 225)
