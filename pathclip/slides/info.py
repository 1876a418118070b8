"""What a slide says of itself, without a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.slides.mpp import resolve_mpp
from pathclip.slides.slide import has_icc_profile, open_slide
from pathclip.slides.tissue import find_tissue

__all__ = ["SlideInfo", "slide_info"]


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """A slide at a glance.

    Attributes:
        slide: The path.
        vendor: Format, as OpenSlide names it; ``picture`` for plain pictures.
        width: Of level 0 in pixels.
        height: Of level 0 in pixels.
        levels: Width, height and downsample of each.
        mpp: µm/px of level 0; None where nothing states it.
        mpp_source: Where the scale comes from; None where nothing states it.
        associated: Names of label, macro and thumbnail pictures.
        tissue_share: Share of the scanned area that is tissue; None without a scale.
        tissue_mm2: Its area; None without a scale.
        icc_profile: Whether the file holds one; it is noted and not applied.
        note: What is missing, and the option that supplies it.
    """

    slide: str
    vendor: str
    width: int
    height: int
    levels: tuple[dict[str, Any], ...]
    mpp: float | None
    mpp_source: str | None
    associated: tuple[str, ...]
    tissue_share: float | None
    tissue_mm2: float | None
    icc_profile: bool
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def slide_info(
    path: str | Path, *, slide_mpp: float | None = None, row_mpp: float | None = None
) -> SlideInfo:
    """Open a slide and report its format, levels, scale and tissue.

    Args:
        path: A slide or a plain picture.
        slide_mpp: Its scale, instead of what the file says.
        row_mpp: Its scale by a slide table.

    Raises:
        UserError: If it is missing or a folder.
        FaultError: If it cannot be read.
    """
    slide = open_slide(path)
    try:
        mpp, tissue, note = None, None, None
        try:
            mpp = resolve_mpp(slide, given=slide_mpp, row=row_mpp)
            tissue = find_tissue(slide, mpp.value)
        except UserError as error:
            note = str(error)
        width, height = slide.levels[0].size
        return SlideInfo(
            slide=str(path),
            vendor=slide.vendor,
            width=width,
            height=height,
            levels=tuple(
                {"width": level.size[0], "height": level.size[1], "downsample": round(level.downsample, 4)}
                for level in slide.levels
            ),
            mpp=mpp.value if mpp else None,
            mpp_source=mpp.source if mpp else None,
            associated=slide.associated,
            tissue_share=round(tissue.share, 4) if tissue else None,
            tissue_mm2=round(tissue.area_mm2, 4) if tissue else None,
            icc_profile=has_icc_profile(slide),
            note=note,
        )
    finally:
        slide.close()
