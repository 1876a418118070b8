"""Confidence against accuracy as a picture, over how many pictures had which confidence."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathclip.core.files import atomic_write

__all__ = ["reliability_png"]

INK, BARS = "#7a2e6e", "#c9b3c6"


def reliability_png(
    path: str | Path, rows: Sequence[dict[str, Any]], *, ece: float, title: str = "", dpi: int = 130
) -> Path:
    """Draw a reliability curve.

    Args:
        path: The PNG to write.
        rows: As `heads.Reliability.rows`.
        ece: Expected calibration error, named in the picture.
        title: Above it.
        dpi: Resolution.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    filled = [row for row in rows if row["count"]]
    sure = [row["confidence"] for row in filled]
    right = [row["accuracy"] for row in filled]
    below = [max(0.0, row["accuracy"] - row["interval"][0]) for row in filled]
    above = [max(0.0, row["interval"][1] - row["accuracy"]) for row in filled]
    curve.plot([0, 1], [0, 1], color="#9aa3b0", linewidth=1, linestyle="--", label="as sure as right")
    curve.errorbar(
        sure, right, [below, above], color=INK, marker="o", markersize=5, capsize=3, label="pictures"
    )
    curve.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="share that is right")
    curve.legend(loc="upper left", frameon=False, fontsize=9, title=f"calibration error {ece:.3f}")
    middles = [(row["low"] + row["high"]) / 2 for row in rows]
    width = rows[0]["high"] - rows[0]["low"]
    counts.bar(middles, [row["count"] for row in rows], width=0.92 * width, color=BARS)
    counts.set(xlabel="probability of the predicted class", ylabel="pictures")
    for axes in (curve, counts):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6eaf0", linewidth=0.6)
        axes.set_axisbelow(True)
    if title:
        curve.set_title(textwrap.fill(title, 56), fontsize=11, loc="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    with atomic_write(path) as handle:
        handle.write(buffer.getvalue())
    return Path(path)
