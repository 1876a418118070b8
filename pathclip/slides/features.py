"""An encoded slide, and its HDF5 file: readable by code made for TRIDENT's and CLAM's."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from pathclip._version import __version__
from pathclip.core.errors import UserError
from pathclip.core.files import atomic_path, strict_json
from pathclip.slides.mpp import Mpp
from pathclip.slides.overview import Overview
from pathclip.slides.spool import FeatureSpool
from pathclip.slides.tiling import TilePlan
from pathclip.slides.tissue import Tissue

__all__ = ["H5_SCHEMA", "SlideFeatures", "as_jpeg", "from_jpeg", "read_features", "write_features"]

H5_SCHEMA = "pathclip.slide-features/1"
CHUNK_ROWS = 256
ROWS_AT_ONCE = 32 * CHUNK_ROWS


@dataclass(frozen=True, slots=True, eq=False)
class SlideFeatures:
    """Everything about a slide that does not depend on prompts.

    Attributes:
        path: The slide, or the file its features came from.
        vendor: The scanner's format.
        size: (width, height) of level 0.
        bounds: x, y, width, height of the scanned area in level-0 pixels.
        mpp: Scale of level 0 and its source; None for foreign features that do not state it.
        tissue: Where tiles could lie.
        plan: The tiles that were read; ``plan.xy`` is row-aligned with ``features``.
        features: (N, D) float16, unit length; in a job still on disk, and an array for `numpy.asarray`.
        unreadable: Number of tiles left out because they could not be decoded.
        thumbnail: The slide as a picture, as it comes back from the file.
        provenance: Model, transform, versions, scale and settings.
        key: Hash of the file, the settings and the model; equal keys mean equal features.
        thumbnail_jpeg: The thumbnail as the file holds it; compressed once, so that pages made of cached
            features are those of the first run.
    """

    path: Path
    vendor: str
    size: tuple[int, int]
    bounds: tuple[int, int, int, int]
    mpp: Mpp | None
    tissue: Tissue
    plan: TilePlan
    features: np.ndarray | FeatureSpool
    unreadable: int
    thumbnail: Overview
    provenance: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    thumbnail_jpeg: bytes = b""

    @property
    def xy(self) -> np.ndarray:
        """(N, 2) int32, upper left corners of the tiles in level-0 pixels."""
        return self.plan.xy

    @property
    def state(self) -> str:
        """``done``, or ``empty`` where no tile holds enough tissue."""
        return "done" if len(self.plan.xy) else "empty"

    def save(self, out: str | Path, name: str | None = None) -> Path:
        """Write ``NAME.h5`` into a folder."""
        return write_features(Path(out) / f"{name or self.path.stem}.h5", self, name=name)


def write_features(path: Path, slide: SlideFeatures, *, name: str | None = None) -> Path:
    """Write features, coordinates, thumbnail and mask, atomically (names: docs/reference/slide-files.md).

    Args:
        path: The file to write.
        slide: What to write.
        name: The slide's name in the attributes; by default its stem.
    """
    name = name or slide.path.stem
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        count, dim = slide.features.shape
        chunks = (min(CHUNK_ROWS, count), dim) if count else None
        features = file.create_dataset("features", slide.features.shape, np.float16, chunks=chunks)
        for start in range(0, count, ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            features[rows] = slide.features[rows]
        coords = file.create_dataset("coords", data=slide.plan.xy.astype(np.int32))
        for attribute, value in _ours(slide, name).items():
            for target in (file, features, coords):
                target.attrs[attribute] = value
        for attribute, value in _foreign(slide, name).items():
            coords.attrs[attribute] = value
        features.attrs["encoder"] = slide.provenance.get("model") or ""
        file.attrs["provenance"] = strict_json(slide.provenance)
        _write_pictures(file, slide)
    return path


def read_features(path: str | Path) -> SlideFeatures:
    """Read features written by pathclip, or by TRIDENT or CLAM (see `read_foreign`).

    Raises:
        UserError: If the file is missing, no HDF5, or holds no features with coordinates and tile size.
    """
    from pathclip.slides.foreign import read_foreign

    path = Path(path)
    if not path.is_file():
        raise UserError(f"features file {path} does not exist")
    try:
        with h5py.File(path, "r") as file:
            if "features" not in file or "coords" not in file:
                raise UserError(
                    f"{path} has no datasets 'features' and 'coords'; it holds: {', '.join(file)}"
                )
            if file.attrs.get("schema") == H5_SCHEMA:
                return _read_ours(path, file)
            return read_foreign(path, file)
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read as an HDF5 features file: {error}") from None


def _ours(slide: SlideFeatures, name: str) -> dict[str, Any]:
    plan = slide.plan
    return {
        "schema": H5_SCHEMA,
        "name": name,
        "mpp": plan.mpp,
        "slide_mpp": slide.mpp.value if slide.mpp else np.nan,
        "slide_mpp_source": slide.mpp.source if slide.mpp else "unknown",
        "tile_px": plan.tile_px,
        "tile_px_level0": plan.stride,
        "overlap_px": plan.overlap_px,
        "level": plan.level,
        "read_px": plan.read_px,
        "scale": plan.scale,
        "model_id": slide.provenance.get("model") or "",
        "model_sha": slide.provenance.get("model_sha256") or "",
        "normalized": True,
        "unreadable": slide.unreadable,
        "vendor": slide.vendor,
        "bounds": np.array(slide.bounds),
        "features_key": slide.key,
        "pathclip_version": __version__,
    }


def _foreign(slide: SlideFeatures, name: str) -> dict[str, Any]:
    """TRIDENT's names, and CLAM's where they are true; magnifications are for other readers only."""
    plan = slide.plan
    attributes = {
        "patch_size": plan.tile_px,
        "patch_size_level0": plan.width,
        "target_magnification": 10 / plan.mpp,
        "level0_magnification": 10 / slide.mpp.value if slide.mpp else np.nan,
        "overlap": plan.overlap_px,
        "name": name,
        "level0_width": slide.size[0],
        "level0_height": slide.size[1],
    }
    if plan.read_px == plan.tile_px:
        # CLAM reads patch_size pixels at patch_level; where we shrink, that would be another area
        attributes |= {"patch_level": plan.level, "downsample": plan.stride / plan.read_px}
    return attributes


def as_jpeg(rgb: np.ndarray) -> bytes:
    """A thumbnail as it is stored."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def from_jpeg(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8, a thumbnail as it comes back."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _write_pictures(file: h5py.File, slide: SlideFeatures) -> None:
    picture = slide.thumbnail_jpeg or as_jpeg(slide.thumbnail.rgb)
    thumbnail = file.create_dataset("thumbnail_jpeg", data=np.frombuffer(picture, np.uint8))
    tissue = file.create_dataset("tissue", data=slide.tissue.mask.astype(np.uint8), compression="gzip")
    for dataset, picture in ((thumbnail, slide.thumbnail), (tissue, slide.tissue)):
        dataset.attrs["origin"] = np.array(picture.origin)
        dataset.attrs["downsample"] = np.array(picture.downsample)
    tissue.attrs["source"] = slide.tissue.source
    tissue.attrs["area_mm2"] = slide.tissue.area_mm2


