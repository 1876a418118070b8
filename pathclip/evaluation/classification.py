"""Zero-shot classification of labelled pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pathclip.core.errors import FaultError
from pathclip.encoders import BadPicture, DualEncoder
from pathclip.evaluation.config import EvaluateConfig
from pathclip.evaluation.datasets import LabelledImages
from pathclip.evaluation.leaks import Leaks
from pathclip.evaluation.prompts import match_classes
from pathclip.evaluation.protocol import protocol_record
from pathclip.evaluation.report import EvaluateReport
from pathclip.evaluation.scored import Answers, scored_report
from pathclip.heads import Prompts, ZeroShotResult, balanced_accuracy, classify, drawn_classifiers

__all__ = ["evaluate_classification"]


def evaluate_classification(
    model: DualEncoder,
    data: LabelledImages,
    prompts: Prompts,
    config: EvaluateConfig,
    ordered: Sequence[str] = (),
    leaks: Leaks | None = None,
) -> EvaluateReport:
    """Classify every picture by the prompts and count.

    Args:
        model: Encodes pictures and prompts.
        data: Pictures and their classes.
        prompts: Of the same classes.
        config: Batch size, bootstrap, protocol.
        ordered: The data's classes from least to most, where they are a scale.
        leaks: Pictures that lie in training data too.

    Raises:
        FaultError: If no picture can be read, or the model gives features that are not finite.
        UserError: If prompts and data name different classes.
    """
    to_prompt = match_classes(data.labels, prompts, data.name)
    pictures = list(data.pictures)
    result = classify(
        model,
        pictures,
        prompts,
        batch_size=config.batch_size,
        progress=True,
        cache=config.cache,
        strategy=config.strategy,
    )
    bad = tuple(BadPicture(b.index, data.relative(data.pictures[b.index]), b.reason) for b in result.bad)
    failed = {item.index for item in bad}
    good = [i for i in range(len(data.pictures)) if i not in failed]
    _check(data, result, good, bad)
    answers = Answers(
        labels=prompts.labels,
        truth=[to_prompt[data.truth[i]] for i in good],
        predicted=[str(result.labels[i]) for i in good],
        probabilities=result.probabilities[good].double().numpy(),
        groups=None if data.groups is None else [data.groups[i] for i in good],
        strata=None if data.strata is None else [data.strata[i] for i in good],
        ordered=tuple(to_prompt[label] for label in ordered),
    )
    return scored_report(
        answers,
        data,
        good,
        bad,
        config,
        leaks=leaks,
        task="zeroshot_classification",
        provenance=_provenance(result, data, config, prompts),
        templates=tuple(dict.fromkeys(t for s in prompts.sets for t in s.templates)),
        predictions=_predictions(result, data, to_prompt),
        extra=_draws(model, prompts, result, answers.truth, good, config),
    )


def _draws(
    model: DualEncoder,
    prompts: Prompts,
    result: ZeroShotResult,
    truth: list[str],
    good: list[int],
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Balanced accuracy over prompts drawn by chance: its median, and the middle 95 % of the draws."""
    if not config.prompt_draws:
        return {}
    assert result.features is not None
    values = []
    for classifier in drawn_classifiers(model, prompts, config.prompt_draws, seed=config.seed):
        best = (result.features[good] @ classifier).argmax(dim=1).tolist()
        values.append(balanced_accuracy(truth, [prompts.labels[i] for i in best]))
    low, median, high = np.percentile(values, [2.5, 50, 97.5]).tolist()
    found = {"median": median, "low": low, "high": high, "least": min(values), "most": max(values)}
    return {"prompt_draws": {"draws": config.prompt_draws, "seed": config.seed, "balanced_accuracy": found}}


def _check(
    data: LabelledImages, result: ZeroShotResult, good: list[int], bad: tuple[BadPicture, ...]
) -> None:
    if not good:
        raise FaultError(
            f"{data.root}: none of {len(data.pictures)} pictures could be read; "
            f"the first is {bad[0].name}: {bad[0].reason}"
        )
    broken = (~result.scores[good].isfinite().all(dim=1)).nonzero().flatten().tolist()
    if broken:
        first = data.relative(data.pictures[good[broken[0]]])
        raise FaultError(
            f"the model gives features that are not finite for {len(broken)} of {len(good)} pictures "
            f"(first {first}); its weights are damaged, or beyond its precision (try --set precision=fp32)"
        )


def _provenance(
    result: ZeroShotResult, data: LabelledImages, config: EvaluateConfig, prompts: Prompts
) -> dict[str, Any]:
    compat = config.protocol == "plip-compat"
    alone = all(
        len(s.templates) == len(s.texts(label)) == 1 for s in prompts.sets for label in prompts.labels
    )
    quirks = (*data.quirks, *(["one_prompt"] if alone else []), "weighted_f1") if compat else ()
    return {
        **result.provenance,
        "data": data.provenance(config.benchmark),
        "protocol": protocol_record(config.protocol, quirks, data.how),
        "seed": config.seed,
        "num_resamples": config.num_resamples,
        "resampled": "pictures" if data.groups is None else f"{len(set(data.groups))} groups",
    }


def _predictions(result: ZeroShotResult, data: LabelledImages, to_prompt: dict[str, str]) -> Any:
    import polars as pl

    table = result.table().with_columns(
        pl.Series("image", [data.relative(path) for path in data.pictures], dtype=pl.String)
    )
    table.insert_column(1, pl.Series("truth", [to_prompt[label] for label in data.truth], dtype=pl.String))
    if data.groups is not None:
        table.insert_column(2, pl.Series("group", list(data.groups), dtype=pl.String))
    return table
