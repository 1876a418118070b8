"""All choices of a training run, one frozen model per part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from pathclip.batches import BatchConfig
from pathclip.core.config import Config
from pathclip.loss import LossConfig
from pathclip.shards.urls import is_listed

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "OptimConfig",
    "ProbeSet",
    "RetrievalSet",
    "ScheduleConfig",
    "TrainConfig",
    "WatchConfig",
    "ZeroShotSet",
]


def _listed(value: Any) -> Any:
    """One or several; what lists shards or is a url stays text, for a path drops one of two slashes."""
    values = (value,) if isinstance(value, str | Path) else value
    if not isinstance(values, list | tuple):
        return values
    return tuple(v if not isinstance(v, str) or is_listed(v) or "://" in v else Path(v) for v in values)


class DataConfig(Config):
    """What to train on."""

    dataset: Annotated[tuple[Path | str, ...], BeforeValidator(_listed)] = Field(
        (),
        description="dataset folder(s) of `pathclip ingest`, urls of published ones, or webdataset tars",
    )
    stream_shards: int | None = Field(
        None,
        ge=1,
        description="stream: shuffle the samples of so many shards of each dataset at a time, and have only "
        "those and as many ahead here; unset: all is fetched first and shuffled as one",
    )
    split: str = Field("train", description="the split to train on")
    weights: tuple[PositiveFloat, ...] = Field(
        (),
        description="passes over each dataset within a pass over all: 2 takes every sample twice, 0.5 every "
        "second time; unset: 1 each",
    )


class ModelConfig(Config):
    """What to train."""

    name: str = Field(
        "tiny-vit-112", description="a shipped config, an open_clip model name, or a JSON config"
    )
    init: str | None = Field(
        None, description="start from these weights (anything `pathclip.load` reads); `name` is not used then"
    )
    lock_image: bool = Field(False, description="leave the image tower as it is (LiT)")
    lock_text: bool = Field(False, description="leave the text tower as it is")
    image_cache: Path | None = Field(
        None,
        description="folder for what a locked image tower gives: computed once for each view of a picture "
        "(batch.views, or no augmentation), read from then on, by later runs too",
    )

    @model_validator(mode="after")
    def _locked(self) -> Self:
        if self.image_cache and not self.lock_image:
            raise ValueError(
                "image_cache keeps what a locked image tower gives: set lock_image = true, or leave it unset"
            )
        return self


class OptimConfig(Config):
    """AdamW; no weight decay on biases, norms and the scale."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW's two decay rates")
    eps: float = Field(1e-6, gt=0, description="AdamW's epsilon")
    weight_decay: float = Field(0.1, ge=0, description="on matrices only")
    grad_clip: float | None = Field(
        None, gt=0, description="largest norm of the gradient; unset: no clipping"
    )
    max_norm_ratio: float | None = Field(
        None, gt=1, description="skip a step whose gradient norm is this many times the recent median"
    )
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="each block below a tower's output learns at this share of the next one's",
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of a running average of the weights, judged and exported instead"
    )


