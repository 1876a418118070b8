"""Pictures of the scores: the bare overlay, and the figure with title, legend and scale bar."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pathclip.core.files import atomic_path
from pathclip.slides.colours import class_colours

if TYPE_CHECKING:
    from pathclip.slides.prediction import SlidePrediction

__all__ = ["class_map", "heatmap", "scale_bar_um", "write_heatmap"]

OPACITY = 0.55
COLOURMAP = "viridis"  # even in lightness, and nowhere the pink or violet of the stain
DPI = 110


def heatmap(prediction: SlidePrediction, cls: str) -> Image.Image:
    """The thumbnail with one class's probability over its tiles, 0 dark blue to 1 yellow.

    Pixels outside the scored tiles are the thumbnail's own, bit for bit.

    Raises:
        UserError: If there is no such class.
    """
    from matplotlib import colormaps

    chances = prediction.tile_probabilities[:, prediction.column(cls)]
    return _overlay(prediction, colormaps[COLOURMAP](chances)[:, :3] * 255)


def class_map(prediction: SlidePrediction) -> Image.Image:
    """The thumbnail with every tile in the colour of its most probable class."""
    colours = np.array(class_colours(len(prediction.classes)), np.float64)
    return _overlay(prediction, colours[prediction.tile_probabilities.argmax(axis=1)])


def _overlay(prediction: SlidePrediction, colours: np.ndarray) -> Image.Image:
    view = prediction.slide.thumbnail
    picture = view.rgb.copy()
    for (left, upper, right, lower), colour in zip(_boxes(prediction).tolist(), colours, strict=True):
        under = view.rgb[upper:lower, left:right]  # from the thumbnail, so overlaps are not blended twice
        picture[upper:lower, left:right] = np.rint(under * (1 - OPACITY) + colour * OPACITY)
    return Image.fromarray(picture)


def _boxes(prediction: SlidePrediction) -> np.ndarray:
    """(N, 4) left, upper, right, lower of each tile in thumbnail pixels, at least one pixel large."""
    view = prediction.slide.thumbnail
    down = np.array(view.downsample)
    near = prediction.xy + prediction.slide.plan.margin - np.array(view.origin)
    first = np.rint(near / down).astype(np.int64)
    last = np.rint(_far_edges(prediction, near) / down).astype(np.int64)
    limit = np.array(view.rgb.shape[1::-1])
    first = np.clip(first, 0, limit - 1)
    return np.concatenate([first, np.maximum(np.minimum(last, limit), first + 1)], axis=1)


def _far_edges(prediction: SlidePrediction, near: np.ndarray) -> np.ndarray:
    """Where each tile's neighbour begins, so that no seam shows between tiles of one grid."""
    step, margin = prediction.slide.plan.step, prediction.slide.plan.margin
    index = np.rint((near - margin) / step)
    on_grid = np.abs(np.rint(index * step) + margin - near) <= 1
    return np.where(on_grid, np.rint((index + 1) * step) + margin, near + step)


