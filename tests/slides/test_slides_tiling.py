from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.slides import Level, Tissue, open_slide, plan_tiles
from pathclip.slides.mask import mask_for, read_mask


@dataclass
class Plain:
    """A slide of which only sizes matter."""

    size: tuple[int, int]
    downsamples: tuple[float, ...] = (1.0,)
    origin: tuple[int, int] = (0, 0)
    path: Path = Path("plain.svs")

    @property
    def levels(self) -> tuple[Level, ...]:
        return tuple(Level((int(self.size[0] / d), int(self.size[1] / d)), d) for d in self.downsamples)

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        return (*self.origin, self.size[0] - self.origin[0], self.size[1] - self.origin[1])


def everywhere(slide: Plain) -> Tissue:
    mask = np.ones((50, 50), bool)
    return Tissue(mask, slide.origin, (slide.bounds[2] / 50, slide.bounds[3] / 50), "none", 1.0)


def plan(slide: Plain, slide_mpp: float, **settings: object):
    tissue = settings.pop("tissue", None) or everywhere(slide)
    return plan_tiles(slide, slide_mpp, tissue, **{"mpp": 0.5, "tile_px": 256, **settings})


@pytest.mark.parametrize("slide_mpp", [0.25, 0.35, 0.499, 0.5, 1.0])
def test_slides_of_any_scale_get_the_same_physical_grid(slide_mpp: float) -> None:
    side = (8192 * 0.5, 6144 * 0.5)  # µm
    slide = Plain(tuple(round(length / slide_mpp) for length in side))
    found = plan(slide, slide_mpp, mpp=1.0)
    reference = plan(Plain((8192, 6144)), 0.5, mpp=1.0)
    assert len(found.xy) == len(reference.xy) == 16 * 12
    np.testing.assert_allclose(found.xy * slide_mpp, reference.xy * 0.5, atol=slide_mpp / 2 + 1e-9)


@settings(deadline=None)
@given(st.floats(0.1, 0.6), st.floats(0.5, 2.0), st.sampled_from([64, 224, 256, 512]))
def test_corners_are_rounded_multiples_of_the_exact_stride(slide_mpp: float, mpp: float, px: int) -> None:
    found = plan(Plain((20000, 15000)), slide_mpp, mpp=mpp, tile_px=px)
    stride = px * mpp / slide_mpp
    assert found.stride == stride
    columns = int(20000 / stride + 0.01)
    np.testing.assert_array_equal(found.xy[:columns, 0], [round(i * stride) for i in range(columns)])
    assert (found.xy[:, 0] + stride <= 20000 + 0.01 * stride + 1).all()


def test_tiles_come_row_by_row() -> None:
    xy = plan(Plain((1024, 768)), 0.5).xy
    assert xy.dtype == np.int32
    assert xy.tolist() == sorted(xy.tolist(), key=lambda p: (p[1], p[0]))


@pytest.mark.parametrize(
    ("slide_mpp", "downsamples", "level", "read_px"),
    [
        (0.25, (1.0, 4.0), 0, 512),
        (0.25, (1.0, 2.0, 4.0), 1, 256),
        (0.125, (1.0, 3.9998, 16.0), 1, 256),
        (0.5, (1.0, 4.0), 0, 256),
        (0.52, (1.0, 4.0), 0, 246),
        (0.35, (1.0,), 0, 366),
    ],
)
def test_the_coarsest_level_that_is_fine_enough_is_read(
    slide_mpp: float, downsamples: tuple[float, ...], level: int, read_px: int
) -> None:
    found = plan(Plain((8192, 8192), downsamples), slide_mpp)
    assert (found.level, found.read_px) == (level, read_px)
    assert found.scale == pytest.approx(0.5 / (slide_mpp * downsamples[level]))


def test_enlarging_stops_and_names_the_flag() -> None:
    with pytest.raises(
        UserError, match=r"finest scale is 1 µm/px, tiles are asked at 0\.5.*--allow-upsample"
    ):
        plan(Plain((4096, 4096)), 1.0)
    assert plan(Plain((4096, 4096)), 1.0, allow_upsample=True).read_px == 128
    assert plan(Plain((4096, 4096)), 0.59).read_px == 217  # up to 1.2x is taken as it is


@pytest.mark.parametrize("size", [(1, 1), (200, 9000), (9000, 200)])
def test_a_slide_smaller_than_a_tile_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=rf"{size[0]} x {size[1]} px.*smaller than one tile of 256 px"):
        plan(Plain(size), 0.5)


