"""Infonce in one pass over the logits forward and one backward, whichever backend walks over them.

One shift c for the whole matrix makes row and column sums come out of one pass: e = exp(z - c), and column
sums combine over blocks and ranks by plain addition. c = max(0, bound - 60), where bound = s max|I| max|T|,
keeps every sum of up to 1e12 terms under float32's largest number. Where a sum comes out so small that its
terms may have been flushed to zero (unnormalised features), rows and columns are shifted by their own
maxima instead, at the price of a second exponential.

The gradient by z_ij, times 2N, is

    G_ij = V_ij e_ij (1/R_i + w_j/C_j) - (1 - even) targets - even V_ij (1/n_i + w_j/n_j)

with n the visible pairs of a row or column. A backend brings three walks: sums, maxima and gradients.

A row's own pair is left out of every sum and added here, from its logit alone. Where a model is sure,
e/R - 1 would lose all its digits; the rest of the row over the whole of it, which is the same, loses none.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pathclip.loss.problem import Problem

__all__ = ["LOG2E", "Coefficients", "Shifts", "Walks", "infonce"]

LOG2E = 1.4426950408889634  # exponentials are taken to the base 2: cheaper on every device
HEADROOM = 60.0  # exp(60) * 1e12 terms stays finite in float32
TINY = 1e-30  # a sum below may have lost terms that count: its largest is 69 under the shift
ROWS = 2048  # rows at a time where a plain torch expression would hold (B, D)


class Shifts(NamedTuple):
    """What is taken off the logits before exp: two equal scalars, or (B,) and (M,)."""

    rows: Tensor
    columns: Tensor

    @property
    def common(self) -> bool:
        """Whether one shift holds for the whole matrix."""
        return self.rows.ndim == 0


class Sums(NamedTuple):
    """Slots of rows and columns as `Walks` names them, and e of the own pairs, (B,), by either shift.

    ``own_columns`` are those of this rank's rows; ``owned`` (M,) their sum per column, over all ranks.
    """

    rows: Tensor
    columns: Tensor
    own_rows: Tensor
    own_columns: Tensor
    owned: Tensor

    @property
    def all_rows(self) -> Tensor:
        """R, (B,)."""
        return self.rows[0] + self.own_rows

    @property
    def all_columns(self) -> Tensor:
        """C, (M,)."""
        return self.columns[0] + self.owned


class Coefficients(NamedTuple):
    """What G is made of, (1 | 2 | 3, B) and (1 | 2 | 3, M), and its entries at own pairs, (B,).

    First the factors of e; for ``shared`` what a matching pair loses; for smoothing what a visible one loses.
    """

    rows: Tensor
    columns: Tensor
    own: Tensor


class Walks(Protocol):
    """A backend: three walks over the logits. Sums are (1 | 3 | 5, B) and (1 | 3 | 5, M).

    First the sums of exponentials but those of own pairs; for ``shared`` sums and counts of matching logits;
    for smoothing sums and counts of visible ones. Those of the columns are this rank's.
    """

    def sums(
        self, image: Tensor, text: Tensor, scale: Tensor, problem: Problem, shifts: Shifts, keep: bool
    ) -> tuple[Tensor, Tensor, Any]:
        """Sums of rows and columns, and what `gradients` may use again where ``keep``."""

    def maxima(self, image: Tensor, text: Tensor, scale: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """The largest visible logit of every row and column."""

    def gradients(
        self,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        problem: Problem,
        shifts: Shifts,
        coefficients: Coefficients,
        kept: Any,
        factor: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """d_image and d_text, s factor (G T, G^T I), and d_scale, factor <G T, I>."""


def infonce(
    image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem, walks: Walks
) -> Tensor:
    """Same value and gradients as `pathclip.loss.reference.infonce`; the bias's gradient is zero."""
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (image, text, scale))
    return _Infonce.apply(image, text, scale, bias, problem, walks, keep)


class _Infonce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        bias: Tensor,
        problem: Problem,
        walks: Walks,
        keep: bool,
    ) -> Tensor:
        image, text = image.contiguous(), text.contiguous()
        own = _own_logits(image, text, scale, problem)
        shift = _common_shift(image, text, scale, problem)
        shifts = Shifts(shift, shift)
        sums, ctx.kept = _all_sums(walks, image, text, scale, problem, shifts, own, keep)
        if not _sound(sums, problem):
            row_maxima, column_maxima = walks.maxima(image, text, scale, problem)
            column_maxima = problem.reduce(column_maxima, "max").nan_to_num(neginf=0)
            shifts = Shifts(row_maxima, column_maxima)
            sums, ctx.kept = _all_sums(walks, image, text, scale, problem, shifts, own, keep)
        ctx.save_for_backward(image, text, scale, bias, *shifts, *_coefficients(sums, problem))
        ctx.problem, ctx.walks = problem, walks
        return _loss(sums, shifts, own, problem)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, text, scale, bias, *rest = ctx.saved_tensors
        shifts, coefficients = Shifts(*rest[:2]), Coefficients(*rest[2:])
        factor = grad * (ctx.problem.factor / (2 * ctx.problem.total))
        with torch.autocast(image.device.type, enabled=False):
            d_image, d_text, d_scale = ctx.walks.gradients(
                image, text, scale, ctx.problem, shifts, coefficients, ctx.kept, factor
            )
        return d_image, d_text, d_scale, torch.zeros_like(bias), None, None, None


