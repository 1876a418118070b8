"""The one statement of the contrastive problem that every backend solves.

Letters: B images of this rank, M texts (the whole world's, where there is one), N images of the whole world,
D width, K ids per sample.

Infonce, with z_ij = s <I_i, T_j> + b, own(i) the column of row i, w_j the rows that own column j:

    loss = 1/2N sum_i [log R_i - sum_j Yr_ij z_ij]  +  1/2N sum_j w_j [log C_j - sum_i Yc_ij z_ij]
    R_i = sum_j V_ij exp z_ij        C_j = sum_i V_ij exp z_ij

V (visible) is 1 except, under ``masked``, for matching pairs that are not the own one. Yr and Yc are the own
pair (``diagonal``, ``masked``) or 1/|P| on each matching pair (``shared``), mixed with label smoothing's
uniform share of the visible pairs. The bias cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Kind", "Positives", "Problem"]

Kind = Literal["infonce", "siglip"]
Positives = Literal["diagonal", "masked", "shared"]


def _alone(value: Tensor, op: str) -> Tensor:
    return value


@dataclass(frozen=True, slots=True)
class Problem:
    """What is not differentiated: who matches whom, and how ranks add up.

    Attributes:
        own: int64 (B,), the column of each row's own pair.
        weights: (M,), how many rows of the world own each column.
        image_ids: int64 (B, K), or None for ``diagonal``.
        text_ids: int64 (M, K), or None for ``diagonal``.
        positives: What matching pairs do.
        smoothing: Label smoothing in [0, 1).
        total: N.
        factor: The rank's result is its share of the world's loss times this; W, so that the mean over ranks
            (what DDP takes of gradients) is exact.
        reduce: (tensor, "sum" | "max") -> the same reduced over ranks.
    """

    own: Tensor
    weights: Tensor
    image_ids: Tensor | None
    text_ids: Tensor | None
    positives: Positives
    smoothing: float
    total: int
    factor: float = 1.0
    reduce: Callable[[Tensor, str], Tensor] = _alone

    def matching(self, rows: slice) -> Tensor | None:
        """Bool (rows, M): any of the K ids agrees, or own. None under ``diagonal``."""
        if self.image_ids is None or self.text_ids is None:
            return None
        image_ids, text_ids = self.image_ids[rows], self.text_ids
        match = image_ids[:, None, 0] == text_ids[None, :, 0]
        for k in range(1, image_ids.shape[1]):
            match |= image_ids[:, None, k] == text_ids[None, :, k]
        own = self.own[rows]
        match[torch.arange(len(own), device=own.device), own] = True
        return match

    def hidden(self, rows: slice, match: Tensor | None) -> Tensor | None:
        """Bool (rows, M): pairs that leave the denominators. None where none does."""
        if match is None or self.positives != "masked":
            return None
        own = self.own[rows]
        hidden = match.clone()
        hidden[torch.arange(len(own), device=own.device), own] = False
        return hidden
