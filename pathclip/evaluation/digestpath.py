"""DigestPath's colonoscopy tissue as two classes of 224 px crops at five scales."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathclip.core import engine
from pathclip.core.errors import FaultError, UserError
from pathclip.core.progress import track
from pathclip.encoders.pictures import as_rgb
from pathclip.evaluation.datasets import LabelledImages
from pathclip.evaluation.pictures import CROP_PX, Crop, scaled_rgb
from pathclip.evaluation.protocol import ProtocolName
from pathclip.evaluation.published import find_folder
from pathclip.evaluation.splits import choose, grouped_split, plip_split

__all__ = ["crop_label", "crops", "read_digestpath", "tissue_share"]

DOWNSAMPLES = (2, 4, 8, 16, 32)
OVERLAP = 0.1
SLIDES_PER_WORKER = 10
BACKGROUND_FROM = 200
MIN_TISSUE = 0.5
MASK_ABOVE = 10
MIN_TUMOUR: dict[ProtocolName, float] = {"corrected": 0.5, "plip-compat": 0.3}


def tissue_share(pixels: NDArray[np.uint8]) -> float:
    """Share of pixels (H, W, 3) that are no background: not all of R, G and B are 200 or more."""
    return 1.0 - float((pixels >= BACKGROUND_FROM).all(axis=-1).mean())


def crop_label(tumour: float, protocol: ProtocolName) -> str | None:
    """Malignant, benign, or None for a crop with less tumour than counts.

    Args:
        tumour: Share of the crop's pixels inside the tumour mask.
        protocol: ``plip-compat`` takes 0.3 for enough, ``corrected`` 0.5.
    """
    if tumour >= MIN_TUMOUR[protocol]:
        return "malignant"
    return "benign" if tumour == 0 else None


def crops(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, protocol: ProtocolName
) -> Iterator[tuple[int, int, float]]:
    """Left, top and tumour share of every 224 px crop that is half tissue or more, 10 % overlapping.

    Args:
        pixels: (H, W, 3).
        mask: (H, W) tumour; None where there is none.
        protocol: ``plip-compat`` leaves out crops that end with the picture's last pixel, as the code does.
    """
    height, width = pixels.shape[:2]
    beyond = 0 if protocol == "plip-compat" else 1
    step = CROP_PX * (1 - OVERLAP)
    for top in np.arange(0, height, step).astype(int).tolist():
        for left in np.arange(0, width, step).astype(int).tolist():
            if top + CROP_PX >= height + beyond or left + CROP_PX >= width + beyond:
                continue
            place = np.s_[top : top + CROP_PX, left : left + CROP_PX]
            if tissue_share(pixels[place]) < MIN_TISSUE:
                continue
            yield left, top, 0.0 if mask is None else float(mask[place].mean())


def read_digestpath(data: Path, split: str | None, protocol: ProtocolName) -> LabelledImages:
    """``tissue-train-neg`` and ``tissue-train-pos-v1``: crops of 224 px at downsampling 2, 4, 8, 16 and 32.

    Corrected: whole slides, 70 to 30. ``plip-compat``: crops at random, 70 to 30.
    """
    names = ("Colonoscopy_tissue_segment_dataset",)
    holds = ("tissue-train-neg", "tissue-train-pos-v1")
    base = find_folder(data, names, holds, "digestpath", " and ".join(f"{name}/" for name in holds))
    slides = [(path, positive) for positive in (False, True) for path in _slides(base / holds[positive])]
    cut = dict(_cut_all(slides, protocol))
    rows = [
        (crop, label, path.stem, positive) for path, positive in slides for crop, label in cut[path, positive]
    ]
    if protocol == "plip-compat":  # their table: negatives of negative slides, of positive ones, then tumour
        rows.sort(key=lambda row: (row[1] == "malignant", row[3]))
    whole = LabelledImages(
        name="digestpath",
        root=base,
        split=None,
        pictures=tuple(row[0] for row in rows),
        truth=tuple(row[1] for row in rows),
        groups=tuple(row[2] for row in rows),
    )
    if len(whole.labels) < 2:
        raise UserError(
            f"{base}: the crops hold {list(whole.labels)} only; expected benign and malignant ones"
        )
    share = MIN_TUMOUR[protocol]
    rule = f"malignant: {share:.0%} tumour or more; benign: none; others and crops under half tissue left out"
    if protocol == "plip-compat":
        quirks = ("patch_split", "tumour_from_30_percent", "border_crops_left_out")
        return choose(whole, split, plip_split(len(rows)), how=(rule,), quirks=quirks)
    how = (rule, "whole slides, 70 of 100 train (seed 1)")
    return choose(whole, split, grouped_split(whole.groups or ()), how=how)


def _cut_all(
    slides: list[tuple[Path, bool]], protocol: ProtocolName
) -> Iterator[tuple[tuple[Path, bool], list[tuple[Any, str]]]]:
    """Every slide's crops; many slides are shared among the cores, 3 s for one of 5,000 px."""
    for path, positive in slides:  # before any work
        if positive and not _mask_of(path).is_file():
            raise UserError(f"{path}: benchmark 'digestpath' expects {_mask_of(path).name} beside it")
    workers = min(os.cpu_count() or 1, len(slides) // SLIDES_PER_WORKER)
    chosen: engine.EngineName = "processes" if workers > 1 else "serial"
    work = functools.partial(_cut, protocol=protocol)
    yield from track(engine.map(work, slides, engine=chosen, workers=workers), "slides", len(slides))


def _mask_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_mask.jpg")


def _slides(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder.parent}: benchmark 'digestpath' expects {folder.name}/ there")
    found = sorted(path for path in folder.glob("*.jpg") if not path.stem.endswith("_mask"))
    if not found:
        raise UserError(f"{folder}: benchmark 'digestpath' expects pictures NAME.jpg there; found none")
    return found


def _cut(slide: tuple[Path, bool], protocol: ProtocolName) -> list[tuple[Any, str]]:
    """Crops with labels; a slide that does not decode stands for itself, to be counted as bad."""
    path, positive = slide
    found: list[tuple[Any, str]] = []
    try:
        drawn = as_rgb(_mask_of(path)).convert("L") if positive else None
        for downsample in DOWNSAMPLES:
            pixels = scaled_rgb(path, downsample)
            tumour = None if drawn is None else _scaled_mask(drawn, pixels)
            for left, top, share in crops(pixels, tumour, protocol):
                if label := crop_label(share, protocol):
                    found.append((Crop(path, downsample, left, top), label))
    except FaultError:
        return [(path, "malignant" if positive else "benign")]
    return found


def _scaled_mask(mask: Image.Image, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    size = pixels.shape[1], pixels.shape[0]
    return np.asarray(mask.resize(size, Image.Resampling.NEAREST)) > MASK_ABOVE
