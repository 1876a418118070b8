"""The tissue classes that can be painted, and the words pathologists use for them."""

from __future__ import annotations

from pathclip.core.errors import UserError

__all__ = ["CLASSES", "WORDS", "check_label"]

WORDS: dict[str, tuple[str, ...]] = {
    "adenocarcinoma": (
        "adenocarcinoma",
        "colorectal adenocarcinoma",
        "invasive adenocarcinoma",
        "moderately differentiated adenocarcinoma",
    ),
    "normal_colon_mucosa": (
        "normal colon mucosa",
        "normal colonic mucosa",
        "benign colonic crypts",
        "normal crypts with goblet cells",
    ),
    "stroma": ("stroma", "fibrous stroma", "desmoplastic stroma", "collagenous stroma"),
    "lymphocytes": ("lymphocytes", "lymphoid tissue", "a lymphoid aggregate", "dense lymphocytic infiltrate"),
    "adipose_tissue": ("adipose tissue", "mature adipose tissue", "fat", "mesenteric fat"),
    "smooth_muscle": ("smooth muscle", "muscularis propria", "smooth muscle bundles", "smooth muscle tissue"),
    "necrosis": ("necrosis", "tumour necrosis", "necrotic debris", "coagulative necrosis"),
    "mucin": ("mucin", "extracellular mucin", "mucin pools", "a mucin lake"),
}
"""Class name to its words in captions and prompts; the first word is the plain name."""

CLASSES: tuple[str, ...] = tuple(WORDS)


def check_label(label: str) -> str:
    """Return the label.

    Raises:
        UserError: If no such tissue can be painted.
    """
    if label not in WORDS:
        raise UserError(f"unknown tissue class {label!r}; known: {', '.join(CLASSES)}")
    return label
