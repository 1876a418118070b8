"""A picture filter of one's own: a logistic regression on the scores, fitted to labels, kept as JSON."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.core.errors import UserError
from pathclip.core.files import read_json, write_json
from pathclip.pairs.images import decode, read_header
from pathclip.pairs.pair import Drop
from pathclip.pairs.scaled import LOOK_SIDE_PX, small_picture
from pathclip.pairs.score import score

__all__ = ["FittedFilter", "fit_filter", "read_labels"]

SCHEMA = "pathclip.filter/1"
FEATURES = (
    "even",
    "coloured",
    "even_colour",
    "even_colour_area",
    "busy_coloured",
    "coarse",
    "range",
    "brightness",
    "lines",
    "red_yellow",
    "yellow_green",
    "green_cyan",
    "cyan_blue",
    "blue_magenta",
    "magenta_red",
)
YES = frozenset({"1", "true", "yes", "micrograph", "pathology"})
NO = frozenset({"0", "false", "no", "other"})
FOLDS, FEWEST = 5, 10
MAY_LOSE = 0.01  # of the labelled micrographs, when held out
MAX_PIXELS = 64_000_000

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FittedFilter:
    """The probability that a picture is a micrograph, from its scores.

    Attributes:
        mean: Of each feature, over the labelled pictures.
        scale: Standard deviation of each.
        weights: On the standardised features.
        bias: Of the logit.
        threshold: Below it a picture is rejected.
        record: How it was fitted: counts, held-out figures, versions.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float
    record: Mapping[str, Any]

    def probability(self, scores: Mapping[str, Any]) -> float:
        """That a picture with these scores (of `pathclip.pairs.score`) is a micrograph."""
        values = (np.array([scores[name] for name in FEATURES]) - self.mean) / self.scale
        return float(1 / (1 + np.exp(-(values @ np.array(self.weights) + self.bias))))

    def why_rejected(self, scores: Mapping[str, Any]) -> str | None:
        """The reason, in words; None where the picture may stay."""
        value = self.probability(scores)
        if value >= self.threshold:
            return None
        return f"probability of a micrograph {value:.3f}, threshold {self.threshold:.3f}"

    def save(self, path: Path) -> None:
        """Write the JSON file."""
        model = {
            "features": {
                name: {"mean": m, "scale": s, "weight": w}
                for name, m, s, w in zip(FEATURES, self.mean, self.scale, self.weights, strict=True)
            },
            "bias": self.bias,
            "threshold": self.threshold,
        }
        write_json(path, {"schema": SCHEMA, **model, **self.record})

    @classmethod
    def load(cls, path: Path) -> FittedFilter:
        """Read the JSON file; nothing in it is executed.

        Raises:
            UserError: If it is missing or no filter of this version.
        """
        if not path.is_file():
            raise UserError(f"filter.model: {path} does not exist; make it with `pathclip data fit-filter`")
        data = read_json(path)
        if (
            not isinstance(data, dict)
            or data.get("schema") != SCHEMA
            or list(data.get("features", ())) != [*FEATURES]
        ):
            raise UserError(
                f"{path} is no filter of this version; fit it again with `pathclip data fit-filter`"
            )
        rows = data["features"].values()
        mean, scale, weights = (tuple(row[k] for row in rows) for k in ("mean", "scale", "weight"))
        record = {k: data[k] for k in ("labels", "held_out", "unusable", "versions")}
        return cls(mean, scale, weights, data["bias"], data["threshold"], record)


def read_labels(path: Path, media: Path | None = None) -> tuple[list[tuple[Path, bool]], dict[str, str]]:
    """Read a CSV with the columns ``image`` and ``label``.

    Args:
        path: The CSV. A label is micrograph, pathology, yes, true or 1; or other, no, false or 0.
        media: Folder that the pictures are named in; the CSV's own by default.

    Returns:
        Pictures with their labels, and the lines that cannot be used, with the reason.

    Raises:
        UserError: If the file is missing or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a CSV with the columns image, label")
    rows: list[tuple[Path, bool]] = []
    unusable: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        if not {"image", "label"} <= set(reader.fieldnames or ()):
            raise UserError(f"{path} has the columns {reader.fieldnames}; expected image, label")
        for row in reader:
            label, image = (row["label"] or "").strip().lower(), (row["image"] or "").strip()
            place = f"{path.name}:{reader.line_num}"
            if label not in YES | NO:
                unusable[place] = f"label {row['label']!r} is neither micrograph nor other"
            elif not ((media or path.parent) / image).is_file():
                unusable[place] = f"no file {image}"
            else:
                rows.append(((media or path.parent) / image, label in YES))
    return rows, unusable


def fit_filter(
    labelled: Iterable[tuple[Path, bool]], unusable: Mapping[str, str] | None = None
) -> FittedFilter:
    """Fit on labelled pictures; figures and threshold come from five-fold cross-validation.

    The threshold is the highest at which at most 1 % of the held-out micrographs would be lost.

    Args:
        labelled: Picture files, and whether each is a micrograph.
        unusable: What could not be used before, with the reason; joins the record.

    Raises:
        UserError: If fewer than 10 pictures of either kind can be read.
    """
    import sklearn
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    bad, rows, labels = dict(unusable or {}), [], []
    for path, is_micrograph in labelled:
        scores = _scores(path)
        if isinstance(scores, Drop):
            bad[str(path)] = f"{scores.code}: {scores.detail}"
            continue
        rows.append([float(scores[name]) for name in FEATURES])
        labels.append(is_micrograph)
    counts = Counter(labels)
    if min(counts[True], counts[False]) < FEWEST:
        raise UserError(
            f"{counts[True]} micrographs and {counts[False]} others can be used, {len(bad)} labels cannot; "
            f"expected at least {FEWEST} of each"
        )
    values, truth = np.array(rows), np.array(labels)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    held_out = cross_val_predict(model, values, truth, cv=folds, method="predict_proba")[:, 1]
    threshold = _threshold(held_out[truth])
    model.fit(values, truth)
    scaler, regression = model[0], model[1]
    record = {
        "labels": {"micrograph": counts[True], "other": counts[False]},
        "held_out": {
            "folds": FOLDS,
            "micrographs_lost": float((held_out[truth] < threshold).mean()),
            "others_rejected": float((held_out[~truth] < threshold).mean()),
        },
        "unusable": bad,
        "versions": {"scikit-learn": sklearn.__version__},
    }
    return FittedFilter(
        tuple(map(float, scaler.mean_)),
        tuple(map(float, scaler.scale_)),
        tuple(map(float, regression.coef_[0])),
        float(regression.intercept_[0]),
        threshold,
        record,
    )


def _threshold(of_micrographs: Values) -> float:
    """The highest that loses at most ``MAY_LOSE`` of them, and never above one half."""
    ordered = np.sort(of_micrographs)
    return min(float(ordered[int(MAY_LOSE * len(ordered))]), 0.5)


def _scores(path: Path) -> dict[str, Any] | Drop:
    """As the ingest scores the picture: from the same small one."""
    data = path.read_bytes()
    header = read_header(data, max_pixels=MAX_PIXELS)
    image = header if isinstance(header, Drop) else decode(data, min_side_px=LOOK_SIDE_PX, header=header)
    return image if isinstance(image, Drop) else score(small_picture(image))
