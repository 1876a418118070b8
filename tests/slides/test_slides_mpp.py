from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slide_fakes import GLASS, write_slide_at, write_svs, write_tiff

from pathclip.core.errors import UserError
from pathclip.slides import open_slide, resolve_mpp
from pathclip.slides.config import SlideConfig
from pathclip.slides.slide import Level

PIXELS = np.full((512, 512, 3), GLASS, np.uint8)


class Stated:
    """A slide of which only the properties matter."""

    levels = (Level((100, 100), 1.0),)
    bounds = (0, 0, 100, 100)

    def __init__(self, vendor: str = "aperio", **properties: str) -> None:
        self.vendor, self.path = vendor, Path("stated.svs")
        self.properties = {key.replace("__", "."): value for key, value in properties.items()}


def found(path: Path, **given: float) -> tuple[float, str]:
    slide = open_slide(path)
    mpp = resolve_mpp(slide, **given)
    slide.close()
    return mpp.value, mpp.source


def test_resolution_in_centimetres_is_read(tmp_path: Path) -> None:
    value, source = found(write_slide_at(tmp_path / "a.tif", PIXELS, 0.35))
    assert value == pytest.approx(0.35, rel=1e-6)
    assert source == "tiff-resolution"


def test_resolution_in_inches_is_read(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", PIXELS, resolution=25400 / 0.25, resolutionunit="INCH")
    value, source = found(path)
    assert value == pytest.approx(0.25, rel=1e-6)
    assert source == "tiff-resolution"


def test_72_dpi_is_no_scale_and_the_message_says_so(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", PIXELS, resolution=72, resolutionunit="INCH")
    with pytest.raises(UserError, match=r"says 352\.778 µm/px.*ignored.*--slide-mpp"):
        found(path)


def test_a_slide_without_scale_stops_and_names_the_flag(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", PIXELS)
    with pytest.raises(
        UserError, match=r"a\.tif does not state its scale; give it in µm/px with --slide-mpp"
    ):
        found(path)


def test_the_scanners_scale_is_exact_and_never_quantised(tmp_path: Path) -> None:
    assert found(write_svs(tmp_path / "a.svs", PIXELS, "|AppMag = 40|MPP = 0.3521")) == (0.3521, "openslide")


def test_only_a_magnification_gives_ten_over_it_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pathclip"):
        assert found(write_svs(tmp_path / "a.svs", PIXELS, "|AppMag = 20")) == (0.5, "objective-power")
    assert "taken from its objective: 20x is about 0.5 µm/px" in caplog.text


def test_the_user_beats_the_table_and_the_table_beats_the_file(tmp_path: Path) -> None:
    path = write_slide_at(tmp_path / "a.tif", PIXELS, 0.5)
    assert found(path, given=0.23, row=0.4) == (0.23, "slide-mpp")
    assert found(path, row=0.4) == (0.4, "csv")


@pytest.mark.parametrize("absurd", [0.0, -1.0, 353.0, float("nan"), float("inf")])
def test_an_absurd_scale_is_refused(absurd: float) -> None:
    with pytest.raises(UserError, match=r"--slide-mpp .* is absurd"):
        resolve_mpp(Stated(), given=absurd)
    with pytest.raises(ValueError, match="slide_mpp"):
        SlideConfig(slide_mpp=absurd)


def test_vendor_keys_come_after_openslides_own() -> None:
    mpp = resolve_mpp(Stated(aperio__MPP="0,2525"))  # some exports write a decimal comma
    assert (mpp.value, mpp.source) == (0.2525, "aperio.MPP")
    both = Stated(aperio__MPP="0.3", **{"openslide__mpp-x": "0.25", "openslide__mpp-y": "0.25"})
    assert resolve_mpp(both).source == "openslide"


def test_an_absurd_scale_in_the_file_is_passed_over_for_the_next_source() -> None:
    slide = Stated(**{"openslide__mpp-x": "0", "openslide__mpp-y": "0", "openslide__objective-power": "40"})
    assert resolve_mpp(slide).value == 0.25


def test_ome_sizes_are_read_where_their_unit_is_microns() -> None:
    ome = '<Pixels PhysicalSizeX="0.26" PhysicalSizeXUnit="µm" PhysicalSizeY="0.26" PhysicalSizeYUnit="µm">'
    assert resolve_mpp(Stated("generic-tiff", tiff__ImageDescription=ome)).value == 0.26
    with pytest.raises(UserError, match="--slide-mpp"):
        resolve_mpp(Stated("generic-tiff", tiff__ImageDescription=ome.replace("µm", "mm")))


def test_sides_that_differ_are_averaged_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pathclip"):
        assert resolve_mpp(Stated(**{"openslide__mpp-x": "0.5", "openslide__mpp-y": "0.52"})).value == 0.51
    assert "using the mean" in caplog.text


def test_a_picture_needs_a_scale_unless_it_states_a_credible_one(tmp_path: Path) -> None:
    picture = Image.fromarray(PIXELS)
    picture.save(tmp_path / "screen.png", dpi=(96, 96))
    with pytest.raises(UserError, match="--slide-mpp"):
        found(tmp_path / "screen.png")
    assert found(tmp_path / "screen.png", given=0.5) == (0.5, "slide-mpp")
    picture.save(tmp_path / "export.tif", dpi=(50800, 50800))
    value, source = found(tmp_path / "export.tif")
    assert value == pytest.approx(0.5)
    assert source == "tiff-resolution"
