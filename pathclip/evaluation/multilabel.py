"""Pictures with several classes each: average precision by class, as clip_benchmark asks."""

from __future__ import annotations

from typing import Any

import numpy as np

from pathclip.encoders import DualEncoder
from pathclip.evaluation.config import EvaluateConfig
from pathclip.evaluation.encoded import encode_labelled
from pathclip.evaluation.leaks import Leaks
from pathclip.evaluation.prompts import match_classes
from pathclip.evaluation.protocol import protocol_record
from pathclip.evaluation.report import EvaluateReport
from pathclip.evaluation.wds import MultiLabelImages
from pathclip.heads import Prompts, build_classifier
from pathclip.heads._bootstrap import draw_weights, percentiles
from pathclip.heads._ranking import mean_defined, one_class_auprc, one_class_auroc

__all__ = ["evaluate_multilabel"]


def evaluate_multilabel(
    model: DualEncoder,
    data: MultiLabelImages,
    prompts: Prompts,
    config: EvaluateConfig,
    leaks: Leaks | None = None,
) -> EvaluateReport:
    """Rank the pictures by each class's cosine; a class without a picture, or in every one, leaves the means.

    Raises:
        FaultError: If no picture can be read, or features are not finite.
        UserError: If prompts and data name different classes.
    """
    to_prompt = match_classes(data.labels, prompts, data.name)
    seen = encode_labelled(model, data, config)
    columns = [prompts.labels.index(to_prompt[label]) for label in data.classnames]
    scores = (seen.rows @ build_classifier(model, prompts))[:, columns].double().numpy()
    targets = data.targets[seen.good]
    metrics, intervals, rows = _figures(scores, targets, data.classnames, config)
    shares = targets.mean(axis=0)
    return EvaluateReport(
        dataset=data.name,
        task="zeroshot_multilabel",
        metrics=metrics,
        intervals=intervals,
        baselines={"chance": {"mean_average_precision": float(shares[shares > 0].mean()), "auroc": 0.5}},
        counts={
            "total": len(data.pictures),
            "scored": len(seen.good),
            "bad": len(seen.bad),
            "ignored": 0,
            **({} if leaks is None else {"also_in_training": len(leaks.places)}),
        },
        bad=seen.bad,
        provenance={
            **model.provenance(),
            "prompts": {**prompts.to_dict(), "sha256": prompts.sha256},
            "data": {"path": str(data.root), "split": data.split, "benchmark": config.benchmark},
            "protocol": {**protocol_record(config.protocol, ()), "headline": "mean_average_precision"},
            "seed": config.seed,
            "num_resamples": config.num_resamples,
        },
        classnames=data.classnames,
        templates=tuple(dict.fromkeys(t for s in prompts.sets for t in s.templates)),
        extra={"labels": rows, **({} if leaks is None else {"against": leaks.to_json()})},
    )


def _figures(
    scores: np.ndarray, targets: np.ndarray, names: tuple[str, ...], config: EvaluateConfig
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    areas = {"mean_average_precision": one_class_auprc, "auroc": one_class_auroc}
    metrics, intervals = {}, {}
    by_class: dict[str, np.ndarray] = {}
    for name, area in areas.items():

        def each(weights: np.ndarray, area: Any = area) -> np.ndarray:
            return np.stack([area(targets[:, c], scores[:, c], weights) for c in range(len(names))], axis=-1)

        by_class[name] = each(np.ones((1, len(scores))))[0]
        whole = mean_defined(by_class[name])
        metrics[name] = None if np.isnan(whole) else float(whole)
        draws = draw_weights(len(scores), config.seed, config.num_resamples)
        intervals[name] = percentiles(np.concatenate([mean_defined(each(weights)) for weights in draws]))
    rows = [
        {
            "label": name,
            "support": int(targets[:, c].sum()),
            "average_precision": _number(by_class["mean_average_precision"][c]),
            "auroc": _number(by_class["auroc"][c]),
        }
        for c, name in enumerate(names)
    ]
    return metrics, intervals, rows


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
