"""PanNuke as two classes: benign or malignant by its nuclei."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.core.errors import FaultError, UserError
from pathclip.core.progress import track
from pathclip.evaluation.datasets import LabelledImages
from pathclip.evaluation.pictures import ArrayRow, open_array
from pathclip.evaluation.protocol import ProtocolName
from pathclip.evaluation.splits import SEED, TRAIN_SHARE, choose, plip_order

__all__ = ["nuclei", "pannuke_label", "read_pannuke"]

FOLDS = (1, 2, 3)
CHANNELS = 6  # neoplastic, inflammatory, connective, dead, epithelial, background
MIN_NEOPLASTIC, MIN_SHARE = 10, 0.3


def pannuke_label(counts: Sequence[int]) -> str | None:
    """Benign, malignant, or None for what is neither.

    Args:
        counts: Nuclei by channel, the neoplastic first.

    Source: Huang et al. 2023: malignant from 10 neoplastic nuclei on that are over 30 % of all, benign
    without any.
    """
    neoplastic, total = int(counts[0]), int(sum(counts))
    if neoplastic >= MIN_NEOPLASTIC and neoplastic / total > MIN_SHARE:
        return "malignant"
    return "benign" if neoplastic == 0 else None


def nuclei(mask: NDArray[Any], protocol: ProtocolName) -> list[int] | None:
    """Nuclei by channel of one mask (H, W, 6) of instance ids; None without any.

    ``plip-compat`` counts as the published code does: ids cut to 8 bits, and the background channel, which
    holds 0 and 1, as one more.
    """
    ids = mask.astype(np.uint8 if protocol == "plip-compat" else np.int64)
    if not ids[..., : CHANNELS - 1].any():
        return None
    held = [np.bincount(ids[..., c].ravel()) > 0 for c in range(CHANNELS)]  # which ids occur; 0 is none
    if protocol == "plip-compat":
        return [int(ids.sum()) - 1 for ids in held]
    return [int(ids[1:].sum()) for ids in held[:-1]]


def read_pannuke(data: Path, split: str | None, protocol: ProtocolName) -> LabelledImages:
    """Three folds of ``images.npy``, ``types.npy`` and ``masks.npy``.

    Corrected: folds 1 and 2 train, fold 3 tests. ``plip-compat``: all folds, 70 to 30 by picture within each
    organ and label.
    """
    rows: list[tuple[ArrayRow, str, str]] = []
    folds: list[int] = []
    for fold in FOLDS:
        found = list(_fold(data, fold, protocol))
        rows += found
        folds += [fold] * len(found)
    if protocol == "plip-compat":  # their files: malignant first
        rows.sort(key=lambda row: row[1] != "malignant")
    whole = LabelledImages(
        name="pannuke",
        root=data,
        split=None,
        pictures=tuple(picture for picture, _, _ in rows),
        truth=tuple(label for _, label, _ in rows),
        strata=tuple(organ for _, _, organ in rows),
    )
    rule = "malignant: 10 neoplastic nuclei or more, over 30 % of all; benign: none; others left out"
    if protocol == "plip-compat":
        quirks = ("patch_split", "background_counts_as_nucleus", "ids_modulo_256")
        return choose(whole, split, _plip_parts(whole), how=(rule,), quirks=quirks)
    parts = [i for i, f in enumerate(folds) if f < 3], [i for i, f in enumerate(folds) if f == 3]
    return choose(whole, split, parts, how=(rule, "published folds: 1 and 2 train, 3 tests"))


def _plip_parts(data: LabelledImages) -> tuple[list[int], list[int]]:
    assert data.strata is not None
    order = plip_order(len(data.truth), SEED).tolist()
    train: list[int] = []
    test: list[int] = []
    for kind in sorted({(organ, label) for organ, label in zip(data.strata, data.truth, strict=True)}):
        own = [i for i in order if (data.strata[i], data.truth[i]) == kind]
        own = [own[j] for j in plip_order(len(own), SEED)]
        cut = int(len(own) * TRAIN_SHARE)
        train, test = [*train, *own[:cut]], [*test, *own[cut:]]
    return sorted(train), sorted(test)


def _fold(data: Path, fold: int, protocol: ProtocolName) -> list[tuple[ArrayRow, str, str]]:
    images, masks, organs = _files(data, fold)
    try:
        ids, types = open_array(masks), np.load(organs, allow_pickle=False)
        pixels = open_array(images)
    except (FaultError, ValueError, OSError, EOFError) as error:
        raise UserError(f"PanNuke, fold {fold}: {error}; unpack the archive again") from None
    shape = ids.shape[1:3]
    if (
        not len(ids) == len(types) == len(pixels)
        or ids.shape[3:] != (CHANNELS,)
        or pixels.shape[1:3] != shape
    ):
        raise UserError(
            f"PanNuke, fold {fold}: images {pixels.shape}, masks {ids.shape}, types {types.shape}; "
            "expected (N, 256, 256, 3), (N, 256, 256, 6) and (N,)"
        )
    rows = []
    for row in track(range(len(ids)), f"masks of fold {fold}", len(ids)):
        counts = nuclei(ids[row], protocol)
        label = None if counts is None else pannuke_label(counts)
        if label:
            rows.append((ArrayRow(images, row), label, str(types[row]).lower().replace("_", " ")))
    return rows


def _files(data: Path, fold: int) -> tuple[Path, Path, Path]:
    for base in (data / f"fold_{fold}" / f"Fold {fold}", data / f"Fold {fold}", data / f"fold{fold}", data):
        images, masks = base / f"images/fold{fold}", base / f"masks/fold{fold}"
        if images.is_dir() or masks.is_dir():
            break
    wanted = images / "images.npy", masks / "masks.npy", images / "types.npy"
    missing = [str(path.relative_to(data)) for path in wanted if not path.is_file()]
    if missing:
        raise UserError(
            f"{data}: benchmark 'pannuke' expects {', '.join(missing)} there, "
            f"for example in 'Fold {fold}/' as fold_{fold}.zip unpacks"
        )
    return wanted
