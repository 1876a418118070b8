"""A model of a few thousand weights and configs with a change: what the training tests share."""

from __future__ import annotations

from typing import Any

from pathclip.training import TrainConfig

TINY_MODEL = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
}


def changed(config: TrainConfig, **tables: Any) -> TrainConfig:
    """A copy with some values of some tables changed."""
    values = config.model_dump()
    for name, change in tables.items():
        values[name] = {**values[name], **change} if isinstance(change, dict) else change
    return TrainConfig.model_validate(values)
