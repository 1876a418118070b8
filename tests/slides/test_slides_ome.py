from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from slide_fakes import MeanColour, painted

from pathclip.core.errors import FaultError
from pathclip.slides import SlideConfig, classify_slide, open_slide
from pathclip.slides.mpp import resolve_mpp

CLASSES = {"pink": ["pink"], "purple": ["purple"]}


def write_ome(path: Path, data: np.ndarray, axes: str, **more: Any) -> Path:
    scale = {"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(data, subifds=1, metadata=scale, **more)
        small = data[::4, ::4] if data.shape[-1] == 3 else data[..., ::4, ::4]
        tiff.write(small, subfiletype=1, **more)
    return path


@pytest.mark.parametrize("compression", ["jpeg", "lzw"])
def test_colour_is_read_with_its_scale(
    tmp_path: Path, compression: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.ome.tif"
    write_ome(path, painted()[0], "YXS", photometric="rgb", tile=(256, 256), compression=compression)
    prediction = classify_slide(MeanColour(), path, CLASSES, SlideConfig(tile_px=128))
    assert (prediction.label, prediction.mpp.value, prediction.mpp.source) == (
        "pink",
        0.5,
        "ome.PhysicalSizeX",
    )
    slow = "only the finest level is read" in caplog.text
    assert slow == (compression == "lzw")


def test_a_small_one_in_strips_states_its_scale_too(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", painted(512, 512)[0], "YXS", photometric="rgb")
    slide = open_slide(path)
    mpp = resolve_mpp(slide)
    assert (slide.vendor, mpp.value, mpp.source) == ("picture", 0.5, "ome.PhysicalSizeX")


@pytest.mark.parametrize("tile", [(256, 256), None], ids=["tiles", "strips"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_planes_are_refused_and_not_shown_in_grey(
    tmp_path: Path, dtype: str, tile: tuple[int, int] | None
) -> None:
    planes = np.moveaxis(painted(512, 512)[0], 2, 0).astype(dtype)
    path = write_ome(tmp_path / "a.ome.tif", planes, "CYX", photometric="minisblack", tile=tile)
    with pytest.raises(FaultError, match=f"3 planes of {dtype}"):
        open_slide(path)
