"""Everything that decides how slides are read, tiled, scored and shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pathclip.core.config import Config
from pathclip.core.errors import UserError

__all__ = ["MAX_MPP", "MIN_MPP", "OUTPUTS", "SegmentConfig", "SlideConfig"]

MIN_MPP, MAX_MPP = 0.05, 20.0
"""Scales (µm/px) outside of which a number is taken for an error: 72 dpi would be 353 µm/px."""

MAX_DRAWS = 1000

Output = Literal["scores", "tiles", "regions", "heatmap", "page"]
OUTPUTS: tuple[Output, ...] = ("scores", "tiles", "regions", "heatmap", "page")
"""NAME.scores.parquet, NAME.geojson, NAME.regions.geojson, NAME.heatmap.png and NAME.html."""

PREFERRED_K = 10
"""Decides the label: a few tiles outvote one odd tile, and a small biopsy still has as many."""


class SegmentConfig(Config):
    """Which tiles make a segment, and what it is judged by."""

    label: str | None = Field(None, description="class that is segmented; without one nothing is")
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="probability from which a tile belongs; by default where the class is the most probable",
    )
    annotations: Path | None = Field(
        None,
        description="drawings to judge by: GeoJSON in level-0 pixels as QuPath writes it, PNG over the whole "
        "slide, or a folder of them named as the slides",
    )
    annotation_class: str | None = Field(
        None, description="class of the GeoJSON objects that count; by default all polygons"
    )

    @model_validator(mode="after")
    def _label_first(self) -> SegmentConfig:
        if self.label is None and (self.threshold is not None or self.annotations is not None):
            raise ValueError("segment.label must name the class that is segmented")
        return self


class SlideConfig(Config):
    """How a slide becomes tiles, scores and pictures."""

    mpp: float = Field(0.5, ge=MIN_MPP, le=MAX_MPP, description="scale at which tiles are cut, µm/px")
    slide_mpp: float | None = Field(
        None,
        ge=MIN_MPP,
        le=MAX_MPP,
        description="scale of the slide's full size, instead of what the file says",
    )
    tile_px: int = Field(256, ge=16, le=4096, description="side of a tile at that scale")
    overlap_px: int = Field(0, ge=0, description="pixels that neighbouring tiles share, at the tiles' scale")
    top_k: tuple[int, ...] = Field(
        (1, 5, 10, 50, 100), min_length=1, description="numbers of best tiles pooled per class (MI-Zero)"
    )
    label_k: int | None = Field(
        None, description="the K whose best class is the label; by default 10, or the listed K nearest below"
    )
    pooling: Literal["topk", "mean", "fraction"] = Field(
        "topk",
        description="what decides the label: mean of the label_k best tiles (MI-Zero), mean over all tiles, "
        "or the share of tiles whose most probable class it is (KEEP); all three are reported",
    )
    background: tuple[str, ...] = Field(
        (), description="classes that take tiles but are never a slide's label, such as normal tissue (KEEP)"
    )
    smooth: int = Field(
        0,
        ge=0,
        le=1000,
        description="nearest tiles that each tile's scores are averaged over; MI-Zero takes 8",
    )
    draws: int | Literal["sets"] = Field(
        0,
        description="draws of prompts that are scored besides, to see the spread; MI-Zero has 50. sets: each "
        "set of the prompt file by itself, as MI-Zero's files hold them",
    )
    segment: SegmentConfig = SegmentConfig()
    allow_upsample: bool = Field(False, description="cut tiles finer than 1.2x the slide's own scale")
    tissue: bool = Field(True, description="false: tile the whole slide, background too")
    mask: Path | None = Field(
        None, description="tissue mask from elsewhere: PNG, GeoJSON, or a folder of them named as the slides"
    )
    min_tissue: float = Field(0.5, gt=0, le=1, description="smallest share of tissue in a tile")
    max_unreadable: float = Field(
        0.05, ge=0, le=1, description="share of unreadable tiles that fails a slide"
    )
    batch_size: int = Field(64, ge=1, description="tiles per forward pass")
    mix_slides: bool = Field(
        False,
        description="fill batches with tiles of several slides: quicker on a GPU where slides are small; the "
        "last bits of a feature then depend on its neighbours",
    )
    threads: int = Field(4, ge=1, le=64, description="threads that read tiles")
    page_tiles: int = Field(8, ge=0, le=64, description="best tiles shown per class on the page")
    heatmap: Literal["label", "all"] = Field(
        "label", description="classes whose probability the PNG shows: the label's alone, or all"
    )
    outputs: tuple[Output, ...] = Field(
        OUTPUTS, description="files of each slide; fewer where many slides are only scored anew"
    )
    device: str = Field(
        "auto", description="auto, cpu, cuda, cuda:1, mps; used where a model is loaded by name"
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of a model loaded by name")
    compile: bool = Field(
        False,
        description="have torch compile the image tower of a model loaded by name: a minute before the first "
        "tile, then quicker; not to the bit",
    )

    @field_validator("top_k")
    @classmethod
    def _sorted_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(k < 1 for k in value):
            raise ValueError("every K must be at least 1")
        return tuple(sorted(set(value)))

    @field_validator("draws", mode="before")
    @classmethod
    def _number_or_sets(cls, value: Any) -> Any:
        if value != "sets" and not (isinstance(value, int) and 0 <= value <= MAX_DRAWS):
            raise ValueError(f"expected a whole number from 0 to {MAX_DRAWS}, or 'sets'")
        return value

    @model_validator(mode="after")
    def _tiles_advance(self) -> SlideConfig:
        if self.overlap_px >= self.tile_px:
            raise ValueError(f"overlap_px = {self.overlap_px} must be less than tile_px = {self.tile_px}")
        return self

    @model_validator(mode="after")
    def _label_k_is_listed(self) -> SlideConfig:
        if self.label_k is not None and self.label_k not in self.top_k:
            raise ValueError(f"label_k = {self.label_k} is not among top_k = {list(self.top_k)}")
        return self

    @property
    def decided_by(self) -> str:
        """What decides the label, as the tables name it: a K, ``mean`` or ``fraction``."""
        return str(self.deciding_k) if self.pooling == "topk" else self.pooling

    @property
    def pooled_how(self) -> str:
        """What decides the label, in words."""
        return {
            "topk": "mean of the K best tiles per class (MI-Zero)",
            "mean": "mean over all tiles",
            "fraction": "share of the tiles whose most probable class it is (KEEP)",
        }[self.pooling]

    def background_columns(self, labels: Sequence[str]) -> tuple[int, ...]:
        """Where among the classes those lie that cannot be the label.

        Raises:
            UserError: If one is no class, or none is left; or if the class to segment is none.
        """
        if strange := [name for name in self.background if name not in labels]:
            raise UserError(f"background = {strange[0]!r} is no class; the classes are: {', '.join(labels)}")
        if self.segment.label is not None and self.segment.label not in labels:
            raise UserError(
                f"segment.label = {self.segment.label!r} is no class; the classes are: {', '.join(labels)}"
            )
        if set(self.background) >= set(labels):
            raise UserError("background names every class; at least one must be left to be a label")
        return tuple(labels.index(name) for name in self.background)

    @property
    def deciding_k(self) -> int:
        """The K whose best class is the slide's label."""
        if self.label_k is not None:
            return self.label_k
        return max((k for k in self.top_k if k <= PREFERRED_K), default=self.top_k[0])
