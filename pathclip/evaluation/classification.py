"""Zero-shot classification of labelled pictures."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pathclip.core.errors import FaultError
from pathclip.encoders import BadPicture, DualEncoder
from pathclip.evaluation.config import EvaluateConfig
from pathclip.evaluation.datasets import LabelledImages
from pathclip.evaluation.prompts import match_classes
from pathclip.evaluation.report import EvaluateReport, Mistake
from pathclip.heads import (
    Prompts,
    ZeroShotResult,
    classification_metrics,
    classify,
    confusion_matrix,
    constant_class_baseline,
    per_class_metrics,
)

__all__ = ["class_baselines", "evaluate_classification"]

NUM_MISTAKES = 15
PER_KIND = 2


def evaluate_classification(
    model: DualEncoder, data: LabelledImages, prompts: Prompts, config: EvaluateConfig
) -> EvaluateReport:
    """Classify every picture by the prompts and count.

    Raises:
        FaultError: If no picture can be read, or the model gives features that are not finite.
        UserError: If prompts and data name different classes.
    """
    to_prompt = match_classes(data.labels, prompts, data.name)
    result = classify(model, list(data.paths), prompts, batch_size=config.batch_size, progress=True)
    bad = tuple(BadPicture(b.index, data.relative(data.paths[b.index]), b.reason) for b in result.bad)
    failed = {item.index for item in bad}
    good = [i for i in range(len(data.paths)) if i not in failed]
    _check(data, result, good, bad)
    labels = list(prompts.labels)
    truth = [to_prompt[data.truth[i]] for i in good]
    predicted = [str(result.labels[i]) for i in good]
    groups = None if data.groups is None else [data.groups[i] for i in good]
    draws = {"seed": config.seed, "groups": groups, "num_resamples": config.num_resamples}
    metrics, intervals = classification_metrics(
        truth, predicted, labels, result.probabilities[good].numpy(), **draws
    )
    confusion = confusion_matrix(truth, predicted, labels)
    return EvaluateReport(
        dataset=data.name,
        task="zeroshot_classification",
        metrics=metrics,
        intervals=intervals,
        baselines=class_baselines(truth, labels),
        counts={
            "total": len(data.paths),
            "scored": len(good),
            "bad": len(bad),
            "ignored": len(data.ignored),
        },
        bad=bad,
        provenance=_provenance(result, data, config),
        classnames=prompts.labels,
        templates=tuple(dict.fromkeys(t for s in prompts.sets for t in s.templates)),
        classes=tuple(per_class_metrics(truth, predicted, labels, **draws)),
        confusion=confusion,
        predictions=_predictions(result, data, to_prompt),
        mistakes=_mistakes(result, data, to_prompt, good),
    )


def _check(
    data: LabelledImages, result: ZeroShotResult, good: list[int], bad: tuple[BadPicture, ...]
) -> None:
    if not good:
        raise FaultError(
            f"{data.root}: none of {len(data.paths)} pictures could be read; "
            f"the first is {bad[0].name}: {bad[0].reason}"
        )
    broken = (~result.scores[good].isfinite().all(dim=1)).nonzero().flatten().tolist()
    if broken:
        first = data.relative(data.paths[good[broken[0]]])
        raise FaultError(
            f"the model gives features that are not finite for {len(broken)} of {len(good)} pictures "
            f"(first {first}); its weights are damaged, or beyond its precision (try --set precision=fp32)"
        )


def class_baselines(truth: list[str], labels: list[str]) -> dict[str, Any]:
    """What the most frequent class alone, and chance, would score."""
    chance = 1 / len(labels)
    return {
        "constant_class": constant_class_baseline(truth, labels),
        "chance": {
            "accuracy": chance,
            "balanced_accuracy": chance,
            "acc1": chance,
            "mean_per_class_recall": chance,
            "auroc": 0.5,
            "mcc": 0.0,
            "kappa": 0.0,
            **({"acc5": 5 / len(labels)} if len(labels) >= 5 else {}),
        },
    }


def _provenance(result: ZeroShotResult, data: LabelledImages, config: EvaluateConfig) -> dict[str, Any]:
    return {
        **result.provenance,
        "data": {
            "path": str(data.root),
            "split": data.split,
            "sha256": data.fingerprint(),
            "benchmark": config.benchmark,
        },
        "seed": config.seed,
        "num_resamples": config.num_resamples,
        "resampled": "pictures" if data.groups is None else f"{len(set(data.groups))} groups",
    }


def _predictions(result: ZeroShotResult, data: LabelledImages, to_prompt: dict[str, str]) -> Any:
    import polars as pl

    table = result.table().with_columns(
        pl.Series("image", [data.relative(path) for path in data.paths], dtype=pl.String)
    )
    table.insert_column(1, pl.Series("truth", [to_prompt[label] for label in data.truth], dtype=pl.String))
    if data.groups is not None:
        table.insert_column(2, pl.Series("group", list(data.groups), dtype=pl.String))
    return table


def _mistakes(
    result: ZeroShotResult, data: LabelledImages, to_prompt: dict[str, str], good: list[int]
) -> tuple[Mistake, ...]:
    best = result.probabilities.max(dim=1).values.numpy()
    wrong = [i for i in good if result.labels[i] != to_prompt[data.truth[i]]]
    seen: Counter[tuple[str, str | None]] = Counter()
    worst = []
    for i in sorted(wrong, key=lambda i: (-best[i], i)):
        kind = (data.truth[i], result.labels[i])
        seen[kind] += 1
        if seen[kind] <= PER_KIND:  # one frequent confusion must not fill the page
            worst.append(i)
    return tuple(
        Mistake(
            picture=data.paths[i],
            name=data.relative(data.paths[i]),
            truth=to_prompt[data.truth[i]].replace("_", " "),
            predicted=str(result.labels[i]).replace("_", " "),
            note=f"{best[i]:.2f}",
        )
        for i in worst[:NUM_MISTAKES]
    )
