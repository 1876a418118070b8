"""The loss in O(chunk x M) memory: rows in chunks, the backward pass recomputes what it needs.

One shift c for the whole matrix makes row and column sums come out of one pass: e = exp(z - c), and column
sums combine over chunks and ranks by plain addition. c = max(0, bound - 60), where bound = s max|I| max|T|,
keeps every sum of up to 1e12 terms under float32's largest number. Where a sum comes out so small that its
terms may have been flushed to zero (unnormalised features), rows and columns are shifted by their own
maxima instead, at the price of a second exponential.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pathclip.loss.problem import Problem

__all__ = ["CHUNK_ELEMENTS", "infonce", "siglip"]

CHUNK_ELEMENTS = 1 << 22  # logits held at once: 16 MiB in float32
HEADROOM = 60.0  # exp(60) * 1e12 terms stays finite in float32
TINY = 1e-30  # a sum below may have lost terms that count: its largest is 69 under the shift


class Sums(NamedTuple):
    """What the forward pass leaves for the backward pass.

    Rows and columns are shifted by ``row_shift`` and ``column_shift``; equal scalars on the fast path.
    ``columns`` is (1 | 3 | 5, M) over all ranks: sums of exponentials; for ``shared`` also sums and counts
    of matching logits; for smoothing also sums and counts of visible ones.
    """

    row_shift: Tensor
    column_shift: Tensor
    rows: Tensor
    columns: Tensor


def infonce(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem) -> Tensor:
    """Same value and gradients as `pathclip.loss.reference.infonce`; the bias's gradient is zero."""
    return _Infonce.apply(image, text, scale, bias, problem)


def siglip(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem) -> Tensor:
    """Same value and gradients as `pathclip.loss.reference.siglip`."""
    return _Siglip.apply(image, text, scale, bias, problem)


def _chunks(num_rows: int, num_columns: int) -> list[slice]:
    step = max(1, CHUNK_ELEMENTS // max(num_columns, 1))
    return [slice(i, min(i + step, num_rows)) for i in range(0, num_rows, step)]


class _Infonce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem
    ) -> Tensor:
        shift = _common_shift(image, text, scale, problem)
        sums, loss = _forward(image, text, scale, problem, shift, shift)
        if not _sound(sums, problem):
            sums, loss = _forward(image, text, scale, problem, *_own_shifts(image, text, scale, problem))
        ctx.save_for_backward(image, text, scale, bias, *sums)
        ctx.problem = problem
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, text, scale, bias, *sums = ctx.saved_tensors
        with torch.autocast(image.device.type, enabled=False):
            d_image, d_text, d_scale = _backward(image, text, scale, ctx.problem, Sums(*sums), grad)
        return d_image, d_text, d_scale, torch.zeros_like(bias), None


def _common_shift(image: Tensor, text: Tensor, scale: Tensor, problem: Problem) -> Tensor:
    lengths = [
        torch.linalg.vector_norm(x, dim=1).amax() if len(x) else x.new_zeros(()) for x in (image, text)
    ]
    bound = problem.reduce(scale.abs() * lengths[0] * lengths[1], "max")
    return (bound - HEADROOM).clamp(min=0)


