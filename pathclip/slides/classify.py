"""The two things one does with a slide: encode it, and score it with prompts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pathclip.slides.config import SlideConfig
from pathclip.slides.encode import read_tile
from pathclip.slides.features import SlideFeatures
from pathclip.slides.identity import check_model, model_sha256
from pathclip.slides.pool import agreement, probabilities, score_tiles
from pathclip.slides.prediction import SlidePrediction
from pathclip.slides.prepare import embed_open
from pathclip.slides.slide import Slide, UnreadableRegion, open_slide
from pathclip.slides.smoothing import smooth_scores
from pathclip.slides.summary import pool, summarise, without
from pathclip.slides.tiling import TilePlan

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder
    from pathclip.heads import Prompts

__all__ = ["classify_slide", "embed", "rescore", "score"]

SHOWN_TILE_PX = 192


def classify_slide(
    model: DualEncoder, path: str | Path, classes: Any, config: SlideConfig | None = None
) -> SlidePrediction:
    """Zero-shot classify one whole slide.

    Args:
        model: What `pathclip.load` returns.
        path: A slide, or a plain picture together with ``config.slide_mpp``.
        classes: A dict of names, a list of names, a prompt file, or a shipped set by name.
        config: How to read, tile and score it.

    Returns:
        The label with everything behind it. A slide without tissue has the label None.

    Raises:
        UserError: If the slide or its scale is missing, or the prompts cannot be read.
        FaultError: If the file is damaged.

    Source: Lu et al. 2023, MI-Zero (arXiv:2306.07831), for the pooling.
    """
    from pathclip.heads import build_classifier, load_prompts

    config = config or SlideConfig()
    prompts = load_prompts(classes)
    slide = open_slide(path)
    try:
        encoded = embed_open(model, slide, config)
        return score(model, encoded, prompts, build_classifier(model, prompts), config, slide=slide)
    finally:
        slide.close()


def embed(
    model: DualEncoder, path: str | Path, config: SlideConfig | None = None, *, row_mpp: float | None = None
) -> SlideFeatures:
    """Encode the tiles of one slide, for prompts that come later.

    Args:
        model: What `pathclip.load` returns.
        path: A slide or a plain picture.
        config: How to read and tile it.
        row_mpp: The scale that a slide table states; below ``config.slide_mpp``, above the file's own.
    """
    slide = open_slide(path)
    try:
        return embed_open(model, slide, config or SlideConfig(), row_mpp=row_mpp)
    finally:
        slide.close()


def rescore(
    features: SlideFeatures, model: DualEncoder, classes: Any, config: SlideConfig | None = None
) -> SlidePrediction:
    """Classify from cached features: the slide is not read, so new prompts cost milliseconds.

    Args:
        features: From `embed` or `read_features`.
        model: The model that made them; its text side is used.
        classes: As for `classify_slide`.
        config: Only the settings of pooling matter.

    Raises:
        UserError: If the features come from another model.
    """
    from pathclip.heads import build_classifier, load_prompts

    prompts = load_prompts(classes)
    return score(model, features, prompts, build_classifier(model, prompts), config or SlideConfig())


def score(
    model: DualEncoder,
    features: SlideFeatures,
    prompts: Prompts,
    classifier: Any,
    config: SlideConfig,
    *,
    slide: Slide | None = None,
    model_sha: str | None = None,
) -> SlidePrediction:
    """Pool the tiles' scores; see `rescore`, of which this is the part done per slide.

    Args:
        model: For its scale and identity.
        features: The encoded slide.
        prompts: The classes.
        classifier: (D, C), unit columns.
        config: Settings of pooling.
        slide: The open slide, for pictures of the best tiles.
        model_sha: From `model_sha256`, where it is known.
    """
    check_model(features, model, model_sha or model_sha256(model))
    labels = tuple(prompts.labels)
    scale = float(model.logit_scale.detach().float().exp())
    cosines = smooth_scores(
        score_tiles(features.features, np.asarray(classifier)), features.xy, config.smooth
    )
    chances = probabilities(cosines, scale)
    background = config.background_columns(labels)
    found, means, fractions, label, agree, summary = {}, {}, {}, None, None, None
    if len(cosines):
        summary = summarise(cosines, chances.argmax(axis=1), max(config.top_k))
        pooled = pool(summary, config.top_k)
        found = {k: _named(labels, row) for k, row in zip(config.top_k, pooled.top_k, strict=True)}
        means, fractions = _named(labels, pooled.means), _named(labels, pooled.fractions)
        winner = pooled.winners(background)[config.decided_by]
        label, agree = labels[winner], agreement(without(pooled.top_k, background), winner)
    return SlidePrediction(
        slide=features,
        classes=labels,
        label=label,
        label_k=config.deciding_k,
        scores=found,
        agreement=agree,
        pooling=config.pooling,
        means=means,
        fractions=fractions,
        summary=summary,
        tile_scores=cosines,
        tile_probabilities=chances,
        top_tiles=_top_tiles(cosines, labels, config.page_tiles, features.plan, slide),
        provenance={
            **features.provenance,
            "prompts": {"name": prompts.name, "sha256": prompts.sha256},
            "top_k": list(config.top_k),
            "label_k": config.deciding_k,
            "pooling": config.pooled_how,
            "background": list(config.background),
            "smooth": config.smooth,
            "logit_scale": scale,
            "temperature": 1 / scale,
        },
    )


def _named(labels: tuple[str, ...], row: np.ndarray) -> dict[str, float]:
    return dict(zip(labels, map(float, row), strict=True))


def _top_tiles(
    scores: np.ndarray, labels: tuple[str, ...], count: int, plan: TilePlan, slide: Slide | None
) -> dict[str, list[tuple[int, bytes | None]]]:
    best = np.argsort(-scores, axis=0, kind="stable")[:count]  # (count, C)
    return {
        label: [(row, _jpeg(slide, plan, row)) for row in best[:, column].tolist()]
        for column, label in enumerate(labels)
    }


def _jpeg(slide: Slide | None, plan: TilePlan, row: int) -> bytes | None:
    if slide is None:
        return None
    try:
        pixels = read_tile(slide, plan, row, min(SHOWN_TILE_PX, plan.tile_px))
    except UnreadableRegion:
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
