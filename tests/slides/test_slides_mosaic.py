from __future__ import annotations

import dataclasses
import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image
from slide_fakes import MeanColour, damage_tile, painted, write_slide_at, write_svs

from pathclip.slides import Slide, find_tissue, open_slide, plan_tiles
from pathclip.slides import mosaic as mosaics
from pathclip.slides.encode import encode_tiles, read_tile
from pathclip.slides.mosaic import BrokenTile, Mosaic, TileGrid
from pathclip.slides.overview import overview
from pathclip.synthetic import write_slide


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 40x scan with Aperio's tiles of 240 px."""
    path = tmp_path_factory.mktemp("tissue") / "tissue.svs"
    write_slide(path, 3, (1500, 1100), 0.25, format="svs")
    return path


def abbreviated(stream: bytes) -> tuple[bytes, bytes]:
    """A JPEG as Aperio stores it: the tables apart, and neither JFIF nor Adobe markers."""
    tables, rest, at = b"", b"", 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] in (0xDB, 0xC4):
            tables += stream[at:end]
        elif stream[at + 1] not in (0xE0, 0xEE):
            rest += stream[at:end]
        at = end
    return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + rest + stream[at:]


def write_abbreviated(path: Path, pixels: np.ndarray, *, rgb: bool, side: int = 256) -> Path:
    """A generic tiled TIFF whose tiles share JPEGTables; in RGB as older Aperio scanners wrote them."""
    height, width = pixels.shape[:2]
    tables, tiles = b"", []
    for y in range(0, height, side):
        for x in range(0, width, side):
            tile = np.full((side, side, 3), 255, np.uint8)
            part = pixels[y : y + side, x : x + side]
            tile[: part.shape[0], : part.shape[1]] = part
            path.with_suffix(".jpg").unlink(missing_ok=True)
            Image.fromarray(tile).save(path.with_suffix(".jpg"), quality=90, keep_rgb=rgb, subsampling=0)
            tables, rest = abbreviated(path.with_suffix(".jpg").read_bytes())
            tiles.append(rest)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter(tiles),
            shape=pixels.shape,
            dtype=np.uint8,
            tile=(side, side),
            photometric="rgb",
            compression="jpeg",
            compressionargs={"outcolorspace": "rgb" if rgb else "ycbcr"},
            subsampling=(1, 1),
            extratags=[(347, 7, len(tables), tables, True)],
            resolution=(40000, 40000),
            resolutionunit="CENTIMETER",
            metadata=None,
        )
    return path


def raw(slide: Slide, x: int, y: int, width: int, height: int, *, level: int = 0) -> np.ndarray:
    assert slide.mosaic is not None
    return slide.mosaic.read(level, 1, (x, y, x + width, y + height))


def tiles_of(
    path: Path, *, raw_tiles: bool, side_px: int, tile_px: int = 128, mpp: float = 0.5
) -> np.ndarray:
    slide = open_slide(path)
    plan = plan_tiles(slide, 0.25, find_tissue(slide, 0.25, whole=True), mpp=mpp, tile_px=tile_px)
    if not raw_tiles:
        slide.mosaic = None
    tiles = np.stack([read_tile(slide, plan, i, side_px) for i in range(len(plan.xy))])
    slide.close()
    return tiles.astype(np.float32)


def test_raw_tiles_in_full_are_openslides_pixels(tissue: Path) -> None:
    slide = open_slide(tissue)
    for level, box in ((0, (100, 37, 700, 500)), (0, (1300, 900, 200, 200)), (1, (3, 5, 200, 150))):
        x, y, width, height = box
        down = round(slide.levels[level].downsample)
        expected = slide.read(x * down, y * down, level, width, height)
        np.testing.assert_array_equal(raw(slide, x, y, width, height, level=level), expected)
    slide.close()


@pytest.mark.parametrize("rgb", [False, True], ids=["ycbcr", "rgb"])
def test_shared_tables_and_the_tags_colour_space_are_put_back(
    tissue: Path, tmp_path: Path, rgb: bool
) -> None:
    source = open_slide(tissue)
    pixels = source.read(0, 0, 0, 700, 600)
    source.close()
    slide = open_slide(write_abbreviated(tmp_path / "a.tif", pixels, rgb=rgb))
    found = raw(slide, 0, 0, 700, 600)
    np.testing.assert_array_equal(found, slide.read(0, 0, 0, 700, 600))
    assert np.abs(found.astype(int) - pixels).mean() < 4  # not magenta: both readers could agree on that
    slide.close()


def shrink_of(path: Path, *, tile_px: int, mpp: float, side_px: int = 224) -> int:
    slide = open_slide(path)
    plan = plan_tiles(slide, 0.25, find_tissue(slide, 0.25, whole=True), mpp=mpp, tile_px=tile_px)
    asked: list[int] = []
    assert slide.mosaic is not None
    read = slide.mosaic.read
    slide.mosaic.read = lambda level, shrink, box: [asked.append(shrink), read(level, shrink, box)][1]
    read_tile(slide, plan, 0, side_px)
    slide.close()
    return asked[0]