def _own_shifts(image: Tensor, text: Tensor, scale: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """The largest visible logit of every row and, over all ranks, of every column."""
    rows, columns = image.new_full((len(image),), -torch.inf), image.new_full((len(text),), -torch.inf)
    for chunk in _chunks(len(image), len(text)):
        logits = scale * (image[chunk] @ text.T)
        hidden = problem.hidden(chunk, problem.matching(chunk))
        if hidden is not None:
            logits.masked_fill_(hidden, -torch.inf)
        rows[chunk] = logits.amax(1)
        torch.maximum(columns, logits.amax(0), out=columns)
    return rows, problem.reduce(columns, "max").nan_to_num(neginf=0)


def _sound(sums: Sums, problem: Problem) -> bool:
    columns = sums.columns[0][problem.weights > 0]
    fine = [((x > TINY) & (x < torch.inf)).all() for x in (sums.rows, columns)]
    bad = (~torch.stack(fine)).any().to(sums.columns.dtype)
    return not bool(problem.reduce(bad, "max"))


def _forward(
    image: Tensor, text: Tensor, scale: Tensor, problem: Problem, row_shift: Tensor, column_shift: Tensor
) -> tuple[Sums, Tensor]:
    even = problem.smoothing
    rows, row_hits = image.new_zeros(len(image)), image.new_zeros(len(image))
    own = scale * (image * text[problem.own]).sum(1)
    columns = image.new_zeros(5 if even else 3 if problem.positives == "shared" else 1, len(text))
    for chunk in _chunks(len(image), len(text)):
        logits = (image[chunk] @ text.T).mul_(scale)
        match = problem.matching(chunk)
        hidden = problem.hidden(chunk, match)
        if problem.positives == "shared" and match is not None:
            hits = logits * match
            row_hits[chunk] = (1 - even) * hits.sum(1) / match.sum(1)
            columns[1] += hits.sum(0)
            columns[2] += match.sum(0)
        else:
            row_hits[chunk] = (1 - even) * own[chunk]
        if even:
            visible = torch.ones_like(logits) if hidden is None else (~hidden).to(logits.dtype)
            columns[4] += visible.sum(0)
            row_seen = visible.sum(1)
            row_hits[chunk] += even * visible.mul_(logits).sum(1) / row_seen
            columns[3] += visible.sum(0)
        if hidden is not None:
            logits.masked_fill_(hidden, -torch.inf)
        e, rows[chunk] = _exponentials(logits, row_shift, column_shift, chunk)
        columns[0] += e.sum(0)
    columns = problem.reduce(columns, "sum")
    column_hits = (1 - even) * own  # summed over the owners of a column: its target, once per owner
    if problem.positives == "shared" and problem.image_ids is not None:
        column_hits = (1 - even) * (columns[1] / columns[2].clamp(min=1))[problem.own]
    if even:
        column_hits = column_hits + even * (columns[3] / columns[4].clamp(min=1))[problem.own]
    row_terms = rows.log() + row_shift - row_hits
    column_terms = (columns[0].log() + column_shift)[problem.own] - column_hits
    loss = problem.factor / (2 * problem.total) * (row_terms.sum() + column_terms.sum())
    return Sums(row_shift, column_shift, rows, columns), loss


def _exponentials(
    logits: Tensor, row_shift: Tensor, column_shift: Tensor, chunk: slice
) -> tuple[Tensor, Tensor]:
    """exp(z - column shift) and the row sums of exp(z - row shift); overwrites the logits."""
    if row_shift.ndim == 0:
        e = logits.sub_(row_shift).exp_()
        return e, e.sum(1)
    sums = (logits - row_shift[chunk, None]).exp_().sum(1)
    return logits.sub_(column_shift).exp_(), sums


def _backward(
    image: Tensor, text: Tensor, scale: Tensor, problem: Problem, sums: Sums, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    even, weights, columns = problem.smoothing, problem.weights, sums.columns
    shared = problem.positives == "shared" and problem.image_ids is not None
    per_row, per_column = 1 / sums.rows, weights / columns[0].clamp(min=TINY)
    d_image, d_text = torch.empty_like(image), torch.zeros_like(text)
    for chunk in _chunks(len(image), len(text)):
        logits = (image[chunk] @ text.T).mul_(scale)
        match = problem.matching(chunk)
        hidden = problem.hidden(chunk, match)
        if hidden is not None:
            logits.masked_fill_(hidden, -torch.inf)
        if sums.row_shift.ndim == 0:
            g = logits.sub_(sums.row_shift).exp_().mul_(per_row[chunk, None] + per_column)
        else:
            g = (logits - sums.row_shift[chunk, None]).exp_().mul_(per_row[chunk, None])
            g.add_(logits.sub_(sums.column_shift).exp_().mul_(per_column))
        if shared and match is not None:
            share = 1 / match.sum(1, keepdim=True).to(g.dtype) + weights / columns[2].clamp(min=1)
            g.sub_(share.mul_(match), alpha=1 - even)
        else:
            g[torch.arange(len(g), device=g.device), problem.own[chunk]] -= 2 * (1 - even)
        if even:
            visible = torch.ones_like(g) if hidden is None else (~hidden).to(g.dtype)
            seen = 1 / visible.sum(1, keepdim=True) + weights / columns[4].clamp(min=1)
            g.sub_(visible.mul_(seen), alpha=even)
        torch.mm(g, text, out=d_image[chunk])
        d_text.addmm_(g.T, image[chunk])
    factor = grad * (problem.factor / (2 * problem.total))
    d_scale = factor * (d_image * image).sum()
    return d_image.mul_(factor * scale), d_text.mul_(factor * scale), d_scale


class _Siglip(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem
    ) -> Tensor:
        total = image.new_zeros(())
        for chunk in _chunks(len(image), len(text)):
            terms, _ = _signed(image, text, scale, bias, problem, chunk)
            total += F.softplus(terms).sum()
        ctx.save_for_backward(image, text, scale, bias)
        ctx.problem = problem
        return total * (problem.factor / problem.total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, text, scale, bias = ctx.saved_tensors
        problem: Problem = ctx.problem
        d_image, d_text, d_bias = torch.empty_like(image), torch.zeros_like(text), torch.zeros_like(bias)
        with torch.autocast(image.device.type, enabled=False):
            for chunk in _chunks(len(image), len(text)):
                terms, sign = _signed(image, text, scale, bias, problem, chunk)
                g = terms.sigmoid_().mul_(sign)
                torch.mm(g, text, out=d_image[chunk])
                d_text.addmm_(g.T, image[chunk])
                d_bias += g.sum()
        factor = grad * (problem.factor / problem.total)
        d_scale = factor * (d_image * image).sum()
        return d_image.mul_(factor * scale), d_text.mul_(factor * scale), d_scale, d_bias * factor, None


def _signed(
    image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem, chunk: slice
) -> tuple[Tensor, Tensor]:
    """-y z and -y of a chunk: +z for negatives, -z for positives, -inf for pairs left out."""
    logits = (image[chunk] @ text.T).mul_(scale).add_(bias)
    match = problem.matching(chunk)
    hidden = problem.hidden(chunk, match)
    sign = torch.ones_like(logits)
    if problem.positives == "shared" and match is not None:
        sign.masked_fill_(match, -1)
    sign[torch.arange(len(sign), device=sign.device), problem.own[chunk]] = -1
    logits.mul_(sign)
    return (logits if hidden is None else logits.masked_fill_(hidden, -torch.inf)), sign
