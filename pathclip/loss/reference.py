"""The loss as the formula says it: the whole matrix, differentiated by autograd; for reading, comparing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pathclip.loss.problem import Problem

__all__ = ["infonce", "siglip"]


def infonce(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem) -> Tensor:
    """Two-way cross-entropy; see `pathclip.loss.problem` for the formula.

    Args:
        image: (B, D).
        text: (M, D).
        scale: Scalar.
        bias: Scalar; cancels.
        problem: Everything else.
    """
    logits = scale * (image @ text.T) + bias  # (B, M)
    match = problem.matching()
    hidden = problem.hidden(match)
    seen = logits if hidden is None else logits.masked_fill(hidden, -torch.inf)
    visible = torch.ones_like(logits) if hidden is None else (~hidden).to(logits.dtype)
    own = F.one_hot(problem.own, len(text)).to(logits.dtype)
    targets = match.to(logits.dtype) if problem.shared and match is not None else own

    add = lambda column: problem.reduce(column, "sum")  # noqa: E731
    row_lse = seen.logsumexp(1)
    shift = problem.reduce(seen.detach().amax(0), "max").nan_to_num(neginf=0)
    column_lse = add((seen - shift).exp().sum(0)).log() + shift

    even = problem.smoothing
    row_hit = (1 - even) * (targets * logits).sum(1) / targets.sum(1)
    row_hit = row_hit + even * (visible * logits).sum(1) / visible.sum(1)
    column_hit = (1 - even) * add((targets * logits).sum(0)) / add(targets.sum(0)).clamp(min=1)
    column_hit = column_hit + even * add((visible * logits).sum(0)) / add(visible.sum(0)).clamp(min=1)

    columns = (column_lse - column_hit)[problem.own]  # each owned column once per owner
    return problem.factor / (2 * problem.total) * ((row_lse - row_hit).sum() + columns.sum())


def siglip(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem) -> Tensor:
    """Sigmoid loss over all pairs: -1/N sum_ij log sigmoid(y_ij z_ij), y = +1 on positives, else -1.

    Under ``masked`` matching pairs that are not the own one are left out; under ``shared`` they are positive.

    Source: Zhai et al. 2023 (arXiv:2303.15343), eq. 1.
    """
    logits = scale * (image @ text.T) + bias
    match = problem.matching()
    hidden = problem.hidden(match)
    own = F.one_hot(problem.own, len(text)).bool()
    positive = match if problem.shared and match is not None else own
    terms = F.softplus(torch.where(positive, -logits, logits))
    if hidden is not None:
        terms = terms.masked_fill(hidden, 0)
    return problem.factor / problem.total * terms.sum()
