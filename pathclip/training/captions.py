"""The captioning part of the objective: its weight, and what it is a mean over."""

from __future__ import annotations

import torch
from torch import Tensor

from pathclip.batches import Batch
from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder
from pathclip.encoders.coca import count_targets
from pathclip.training.config import TrainConfig
from pathclip.training.world import World

__all__ = ["CAPTION_LOSS_WEIGHT", "caption_loss_weight", "targets_per_rank"]

CAPTION_LOSS_WEIGHT = 2.0  # open_clip's default, and that of Yu et al. 2022 (arXiv:2205.01917)


def caption_loss_weight(config: TrainConfig, model: DualEncoder) -> float:
    """What the caption loss is multiplied by; 0 where there is none.

    Raises:
        UserError: If a weight is set for a model without a decoder.
    """
    weight = config.caption_loss_weight
    if model.has_decoder:
        return CAPTION_LOSS_WEIGHT if weight is None else weight
    if weight is not None:
        raise UserError(
            f"caption_loss_weight is set, but {model.name} has no decoder: take model.name = "
            '"tiny-coca-112" or another CoCa model, or leave it unset'
        )
    return 0.0


def targets_per_rank(model: DualEncoder, batch: Batch, world: World) -> Tensor:
    """Tokens that the decoder is asked for, mean over ranks, at least 1.

    A rank's nats over this number have, as their mean over ranks, the mean per token of the whole batch:
    however the captions' lengths fall on the ranks, the loss is that of one process.
    """
    own = count_targets(model.clip, batch.tokens).to(world.device, torch.float32)
    return world.mean(own).clamp(min=1)
