"""MI-Zero's protocol: many draws of prompts, so that a slide's label does not hang on one wording.

Legend: N tiles, D features, P draws, C classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pathclip.core.errors import UserError
from pathclip.slides.config import SlideConfig
from pathclip.slides.features import SlideFeatures, read_features
from pathclip.slides.identity import check_model, model_sha256
from pathclip.slides.pool import score_tiles
from pathclip.slides.smoothing import smooth_scores
from pathclip.slides.summary import pool, summarise

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder
    from pathclip.heads import Prompts

__all__ = ["draw_classifiers", "draw_metrics", "draw_winners", "judge_draws"]

BLOCK = 2**24  # numbers scored at once


def draw_classifiers(model: DualEncoder, prompts: Prompts, draws: int | Literal["sets"]) -> np.ndarray:
    """(P, D, C) float32, a classifier for each of the draws.

    Args:
        model: Encodes every text once, however many draws hold it.
        prompts: The pool of names and templates.
        draws: P, with the seeds 0 to P - 1; ``"sets"`` takes each set of the prompts as one draw.

    Raises:
        UserError: If there is but one set to take.
    """
    from pathclip.heads import Prompts, draw_prompts
    from pathclip.heads.zeroshot import prompt_set_classifiers

    if draws == "sets" and len(prompts.sets) < 2:
        raise UserError(
            f"draws = 'sets': prompts {prompts.name} hold one set; give a number of draws, or a file of sets"
        )
    drawn = prompts.sets
    if draws != "sets":
        drawn = tuple(draw_prompts(prompts, seed).sets[0] for seed in range(draws))
    return np.asarray(prompt_set_classifiers(model, Prompts(drawn)))


def draw_winners(
    features: SlideFeatures, classifiers: np.ndarray, config: SlideConfig, background: Sequence[int] = ()
) -> dict[str, list[int]]:
    """Label one slide once per draw.

    Args:
        features: The encoded slide.
        classifiers: (P, D, C), from `draw_classifiers`.
        config: Smoothing and the K.
        background: Columns that cannot be the label.

    Returns:
        For ``"1"``, ``"5"``, ... of every K, ``"mean"`` and ``"fraction"`` the column of the best class per
        draw; nothing for a slide without tiles.
    """
    draws, dim, classes = classifiers.shape
    found: dict[str, list[int]] = defaultdict(list)
    if not len(features.xy):
        return {}
    step = max(1, BLOCK // (len(features.xy) * classes))
    for start in range(0, draws, step):
        part = classifiers[start : start + step]
        columns = part.transpose(1, 0, 2).reshape(dim, -1)
        scores = smooth_scores(score_tiles(features.features, columns), features.xy, config.smooth)
        for one in np.split(scores, len(part), axis=1):
            pooled = pool(summarise(one, one.argmax(axis=1), max(config.top_k)), config.top_k)
            for key, winner in pooled.winners(background).items():
                found[key].append(winner)
    return dict(found)


def judge_draws(
    model: DualEncoder,
    slides: Sequence[SlideFeatures | str | Path],
    truth: Sequence[str],
    classes: Any,
    *,
    draws: int | Literal["sets"] = 50,
    config: SlideConfig | None = None,
) -> dict[str, Any]:
    """How good a model is on slides whatever the wording: MI-Zero's protocol, from cached features.

    Args:
        model: The model that made the features.
        slides: (S,) encoded slides, or their h5 files, which are read one after the other.
        truth: (S,) the known label of each.
        classes: The pool of names and templates: whatever `load_prompts` takes.
        draws: P, with the seeds 0 to P - 1; ``"sets"`` takes each set of the prompts by itself.
        config: Smoothing, the K and ``background``.

    Returns:
        As `draw_metrics`.

    Raises:
        UserError: If a label is no class, a slide has no tiles, or features are another model's.
    """
    from pathclip.heads import load_prompts

    prompts, config, sha = load_prompts(classes), config or SlideConfig(), model_sha256(model)
    labels = prompts.labels
    if strange := sorted(set(truth) - set(labels)):
        raise UserError(f"label {strange[0]!r} is no class; the classes are: {', '.join(labels)}")
    classifiers, background = draw_classifiers(model, prompts, draws), config.background_columns(labels)
    found = []
    for slide in slides:
        features = slide if isinstance(slide, SlideFeatures) else read_features(slide)
        check_model(features, model, sha)
        if not (winners := draw_winners(features, classifiers, config, background)):
            raise UserError(f"{features.path} has no tiles, so it cannot be judged")
        found.append(winners)
    return draw_metrics(truth, found, labels)


def draw_metrics(
    truth: Sequence[str], winners: Sequence[dict[str, list[int]]], labels: Sequence[str]
) -> dict[str, Any]:
    """Balanced accuracy of every draw, and over the draws its median with quartiles.

    Args:
        truth: (S,) known label of each slide.
        winners: (S,) what `draw_winners` found.
        labels: The classes in the order of the columns.

    Returns:
        Per way of pooling ``median``, ``q25``, ``q75``, ``min``, ``max`` and the ``values`` by seed.
    """
    from pathclip.heads import balanced_accuracy

    out = {}
    for key in winners[0]:
        columns = np.array([found[key] for found in winners])  # (S, P)
        values = [balanced_accuracy(truth, [labels[c] for c in column]) for column in columns.T]
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        extremes = {"min": min(values), "max": max(values)}
        out[key] = {"median": middle, "q25": low, "q75": high, **extremes, "values": values}
    return out
