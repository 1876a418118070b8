"""PatchCamelyon: pictures and labels in HDF5 files, the slide of each in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.evaluation.datasets import LabelledImages
from pathclip.evaluation.pictures import H5Row
from pathclip.evaluation.protocol import ProtocolName

__all__ = ["read_pcam"]

STEM = "camelyonpatch_level_2_split"
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
LABELS = ("normal", "tumor")


def read_pcam(data: Path, split: str | None, protocol: ProtocolName) -> LabelledImages:
    """``camelyonpatch_level_2_split_test_x.h5``, ``_y.h5`` and, for intervals by slide, ``_meta.csv``."""
    split = split or "test"
    if split not in SPLITS:
        raise UserError(f"benchmark 'pcam' has no split {split!r}; it has test, train, valid")
    base = data / "pcam" if (data / "pcam").is_dir() else data
    stem = f"{STEM}_{SPLITS[split]}"
    x, y = (_present(base / f"{stem}_{part}.h5") for part in "xy")
    truth, shape = _truth(x, y)
    slides = _slides(base / f"{stem}_meta.csv", len(truth))
    known = "published split" + ("" if slides else f"; no {stem}_meta.csv, so intervals resample pictures")
    return LabelledImages(
        name=f"pcam/{split}",
        root=base,
        split=split,
        pictures=tuple(H5Row(x, "x", row) for row in range(shape[0])),
        truth=tuple(LABELS[label] for label in truth),
        groups=slides,
        how=(known,),
    )


def _present(path: Path) -> Path:
    if path.is_file():
        return path
    packed = path.with_name(path.name + ".gz")
    remedy = f"; unpack {packed.name} (gunzip)" if packed.is_file() else ""
    raise UserError(f"{path.parent}: benchmark 'pcam' expects {path.name} there{remedy}")


def _truth(x: Path, y: Path) -> tuple[list[int], Any]:
    import h5py

    try:
        with h5py.File(x, "r") as pictures, h5py.File(y, "r") as labels:
            shape, truth = pictures["x"].shape, labels["y"][()].ravel().tolist()
    except (OSError, KeyError) as error:
        raise UserError(f"{x.name}, {y.name}: {error}; expected datasets 'x' and 'y'") from None
    if len(truth) != shape[0] or not set(truth) == {0, 1}:
        raise UserError(
            f"{y}: {len(truth)} labels {sorted(set(truth))} for {shape[0]} pictures; "
            "expected 0 or 1 for each, and both"
        )
    return truth, shape


def _slides(path: Path, count: int) -> tuple[str, ...] | None:
    import polars as pl

    if not path.is_file():
        return None
    table = pl.read_csv(path, infer_schema=False)
    if "wsi" not in table.columns or len(table) != count:
        raise UserError(
            f"{path}: {len(table)} rows of {', '.join(table.columns)}; expected {count} with 'wsi'"
        )
    return tuple(table["wsi"])
