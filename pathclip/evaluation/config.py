"""What an evaluation is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pathclip.core.config import Config
from pathclip.evaluation.protocol import ProtocolName

__all__ = ["EvaluateConfig"]


class EvaluateConfig(Config):
    """One model on one benchmark.

    Attributes:
        model: Hub name, folder or checkpoint, as `pathclip.load` takes it; not needed where the model itself
            is handed to `evaluate`.
        benchmark: ``folder`` (one subfolder per class), ``csv`` (path, label[, split, group]), ``retrieval``
            (a dataset folder of `pathclip ingest`), ``wds`` (clip_benchmark's), or a published set by name.
        data: Where the benchmark lies.
        protocol: ``corrected``, or ``plip-compat``: PLIP's splits, prompts, crops and averaging.
        split: Subfolder, CSV value or split of the dataset to score; ``test`` where there is one.
        classes: Class file, shipped prompt set, list or dict; names of the folders where not given.
        templates: Sentences with ``{}`` to use instead of those of the class file or the default ones, or
            the name of a shipped template set.
        strategy: ``ensemble`` of all prompts, ``single`` (the first name in the first template), or
            ``screening``: the combinations that fit the pictures best, by no label.
        prompt_draws: Also draw the prompts by chance so many times, for the median (MI-Zero: 50).
        against: Training data (a dataset, shards or pictures); what lies in both is counted, and the figures
            are given without it too.
        out: Folder for result.json, predictions.parquet, the confusion matrix and the page.
        batch_size: Pictures per pass.
        cache: Folder to keep features in and to find them again, by weights, transform and content.
        device: ``auto`` takes a GPU if there is one.
        precision: Of the towers.
        ks: Cut-offs of recall.
        seed: Of the bootstrap.
        num_resamples: Bootstrap draws behind each interval.
    """

    model: str | None = None
    benchmark: str = "folder"
    data: Path
    split: str | None = None
    classes: str | Path | list[str] | dict[str, str | list[str]] | None = None
    templates: str | tuple[str, ...] | None = None
    strategy: Literal["ensemble", "single", "screening"] = "ensemble"
    prompt_draws: int = Field(0, ge=0)
    protocol: ProtocolName = "corrected"
    against: Path | None = None
    out: Path
    batch_size: int = Field(64, ge=1)
    cache: Path | None = None
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ks: tuple[int, ...] = (1, 5, 10, 50)
    seed: int = Field(0, ge=0)
    num_resamples: int = Field(1000, ge=1)

    @field_validator("ks")
    @classmethod
    def _cutoffs(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if not ks or min(ks) < 1:
            raise ValueError("expected whole numbers from 1 on, for example [1, 10]")
        return tuple(sorted(set(ks)))