def test_tiles_begin_at_the_scanned_area() -> None:
    found = plan(Plain((3000, 2000), origin=(1000, 500)), 0.5)
    assert found.xy[0].tolist() == [1000, 500]
    assert (found.xy[:, 0] + 256 <= 3000).all()


def test_tissue_share_equals_a_count_of_mask_pixels() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((96, 128)) < 0.3
    tissue = Tissue(mask, (0, 0), (16.0, 16.0), "test", 0.0)
    found = plan(Plain((2048, 1536)), 0.5, tissue=tissue, min_tissue=0.3)
    expected = [
        [x * 256, y * 256]
        for y in range(6)
        for x in range(8)
        if mask[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16].mean() >= 0.3
    ]
    assert found.xy.tolist() == expected
    assert 0 < len(expected) < 48


def test_tiles_smaller_than_a_mask_pixel_still_ask_it() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1, 2] = True
    tissue = Tissue(mask, (0, 0), (64.0, 64.0), "test", 0.0)
    xy = plan(Plain((256, 256)), 0.5, tissue=tissue, tile_px=16).xy
    assert len(xy) == 16
    assert xy.min(0).tolist() == [128, 64]
    assert xy.max(0).tolist() == [176, 112]


def test_a_png_mask_is_laid_over_the_slide(tmp_path: Path, slide_path: Path) -> None:
    mask = np.zeros((96, 128), np.uint8)
    mask[16:32, 16:64] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    slide = open_slide(slide_path)
    tissue = read_mask(tmp_path / "m.png", slide, 0.5)
    found = plan_tiles(slide, 0.5, tissue, mpp=0.5, tile_px=256, min_tissue=1.0)
    assert found.xy.tolist() == [[256, 256], [512, 256], [768, 256]]
    assert tissue.area_mm2 == pytest.approx(3 * (256 * 0.5e-3) ** 2)
    assert tissue.source == "m.png"
    slide.close()


RING = [[256, 256], [1024, 256], [1024, 512], [256, 512], [256, 256]]
HOLE = [[512, 256], [768, 256], [768, 512], [512, 512], [512, 256]]


@pytest.mark.parametrize(
    "data",
    [
        {"type": "Polygon", "coordinates": [RING, HOLE]},
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[RING, HOLE]]}},
        {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [RING, HOLE]},
                    "properties": {},
                }
            ],
        },
        [{"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [RING, HOLE]}]}],
    ],
    ids=["polygon", "multipolygon", "collection", "list"],
)
def test_geojson_polygons_with_holes_are_a_mask(tmp_path: Path, slide_path: Path, data: object) -> None:
    (tmp_path / "m.geojson").write_text(json.dumps(data))
    slide = open_slide(slide_path)
    tissue = read_mask(tmp_path / "m.geojson", slide, 0.5)
    found = plan_tiles(slide, 0.5, tissue, mpp=0.5, tile_px=256, min_tissue=0.9)
    slide.close()
    assert found.xy.tolist() == [[256, 256], [768, 256]]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("m.geojson", "{}", "not readable GeoJSON"),
        ("m.geojson", "{", "not readable GeoJSON"),
        ("m.geojson", '{"type": "Point", "coordinates": [1, 2]}', "holds no Polygon"),
        ("m.png", "text", "cannot be read as a picture"),
    ],
)
def test_a_mask_that_cannot_be_read_is_named(
    tmp_path: Path, slide_path: Path, name: str, content: str, match: str
) -> None:
    (tmp_path / name).write_text(content)
    slide = open_slide(slide_path)
    with pytest.raises(UserError, match=match):
        read_mask(tmp_path / name, slide, 0.5)
    slide.close()


def test_a_mask_of_another_shape_is_refused(tmp_path: Path, slide_path: Path) -> None:
    Image.new("L", (100, 100), 255).save(tmp_path / "m.png")
    slide = open_slide(slide_path)
    with pytest.raises(UserError, match=r"mask .* is 100 x 100 px, the slide 2048 x 1536"):
        read_mask(tmp_path / "m.png", slide, 0.5)
    slide.close()


def test_a_folder_of_masks_is_searched_by_the_slides_name(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text("{}")
    assert mask_for(Path("x/a.svs"), tmp_path) == tmp_path / "a.geojson"
    with pytest.raises(UserError, match=r"holds no b\.png or b\.geojson"):
        mask_for(Path("x/b.svs"), tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        mask_for(Path("x/b.svs"), tmp_path / "none.png")