def write_heatmap(path: Path, prediction: SlidePrediction, name: str, every_class: bool = False) -> Path:
    """Write the figure: slide, probability of the label's class, most probable class of each tile.

    Args:
        path: The PNG to write.
        prediction: What to show.
        name: The slide's name, for the title.
        every_class: Show the probability of every class, not of the label alone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    view = prediction.slide.thumbnail.rgb
    panels = _panels(prediction, every_class)
    aspect = view.shape[0] / view.shape[1]
    grid, size = _grid(len(panels), aspect)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_drawable(_title(prediction, name)), fontsize=12, x=0.01, ha="left")
    axes = np.ravel(figure.subplots(*grid, squeeze=False))
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for index, (axis, (title, picture, kind)) in enumerate(zip(axes, panels, strict=False)):
        axis.imshow(picture, interpolation="none")
        axis.set_title(_drawable(title), fontsize=10, loc="left")
        axis.set_axis_off()
        if index == 0:
            _scale_bar(axis, prediction)
        if kind == "heat" and not every_class:
            _colour_bar(figure, axis)
        elif kind == "classes" and not every_class:
            place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.3}
            axis.legend(handles=_handles(prediction), frameon=False, fontsize=8, **place)
    if every_class and prediction.label is not None:  # one of each for all panels
        figure.legend(handles=_handles(prediction), frameon=False, fontsize=8, loc="outside right upper")
        _colour_bar(figure, axes.tolist())
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="white")
    return path


def _grid(count: int, aspect: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """Rows and columns of the panels, and the figure's size in inches, for pictures of height / width."""
    if count > 3:
        # about as wide as a screen, with few empty places
        columns = min(range(1, count + 1), key=lambda c: abs(math.log(c / -(-count // c) / aspect / 1.5)))
        rows = -(-count // columns)
        side = min(4.0, 18.0 / columns, 40.0 / rows / aspect)
        return (rows, columns), (side * columns + 2.6, rows * (side * aspect + 0.4) + 1.1)
    if aspect >= 1 / 1.4:
        side = min(5.0, 7.0 / aspect)
        return (1, count), (side * count + 2.6, max(side * aspect, 2.6) + 1.1)
    side = max(2.0, 9.0 * aspect)
    return (count, 1), (12.0, side * count + 1.3)


def _panels(prediction: SlidePrediction, every_class: bool) -> list[tuple[str, Any, str]]:
    thumbnail = prediction.slide.thumbnail.rgb
    if prediction.label is None:
        return [("no tile with enough tissue: nothing was scored", thumbnail, "plain")]
    shown = prediction.classes if every_class else [prediction.label]
    heats = [(f"probability of {name}", heatmap(prediction, name), "heat") for name in shown]
    slide, classes = ("slide", thumbnail, "plain"), ("most probable class", class_map(prediction), "classes")
    return [slide, classes, *heats] if every_class else [slide, *heats, classes]


def _title(prediction: SlidePrediction, name: str) -> str:
    if prediction.label is None:
        return f"{name}: no tissue found"
    slide = prediction.slide
    unreadable = f", {slide.unreadable} unreadable" if slide.unreadable else ""
    scale = f" at {slide.plan.mpp:g} µm/px" if math.isfinite(slide.plan.mpp) else ""
    k = min(prediction.label_k, len(prediction.xy))
    how = {
        "topk": f"best {k} tiles per class",
        "mean": "mean over all tiles",
        "fraction": "class of most tiles",
    }
    return (
        f"{name}: {prediction.label}\n"
        f"{how[prediction.pooling]}, {prediction.agreement:.0%} of the K agree; "
        f"{len(prediction.xy)} tiles of {slide.plan.tile_px} px{scale}{unreadable}"
    )


def scale_bar_um(width_um: float) -> float:
    """A round length (1, 2 or 5 times a power of ten, µm) near a fifth of the picture's width."""
    wanted = width_um / 5
    power = 10 ** math.floor(math.log10(wanted))
    return max(step * power for step in (1, 2, 5) if step * power <= wanted)


def _scale_bar(axis: Any, prediction: SlidePrediction) -> None:
    if prediction.mpp is None:
        return
    height, width = prediction.slide.thumbnail.rgb.shape[:2]
    um_per_px = prediction.mpp.value * prediction.slide.thumbnail.downsample[0]
    length = scale_bar_um(width * um_per_px)
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    left, lower, size = width * 0.02, height - width * 0.02, length / um_per_px
    label = {"ha": "left", "va": "bottom", "fontsize": 9, "bbox": {"color": "white", "alpha": 0.8, "pad": 3}}
    axis.text(left, lower - height * 0.012, text, **label)
    axis.plot([left, left + size], [lower, lower], color="black", linewidth=3, solid_capstyle="butt")
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _colour_bar(figure: Any, axes: Any) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    shape = {"fraction": 0.04, "pad": 0.02} if not isinstance(axes, list) else {"shrink": 0.4, "aspect": 25}
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), COLOURMAP), ax=axes, **shape)
    bar.ax.tick_params(labelsize=8)


def _handles(prediction: SlidePrediction) -> list[Any]:
    """The legend: classes by their share of the tiles."""
    from matplotlib.patches import Patch

    share = np.bincount(prediction.tile_probabilities.argmax(1), minlength=len(prediction.classes))
    share = share / share.sum()
    colours = class_colours(len(prediction.classes))
    order = np.argsort(-share, kind="stable")[:20]
    return [
        Patch(color=np.array(colours[i]) / 255, label=_drawable(f"{prediction.classes[i]} {share[i]:.0%}"))
        for i in order
    ]


def _drawable(text: str) -> str:
    """The text with what the figure's font cannot draw as question marks, and no formula signs."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(c if ord(c) in known or c == "\n" else "?" for c in text).replace("$", r"\$")
