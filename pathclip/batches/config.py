"""What a batch is made of."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pathclip.core.config import Config

__all__ = ["AugmentConfig", "BatchConfig"]


class AugmentConfig(Config):
    """Changes that keep a diagnosis. All at their zero (or off) gives the plain centre crop."""

    recipe: Literal["tissue", "plip"] = Field(
        "tissue",
        description="ours, of the values below, or PLIP's own: a 224 px crop of 512 px, mirrored, sheared, "
        "in perspective",
    )
    min_scale: float = Field(0.6, gt=0, le=1, description="smallest area of the crop; 1 takes the whole")
    max_aspect: float = Field(1.15, ge=1, description="largest ratio of the crop's sides")
    flips: bool = Field(True, description="mirror at random")
    quarter_turns: bool = Field(True, description="turn by 0, 90, 180 or 270 degrees at random")
    stain: float = Field(0.15, ge=0, lt=1, description="scale each stain by a factor in 1 +- this")
    stain_shift: float = Field(
        0.01, ge=0, lt=1, description="add up to +- this optical density to each stain"
    )

    restain: float = Field(
        0.0, ge=0, le=1, description="share of pictures that get the colours of another staining at random"
    )

    @model_validator(mode="after")
    def _one_recipe(self) -> Self:
        changed = [
            name
            for name, field in type(self).model_fields.items()
            if name != "recipe" and getattr(self, name) != field.default
        ]
        if self.recipe == "plip" and changed:
            raise ValueError(f'recipe = "plip" is fixed: it takes no {", ".join(changed)}')
        return self

    @classmethod
    def off(cls) -> AugmentConfig:
        """No change but the centre crop and the resize."""
        return cls(min_scale=1, max_aspect=1, flips=False, quarter_turns=False, stain=0, stain_shift=0)


class BatchConfig(Config):
    """How samples become batches."""

    size: int = Field(64, ge=1, description="samples per step, over all ranks together")
    captions: Literal["any", "first"] = Field("any", description="draw any caption of a sample, or its first")
    workers: int | None = Field(
        None,
        ge=0,
        description="that decode ahead; 0 decodes in the training thread; unset: two, for a GPU as many as "
        "there are cores for it, at most 16",
    )
    processes: bool | None = Field(
        None, description="workers are processes instead of threads; unset: where a GPU is to be fed"
    )
    decode: Literal["cpu", "gpu"] = Field(
        "cpu",
        description="where JPEGs are decoded, cut and augmented: by the workers, or by nvJPEG on the GPU, "
        "with pixels of its own",
    )
    prefetch: int = Field(2, ge=1, description="batches prepared ahead")
    views: int | None = Field(
        None,
        ge=1,
        description="different augmentations of a picture, which passes take in turn; unset: a new one each "
        "pass",
    )
    augment: AugmentConfig = Field(default_factory=AugmentConfig)

    @model_validator(mode="after")
    def _known_on_the_gpu(self) -> Self:
        if self.decode == "gpu" and self.augment.recipe == "plip":
            raise ValueError('decode = "gpu" knows no augment.recipe = "plip": set decode = "cpu"')
        return self

    @property
    def num_views(self) -> int | None:
        """Different pictures that a sample gives; None where there is no end of them."""
        return 1 if self.augment == AugmentConfig.off() else self.views
