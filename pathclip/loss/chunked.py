"""The loss in plain torch, a block of logits at a time: O(block) memory beside the gradients, any device.

Blocks span rows and columns, so that a block costs the same whatever the batch. The backward pass computes
the logits again, but for the first blocks, whose exponentials are kept: `KEPT_BYTES` at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pathclip.loss.infonce import LOG2E, Coefficients, Shifts
from pathclip.loss.infonce import infonce as _infonce
from pathclip.loss.problem import Problem

__all__ = ["infonce", "siglip"]

BLOCK = {"cpu": (2048, 4096)}  # rows and columns, 32 MiB in float32; see experiments/002-loss-blocks
WIDE_BLOCK = (4096, 8192)  # elsewhere: 128 MiB, enough work for one kernel
KEPT_BYTES = 64 << 20


def infonce(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem) -> Tensor:
    """Same value and gradients as `pathclip.loss.reference.infonce`; the bias's gradient is zero."""
    return _infonce(image, text, scale, bias, problem, Chunked())


def siglip(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem) -> Tensor:
    """Same value and gradients as `pathclip.loss.reference.siglip`."""
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (image, text, scale, bias))
    return _Siglip.apply(image, text, scale, bias, problem, wanted)


class Chunked:
    """The three walks of `pathclip.loss.infonce`."""

    def sums(
        self, image: Tensor, text: Tensor, scale: Tensor, problem: Problem, shifts: Shifts, keep: bool
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        size = 1 + 2 * problem.shared + 2 * bool(problem.smoothing)
        row_sums, column_sums = image.new_zeros(size, len(image)), image.new_zeros(size, len(text))
        blocks = _Blocks(image, text, scale * LOG2E)
        buffer, kept = blocks.buffer(), []
        budget = KEPT_BYTES // image.element_size() // blocks.size if keep and shifts.common else 0
        for rows, columns, scaled in blocks:
            keeping = len(kept) < budget
            z = blocks.product(scaled, columns, blocks.buffer() if keeping else buffer)
            hidden = _add_hits(z, row_sums, column_sums, problem, rows, columns)
            _leave_out_own(z, problem, rows, columns)
            if shifts.common:
                e = _exponentials(z, shifts.rows, hidden)
                row_sums[0, rows] += e.sum(1)
            else:
                row_sums[0, rows] += _exponentials(z.clone(), shifts.rows[rows, None], hidden).sum(1)
                e = _exponentials(z, shifts.columns[columns], hidden)
            column_sums[0, columns] += e.sum(0)
            if keeping:
                kept.append(e)
        return row_sums, column_sums, kept

    def maxima(self, image: Tensor, text: Tensor, scale: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        row_maxima = image.new_full((len(image),), -torch.inf)
        column_maxima = image.new_full((len(text),), -torch.inf)
        blocks = _Blocks(image, text, scale)
        buffer = blocks.buffer()
        for rows, columns, scaled in blocks:
            z = blocks.product(scaled, columns, buffer)
            hidden = problem.hidden(problem.matching(rows, columns), rows, columns)
            if hidden is not None:
                z.masked_fill_(hidden, -torch.inf)
            row_maxima[rows] = torch.maximum(row_maxima[rows], z.amax(1))
            column_maxima[columns] = torch.maximum(column_maxima[columns], z.amax(0))
        return row_maxima, column_maxima

    def gradients(
        self,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        problem: Problem,
        shifts: Shifts,
        coefficients: Coefficients,
        kept: list[Tensor],
        factor: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        blocks, again = _Blocks(image, text, scale * LOG2E), iter(kept)
        buffer, spare = blocks.buffer(), blocks.buffer()
        gradients = _Gradients(image, text)
        for rows, columns, scaled in blocks:
            match = problem.matching(rows, columns)
            hidden = problem.hidden(match, rows, columns)
            by_row, by_column = coefficients.rows[:, rows, None], coefficients.columns[:, columns]
            e = next(again, None)
            z = blocks.product(scaled, columns, buffer) if e is None else None
            if z is not None:
                _leave_out_own(z, problem, rows, columns)
            if shifts.common:
                e = _exponentials(z, shifts.rows, hidden) if z is not None else e
                g = torch.add(by_row[0], by_column[0], out=spare[: e.numel()].view_as(e)).mul_(e)
            else:
                g = _exponentials(z.clone(), shifts.rows[rows, None], hidden).mul_(by_row[0])
                g.add_(_exponentials(z, shifts.columns[columns], hidden).mul_(by_column[0]))
            _take_targets(g, match, hidden, by_row, by_column, problem)
            _set_own(g, coefficients.own[rows], problem, rows, columns)
            gradients.add(g, rows, columns)
        return gradients.scaled(scale, factor)


class _Blocks:
    """Walks over the logits block by block, in buffers that are used again.

    Args:
        image: (B, D).
        text: (M, D).
        factor: Scalar, what the products are multiplied with.
    """

    def __init__(self, image: Tensor, text: Tensor, factor: Tensor) -> None:
        self.image, self.text, self.factor = image, text, factor
        self.rows, self.columns = BLOCK.get(image.device.type, WIDE_BLOCK)
        self.size = min(self.rows, len(image)) * min(self.columns, len(text))

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows, columns, and the rows' features times the factor."""
        for rows in _cut(len(self.image), self.rows):
            scaled = self.image[rows] * self.factor
            for columns in _cut(len(self.text), self.columns):
                yield rows, columns, scaled

    def buffer(self) -> Tensor:
        return self.image.new_empty(self.size)

    def product(self, scaled: Tensor, columns: slice, buffer: Tensor) -> Tensor:
        """Products <I, T> of a block times the factor, in the buffer."""
        text = self.text[columns]
        out = buffer[: len(scaled) * len(text)].view(len(scaled), len(text))
        return torch.mm(scaled, text.T, out=out)


class _Gradients:
    """Adds up G T and G^T I block by block."""

    def __init__(self, image: Tensor, text: Tensor) -> None:
        self.image, self.text = image, text
        self.d_image, self.d_text = torch.zeros_like(image), torch.zeros_like(text)

    def add(self, g: Tensor, rows: slice, columns: slice) -> None:
        self.d_image[rows].addmm_(g, self.text[columns])
        self.d_text[columns].addmm_(g.T, self.image[rows])

    def scaled(self, scale: Tensor, factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ends the adding up: s factor G T, s factor G^T I, factor <G T, I>."""
        d_scale = factor * torch.dot(self.d_image.view(-1), self.image.view(-1))
        return self.d_image.mul_(factor * scale), self.d_text.mul_(factor * scale), d_scale


def _cut(count: int, step: int) -> list[slice]:
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]


def _exponentials(z: Tensor, shift: Tensor, hidden: Tensor | None) -> Tensor:
    """exp(logits - shift), 0 where hidden; overwrites z, the logits in units of ln 2."""
    if shift.ndim or shift.device.type != "cpu" or shift != 0:  # on a GPU asking costs more than the pass
        z.sub_(shift * LOG2E)
    e = z.exp2_()
    return e if hidden is None else e.masked_fill_(hidden, 0)


def _add_hits(
    z: Tensor, row_sums: Tensor, column_sums: Tensor, problem: Problem, rows: slice, columns: slice
) -> Tensor | None:
    """Adds a block's sums and counts of matching and of visible logits; returns the hidden pairs."""
    match = problem.matching(rows, columns)
    sides = ((row_sums, rows, 1), (column_sums, columns, 0))
    if problem.shared and match is not None:
        hits = z * match
        for sums, part, axis in sides:
            sums[1, part] += hits.sum(axis) / LOG2E
            sums[2, part] += match.sum(axis)
    hidden = problem.hidden(match, rows, columns)
    if problem.smoothing:
        seen = z if hidden is None else z.masked_fill(hidden, 0)
        for sums, part, axis in sides:
            sums[-2, part] += seen.sum(axis) / LOG2E
            sums[-1, part] += z.shape[axis] if hidden is None else (~hidden).sum(axis)
    return hidden


def _leave_out_own(z: Tensor, problem: Problem, rows: slice, columns: slice) -> None:
    _set_own(z, torch.full_like(z[:, 0], -torch.inf), problem, rows, columns)


def _set_own(block: Tensor, values: Tensor, problem: Problem, rows: slice, columns: slice) -> None:
    """Puts a value per row at the row's own pair, where the block holds it."""
    column, inside = problem.owned(rows, columns)
    at = torch.arange(len(block), device=block.device), column
    block[at] = values.where(inside, block[at])


def _take_targets(
    g: Tensor,
    match: Tensor | None,
    hidden: Tensor | None,
    by_row: Tensor,
    by_column: Tensor,
    problem: Problem,
) -> None:
    """Takes the targets of all but own pairs off the softmaxes of a block, in place."""
    if problem.shared and match is not None:
        g.sub_((by_row[1] + by_column[1]).mul_(match))
    if problem.smoothing:
        even = by_row[-1] + by_column[-1]
        g.sub_(even if hidden is None else even.masked_fill_(hidden, 0))


class _Siglip(torch.autograd.Function):
    """The gradient needs no sum over a row or column, so one walk brings it along with the loss."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem, wanted: bool
    ) -> Tensor:
        image, text = image.contiguous(), text.contiguous()
        total, d_bias = image.new_zeros(()), image.new_zeros(())
        gradients, blocks = _Gradients(image, text) if wanted else None, _Blocks(image, text, scale)
        buffer = blocks.buffer()
        for rows, columns, scaled in blocks:
            terms, sign = _signed(blocks.product(scaled, columns, buffer).add_(bias), problem, rows, columns)
            total += F.softplus(terms).sum()
            if gradients is not None:
                g = terms.sigmoid_().mul_(sign)
                d_bias += g.sum()
                gradients.add(g, rows, columns)
        factor = torch.full_like(total, problem.factor / problem.total)
        if gradients is not None:
            ctx.save_for_backward(*gradients.scaled(scale, factor), d_bias * factor)
        return total * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(grad * x for x in ctx.saved_tensors), None, None


def _signed(z: Tensor, problem: Problem, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
    """-y z and -y of a block: +z for negatives, -z for positives, -inf for pairs left out; overwrites z."""
    match = problem.matching(rows, columns)
    sign = torch.ones_like(z)
    if problem.shared and match is not None:
        sign.masked_fill_(match, -1)
    else:
        column, inside = problem.owned(rows, columns)
        sign[torch.arange(len(sign), device=sign.device), column] -= 2 * inside.to(z.dtype)
    hidden = problem.hidden(match, rows, columns)
    z.mul_(sign)
    return (z if hidden is None else z.masked_fill_(hidden, -torch.inf)), sign
