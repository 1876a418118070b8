"""How a text is chosen from a model that says each next token's probability: by beams, or by drawing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Found", "beam_search", "draw"]

NextToken = Callable[[Tensor], Tensor]
Found = list[tuple[list[int], float]]
"""Of each text: its tokens after the first, the end mark included, and the sum of their log-probabilities."""


def beam_search(step: NextToken, count: int, *, beams: int, length: int, start: int, end: int) -> Found:
    """The likeliest texts that ``beams`` candidates at a time lead to; with one beam this is greedy.

    A candidate that has ended keeps its place and its score. At last the one with the highest mean
    log-probability a token wins, so that short texts are not preferred. The same input gives the same text.

    Args:
        step: Tokens so far (count * beams, t), a text's beams side by side -> log-probabilities of the next
            one, float (count * beams, V).
        count: Texts.
        beams: Candidates of each.
        length: Tokens after the first, at most.
        start: Token that every text starts with.
        end: Token that ends one.
    """
    tokens = torch.full((count * beams, 1), start)
    scores = torch.full((count, beams), -torch.inf)
    scores[:, 0] = 0.0  # all beams are alike at first: one goes on
    ended = torch.zeros(count * beams, dtype=torch.bool)
    for _ in range(length):
        nexts = step(tokens).cpu()
        nexts[ended] = -torch.inf
        nexts[ended, end] = 0.0  # nothing more is said, at no cost
        vocabulary = nexts.shape[1]
        totals = (scores[:, :, None] + nexts.view(count, beams, vocabulary)).flatten(1)
        scores, places = totals.topk(beams, dim=1)
        rows = (torch.arange(count)[:, None] * beams + places // vocabulary).flatten()
        tokens = torch.cat([tokens[rows], (places % vocabulary).view(-1, 1)], dim=1)
        ended = ended[rows] | (tokens[:, -1] == end)
        if ended.all():
            break
    return [_best(t, s, end) for t, s in zip(tokens.view(count, beams, -1), scores, strict=True)]


def draw(
    step: NextToken,
    seeds: Sequence[int],
    *,
    top_k: int,
    temperature: float,
    length: int,
    start: int,
    end: int,
) -> Found:
    """One text per seed, each token drawn from the ``top_k`` likeliest.

    A seed's text does not depend on the texts beside it.

    Args:
        step: Tokens so far (B, t) -> log-probabilities of the next one, float (B, V).
        seeds: Of the B texts.
        top_k: Tokens to choose among.
        temperature: Log-probabilities are divided by it before a token is drawn.
        length: As in `beam_search`.
        start: As in `beam_search`.
        end: As in `beam_search`.
    """
    chances = [torch.Generator().manual_seed(seed) for seed in seeds]
    tokens, scores = torch.full((len(seeds), 1), start), torch.zeros(len(seeds))
    ended = torch.zeros(len(seeds), dtype=torch.bool)
    for _ in range(length):
        nexts = step(tokens).cpu()
        best, ids = nexts.topk(min(top_k, nexts.shape[1]), dim=1)
        shares = (best / temperature).softmax(dim=1)
        drawn = [torch.multinomial(s, 1, generator=g) for s, g in zip(shares, chances, strict=True)]
        chosen = ids.gather(1, torch.stack(drawn))[:, 0]
        chosen[ended] = end
        scores += torch.where(ended, 0.0, nexts.gather(1, chosen[:, None])[:, 0])
        tokens = torch.cat([tokens, chosen[:, None]], dim=1)
        ended |= chosen == end
        if ended.all():
            break
    return [(_until(t, end), float(s)) for t, s in zip(tokens, scores, strict=True)]


def _best(candidates: Tensor, scores: Tensor, end: int) -> tuple[list[int], float]:
    found = [(_until(t, end), float(s)) for t, s in zip(candidates, scores, strict=True) if s != -torch.inf]
    return max(found, key=lambda text: text[1] / len(text[0]))


def _until(tokens: Tensor, end: int) -> list[int]:
    text: list[int] = tokens[1:].tolist()
    return text[: text.index(end) + 1] if end in text else text
