from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slide_fakes import COLOURS, GLASS, painted, write_slide_at

from pathclip.slides import find_tissue, open_slide, tissue_mask
from pathclip.slides.tissue import MIN_FRAGMENT_MM2, _otsu

MPP = 8.0


def canvas(height: int = 200, width: int = 260, colour: tuple[int, int, int] = GLASS) -> np.ndarray:
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[:] = colour
    return rgb


def noisy(rgb: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1.2, rgb.shape)
    return np.clip(rgb + noise, 0, 255).round().astype(np.uint8)


def test_stained_blocks_are_found_to_within_a_pixel_of_their_edges() -> None:
    rgb = canvas()
    rgb[50:120, 40:160] = COLOURS["pink"]
    mask = tissue_mask(noisy(rgb), MPP)
    assert mask[52:118, 42:158].all()
    outside = mask.copy()
    outside[48:122, 38:162] = False
    assert not outside.any()


@pytest.mark.parametrize(
    "ink", [(40, 60, 150), (30, 110, 70), (25, 25, 30), (205, 25, 35)], ids=["blue", "green", "black", "red"]
)
def test_pen_is_not_tissue(ink: tuple[int, int, int]) -> None:
    rgb = canvas()
    rgb[50:120, 100:200] = COLOURS["pink"]
    rgb[10:190, 20:26] = ink
    mask = tissue_mask(noisy(rgb), MPP)
    assert mask[55:115, 105:195].all()
    assert not mask[:, :40].any()


def test_a_black_edge_and_grey_shading_are_not_tissue() -> None:
    rgb = canvas()
    rgb[-12:] = (6, 6, 7)
    rgb[:, -12:] = (3, 3, 3)
    rgb[20:60, 20:80] = (170, 170, 172)  # a bubble's or cover slip's grey
    assert not tissue_mask(noisy(rgb), MPP).any()


@pytest.mark.parametrize("glass", [(255, 255, 255), GLASS, (232, 226, 230), (228, 230, 235)])
def test_bare_glass_of_any_tint_is_empty(glass: tuple[int, int, int]) -> None:
    assert not tissue_mask(noisy(canvas(colour=glass)), MPP).any()


STAINS = [COLOURS[name] for name in ("pink", "purple", "red")]


@pytest.mark.parametrize("colour", [*STAINS, (240, 200, 220), (90, 50, 130)])
def test_a_picture_of_tissue_alone_is_tissue_throughout(colour: tuple[int, int, int]) -> None:
    assert tissue_mask(noisy(canvas(colour=colour)), MPP).all()


def test_pale_tissue_beside_stained_is_kept_and_pale_dust_alone_is_not() -> None:
    rgb = canvas()
    rgb[40:90, 40:90] = COLOURS["pink"]
    rgb[40:90, 90:150] = (234, 222, 233)  # mucin or fat
    rgb[140:180, 200:240] = (236, 228, 236)
    mask = tissue_mask(rgb, MPP)
    assert mask[45:85, 45:145].all()
    assert not mask[130:].any()


def test_specks_are_dropped_by_area_in_mm2_not_by_pixels() -> None:
    for mpp in (4.0, 8.0, 16.0):
        rgb = canvas()
        small = int((0.5 * MIN_FRAGMENT_MM2) ** 0.5 * 1000 / mpp)
        large = int((4 * MIN_FRAGMENT_MM2) ** 0.5 * 1000 / mpp)
        rgb[20 : 20 + small, 20 : 20 + small] = COLOURS["pink"]
        rgb[100 : 100 + large, 100 : 100 + large] = COLOURS["pink"]
        mask = tissue_mask(rgb, mpp)
        assert not mask[:80].any(), mpp
        assert mask[100 : 100 + large, 100 : 100 + large].mean() > 0.8, mpp


def test_lumina_are_filled_and_large_holes_are_not() -> None:
    rgb = canvas()
    rgb[20:180, 20:240] = COLOURS["pink"]
    rgb[60:68, 60:68] = GLASS  # 64 x 64 µm
    rgb[60:140, 120:200] = GLASS  # 640 x 640 µm
    mask = tissue_mask(rgb, MPP)
    assert mask[55:73, 55:73].all()
    assert not mask[70:130, 130:190].any()


def test_the_mask_is_the_same_every_time() -> None:
    rgb = noisy(canvas(colour=(235, 215, 228)), seed=5)
    np.testing.assert_array_equal(tissue_mask(rgb, MPP), tissue_mask(rgb.copy(), MPP))


def test_otsu_parts_two_peaks_as_a_plain_search_does() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(20, 4, 900), rng.normal(90, 12, 400)]).clip(0, 255).astype(np.uint8)

    def between(t: int) -> float:
        low, high = values[values <= t], values[values > t]
        if not len(low) or not len(high):
            return 0.0
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    assert _otsu(values) == max(range(256), key=between)


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_area_is_physical_whatever_the_scale_of_the_slide(tmp_path: Path, mpp: float) -> None:
    pixels, _ = painted()
    factor = 0.5 / mpp
    if factor > 1:
        pixels = pixels.repeat(int(factor), 0).repeat(int(factor), 1)
    else:
        pixels = pixels[:: int(1 / factor), :: int(1 / factor)]
    slide = open_slide(write_slide_at(tmp_path / "a.tif", pixels, mpp))
    tissue = find_tissue(slide, mpp)
    slide.close()
    painted_mm2 = (768 * 768 + 384 * 384) * 0.25 / 1e6
    assert tissue.area_mm2 == pytest.approx(painted_mm2, rel=0.12)


def test_the_whole_slide_on_request(slide_path: Path) -> None:
    slide = open_slide(slide_path)
    tissue = find_tissue(slide, 0.5, whole=True)
    slide.close()
    assert tissue.share == 1.0
    assert tissue.source == "none"


def test_a_vast_slide_is_looked_at_on_a_coarser_scale(
    monkeypatch: pytest.MonkeyPatch, slide_path: Path
) -> None:
    slide = open_slide(slide_path)  # 2048 x 1536 px at 0.5 um/px: 128 x 96 px at 8 um/px
    usual = find_tissue(slide, 0.5)
    assert usual.mask.shape == (96, 128)
    monkeypatch.setattr("pathclip.slides.tissue.MAX_PIXELS", 96 * 128 / 4)
    vast = find_tissue(slide, 0.5)
    slide.close()
    assert vast.mask.shape == (48, 64)
    assert vast.area_mm2 == pytest.approx(usual.area_mm2, rel=0.1)


def test_strips_change_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = canvas()
    rgb[50:120, 40:160] = COLOURS["pink"]
    rgb[130:140, 40:160] = (30, 120, 70)
    rgb = noisy(rgb)
    whole = tissue_mask(rgb, MPP)
    monkeypatch.setattr("pathclip.slides.tissue.STRIP_ROWS", 7)
    np.testing.assert_array_equal(tissue_mask(rgb, MPP), whole)
    assert whole.any()
