from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image, ImageCms
from slide_fakes import COLOURS, GLASS, MeanColour, damage_tile, painted, write_slide_at, write_svs

from pathclip.core.errors import FaultError, UserError
from pathclip.slides import SlideConfig, UnreadableRegion, embed, open_slide, slide_info
from pathclip.slides.openslide_slide import OpenSlideSlide, _background, _bounds
from pathclip.slides.overview import overview, thumbnail


def test_known_pixels_of_a_slide_have_their_painted_colour(slide_path: Path) -> None:
    slide = open_slide(slide_path)
    assert slide.vendor == "generic-tiff"
    assert [level.size for level in slide.levels] == [(2048, 1536), (512, 384)]
    for level, side in ((0, 64), (1, 16)):
        region = slide.read(1408, 512, level, side, side)
        assert region.shape == (side, side, 3)
        assert region.dtype == np.uint8
        np.testing.assert_allclose(region.reshape(-1, 3).mean(0), COLOURS["purple"], atol=3)
    slide.close()


def test_beyond_the_edge_is_white_not_black(slide_path: Path) -> None:
    slide = open_slide(slide_path)
    region = slide.read(2048 - 64, 0, 0, 128, 32)
    slide.close()
    assert (region[:, 64:] == 255).all()


def test_a_picture_reads_as_one_level_and_pads_with_white(tmp_path: Path) -> None:
    pixels, _ = painted()
    Image.fromarray(pixels).save(tmp_path / "roi.png")
    slide = open_slide(tmp_path / "roi.png")
    assert slide.vendor == "picture"
    assert len(slide.levels) == 1
    np.testing.assert_array_equal(slide.read(256, 300, 0, 50, 40), pixels[300:340, 256:306])
    corner = slide.read(-10, -10, 0, 20, 20)
    assert (corner[:10] == 255).all()
    np.testing.assert_array_equal(corner[10:, 10:], pixels[:10, :10])
    assert (slide.read(5000, 5000, 0, 8, 8) == 255).all()
    with pytest.raises(IndexError):
        slide.read(0, 0, 1, 8, 8)


def test_a_transparent_picture_lies_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, :32] = (*COLOURS["pink"], 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    region = open_slide(tmp_path / "a.png").read(0, 0, 0, 64, 64)
    assert tuple(region[0, 0]) == COLOURS["pink"]
    assert tuple(region[0, 63]) == (255, 255, 255)


@pytest.mark.parametrize(
    ("content", "name", "kind", "match"),
    [
        (b"", "empty.svs", FaultError, "empty file"),
        (b"this is no slide" * 99, "text.svs", FaultError, "neither a slide format .* nor a picture"),
        (None, "gone.svs", UserError, "does not exist"),
        ("folder", "folder.svs", UserError, "is a folder, not a slide; name the slides in it"),
    ],
)
def test_what_is_no_slide_is_named(
    tmp_path: Path, content: bytes | str | None, name: str, kind: type[Exception], match: str
) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(kind, match=match):
        open_slide(path)


def test_a_truncated_slide_is_named(tmp_path: Path, slide_path: Path) -> None:
    data = slide_path.read_bytes()
    (tmp_path / "half.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(FaultError, match=r"half\.tif"):
        open_slide(tmp_path / "half.tif")


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    Image.fromarray(painted()[0]).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:4000])
    with pytest.raises(FaultError, match=r"half\.jpg cannot be decoded: image file is truncated"):
        open_slide(tmp_path / "half.jpg")


def test_a_picture_bomb_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(painted()[0]).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(FaultError, match="too large to be held in memory; convert it to a pyramid"):
        open_slide(tmp_path / "large.png")


def test_sixteen_bit_grey_is_no_stained_slide(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "grey.png")
    with pytest.raises(FaultError, match=r"is 16-bit or float grey .*expected 8-bit colour"):
        open_slide(tmp_path / "grey.png")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = write_slide_at(tmp_path / "damaged.tif", painted()[0], 0.5)
    damage_tile(path, 600, 600)
    return path


def test_one_bad_tile_poisons_an_openslide_handle(damaged: Path) -> None:
    """Why `OpenSlideSlide` exists; if this fails, OpenSlide has learnt to recover."""
    handle = openslide.OpenSlide(damaged)
    with pytest.raises(openslide.OpenSlideError):
        handle.read_region((600, 600), 0, (32, 32))
    with pytest.raises(openslide.OpenSlideError):
        handle.read_region((0, 0), 0, (32, 32))


def test_a_bad_tile_is_unreadable_and_its_neighbours_are_not(damaged: Path) -> None:
    slide = open_slide(damaged)
    with pytest.raises(UnreadableRegion, match=r"damaged\.tif at x=600, y=600, level 0"):
        slide.read(600, 600, 0, 32, 32)
    assert slide.read(1408, 512, 0, 32, 32).shape == (32, 32, 3)
    slide.close()


def test_threads_beside_a_bad_tile_lose_nothing(damaged: Path) -> None:
    slide = open_slide(damaged)
    bad, good = [], []

    def work(seed: int) -> None:
        for x, y in np.random.default_rng(seed).integers(0, 6, (40, 2)) * 256:
            try:
                slide.read(int(x), int(y), 0, 256, 256)
                good.append((x, y))
            except UnreadableRegion:
                bad.append((x, y))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    slide.close()
    assert set(bad) == {(512, 512)}
    assert (512, 512) not in good
    assert len(bad) + len(good) == 160


