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
EVERY = slice(None)


def _alone(value: Tensor, op: str) -> Tensor:
    return value


@dataclass(frozen=True, slots=True)
class Problem:
    """What is not differentiated: who matches whom, and how ranks add up.

    Attributes:
        own: int64 (B,), the column of each row's own pair.
        weights: (M,), how many rows of the world own each column.
        first: Row i owns column ``first`` + i and no other row of the world does; None with given targets.
        image_ids: int64 (B, K), or None for ``diagonal``.
        text_ids: int64 (M, K), or None for ``diagonal``.
        positives: What matching pairs do.
        smoothing: Label smoothing in [0, 1).
        total: N.
        precision: How the triton backend multiplies float32: ``tf32`` or ``ieee``.
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
    first: int | None = None
    precision: str = "ieee"
    factor: float = 1.0
    reduce: Callable[[Tensor, str], Tensor] = _alone

    @property
    def shared(self) -> bool:
        """Whether matching pairs are positives."""
        return self.positives == "shared" and self.image_ids is not None

    @property
    def masked(self) -> bool:
        """Whether matching pairs leave the denominators."""
        return self.positives == "masked" and self.image_ids is not None

    @property
    def paired(self) -> bool:
        """Whether every column is owned once: no target was given, and no text is without an image."""
        return self.first is not None and self.total == len(self.weights)

    def own_columns(self, start: int, count: int) -> slice | Tensor:
        """An index: the own columns of some rows."""
        if self.first is None:
            return self.own[start : start + count]
        return slice(self.first + start, self.first + start + count)

    def of_own(self, value: Tensor) -> Tensor:
        """(B, ...) of (M, ...): what each row's own column has."""
        return value[self.own_columns(0, len(self.own))]

    def to_own(self, value: Tensor) -> Tensor:
        """(M,) of (B,): what the owners of each column have, added up."""
        columns = value.new_zeros(len(self.weights))
        if self.first is None:
            return columns.index_put_((self.own,), value, accumulate=True)
        columns[self.first : self.first + len(value)] = value
        return columns

    def owned(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Where each row's own pair lies in a block: (column in the block, clamped; whether it is inside)."""
        own = self.own[rows] - (columns.start or 0)
        width = len(self.weights[columns])
        return own.clamp(0, width - 1), (own >= 0) & (own < width)

    def matching(self, rows: slice = EVERY, columns: slice = EVERY) -> Tensor | None:
        """Which pairs of a block match, bool: any of the K ids agrees, or own. None under ``diagonal``."""
        if self.image_ids is None or self.text_ids is None:
            return None
        image_ids, text_ids = self.image_ids[rows], self.text_ids[columns]
        match = image_ids[:, None, 0] == text_ids[None, :, 0]
        for k in range(1, image_ids.shape[1]):
            match |= image_ids[:, None, k] == text_ids[None, :, k]
        column, inside = self.owned(rows, columns)
        row = torch.arange(len(match), device=match.device)
        match[row, column] |= inside
        return match

    def hidden(self, match: Tensor | None, rows: slice = EVERY, columns: slice = EVERY) -> Tensor | None:
        """Which pairs of a block leave the denominators, bool; overwrites ``match``. None where none do."""
        if match is None or not self.masked:
            return None
        column, inside = self.owned(rows, columns)
        row = torch.arange(len(match), device=match.device)
        match[row, column] &= ~inside
        return match
