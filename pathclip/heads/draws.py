"""Prompts by chance, so that a result does not hang on one lucky wording: MI-Zero's protocol."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pathclip.core.errors import UserError
from pathclip.heads.prompts import Prompts, PromptSet

__all__ = ["draw_prompts"]

TRIES = 1000


def draw_prompts(prompts: Prompts, seed: int) -> Prompts:
    """One name per class and some of the templates, by chance.

    The number of templates is uniform on 1 to all of them; they are taken without replacement. Several sets
    count as one pool: MI-Zero's files of 50 drawn sets give back the pools these were drawn from.

    Args:
        prompts: The pool of names and templates.
        seed: Not negative; equal seeds and pools give equal draws.

    Returns:
        One set with the same labels, in the same order.

    Raises:
        UserError: If classes share names so that no draw gives each class its own.

    Source: Lu et al. 2023, MI-Zero (arXiv:2306.07831), ``presample_prompts.py``.
    """
    rng = np.random.default_rng(seed)
    templates = _once(template for s in prompts.sets for template in s.templates)
    pools = [_once(name for s in prompts.sets for name in s.classnames[label]) for label in prompts.labels]
    for _ in range(TRIES):
        names = [pool[rng.integers(len(pool))] for pool in pools]
        if len(set(names)) == len(names):
            break
    else:
        raise UserError(
            f"prompts {prompts.name}: classes share names, and no draw of one name per class keeps them "
            "apart; give each class a name of its own"
        )
    count = int(rng.integers(1, len(templates) + 1))
    taken = [templates[index] for index in sorted(rng.permutation(len(templates))[:count].tolist())]
    classnames = {label: (name,) for label, name in zip(prompts.labels, names, strict=True)}
    return Prompts((PromptSet(classnames, tuple(taken)),), f"{prompts.name}, draw {seed}")


def _once(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
