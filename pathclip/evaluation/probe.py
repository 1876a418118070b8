"""`probe`: how well picture features tell classes apart once a linear classifier may learn from them."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from pathclip.core.config import Config
from pathclip.core.errors import UserError
from pathclip.core.files import sha256_file
from pathclip.encoders import BadPicture, DualEncoder
from pathclip.evaluation.benchmarks import benchmarks
from pathclip.evaluation.datasets import LabelledImages, read_csv, read_folder
from pathclip.evaluation.encoded import Encoded, encode_labelled
from pathclip.evaluation.leaks import Leaks, leaks_of
from pathclip.evaluation.plip_probe import plip_probe
from pathclip.evaluation.protocol import ProtocolName, as_plip_resized, protocol_record
from pathclip.evaluation.report import EvaluateReport
from pathclip.evaluation.run import chosen_model
from pathclip.evaluation.scored import Answers, scored_report
from pathclip.heads import LinearProbe, balanced_accuracy, few_shot_draws, fit_probe

__all__ = ["ProbeConfig", "probe"]

log = logging.getLogger("pathclip")


class ProbeConfig(Config):
    """One model, a set to learn from and one to be judged on."""

    model: str | None = Field(None, description="hub name, folder or checkpoint, as `pathclip.load` takes it")
    train: Path = Field(description="folder per class (of its split `train`), or a CSV of path,label")
    test: Path = Field(description="likewise (of its split `test`)")
    benchmark: str | None = Field(None, description="read both as this published set, for example kather")
    protocol: ProtocolName = Field(
        "corrected", description="or plip-compat: splits, crops, SGD, choice on test"
    )
    against: Path | None = Field(None, description="training data of the model, to look test pictures up in")
    out: Path = Field(description="gets result.json, report.html, probe.safetensors and the rest")
    features: Literal["projected", "pooled"] = Field(
        "projected", description="of the shared space, or of the tower before its projection"
    )
    c: float | None = Field(
        None, gt=0, description="inverse strength of the penalty; unset: by folds of the training set"
    )
    shots: tuple[int, ...] = Field(
        (), description="also learn from so many pictures per class, for example [1, 2, 4, 8, 16]"
    )
    draws: int = Field(10, ge=1, description="random draws of each number of shots")
    batch_size: int = Field(64, ge=1)
    cache: Path | None = Field(None, description="folder to keep features in and to find them again")
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = Field(0, ge=0, description="of folds, draws and bootstrap")
    num_resamples: int = Field(1000, ge=1, description="bootstrap draws behind each interval")

    @field_validator("shots")
    @classmethod
    def _numbers(cls, shots: tuple[int, ...]) -> tuple[int, ...]:
        if shots and min(shots) < 1:
            raise ValueError("expected whole numbers from 1 on, for example [1, 4, 16]")
        return tuple(sorted(set(shots)))


def probe(config: ProbeConfig, *, model: DualEncoder | None = None) -> EvaluateReport:
    """Fit a linear probe on one set and score it on another; write the files of `evaluate` and the probe.

    Everything is chosen on the training set. Test pictures whose bytes are also among the training pictures
    are scored, counted and warned of.

    Args:
        config: What to do.
        model: Used instead of loading ``config.model``.

    Raises:
        UserError: If data or model are not as expected, or the test set has a class that training lacks.
        FaultError: If no picture of a set can be read.
    """
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"out {config.out} is a file; expected a folder for the results")
    train, test = _read(config.train, "train", config), _read(config.test, "test", config)
    unknown = sorted(set(test.labels) - set(train.labels))
    if unknown:
        raise UserError(
            f"{test.root} has classes that {train.root} lacks: {', '.join(unknown)}; name the folders alike"
        )
    for shots in config.shots:
        few_shot_draws(train.truth, shots, 0)
    leaks = leaks_of(test, config.against)
    model = chosen_model(config, model)
    seen, seen_labels, learnt = _features(model, train, config)
    rows, truth, asked = _features(model, test, config)
    compat: dict[str, Any] = {}
    if config.protocol == "plip-compat":
        fitted, compat["plip_probe"] = plip_probe(seen, seen_labels, rows, truth)
    else:
        fitted = fit_probe(seen, seen_labels, c=config.c, seed=config.seed, device=_fitted_on(model))
    report = _report(fitted, test, rows, truth, asked, config, leaks)
    report.extra.update(compat)
    report.counts.pop("also_in_training", None)  # here it means the probe's own training pictures
    if (common := _also_in_training(train, test)) is not None:
        report.counts["also_in_training"] = common
    report.provenance.update(model.provenance() | _provenance(train, test, config))
    report.extra["probe"] = {
        "c": fitted.c,
        "features": config.features,
        "training_pictures": dict(sorted(Counter(seen_labels).items())),
        "training_bad": [{"name": item.name, "reason": item.reason} for item in learnt.bad],
    }
    report.extra["few_shot"] = _few_shot(seen, seen_labels, rows, truth, config)
    report.files["probe"] = fitted.save(config.out / "probe.safetensors")
    return report.save(config.out)


def _fitted_on(model: DualEncoder) -> str:
    """The device of the fit: the model's GPU where it has one (NVIDIA; others lack float64), else the CPU."""
    return str(model.device) if model.device.type == "cuda" else "cpu"


def _read(data: Path, split: str, config: ProbeConfig) -> LabelledImages:
    if config.benchmark is not None:
        found = benchmarks[config.benchmark].read(data, split, config.protocol)
        if not isinstance(found, LabelledImages):
            raise UserError(f"benchmark {config.benchmark!r} has no class per picture; a probe needs one")
    else:
        found = _read_plain(data, split)
    return as_plip_resized(found) if config.protocol == "plip-compat" else found