def _read_ours(path: Path, file: h5py.File) -> SlideFeatures:
    import json

    attrs, coords = file.attrs, file["coords"]
    picture = file["thumbnail_jpeg"][:].tobytes()
    rgb = from_jpeg(picture)
    thumbnail = Overview(rgb, np.zeros(rgb.shape[:2], bool), *_place(file["thumbnail_jpeg"]))
    tissue = file["tissue"]
    mask = Tissue(
        tissue[:].astype(bool), *_place(tissue), str(tissue.attrs["source"]), float(tissue.attrs["area_mm2"])
    )
    plan = TilePlan(
        xy=coords[:],
        tile_px=int(attrs["tile_px"]),
        mpp=float(attrs["mpp"]),
        level=int(attrs["level"]),
        read_px=int(attrs["read_px"]),
        scale=float(attrs["scale"]),
        stride=float(attrs["tile_px_level0"]),
        overlap_px=int(attrs.get("overlap_px", 0)),  # absent in files of before tiles could overlap
    )
    value = float(attrs["slide_mpp"])
    return SlideFeatures(
        path=path,
        vendor=str(attrs["vendor"]),
        size=(int(coords.attrs["level0_width"]), int(coords.attrs["level0_height"])),
        bounds=tuple(attrs["bounds"].tolist()),
        mpp=Mpp(value, str(attrs["slide_mpp_source"])) if np.isfinite(value) else None,
        tissue=mask,
        plan=plan,
        features=file["features"][:],
        unreadable=int(attrs["unreadable"]),
        thumbnail=thumbnail,
        provenance=json.loads(attrs["provenance"]),
        key=str(attrs["features_key"]),
        thumbnail_jpeg=picture,
    )


def _place(dataset: h5py.Dataset) -> tuple[tuple[int, int], tuple[float, float]]:
    x, y = dataset.attrs["origin"].tolist()
    return (int(x), int(y)), tuple(dataset.attrs["downsample"].tolist())
