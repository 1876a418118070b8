"""The confusion matrix as a picture: counts to read, row shares as shade."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.core.files import atomic_write

__all__ = ["confusion_figure", "confusion_png"]

NUMBERS_UP_TO = 40  # classes; beyond, a cell is too small for a number


def confusion_png(
    path: str | Path, confusion: NDArray[Any], labels: Sequence[str], *, title: str = "", dpi: int = 130
) -> Path:
    """Draw a confusion matrix.

    Args:
        path: The PNG to write.
        confusion: (C, C) counts, rows the truth.
        labels: C names; underscores are shown as spaces.
        title: Above the matrix.
        dpi: Resolution.
    """
    with atomic_write(path) as handle:
        handle.write(confusion_figure(confusion, labels, title=title, dpi=dpi))
    return Path(path)


def confusion_figure(
    confusion: NDArray[Any], labels: Sequence[str], *, title: str = "", dpi: int = 130
) -> bytes:
    """The PNG of `confusion_png` as bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = np.asarray(confusion)
    size = len(labels)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, support, out=np.zeros(counts.shape), where=support > 0)
    names = [textwrap.fill(label.replace("_", " "), 20) for label in labels]
    cell = 0.72 if size <= 12 else 0.5 if size <= NUMBERS_UP_TO else 0.2
    small = 10 if size <= 12 else 8
    figure = Figure(figsize=(3.4 + cell * size, 2.6 + cell * size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="BuPu", vmin=0, vmax=1)
    rows = [f"{name}  ({int(n)})" for name, n in zip(names, support[:, 0], strict=True)]
    axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=small)
    axes.set_yticks(range(size), rows, fontsize=small)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dfe4ec", linewidth=1.0 if size <= NUMBERS_UP_TO else 0.3)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth (number of pictures)")
    if title:
        axes.set_title(textwrap.fill(title, 60), fontsize=11, loc="left")
    if size <= NUMBERS_UP_TO:
        _write_counts(axes, counts, shares, small)
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, aspect=28, pad=0.02)
    bar.set_label("share of the true class", fontsize=small)
    bar.outline.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _write_counts(axes: Any, counts: NDArray[Any], shares: NDArray[np.float64], size: int) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            ink = "white" if shares[row, column] > 0.55 else "#1d2430"
            weight = "bold" if row == column else "normal"
            axes.text(
                column,
                row,
                str(int(count)),
                ha="center",
                va="center",
                color=ink,
                fontsize=size,
                weight=weight,
            )
