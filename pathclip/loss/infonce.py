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
ROWS = {"cpu": 2048}  # rows at a time where a plain torch expression would hold (B, D)
MANY_ROWS = 32768  # elsewhere: few launches


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
        solved = _solve(walks, image, text, scale, problem, shifts, own, keep)
        if not solved.sound:  # asked when all of it is on its way: a GPU goes on while the answer travels
            row_maxima, column_maxima = walks.maxima(image, text, scale, problem)
            column_maxima = problem.reduce(column_maxima, "max").nan_to_num(neginf=0)
            shifts = Shifts(row_maxima, column_maxima)
            solved = _solve(walks, image, text, scale, problem, shifts, own, keep)
        ctx.save_for_backward(image, text, scale, bias, *shifts, *solved.coefficients)
        ctx.problem, ctx.walks, ctx.kept = problem, walks, solved.kept
        return solved.loss

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
    step, parts = ROWS.get(image.device.type, MANY_ROWS), []
    for i in range(0, len(image), step):
        mine = image[i : i + step].to(scale.dtype)
        theirs = text[problem.own_columns(i, len(mine))].to(scale.dtype)
        parts.append(torch.linalg.vecdot(mine, theirs))
    return (parts[0] if len(parts) == 1 else torch.cat(parts)) * scale


def _common_shift(image: Tensor, text: Tensor, scale: Tensor, problem: Problem) -> Tensor:
    lengths = [torch.linalg.vector_norm(x, dim=1, dtype=scale.dtype).amax() for x in (image, text)]
    bound = problem.reduce(scale.abs() * lengths[0] * lengths[1], "max")
    return (bound - HEADROOM).clamp(min=0)


class _Solved(NamedTuple):
    """The loss, what `gradients` wants, and whether no sum that counts overflowed or may have lost terms."""

    loss: Tensor
    coefficients: Coefficients
    kept: Any
    sound: Tensor


def _solve(
    walks: Walks,
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    problem: Problem,
    shifts: Shifts,
    own: Tensor,
    keep: bool,
) -> _Solved:
    rows, columns, kept = walks.sums(image, text, scale, problem, shifts, keep)
    own_rows = (own - shifts.rows).exp()
    own_columns = own_rows if shifts.common else (own - problem.of_own(shifts.columns)).exp()
    columns, owned = (problem.reduce(x, "sum") for x in (columns, problem.to_own(own_columns)))
    sums = Sums(rows, columns, own_rows, own_columns, owned)
    return _Solved(
        _loss(sums, shifts, own, problem), _coefficients(sums, problem), kept, _sound(sums, problem)
    )


def _sound(sums: Sums, problem: Problem) -> Tensor:
    """Whether no sum that counts overflowed or may have been flushed to zero, on any rank."""
    columns = sums.all_columns if problem.paired else sums.all_columns.where(problem.weights > 0, 1.0)
    least, most = torch.cat([sums.all_rows, columns]).aminmax()
    bad = ~((least > TINY) & (most < torch.inf))  # so that NaN is bad too
    return problem.reduce(bad.to(columns.dtype), "max") == 0


def _loss(sums: Sums, shifts: Shifts, own: Tensor, problem: Problem) -> Tensor:
    """Log R - z_own of rows, likewise of columns, plus what the targets differ from the own pair by."""
    even, rows, columns = problem.smoothing, sums.rows, sums.columns
    rest = problem.of_own(columns[0])
    sure_rows, sure_columns = sums.own_rows > rows[0], sums.own_columns > rest
    if not problem.paired:
        sure_columns &= problem.of_own(problem.weights) == 1
    # where the own pair outweighs the rest, what is small stays exact
    row_terms = torch.where(
        sure_rows, (rows[0] / sums.own_rows).log1p(), sums.all_rows.log() + shifts.rows - own
    )
    column_terms = torch.where(
        sure_columns,
        (rest / sums.own_columns).log1p(),
        problem.of_own(sums.all_columns.log() + shifts.columns) - own,
    )
    total = (row_terms + column_terms).sum()
    if problem.shared or even:
        hits = (1 - even) * 2 * own  # a column's target is summed over its owners, each its own
        if problem.shared:
            hits = rows[1] / rows[2] + problem.of_own(columns[1] / columns[2].clamp(min=1))
            hits *= 1 - even
        if even:
            hits += even * (rows[-2] / rows[-1] + problem.of_own(columns[-2] / columns[-1].clamp(min=1)))
        total = total + (2 * own - hits).sum()
    return problem.factor / (2 * problem.total) * total


def _coefficients(sums: Sums, problem: Problem) -> Coefficients:
    even, weights = problem.smoothing, problem.weights
    rows, columns = sums.rows, sums.columns
    by_row, by_column = [sums.all_rows.reciprocal()], [weights / sums.all_columns.clamp(min=TINY)]
    row_target: Tensor | float = 1 - even
    column_target: Tensor | float = 1 - even
    if problem.shared:
        by_row.append((1 - even) / rows[2])
        by_column.append((1 - even) * weights / columns[2].clamp(min=1))
        row_target, column_target = by_row[1], problem.of_own(by_column[1])
    if even:
        by_row.append(even / rows[-1])
        by_column.append(even * weights / columns[-1].clamp(min=1))
        row_target, column_target = row_target + by_row[-1], column_target + problem.of_own(by_column[-1])
    own = (1 - column_target) - problem.of_own(columns[0] * by_column[0])
    if not problem.paired:
        several = sums.own_columns * problem.of_own(by_column[0]) - column_target
        own = own.where(problem.of_own(weights) == 1, several)
    own = (1 - row_target) - rows[0] * by_row[0] + own
    return Coefficients(torch.stack(by_row), torch.stack(by_column), own)
