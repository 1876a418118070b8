"""What a trained dual encoder is used for: classes by prompts, neighbours, and numbers that judge both."""

from __future__ import annotations

from pathclip.heads.metrics import (
    accuracy,
    balanced_accuracy,
    bootstrap_interval,
    classification_metrics,
    confusion_matrix,
    constant_class_baseline,
    macro_f1,
    per_class_metrics,
    weighted_f1,
)
from pathclip.heads.retrieval import first_hit_ranks, random_recall, recall_at_k, retrieval_metrics

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "bootstrap_interval",
    "classification_metrics",
    "confusion_matrix",
    "constant_class_baseline",
    "first_hit_ranks",
    "macro_f1",
    "per_class_metrics",
    "random_recall",
    "recall_at_k",
    "retrieval_metrics",
    "weighted_f1",
]
