"""What a trained dual encoder is used for: classes by prompts, neighbours, words, and what judges them."""

from __future__ import annotations

from pathclip.heads.calibration import Reliability, reliability
from pathclip.heads.choice import Choices, choose_answers
from pathclip.heads.descriptions import Descriptions, describe
from pathclip.heads.draws import draw_prompts
from pathclip.heads.index import Hit, Index, contact_sheet
from pathclip.heads.metrics import (
    accuracy,
    auprc,
    auroc,
    balanced_accuracy,
    bootstrap_interval,
    classification_metrics,
    confusion_matrix,
    constant_class_baseline,
    macro_f1,
    per_class_metrics,
    quadratic_kappa,
    weighted_f1,
)
from pathclip.heads.picture_scorer import PictureScorer
from pathclip.heads.probe import LinearProbe, few_shot_draws, fit_probe
from pathclip.heads.prompts import Prompts, PromptSet, load_prompts, shipped_prompts
from pathclip.heads.result import write_result
from pathclip.heads.retrieval import first_hit_ranks, random_recall, recall_at_k, retrieval_metrics
from pathclip.heads.strategies import drawn_classifiers, screened_classifier, single_prompts
from pathclip.heads.templates import shipped_templates
from pathclip.heads.zeroshot import ZeroShotResult, build_classifier, classify

__all__ = [
    "Choices",
    "Descriptions",
    "Hit",
    "Index",
    "LinearProbe",
    "PictureScorer",
    "PromptSet",
    "Prompts",
    "Reliability",
    "ZeroShotResult",
    "accuracy",
    "auprc",
    "auroc",
    "balanced_accuracy",
    "bootstrap_interval",
    "build_classifier",
    "choose_answers",
    "classification_metrics",
    "classify",
    "confusion_matrix",
    "constant_class_baseline",
    "contact_sheet",
    "describe",
    "draw_prompts",
    "drawn_classifiers",
    "few_shot_draws",
    "first_hit_ranks",
    "fit_probe",
    "load_prompts",
    "macro_f1",
    "per_class_metrics",
    "quadratic_kappa",
    "random_recall",
    "recall_at_k",
    "reliability",
    "retrieval_metrics",
    "screened_classifier",
    "shipped_prompts",
    "shipped_templates",
    "single_prompts",
    "weighted_f1",
    "write_result",
]
