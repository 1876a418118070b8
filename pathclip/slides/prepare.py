"""A slide in two halves: what needs the file alone, which can run ahead, and what needs the encoder."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pathclip._version import __version__
from pathclip.slides.config import SlideConfig
from pathclip.slides.encode import BATCHES_AHEAD, Features, encode_tiles, read_tiles
from pathclip.slides.features import SlideFeatures, as_jpeg, from_jpeg
from pathclip.slides.identity import features_key, model_sha256
from pathclip.slides.mask import mask_for, read_mask
from pathclip.slides.mpp import Mpp, resolve_mpp
from pathclip.slides.overview import Overview, thumbnail
from pathclip.slides.slide import Slide, UnreadableRegion, has_icc_profile
from pathclip.slides.spool import FeatureSpool
from pathclip.slides.tiling import TilePlan, plan_tiles
from pathclip.slides.tissue import Tissue, find_tissue

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder

__all__ = ["PreparedSlide", "embed_open", "embed_prepared", "prepare"]

THUMBNAIL_PX = 1600


@dataclass(frozen=True, slots=True)
class PreparedSlide:
    """An open slide of which the scale, the tissue and the tiles are known, and whose tiles are being read.

    Attributes:
        slide: Stays open until its features are there.
        mpp: Scale of level 0 and its source.
        tissue: Where tiles lie.
        plan: The tiles.
        thumbnail: The slide as a picture.
        tiles: The plan's tiles in order, the first batches of which are read already.
        reading: Closing it lets the reading threads go.
    """

    slide: Slide
    mpp: Mpp
    tissue: Tissue
    plan: TilePlan
    thumbnail: Overview
    tiles: Iterator[np.ndarray | UnreadableRegion]
    reading: Any

    def close(self) -> None:
        """Stop reading; the slide itself is the caller's to close."""
        self.reading.close()


def prepare(
    slide: Slide, config: SlideConfig, side_px: int, *, row_mpp: float | None = None
) -> PreparedSlide:
    """Find a slide's scale, tissue and tiles, and start to read them; needs no model.

    Args:
        slide: An open slide.
        config: How to read and tile it.
        side_px: The encoder's image size.
        row_mpp: The scale that a slide table states.
    """
    mpp = resolve_mpp(slide, given=config.slide_mpp, row=row_mpp)
    if config.mask is not None:
        tissue = read_mask(mask_for(slide.path, config.mask), slide, mpp.value)
    else:
        tissue = find_tissue(slide, mpp.value, whole=not config.tissue)
    plan = plan_tiles(
        slide,
        mpp.value,
        tissue,
        mpp=config.mpp,
        tile_px=config.tile_px,
        min_tissue=config.min_tissue,
        allow_upsample=config.allow_upsample,
        overlap_px=config.overlap_px,
    )
    ahead = BATCHES_AHEAD * config.batch_size
    reading = read_tiles(slide, plan, side_px, threads=config.threads, ahead=ahead)
    first = list(itertools.islice(reading, 1))  # a generator starts, and its threads with it, when asked
    tiles = itertools.chain(first, reading)
    return PreparedSlide(slide, mpp, tissue, plan, thumbnail(slide, THUMBNAIL_PX), tiles, reading)


def embed_prepared(
    model: DualEncoder,
    prepared: PreparedSlide,
    config: SlideConfig,
    *,
    row_mpp: float | None = None,
    model_sha: str | None = None,
    spool: FeatureSpool | None = None,
    encoded: Features | None = None,
) -> SlideFeatures:
    """Encode the tiles of a prepared slide, unless they are; for the arguments see `embed_open`."""
    slide, plan = prepared.slide, prepared.plan
    sha = model_sha or model_sha256(model)
    picture = as_jpeg(prepared.thumbnail.rgb)
    encoded = encoded or encode_tiles(
        slide,
        plan,
        model,
        batch_size=config.batch_size,
        max_unreadable=config.max_unreadable,
        spool=spool,
        tiles=prepared.tiles,
        pad=config.compile,
    )
    return SlideFeatures(
        path=slide.path,
        vendor=slide.vendor,
        size=slide.levels[0].size,
        bounds=slide.bounds,
        mpp=prepared.mpp,
        tissue=prepared.tissue,
        plan=dataclasses.replace(plan, xy=plan.xy[encoded.readable]),
        features=encoded.values,
        unreadable=int((~encoded.readable).sum()),
        thumbnail=dataclasses.replace(prepared.thumbnail, rgb=from_jpeg(picture)),
        thumbnail_jpeg=picture,
        provenance=_provenance(model, sha, prepared, config),
        key=features_key(slide.path, f"{sha} {model.precision}", config, row_mpp),
    )


def embed_open(
    model: DualEncoder,
    slide: Slide,
    config: SlideConfig,
    *,
    row_mpp: float | None = None,
    model_sha: str | None = None,
    spool: FeatureSpool | None = None,
) -> SlideFeatures:
    """`embed` for a slide that is open already.

    Args:
        model: As for `embed`.
        slide: An open slide.
        config: As for `embed`.
        row_mpp: As for `embed`.
        model_sha: From `model_sha256`: spares hashing a model once per slide.
        spool: Takes the features as they come.
    """
    prepared = prepare(slide, config, model.image_size, row_mpp=row_mpp)
    try:
        return embed_prepared(model, prepared, config, row_mpp=row_mpp, model_sha=model_sha, spool=spool)
    finally:
        prepared.close()


def _provenance(model: DualEncoder, sha: str, prepared: PreparedSlide, config: SlideConfig) -> dict[str, Any]:
    from openslide import __library_version__

    provenance = model.provenance()
    versions = {
        **(provenance.get("versions") or {}),
        "pathclip": __version__,
        "openslide": __library_version__,
    }
    return {
        **provenance,
        "model_sha256": sha,
        "versions": versions,
        "mpp": config.mpp,
        "slide_mpp": prepared.mpp.value,
        "slide_mpp_source": prepared.mpp.source,
        "icc_profile": "not applied" if has_icc_profile(prepared.slide) else "none",
        "tile_px": config.tile_px,
        "overlap_px": config.overlap_px,
        "encoder_px": model.image_size,
        "tissue": prepared.tissue.source,
        "min_tissue": config.min_tissue,
    }
