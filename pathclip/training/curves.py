"""curves.png: a run at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pathclip.core.files import atomic_path

__all__ = ["draw"]

INK, FAINT = "#1f4e79", "#b8cce0"


def draw(rows: list[dict[str, Any]], path: Path, *, title: str) -> Path:
    """Draw the rows of metrics.jsonl.

    Args:
        rows: In order of step.
        path: The PNG to write.
        title: Above the picture.
    """
    from matplotlib.figure import Figure

    panels = [("loss", "loss"), ("scale", "scale (inverse temperature)"), ("lr", "learning rate")]
    evals = _evaluations(rows)
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    for axis, (name, label) in zip(axes, panels, strict=False):
        _series(axis, *_values(rows, name), label, smooth=name == "loss")
    _series(axes[3], *_values(rows, "samples_per_s"), "samples per second", smooth=True)
    _series(axes[4], *_values(rows, "data_wait"), "share of time waiting for data", smooth=True)
    axes[4].set_ylim(0, 1)
    for name, points in evals.items():
        axes[5].plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes[5].set_title("evaluation" if evals else "evaluation (none asked for)", fontsize=10)
    axes[5].set_ylim(0, 1.02)
    if evals:
        axes[5].legend(fontsize=7, frameon=False)
    for axis in axes:
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return path


def _values(rows: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    key = "logit_scale" if name == "scale" else name
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    steps, values = np.array(points, dtype=float).reshape(-1, 2).T
    return steps, np.exp(values) if name == "scale" else values


def _series(axis: Any, steps: np.ndarray, values: np.ndarray, label: str, *, smooth: bool) -> None:
    width = max(1, len(values) // 40)
    if smooth and width > 1:
        axis.plot(steps, values, color=FAINT, linewidth=0.8)
        mean = np.convolve(values, np.ones(width) / width, mode="valid")
        axis.plot(steps[width - 1 :], mean, color=INK)
    else:
        axis.plot(steps, values, color=INK)
    axis.set_title(label, fontsize=10)


def _evaluations(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Of each set: its balanced accuracy, or R@10 in both directions."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, values in (row.get("eval") or {}).items():
            for key in ("balanced_accuracy", "image_to_text_R@10", "text_to_image_R@10"):
                if values.get(key) is not None:
                    found.setdefault(f"{name}: {key}", []).append((row["step"], values[key]))
    return found
