"""Captions of several pictures: those that tell them apart by place, and each picture's share of them."""

from __future__ import annotations

import re

__all__ = ["is_positional", "shares"]

_PICTURE = r"(?:image|img|picture|pic|photo|photograph|panel|figure|fig|slide|frame)s?\b\.?"
_ORDER = r"(?:first|second|third|fourth|last|1st|2nd|3rd|4th|next|previous)"
_SIDE = r"(?:left|right|top|bottom|upper|lower|middle|cent(?:er|re))"
NAMED = re.compile(
    rf"(?ix)\b(?:{_ORDER}|{_SIDE}|above|below)\s+(?:two\s+|three\s+)?{_PICTURE}"  # "first image"
    rf"|\b{_PICTURE}\s*[#]?(?:[1-4]|[A-D])\b"  # "fig. 2"
    rf"|\b(?:on|at|to)\s+the\s+{_SIDE}(?:\s+{_SIDE})?"  # "on the left"
    r"(?=\s*(?:$|[,.;:)]|is\b|shows?\b|and\b|we\b))"
    rf"|[(\[]\s*{_SIDE}(?:[\s-]+{_SIDE})?\s*[)\]]"  # "(left)"
    rf"|(?:^|[.;,(]\s*){_SIDE}(?:[\s-]+{_SIDE})?\s*[:=]"  # "left: "
    r"|\bclockwise\b|\bleft\s+to\s+right\b|\btop\s+to\s+bottom\b"
)
LETTERS = re.compile(r"(?:(?<=\s)|^)[(\[]?([A-Da-d])\s*(?:[)\]:=](?=\s|[A-Za-z])|[.-](?=\s))\s*")
NUMBERS = re.compile(r"(?:(?<=\s)|^)[(\[]?([1-4])(?:[)\]:=]|\.(?=\s))\s*(?=\D)")
SIDES = re.compile(r"(?i)\b(left|right|top|bottom|upper|lower)\s*(?:image|panel|photo|pic)?\s*[:=-]\s+")
NUMBER_OF = {"left": 0, "right": 1, "top": 0, "bottom": 1, "upper": 0, "lower": 1}
LOOSE = " \t,;:.-–—|&"


def is_positional(text: str) -> bool:
    """True where a caption tells pictures apart by their place: "left: H&E", "(B)", "second image".

    Sides of the body do not count: "left breast", "right kidney".
    """
    return NAMED.search(text) is not None or any(len(_marks(text, p)) >= 2 for p in (LETTERS, NUMBERS, SIDES))


def shares(text: str, num_pictures: int) -> tuple[str, ...] | None:
    """What a caption says of each picture, where it marks exactly as many parts as there are pictures.

    What stands before the first mark is said of all.

    Example:
        >>> shares("Nodular melanoma. A: low power B: S100", 2)
        ('Nodular melanoma. low power', 'Nodular melanoma. S100')
        >>> shares("Left breast, mucinous carcinoma", 2) is None
        True
    """
    for pattern in (LETTERS, NUMBERS, SIDES):
        marks = _marks(text, pattern)
        if len(marks) != num_pictures or num_pictures < 2:
            continue
        common = text[: marks[0][0]].strip(" \t,;:-–—|&")
        ends = [start for start, _ in marks[1:]] + [len(text)]
        parts = [text[after:end].strip(LOOSE) for (_, after), end in zip(marks, ends, strict=True)]
        if all(any(c.isalpha() for c in part) for part in parts):
            return tuple(f"{common} {part}".strip() for part in parts)
    return None


def _marks(text: str, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    """Start and end of marks that count from the first on without a gap; none if they do not."""
    found = [(match, _number(match[1])) for match in pattern.finditer(text)]
    if [number for _, number in found] != list(range(len(found))):
        return []
    return [match.span() for match, _ in found]


def _number(mark: str) -> int:
    if mark.isdigit():
        return int(mark) - 1
    return NUMBER_OF[mark.lower()] if len(mark) > 1 else ord(mark.lower()) - ord("a")
