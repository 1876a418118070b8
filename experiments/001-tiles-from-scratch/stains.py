"""A validation split that holds out stains: in each class the tiles of one cluster of colours, groups whole.

Random groups of the training tiles do not warn of slides that were stained elsewhere.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

CLUSTERS, ROUNDS = 4, 30
SHARE = (0.1, 0.35)  # of a class's tiles that may be held out


def hold_out_stains(tiles: Path, out: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write a table of captioned training tiles and one of labelled tiles to choose by.

    Args:
        tiles: Holds pairs.csv (image, caption, group, split) and labels.csv (path, label, group, split).
        out: Where ``train.csv`` and ``val.csv`` go.
        seed: Of the clusters and of which is held out.
    """
    labels = [row for row in _read(tiles / "labels.csv") if row["split"] == "train"]
    rng = np.random.default_rng(seed)
    held: set[str] = set()
    for label in sorted({row["label"] for row in labels}):
        held |= _one_cluster(tiles, [row for row in labels if row["label"] == label], rng)
    pairs = [
        row for row in _read(tiles / "pairs.csv") if row["split"] == "train" and row["image"] not in held
    ]
    chosen = [
        {"path": str((tiles / row["path"]).resolve()), "label": row["label"], "split": "val"}
        for row in labels
        if row["path"] in held
    ]
    out.mkdir(parents=True, exist_ok=True)
    return _write(out / "train.csv", pairs), _write(out / "val.csv", chosen)


def _one_cluster(tiles: Path, rows: list[dict[str, str]], rng: np.random.Generator) -> set[str]:
    """Paths of the tiles of one class whose group lies in a cluster of colours drawn by chance."""
    colours = np.stack([_colours(tiles / row["path"]) for row in rows])
    colours = (colours - colours.mean(axis=0)) / colours.std(axis=0)
    names, group = np.unique([row["group"] for row in rows], return_inverse=True)
    means = np.stack([colours[group == g].mean(axis=0) for g in range(len(names))])
    centres = means[rng.choice(len(means), CLUSTERS, replace=False)]
    for _ in range(ROUNDS):  # k-means
        nearest = ((means[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        centres = np.stack(
            [
                means[nearest == k].mean(axis=0) if (nearest == k).any() else centres[k]
                for k in range(CLUSTERS)
            ]
        )
    shares = np.bincount(nearest[group], minlength=CLUSTERS) / len(rows)
    fitting = np.flatnonzero((shares > SHARE[0]) & (shares < SHARE[1]))
    held = rng.choice(fitting) if len(fitting) else shares.argmin()
    return {row["path"] for row, cluster in zip(rows, nearest[group], strict=True) if cluster == held}


def _colours(path: Path) -> np.ndarray:
    """(6,): mean and deviation in red, green, blue."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return np.concatenate([pixels.mean(axis=(0, 1)), pixels.std(axis=(0, 1))])


def _read(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(table: Path, rows: list[dict[str, str]]) -> Path:
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table