def test_tiles_are_decoded_at_the_scale_asked_for_and_no_coarser(tissue: Path) -> None:
    assert shrink_of(tissue, tile_px=128, mpp=0.25) == 1
    assert shrink_of(tissue, tile_px=128, mpp=0.35) == 1
    assert shrink_of(tissue, tile_px=128, mpp=0.49) == 2  # 1.96: within a twentieth
    assert shrink_of(tissue, tile_px=128, mpp=0.5) == 2


def test_small_encoders_leave_a_filter_something_to_do(tissue: Path) -> None:
    assert shrink_of(tissue, tile_px=256, mpp=0.5, side_px=80) == 2
    assert shrink_of(tissue, tile_px=128, mpp=0.5, side_px=80) == 1
    assert shrink_of(tissue, tile_px=128, mpp=0.5, side_px=128) == 2


@pytest.mark.parametrize("side_px", [128, 160, 40])
def test_shrunk_decoding_is_within_two_grey_levels_of_decoding_in_full(tissue: Path, side_px: int) -> None:
    fast, full = (tiles_of(tissue, raw_tiles=way, side_px=side_px) for way in (True, False))
    assert fast.shape == full.shape == (20, side_px, side_px, 3)
    assert 0 < np.abs(fast - full).mean() < 2


def test_tiles_between_the_pixels_of_a_shrunk_level_are_not_shifted(tmp_path: Path) -> None:
    y, x = np.mgrid[:768, :1024]
    waves = 127 + 60 * np.sin(x * 2 * np.pi / 40) + 60 * np.sin(y * 2 * np.pi / 40)
    pixels = np.repeat(waves.round().astype(np.uint8)[..., None], 3, 2)
    path = write_slide_at(tmp_path / "waves.tif", pixels, 0.25)
    # tiles of 205 px at a scale of 2.05: every second one begins between two pixels of the half-size level
    fast, full = (
        tiles_of(path, raw_tiles=way, side_px=128, tile_px=100, mpp=0.5125) for way in (True, False)
    )
    # a shift of one pixel, half a decoded one, would be 9 grey levels where the waves are steepest
    assert np.abs(fast - full).mean() < 2


