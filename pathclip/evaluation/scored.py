"""Truth and probabilities -> `EvaluateReport`: what every classifier is judged by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pathclip.encoders import BadPicture
from pathclip.evaluation.datasets import LabelledImages
from pathclip.evaluation.leaks import Leaks
from pathclip.evaluation.report import EvaluateReport, Mistake
from pathclip.heads import (
    classification_metrics,
    confusion_matrix,
    constant_class_baseline,
    per_class_metrics,
    reliability,
)

__all__ = ["Answers", "class_baselines", "scored_report"]

NUM_MISTAKES = 15
PER_KIND = 2


class Drawn(Protocol):
    """The part of a config that seeds the bootstrap."""

    @property
    def seed(self) -> int:
        """Of the draws."""

    @property
    def num_resamples(self) -> int:
        """How many."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a classifier says of the pictures that could be read.

    Attributes:
        labels: The C classes, in the order of the columns.
        truth: (N,) labels.
        predicted: (N,) labels.
        probabilities: (N, C), rows sum to 1.
        groups: (N,) patient, slide or case; None where not known.
        strata: (N,) what else to tell apart; None where there is nothing.
        ordered: The classes from least to most, where they are a scale.
    """

    labels: tuple[str, ...]
    truth: list[str]
    predicted: list[str]
    probabilities: NDArray[np.float64]
    groups: list[str] | None = None
    strata: list[str] | None = None
    ordered: tuple[str, ...] = ()

    def take(self, places: Sequence[int]) -> Answers:
        """Some of them."""

        def some(values: list[str] | None) -> list[str] | None:
            return None if values is None else [values[i] for i in places]

        return Answers(
            self.labels,
            [self.truth[i] for i in places],
            [self.predicted[i] for i in places],
            self.probabilities[list(places)],
            some(self.groups),
            some(self.strata),
            self.ordered,
        )

    def metrics(self, config: Drawn) -> tuple[dict[str, Any], dict[str, Any]]:
        """Every metric and its interval."""
        return classification_metrics(
            self.truth,
            self.predicted,
            self.labels,
            self.probabilities,
            ordered=self.ordered,
            **self._draws(config),
        )

    def _draws(self, config: Drawn) -> dict[str, Any]:
        return {"seed": config.seed, "groups": self.groups, "num_resamples": config.num_resamples}


def scored_report(
    answers: Answers,
    data: LabelledImages,
    good: Sequence[int],
    bad: tuple[BadPicture, ...],
    config: Drawn,
    *,
    leaks: Leaks | None = None,
    **more: Any,
) -> EvaluateReport:
    """Every number that follows from truth, answer and probability.

    Args:
        answers: Of the pictures at ``good``.
        data: All pictures.
        good: Places of those that could be read.
        bad: The others.
        config: Seed and number of draws.
        leaks: Pictures that lie in training data too; the figures are then given without them as well.
        more: Fields of the report that differ from task to task.
    """
    metrics, intervals = answers.metrics(config)
    draws = answers._draws(config)
    truth, predicted = answers.truth, answers.predicted
    hits = [one == other for one, other in zip(truth, predicted, strict=True)]
    curve = reliability(answers.probabilities.max(axis=1), hits, **draws)
    metrics["ece"], intervals["ece"] = curve.ece, curve.interval
    extra = dict(more.pop("extra", {})) | {"reliability": list(curve.rows)}
    if answers.strata is not None:
        extra["strata"] = _by_stratum(answers, config)
    counts = {"total": len(data.pictures), "scored": len(good), "bad": len(bad), "ignored": len(data.ignored)}
    if leaks is not None:
        clean = [place for place, i in enumerate(good) if i not in leaks.places]
        counts["also_in_training"] = len(leaks.places)
        extra["against"] = leaks.to_json()
        if leaks.places and clean:
            without, ends = answers.take(clean).metrics(config)
            extra["against"] |= {"scored_without": len(clean), "metrics": without, "intervals": ends}
    return EvaluateReport(
        dataset=data.name,
        metrics=metrics,
        intervals=intervals,
        baselines=class_baselines(truth, list(answers.labels)),
        counts=counts,
        bad=bad,
        classnames=answers.labels,
        classes=tuple(per_class_metrics(truth, predicted, answers.labels, **draws)),
        confusion=confusion_matrix(truth, predicted, answers.labels),
        mistakes=_mistakes(answers, data, good),
        extra=extra,
        **more,
    )


def _mistakes(answers: Answers, data: LabelledImages, good: Sequence[int]) -> tuple[Mistake, ...]:
    """The wrong answers that were surest, at most two of a kind."""
    best = answers.probabilities.max(axis=1)
    wrong = [i for i, (t, p) in enumerate(zip(answers.truth, answers.predicted, strict=True)) if t != p]
    seen: Counter[tuple[str, str]] = Counter()
    worst = []
    for i in sorted(wrong, key=lambda i: (-best[i], i)):
        kind = (answers.truth[i], answers.predicted[i])
        seen[kind] += 1
        if seen[kind] <= PER_KIND:  # one frequent confusion must not fill the page
            worst.append(i)
    return tuple(
        Mistake(
            picture=data.pictures[good[i]],
            name=data.relative(data.pictures[good[i]]),
            truth=answers.truth[i].replace("_", " "),
            predicted=answers.predicted[i].replace("_", " "),
            note=f"{best[i]:.2f}",
        )
        for i in worst[:NUM_MISTAKES]
    )


def class_baselines(truth: list[str], labels: list[str]) -> dict[str, Any]:
    """What the most frequent class alone, and chance, would score."""
    chance = 1 / len(labels)
    constant = constant_class_baseline(truth, labels)
    return {
        "constant_class": constant,
        "chance": {
            "accuracy": chance,
            "balanced_accuracy": chance,
            "acc1": chance,
            "mean_per_class_recall": chance,
            "auroc": 0.5,
            "auprc": constant["auprc"],
            "mcc": 0.0,
            "kappa": 0.0,
            "quadratic_kappa": 0.0,
            **({"acc5": 5 / len(labels)} if len(labels) >= 5 else {}),
        },
    }


def _by_stratum(answers: Answers, config: Drawn) -> list[dict[str, Any]]:
    """A few figures of each stratum (organ) alone, beside its own constant class."""
    assert answers.strata is not None
    rows = []
    for stratum in sorted(set(answers.strata)):
        own = answers.take([i for i, name in enumerate(answers.strata) if name == stratum])
        metrics, intervals = own.metrics(config)
        constant = constant_class_baseline(own.truth, own.labels)
        rows.append(
            {
                "stratum": stratum,
                "scored": len(own.truth),
                **{name: metrics[name] for name in ("weighted_f1", "balanced_accuracy")},
                "weighted_f1_interval": intervals["weighted_f1"],
                "constant_class_weighted_f1": constant["weighted_f1"],
            }
        )
    return rows
