"""`evaluate`: a model on a benchmark, in these lines."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, load
from pathclip.evaluation.benchmarks import Benchmark, benchmarks
from pathclip.evaluation.classification import evaluate_classification
from pathclip.evaluation.config import EvaluateConfig
from pathclip.evaluation.datasets import CaptionedImages, LabelledImages
from pathclip.evaluation.leaks import leaks_of
from pathclip.evaluation.mcq import Questions, evaluate_mcq
from pathclip.evaluation.multilabel import evaluate_multilabel
from pathclip.evaluation.neighbours import evaluate_neighbours
from pathclip.evaluation.prompts import match_classes, prompts_for
from pathclip.evaluation.protocol import as_plip_resized
from pathclip.evaluation.report import EvaluateReport
from pathclip.evaluation.retrieval import evaluate_retrieval
from pathclip.evaluation.wds import MultiLabelImages

__all__ = ["chosen_model", "evaluate"]


def evaluate(config: EvaluateConfig, *, model: DualEncoder | None = None) -> EvaluateReport:
    """Score a model and write result.json, predictions, the confusion matrix and a page to look at.

    Data and classes are checked before the model is loaded. Pictures that cannot be read are named in the
    result, counted and left out.

    Args:
        config: What to do.
        model: Used instead of loading ``config.model``.

    Raises:
        UserError: If the data, classes, benchmark or model are not as expected.
        FaultError: If no picture can be read, or features are not finite.
    """
    benchmark = benchmarks[config.benchmark]
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"out {config.out} is a file; expected a folder for the results")
    data = benchmark.read(config.data, config.split, config.protocol)
    if config.protocol == "plip-compat" and isinstance(data, LabelledImages):
        data = as_plip_resized(data)
    report = _scored(config, benchmark, data, model)
    report.provenance["benchmark_status"] = benchmark.status
    return report.save(config.out)


def _scored(
    config: EvaluateConfig, benchmark: Benchmark, data: Any, model: DualEncoder | None
) -> EvaluateReport:
    """Whatever the data ask: classes, several classes, captions, or other pictures of the class."""
    if isinstance(data, Questions):
        if config.classes is not None or config.against is not None:
            raise UserError("multiple choice has no use for classes or against; leave them out")
        return evaluate_mcq(chosen_model(config, model), data, config)
    captioned = isinstance(data, CaptionedImages)
    if captioned or benchmark.task == "image_retrieval":
        if config.classes is not None:
            raise UserError("classes are given, but retrieval has no use for them; leave --classes out")
        leaks = leaks_of(data, config.against)
        score = evaluate_retrieval if captioned else evaluate_neighbours
        return score(chosen_model(config, model), data, config, leaks)
    default = benchmark.plip_prompts if config.protocol == "plip-compat" else benchmark.prompts
    prompts = prompts_for(config, data, default)
    match_classes(data.labels, prompts, data.name)
    leaks = leaks_of(data, config.against)
    loaded = chosen_model(config, model)
    if isinstance(data, MultiLabelImages):
        return evaluate_multilabel(loaded, data, prompts, config, leaks)
    return evaluate_classification(loaded, data, prompts, config, benchmark.ordered, leaks)


class Asked(Protocol):
    """The part of a config that names a model."""

    @property
    def model(self) -> str | None:
        """Hub name, folder or checkpoint."""

    @property
    def device(self) -> str:
        """``auto`` takes a GPU if there is one."""

    @property
    def precision(self) -> Literal["fp32", "bf16", "fp16"]:
        """Of the towers."""


def chosen_model(config: Asked, model: DualEncoder | None) -> DualEncoder:
    """The model that was handed over, else the one that the config names.

    Raises:
        UserError: If there is neither, or it cannot be loaded.
    """
    if model is not None:
        return model
    if config.model is None:
        raise UserError("no model: set `model` to a hub name, a folder or a checkpoint file")
    return load(config.model, device=_device(config.device), precision=config.precision)


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