def test_a_slide_that_vanishes_while_read_is_a_fault(damaged: Path) -> None:
    slide = open_slide(damaged)
    damaged.unlink()
    with pytest.raises(FaultError, match="changed or vanished"):
        slide.read(600, 600, 0, 32, 32)


def test_transparent_regions_take_the_files_background(slide_path: Path) -> None:
    slide = OpenSlideSlide(slide_path)
    slide._background = (200, 210, 220)
    assert tuple(slide.read(-64, -64, 0, 32, 32)[0, 0]) == (200, 210, 220)
    slide.close()
    assert _background({"openslide.background-color": "FFEEDD"}) == (255, 238, 221)
    assert _background({"openslide.background-color": "x"}) == (255, 255, 255)


def test_the_scanned_area_is_respected() -> None:
    stated = {"x": "10", "y": "20", "width": "300", "height": "400"}
    keys = {f"openslide.bounds-{side}": value for side, value in stated.items()}
    assert _bounds(keys, (1000, 1000)) == (10, 20, 300, 400)
    assert _bounds(keys, (200, 1000)) == (10, 20, 190, 400)
    assert _bounds({}, (200, 100)) == (0, 0, 200, 100)


def test_an_overview_is_the_area_average_of_the_slide(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (1530, 2051, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    slide = open_slide(tmp_path / "noise.png")
    view = overview(slide, 0.5, 8.0)
    assert view.rgb.shape == (96, 129, 3)
    np.testing.assert_allclose(view.downsample, (2051 / 129, 1530 / 96))
    exact = np.asarray(Image.fromarray(pixels).resize((129, 96), Image.Resampling.BOX))
    np.testing.assert_allclose(view.rgb.astype(int), exact, atol=1)


def test_blocks_of_an_overview_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(painted()[0]).save(tmp_path / "a.png")
    slide = open_slide(tmp_path / "a.png")
    whole = overview(slide, 0.5, 3.7)
    monkeypatch.setattr("pathclip.slides.overview.BLOCK_PX", 300)
    np.testing.assert_allclose(overview(slide, 0.5, 3.7).rgb.astype(int), whole.rgb, atol=1)


def test_a_thumbnail_is_never_larger_than_asked_or_than_the_slide(slide_path: Path) -> None:
    slide = open_slide(slide_path)
    assert thumbnail(slide, 500).rgb.shape == (375, 500, 3)
    assert thumbnail(slide, 9000).rgb.shape == (1536, 2048, 3)
    slide.close()


def test_a_bad_tile_blinds_only_its_own_place_in_an_overview(tmp_path: Path) -> None:
    path = write_slide_at(tmp_path / "flat.tif", painted()[0], 0.5, levels=1)
    damage_tile(path, 600, 600)
    slide = open_slide(path)
    view = overview(slide, 0.5, 8.0)
    slide.close()
    assert view.unreadable[32:48, 32:48].all()
    assert view.unreadable.sum() < 2.5 * 16 * 16
    assert (view.rgb[view.unreadable] == 255).all()


def test_info_reports_an_aperio_slide(tmp_path: Path) -> None:
    info = slide_info(write_svs(tmp_path / "a.svs", painted()[0], "|AppMag = 20|MPP = 0.4990"))
    assert (info.vendor, info.width, info.height) == ("aperio", 2048, 1536)
    assert (info.mpp, info.mpp_source) == (0.499, "openslide")
    assert info.levels == ({"width": 2048, "height": 1536, "downsample": 1.0},)
    assert 0.15 < info.tissue_share < 0.3


def test_info_without_a_scale_still_reports_the_rest(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), GLASS).save(tmp_path / "a.png")
    info = slide_info(tmp_path / "a.png")
    assert (info.width, info.height, info.mpp, info.tissue_share) == (64, 48, None, None)
    assert "--slide-mpp" in info.note
    assert slide_info(tmp_path / "a.png", slide_mpp=0.5).tissue_share == 0.0


def test_a_real_slide_opens_with_its_associated_pictures(data_dir: Path) -> None:
    info = slide_info(data_dir / "slides" / "cmu-1-small-region.svs")
    assert (info.vendor, info.width, info.height) == ("aperio", 2220, 2967)
    assert (info.mpp, info.mpp_source) == (0.499, "openslide")
    assert info.associated == ("label", "macro", "thumbnail")
    assert 0.3 < info.tissue_share < 0.5


def test_a_unicode_path_opens(tmp_path: Path, slide_path: Path) -> None:
    place = tmp_path / "Schnitt – 腺癌 ☂.tif"
    shutil.copy(slide_path, place)
    slide = open_slide(place)
    assert slide.levels[0].size == (2048, 1536)
    slide.close()


@pytest.mark.parametrize("kind", ["tiff", "png"])
def test_a_colour_profile_is_noted(tmp_path: Path, kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = painted(512, 512)[0]
    path = tmp_path / f"a.{kind}"
    if kind == "tiff":
        write_slide_at(path, pixels, 0.5, levels=1, iccprofile=profile)
    else:
        Image.fromarray(pixels).save(path, icc_profile=profile)
    assert slide_info(path, slide_mpp=0.5).icc_profile
    encoded = embed(MeanColour(), path, SlideConfig(tile_px=128, slide_mpp=0.5))
    assert encoded.provenance["icc_profile"] == "not applied"
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    assert not slide_info(tmp_path / "plain.png", slide_mpp=0.5).icc_profile
