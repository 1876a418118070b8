"""What pathologists might write under a picture: the tissue is named, everything else varies."""

from __future__ import annotations

import numpy as np

from pathclip.synthetic.classes import WORDS

__all__ = ["CHATTER", "FOREIGN", "HASHTAGS", "QUESTIONS", "answer", "caption", "vague"]

OPENINGS = (
    "{}",
    "{} on H&amp;E",
    "H&amp;E showing {}",
    "H&amp;E: {}",
    "Classic {}",
    "Textbook {} from today's sign-out",
    "Beautiful {} in this biopsy",
    "{} at medium power",
    "{} at low power, high power to follow",
    "Photomicrograph of {}",
    "This section shows {}",
    "Field of {} from a colectomy specimen",
    "Nice example of {}",
    "For the residents: {}",
    "Another case with {}",
    "Routine case, {}",
    "Colon resection, {} seen here",
    "Today at sign-out: {}",
)
ENDINGS = (
    "",
    "",
    "",
    "",
    ", H&amp;E stain",
    ", 20x",
    ", 200x",
    " in a 64 y/o patient",
    " in this colon specimen",
    " next to the resection margin",
    ".",
    ", compare with the previous slide",
    "\n\n<b>Key</b> features: see image.",
    " 🔬",
    " 🔬✨",
)
EXTRAS = {
    "adenocarcinoma": (
        "irregular glands with dirty necrosis",
        "back-to-back malignant glands",
        "cribriform glands",
    ),
    "normal_colon_mucosa": ("goblet cells and regular crypts", "regular test-tube crypts", "no dysplasia"),
    "stroma": ("wavy collagen with spindle fibroblasts", "collagen bundles", "loose and dense areas"),
    "lymphocytes": ("sheets of small round cells", "small dark nuclei", "scant cytoplasm"),
    "adipose_tissue": ("large clear adipocytes", "thin septa", "signet-shaped fat cells"),
    "smooth_muscle": ("parallel fascicles", "cigar-shaped nuclei", "eosinophilic bundles"),
    "necrosis": ("ghost cells and karyorrhexis", "nuclear dust", "amorphous eosinophilic debris"),
    "mucin": ("floating cells in pale pools", "pale blue pools", "dissecting pools"),
}
HASHTAGS = (
    "GIpath",
    "SurgPath",
    "pathology",
    "GIpath",
    "BreastPath",
    "GUPath",
    "Cytopath",
    "PathGME",
    "dermpath",
    "Gynpath",
)
QUESTIONS = (
    "What is your diagnosis?",
    "Thoughts?",
    "Dx? {} y/o, colon",
    "Colon biopsy, {} y/o. What do you see?",
    "Any ideas? Incidental finding in a colectomy",
    "Quiz for the weekend: which tissue is this?",
)
CHATTER = (
    "Wow",
    "Thanks for sharing!",
    "Great case 👏",
    "Love it",
    "Congrats!",
    "Following",
    "🔥🔥🔥",
    "So true",
    "Nice!",
)
VAGUE = (
    "Interesting case from today",
    "One for the collection",
    "Case of the day",
    "Seen at conference this morning",
)
FOREIGN: dict[str, tuple[str, ...]] = {
    "es": ("Hallazgo en la biopsia de colon de hoy", "Caso bonito para los residentes con tejido del colon"),
    "pt": ("Um caso muito bonito de hoje com tecido do colon", "Mais uma lâmina para os residentes"),
    "fr": (
        "Un cas intéressant pour les internes avec une biopsie du colon",
        "Très belle lame dans le service",
    ),
    "de": (
        "Ein schöner Fall aus der Routine mit einer Kolonbiopsie",
        "Das ist nicht der erste Fall von heute",
    ),
    "tr": ("Bugünün olgusu bir kolon biyopsisi ile", "Asistanlar için güzel bir olgu ve kolon biyopsisi"),
    "ja": ("大腸生検の一例です。杯細胞がよく見えます", "今日の症例です。大腸の組織像をご覧ください"),
    "ar": ("حالة جميلة من خزعة القولون اليوم", "صورة نسيجية من القولون"),
}
ANSWERS = (
    "I see {} on this H&amp;E",
    "Looks like {} on H&amp;E, {}",
    "This tissue is {} with {}",
    "{}! Note the {} on H&amp;E",
    "Agree with others, this biopsy shows {}",
)


def caption(rng: np.random.Generator, label: str) -> str:
    """A caption that names the tissue, HTML-escaped as the platform delivers it."""
    word = str(rng.choice(WORDS[label]))
    text = str(rng.choice(OPENINGS)).format(word)
    if rng.random() < 0.35:
        text += f", {rng.choice(EXTRAS[label])}"
    return _capital(text) + str(rng.choice(ENDINGS))


def answer(rng: np.random.Generator, label: str) -> str:
    """A reply that names the tissue and asks nothing."""
    words = (str(rng.choice(WORDS[label])), str(rng.choice(EXTRAS[label])))
    return _capital(str(rng.choice(ANSWERS)).format(*words))


def vague(rng: np.random.Generator) -> str:
    """A caption that says nothing of the picture."""
    return str(rng.choice(VAGUE))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
