"""The scale of a slide: where it comes from, in a fixed order, and never a guess."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pathclip.core.errors import UserError
from pathclip.slides.config import MAX_MPP, MIN_MPP
from pathclip.slides.slide import Slide

__all__ = ["Mpp", "resolve_mpp"]

log = logging.getLogger("pathclip")
UM_PER = {"centimeter": 1e4, "inch": 25400.0}
VENDOR_KEYS = ("aperio.MPP", "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_X")
MAX_ANISOTROPY = 0.02


@dataclass(frozen=True, slots=True)
class Mpp:
    """Microns per pixel of a slide's finest level, and who says so.

    Attributes:
        value: µm/px, exactly as found: never rounded to a magnification.
        source: ``slide-mpp``, ``csv``, ``openslide``, a vendor's key, ``tiff-resolution``,
            ``objective-power`` or, for cached features, ``features``.
    """

    value: float
    source: str


def resolve_mpp(slide: Slide, *, given: float | None = None, row: float | None = None) -> Mpp:
    """Find the slide's scale: the user's word, the table's, the scanner's, the TIFF tags', the objective's.

    Args:
        slide: An open slide.
        given: ``--slide-mpp``.
        row: The ``mpp`` column of a slide table.

    Raises:
        UserError: If a given value is absurd, or nothing states the scale.
    """
    for value, source, name in ((given, "slide-mpp", "--slide-mpp"), (row, "csv", "column mpp")):
        if value is not None:
            if not _plausible(value):
                raise UserError(
                    f"slide {slide.path}: {name} {value:g} µm/px is absurd; expected between {MIN_MPP:g} and "
                    f"{MAX_MPP:g} (0.25 is 40x, 0.5 is 20x)"
                )
            return Mpp(float(value), source)
    refused = []
    for x, y, source in _stated(slide):
        if _plausible(x) and _plausible(y):
            return Mpp(_mean(x, y, slide, source), source)
        refused.append(f"{source} says {x:g} µm/px")
    said = f" ({'; '.join(refused)}: not between {MIN_MPP:g} and {MAX_MPP:g}, ignored)" if refused else ""
    raise UserError(
        f"slide {slide.path} does not state its scale{said}; give it in µm/px with --slide-mpp, for example "
        "--slide-mpp 0.25 for a 40x scan or 0.5 for 20x, or in a column mpp of a slide table"
    )


def _stated(slide: Slide) -> Iterator[tuple[float, float, str]]:
    """What the file says, best first: (µm/px in x, in y, source)."""
    properties = slide.properties
    x, y = _number(properties.get("openslide.mpp-x")), _number(properties.get("openslide.mpp-y"))
    # for a plain tiled TIFF OpenSlide computes these from the resolution tags, whatever they are worth
    if x is not None and slide.vendor != "generic-tiff":
        yield x, y if y is not None else x, "openslide"
    for key in VENDOR_KEYS:
        if (value := _number(properties.get(key))) is not None:
            yield value, value, key
    if (ome := _ome(properties.get("tiff.ImageDescription", ""))) is not None:
        yield *ome, "ome.PhysicalSizeX"
    unit = UM_PER.get(properties.get("tiff.ResolutionUnit", ""))
    x, y = _number(properties.get("tiff.XResolution")), _number(properties.get("tiff.YResolution"))
    if unit and x:
        yield unit / x, unit / (y or x), "tiff-resolution"
    x, y = _number(properties.get("picture.dpi-x")), _number(properties.get("picture.dpi-y"))
    if x:
        yield UM_PER["inch"] / x, UM_PER["inch"] / (y or x), "tiff-resolution"
    power = _number(properties.get("openslide.objective-power"))
    if power:
        log.warning(
            "slide %s: no scale in the file, taken from its objective: %gx is about %g µm/px; "
            "--slide-mpp sets it exactly",
            slide.path.name,
            power,
            10 / power,
        )
        yield 10 / power, 10 / power, "objective-power"


def _mean(x: float, y: float, slide: Slide, source: str) -> float:
    if x == y:
        return x
    if abs(x - y) > MAX_ANISOTROPY * max(x, y):
        log.warning("slide %s: %s is %g in x and %g in y; using the mean", slide.path.name, source, x, y)
    return (x + y) / 2


def _ome(description: str) -> tuple[float, float] | None:
    sizes = [_number(m[1]) for m in re.finditer(r'PhysicalSize[XY]="([^"]+)"', description)]
    units = set(re.findall(r'PhysicalSize[XY]Unit="([^"]+)"', description)) - {"µm", "μm", "um", "&#181;m"}
    if len(sizes) < 2 or None in sizes or units:
        return None
    return sizes[0], sizes[1]  # type: ignore[return-value]


def _number(text: str | None) -> float | None:
    try:
        return float(text.replace(",", ".")) if text is not None else None
    except ValueError:
        return None


def _plausible(value: float) -> bool:
    return MIN_MPP <= value <= MAX_MPP