class ScheduleConfig(Config):
    """How long, and the learning rate on the way: linear warmup, then down to ``min_lr``."""

    kind: Literal["cosine", "constant", "cooldown"] = Field(
        "cosine", description="half a cosine, no decay at all, or constant with a straight line at the end"
    )

    steps: int | None = Field(None, ge=1, description="steps to take; this or epochs")
    epochs: float | None = Field(None, gt=0, description="passes over the data; this or steps")
    warmup_steps: int | None = Field(None, ge=0, description="unset: a twentieth of the run")
    min_lr: float = Field(0.0, ge=0, description="learning rate at the end")
    cooldown: float = Field(0.2, gt=0, le=1, description="share of the run that the line of `cooldown` takes")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("set steps or epochs, not both")
        return self

    def total_steps(self, count: int, batch_size: int) -> int:
        """Steps of the run over ``count`` samples; ten passes where neither steps nor epochs is set."""
        if self.steps is not None:
            return self.steps
        return max(1, -(-round(count * (self.epochs or 10.0)) // batch_size))


class ZeroShotSet(Config):
    """Pictures in one subfolder per class, classified by prompts."""

    data: Path = Field(description="folder with one subfolder per class")
    classes: str | None = Field(
        None, description="prompt file or shipped set; unset: prompts, else the folders' names"
    )
    limit: int | None = Field(None, ge=1, description="pictures per class at most")


class RetrievalSet(Config):
    """Pairs of a dataset's split, found by each other."""

    dataset: Path | None = Field(None, description="dataset folder; unset: the first of data.dataset")
    split: str = Field("val", description="the split")
    limit: int | None = Field(None, ge=2, description="pairs at most")


class ProbeSet(Config):
    """Two folders with the same classes: a linear probe of the picture features learns from one."""

    train: Path = Field(description="folder with one subfolder per class, to learn from")
    test: Path = Field(description="likewise, to be judged on")
    limit: int | None = Field(None, ge=1, description="pictures per class at most")


class EvalConfig(Config):
    """What is measured while training, under names of the user's choice."""

    every_steps: int = Field(0, ge=0, description="0: at the end only")
    early_stop: str | None = Field(
        None,
        description='set and metric, for example "tiles.balanced_accuracy": end when it stops rising, and '
        "export the weights that were best by it",
    )
    patience: int = Field(3, ge=1, description="evaluations without a better one before the run ends")
    zeroshot: dict[str, ZeroShotSet] = Field(default_factory=dict)
    retrieval: dict[str, RetrievalSet] = Field(default_factory=dict)
    probe: dict[str, ProbeSet] = Field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all sets."""
        return (*self.zeroshot, *self.retrieval, *self.probe)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"sets of two kinds have one name, and one would hide the other: {twice[0]}")
        return self


class CheckpointConfig(Config):
    """When to save; also at the end and on SIGTERM."""

    every_steps: int = Field(1000, ge=0, description="0: not by steps")
    every_minutes: float = Field(10.0, ge=0, description="0: not by time")
    keep: int = Field(2, ge=1, description="newest checkpoints to keep")


class WatchConfig(Config):
    """What is written about the run."""

    every_steps: int = Field(1, ge=1, description="a row of metrics.jsonl every so many steps")
    tensorboard: bool = Field(False, description="also write tensorboard/ (extra: tracking)")
    wandb: str | None = Field(
        None, description="also tell Weights & Biases, under this project (extra: tracking)"
    )


class TrainConfig(Config):
    """A training run."""

    out: Path | None = Field(None, description="the run folder; must not hold a run yet")
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    batch: BatchConfig = Field(default_factory=BatchConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    caption_loss_weight: float | None = Field(
        None,
        ge=0,
        description="with a decoder (CoCa): loss = contrastive + this x caption, in nats per token; "
        "unset: 2; 0 leaves the decoder as it is",
    )
    optim: OptimConfig = Field(default_factory=OptimConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    watch: WatchConfig = Field(default_factory=WatchConfig)
    prompts: str | None = Field(None, description="prompt file or shipped set that goes with the model")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of the towers; weights stay float32"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    seed: int = Field(0, ge=0, description="of weights, order, captions, augmentation and dropout")
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp", description="with several ranks: each has the whole model, or a slice of it (FSDP2)"
    )
    compile: bool = Field(False, description="have torch compile the towers; not to the bit")
    threads: int | None = Field(None, ge=1, description="torch's threads on the CPU; unset: as they are")
    deterministic: bool | None = Field(None, description="same bits every time; unset: on the CPU")
    low_memory: Literal["refuse", "warn"] = Field(
        "refuse", description="where the memory estimate is clearly above what the machine has; CPU only"
    )
    max_bad_steps: int = Field(10, ge=0, description="steps in a row without a finite loss before giving up")
    accumulation: int = Field(
        1,
        ge=1,
        description="pieces the towers take a batch in; the loss still sees it whole (gradient caching)",
    )
    grad_checkpointing: bool = Field(
        False, description="recompute activations instead of keeping them: a third slower, far less memory"
    )

    @model_validator(mode="after")
    def _recurring(self) -> Self:
        if self.model.image_cache and self.batch.num_views is None:
            raise ValueError(
                "model.image_cache: every pass augments each picture anew, no feature is met again: set "
                "batch.views, or switch batch.augment off (min_scale = 1, max_aspect = 1, flips = false, "
                "quarter_turns = false, stain = 0, stain_shift = 0)"
            )
        if self.model.image_cache and self.data.stream_shards is not None:
            raise ValueError(
                "model.image_cache reads every picture before the first step, and data.stream_shards keeps "
                "only a window of them here: leave one of the two unset"
            )
        if self.model.image_cache and self.batch.decode == "gpu":
            raise ValueError(
                'model.image_cache decodes each picture once, on the CPU: set batch.decode = "cpu"'
            )
        return self