def test_a_broken_raw_tile_is_left_to_openslide_and_counted(tissue: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(tissue.read_bytes())
    damage_tile(path, 300, 300)
    slide = open_slide(path)
    with pytest.raises(BrokenTile, match="tile 8 is no JPEG"):
        raw(slide, 240, 240, 10, 10)
    plan = plan_tiles(slide, 0.25, find_tissue(slide, 0.25, whole=True), mpp=0.5, tile_px=120)
    found = encode_tiles(slide, plan, MeanColour(), max_unreadable=0.2)
    assert plan.xy[~found.readable].tolist() == [[240, 240]]
    slide.close()


def test_a_disk_that_gives_no_raw_tile_leaves_it_to_openslide(
    tissue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = open_slide(tissue)

    def failing(file: int, count: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    plan = plan_tiles(slide, 0.25, find_tissue(slide, 0.25, whole=True), mpp=0.25, tile_px=240)
    monkeypatch.setattr(os, "pread", failing)
    tile = read_tile(slide, plan, 0, 240)
    np.testing.assert_array_equal(tile, slide.read(0, 0, 0, 240, 240))
    slide.close()


@pytest.mark.parametrize("compression", ["aperio_jp2000_rgb", "lzw", None])
def test_other_compressions_have_no_raw_tiles(tmp_path: Path, compression: str | None) -> None:
    path = write_svs(tmp_path / "a.svs", painted(512, 512)[0], "|MPP = 0.5", compression=compression)
    slide = open_slide(path)
    assert slide.vendor == "aperio"
    assert slide.mosaic is None
    slide.close()


def test_every_tile_is_decoded_once_by_any_number_of_threads() -> None:
    decoded: list[tuple[int, int]] = []

    def decode(column: int, row: int, factor: int) -> np.ndarray:
        decoded.append((column, row))
        time.sleep(0.002)
        return np.full((64 // factor, 64 // factor, 3), 10 * row + column, np.uint8)

    mosaic = Mosaic([TileGrid((256, 256), (64, 64), (1, 2), decode)])
    together = threading.Barrier(8)

    def read(_: int) -> np.ndarray:
        together.wait()
        return mosaic.read(0, 2, (0, 0, 128, 128))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, range(8)))
    assert sorted(decoded) == [(x, y) for x in range(4) for y in range(4)]
    expected = np.add.outer(10 * np.arange(4), np.arange(4)).repeat(32, 0).repeat(32, 1)
    for region in found:
        np.testing.assert_array_equal(region, np.repeat(expected[..., None], 3, 2))


def test_decoded_tiles_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def decode(column: int, row: int, factor: int) -> np.ndarray:
        decoded.append(column)
        return np.zeros((64, 64, 3), np.uint8)

    monkeypatch.setattr(mosaics, "CACHE_BYTES", 3 * 64 * 64 * 3)
    mosaic = Mosaic([TileGrid((640, 64), (64, 64), (1,), decode)])
    for column in (0, 1, 2, 0, 3, 0, 1):  # 1 was not wanted for longest when 3 came
        mosaic.read(0, 1, (column * 64, 0, column * 64 + 64, 64))
    assert decoded == [0, 1, 2, 3, 1]
    assert mosaic._bytes == 3 * 64 * 64 * 3


def test_a_broken_tile_does_not_count_against_the_bounds() -> None:
    def decode(column: int, row: int, factor: int) -> np.ndarray:
        raise BrokenTile("no")

    mosaic = Mosaic([TileGrid((64, 64), (64, 64), (1,), decode)])
    for _ in range(2):
        with pytest.raises(BrokenTile):
            mosaic.read(0, 1, (0, 0, 64, 64))
    assert mosaic._bytes == 0


def test_outside_the_level_is_the_colour_asked_for() -> None:
    grid = TileGrid((100, 50), (64, 64), (1, 2), lambda c, r, f: np.zeros((64 // f, 64 // f, 3), np.uint8))
    region = Mosaic([grid], (1, 2, 3)).read(0, 2, (-5, -5, 60, 40))
    inside = np.zeros((45, 65), bool)
    inside[5 : 5 + 25, 5 : 5 + 50] = True
    assert (region[inside] == 0).all()
    assert (region[~inside] == (1, 2, 3)).all()


def noisy_glass(path: Path) -> Path:
    """A slide of one level: tissue amid glass with a camera's noise."""
    rng = np.random.default_rng(0)
    pixels = np.clip(rng.normal(240, 1, (2048, 2048, 3)), 0, 255).astype(np.uint8)
    pixels[512:1024, 512:1536] = rng.integers(90, 220, (512, 1024, 3))
    return write_slide_at(path, pixels, 0.25, levels=1)


def test_glass_is_not_decoded_for_the_overview_and_looks_the_same(tmp_path: Path) -> None:
    slide = open_slide(noisy_glass(tmp_path / "a.tif"))
    assert slide.mosaic is not None
    grid = slide.mosaic.grids[0]
    assert grid is not None
    blank = [(column, row) for row in range(8) for column in range(8) if grid.blank(column, row)]
    assert len(blank) == 64 - 8  # and none of the eight tiles of tissue
    decoded: list[tuple[int, int]] = []

    def counted(column: int, row: int, factor: int) -> np.ndarray:
        decoded.append((column, row))
        return grid.decode(column, row, factor)

    slide.mosaic.grids = (dataclasses.replace(grid, decode=counted),)
    skipped = overview(slide, 0.25, 8.0).rgb
    assert len(decoded) == 8
    slide.mosaic = None
    full = overview(slide, 0.25, 8.0).rgb
    slide.close()
    assert np.abs(skipped.astype(int) - full).max() <= 3


def test_flat_paint_of_few_bytes_is_not_taken_for_glass(tmp_path: Path) -> None:
    pixels = np.full((1024, 1024, 3), 242, np.uint8)
    pixels[256:512] = (120, 60, 150)
    slide = open_slide(write_slide_at(tmp_path / "a.tif", pixels, 0.25, levels=1))
    view = overview(slide, 0.25, 8.0).rgb
    slide.close()
    np.testing.assert_allclose(view[8:16], np.broadcast_to((120, 60, 150), (8, 32, 3)), atol=3)


def test_the_header_of_a_raw_tile_must_agree_with_the_page(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "a.svs", painted(480, 480)[0], "|MPP = 0.5")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
        size = tiff.pages[0].databytecounts[0]
    smaller = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    assert len(smaller) < size
    with open(path, "r+b") as handle:
        handle.seek(offset)
        handle.write(smaller)
    slide = open_slide(path)
    assert slide.mosaic is None
    slide.close()


def test_colour_that_jpeg_smears_makes_no_tissue(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    write_slide(path, 5, (3072, 2304), 0.5, format="svs")
    slide = open_slide(path)
    picture = tmp_path / "a.png"
    Image.fromarray(slide.read(0, 0, 0, 3072, 2304)).save(picture)
    plain = open_slide(picture)
    scanned, exact = (find_tissue(s, 0.5).share for s in (slide, plain))
    slide.close()
    assert scanned == pytest.approx(exact, abs=0.004)  # off by 0.009 from a level twice as fine