def _read_plain(data: Path, split: str) -> LabelledImages:
    if data.is_file():
        import polars as pl

        columns = pl.read_csv(data, n_rows=0).columns if data.suffix.lower() == ".csv" else []
        return read_csv(data, split if "split" in columns else None)
    return read_folder(data, split)


def _features(
    model: DualEncoder, data: LabelledImages, config: ProbeConfig
) -> tuple[NDArray[np.float64], list[str], Encoded]:
    """Unit features of the pictures that can be read, their labels, and what became of all."""
    seen = encode_labelled(model, data, config, features=config.features)
    return seen.rows.double().numpy(), [data.truth[i] for i in seen.good], seen


def _report(
    fitted: LinearProbe,
    test: LabelledImages,
    rows: NDArray[np.float64],
    truth: list[str],
    asked: Encoded,
    config: ProbeConfig,
    leaks: Leaks | None,
) -> EvaluateReport:
    probabilities = fitted.probabilities(rows)
    answers = Answers(
        labels=fitted.classes,
        truth=truth,
        predicted=fitted.predict(rows),
        probabilities=probabilities,
        groups=None if test.groups is None else [test.groups[i] for i in asked.good],
        strata=None if test.strata is None else [test.strata[i] for i in asked.good],
    )
    report = scored_report(
        answers,
        test,
        asked.good,
        asked.bad,
        config,
        leaks=leaks,
        task="linear_probe",
        provenance={},
        predictions=_predictions(fitted, test, asked.good, asked.bad, probabilities),
    )
    for name in ("acc1", "acc5", "mean_per_class_recall"):
        report.metrics[f"lp_{name}"] = report.metrics[name]  # clip_benchmark's names
    return report


def _predictions(
    fitted: LinearProbe,
    test: LabelledImages,
    good: list[int],
    bad: tuple[BadPicture, ...],
    probabilities: NDArray[np.float64],
) -> Any:
    """A row per picture, null where it could not be read."""
    import polars as pl

    table = np.full((len(test.pictures), len(fitted.classes)), np.nan)
    table[good] = probabilities
    reasons = {item.index: item.reason for item in bad}
    best = [None if i in reasons else fitted.classes[table[i].argmax()] for i in range(len(table))]
    columns: dict[str, Any] = {
        "image": [test.relative(path) for path in test.pictures],
        "truth": list(test.truth),
        **({} if test.groups is None else {"group": list(test.groups)}),
        "label": pl.Series(best, dtype=pl.String),
        "probability": table.max(axis=1),
        "reason": pl.Series([reasons.get(i) for i in range(len(table))], dtype=pl.String),
        **{f"prob_{label}": table[:, c] for c, label in enumerate(fitted.classes)},
    }
    return pl.DataFrame(columns).with_columns(pl.selectors.float().cast(pl.Float32).fill_nan(None))


def _also_in_training(train: LabelledImages, test: LabelledImages) -> int | None:
    """Test pictures whose bytes are also a training picture's; None where they are no files of their own."""
    learnt, asked = (
        [getattr(picture, "picture", picture) for picture in data.pictures] for data in (train, test)
    )
    if not all(isinstance(picture, Path) for picture in (*learnt, *asked)):
        return None
    sizes = {path: path.stat().st_size for path in (*learnt, *asked) if path.is_file()}
    shared = {sizes[p] for p in learnt if p in sizes} & {sizes[p] for p in asked if p in sizes}
    known = {sha256_file(path) for path in learnt if sizes.get(path) in shared}
    same = [path for path in asked if sizes.get(path) in shared and sha256_file(path) in known]
    if same:
        log.warning(
            "%d of %d test pictures are also training pictures, the first %s: the figures are too good",
            len(same),
            len(test.pictures),
            test.relative(same[0]),
        )
    return len(same)


def _few_shot(
    seen: NDArray[np.float64],
    seen_labels: list[str],
    rows: NDArray[np.float64],
    truth: list[str],
    config: ProbeConfig,
) -> list[dict[str, Any]]:
    """Balanced accuracy by shots: mean, and the 2.5th and 97.5th percentile over the draws."""
    curve = []
    for shots in config.shots:
        values = []
        for chosen in few_shot_draws(seen_labels, shots, config.draws, config.seed):
            labels = [seen_labels[i] for i in chosen]
            c = config.c or seen.shape[1] * len(set(labels)) / 100
            values.append(balanced_accuracy(truth, fit_probe(seen[chosen], labels, c=c).predict(rows)))
        low, high = np.percentile(values, [2.5, 97.5])
        curve.append(
            {
                "shots": shots,
                "draws": config.draws,
                "balanced_accuracy": float(np.mean(values)),
                "interval": [float(low), float(high)],
            }
        )
    return curve


def _provenance(train: LabelledImages, test: LabelledImages, config: ProbeConfig) -> dict[str, Any]:
    compat = config.protocol == "plip-compat"
    quirks = (*test.quirks, "probe_alpha_on_test", "probe_macro_called_wf1")
    sets = {name: data.provenance(config.benchmark) for name, data in (("train", train), ("test", test))}
    return {
        "data": sets,
        "features": config.features,
        "normalized": True,
        "classifier": "SGD on the log loss, L2, classes weighted evenly"
        if compat
        else "logistic regression, L2, classes weighted evenly",
        "protocol": {
            **protocol_record(config.protocol, quirks if compat else (), test.how),
            **({"headline": "macro_f1"} if compat else {}),
        },
        "seed": config.seed,
        "num_resamples": config.num_resamples,
        "resampled": "pictures" if test.groups is None else f"{len(set(test.groups))} groups",
    }