def _own_logits(image: Tensor, text: Tensor, scale: Tensor, problem: Problem) -> Tensor:
    """(B,) the logit of each row's own pair, in the scale's dtype."""
    parts = [
        (image[i : i + ROWS].to(scale.dtype) * text[problem.own[i : i + ROWS]]).sum(1)
        for i in range(0, len(image), ROWS)
    ]
    return torch.cat(parts) * scale


def _common_shift(image: Tensor, text: Tensor, scale: Tensor, problem: Problem) -> Tensor:
    lengths = [torch.linalg.vector_norm(x, dim=1, dtype=scale.dtype).amax() for x in (image, text)]
    bound = problem.reduce(scale.abs() * lengths[0] * lengths[1], "max")
    return (bound - HEADROOM).clamp(min=0)


def _all_sums(
    walks: Walks,
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    problem: Problem,
    shifts: Shifts,
    own: Tensor,
    keep: bool,
) -> tuple[Sums, Any]:
    """Sums of rows, of columns over all ranks, and what the walk kept."""
    rows, columns, kept = walks.sums(image, text, scale, problem, shifts, keep)
    own_rows = (own - shifts.rows).exp()
    own_columns = (own - (shifts.columns if shifts.common else shifts.columns[problem.own])).exp()
    owned = torch.zeros_like(columns[0]).index_put_((problem.own,), own_columns, accumulate=True)
    columns = problem.reduce(torch.cat([columns, owned[None]]), "sum")
    return Sums(rows, columns[:-1], own_rows, own_columns, columns[-1]), kept


def _sound(sums: Sums, problem: Problem) -> bool:
    """Whether no sum that counts overflowed or may have been flushed to zero, on any rank."""
    columns = sums.all_columns.where(problem.weights > 0, 1.0)
    fine = [((x > TINY) & (x < torch.inf)).all() for x in (sums.all_rows, columns)]
    bad = (~torch.stack(fine)).any().to(columns.dtype)
    return not bool(problem.reduce(bad, "max"))


def _loss(sums: Sums, shifts: Shifts, own: Tensor, problem: Problem) -> Tensor:
    even, mine = problem.smoothing, problem.own
    rows, columns = sums.rows, sums.columns
    row_hits = column_hits = (1 - even) * own  # a column's target is summed over its owners, each its own
    if problem.shared:
        row_hits = (1 - even) * rows[1] / rows[2]
        column_hits = ((1 - even) * columns[1] / columns[2].clamp(min=1))[mine]
    if even:
        row_hits = row_hits + even * rows[-2] / rows[-1]
        column_hits = column_hits + (even * columns[-2] / columns[-1].clamp(min=1))[mine]
    # log R - z_own: where the own pair outweighs the rest, what is small stays exact
    row_terms = torch.where(
        sums.own_rows > rows[0],
        (rows[0] / sums.own_rows).log1p(),
        sums.all_rows.log() + shifts.rows - own,
    )
    column_terms = torch.where(
        (problem.weights[mine] == 1) & (sums.own_columns > columns[0][mine]),
        (columns[0][mine] / sums.own_columns).log1p(),
        (sums.all_columns.log() + shifts.columns)[mine] - own,
    )
    total = (row_terms + (own - row_hits)).sum() + (column_terms + (own - column_hits)).sum()
    return problem.factor / (2 * problem.total) * total


def _coefficients(sums: Sums, problem: Problem) -> Coefficients:
    even, mine, weights = problem.smoothing, problem.own, problem.weights
    rows, columns = sums.rows, sums.columns
    by_row, by_column = [1 / sums.all_rows], [weights / sums.all_columns.clamp(min=TINY)]
    row_target = column_target = torch.full_like(by_row[0], 1 - even)
    if problem.shared:
        by_row.append((1 - even) / rows[2])
        by_column.append((1 - even) * weights / columns[2].clamp(min=1))
        row_target, column_target = by_row[1], by_column[1][mine]
    if even:
        by_row.append(even / rows[-1])
        by_column.append(even * weights / columns[-1].clamp(min=1))
        row_target, column_target = row_target + by_row[-1], column_target + by_column[-1][mine]
    own = (1 - row_target) - rows[0] * by_row[0]
    own += torch.where(
        weights[mine] == 1,
        (1 - column_target) - (columns[0] * by_column[0])[mine],
        sums.own_columns * by_column[0][mine] - column_target,
    )
    return Coefficients(torch.stack(by_row), torch.stack(by_column), own)
