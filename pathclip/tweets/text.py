"""From a post's text to a caption: what the platform added goes, what the pathologist wrote stays."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache
from typing import Literal

from pathclip.tweets.hashtags import in_words, names_a_field

__all__ = ["HashtagPolicy", "clean"]

HashtagPolicy = Literal["strip_trailing", "unwrap", "strip"]

ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
MARKUP = re.compile(
    r"(?i)</?(?:b|i|u|s|em|strong|small|sub|sup|br|p|span|div|a|font|mark)(?:\s[^<>]{0,200})?/?>"
)
URL = re.compile(
    r"(?i)\b(?:https?://|www\.)[^\s)\]]+|\b(?:t\.co|pic\.twitter\.com|pic\.x\.com)/\w+|https?:/*…?$"
)
_HANDLE = r"@(?!\d+(?:[.,]\d+)?[xX×]\b)\w{1,20}"  # "@40x" is a magnification
RETWEET_MARK = re.compile(r"^\s*RT @\w{1,20}:\s*")
_MENTIONS = rf"{_HANDLE}\b(?:(?:\s*(?:,|&|/|\+|\band\b)\s*|\s+){_HANDLE}\b)*"
_CREDITS = r"(?<!\d)(?<!\d )cc|h/t|via|by|with|from|thanks to|thx|photo credit|courtesy of|credits? to"
LEADING_MENTIONS = re.compile(rf"^\s*(?:\.?{_HANDLE}[\s,:]*)+")
MENTIONS = re.compile(rf"(?:\b(?i:{_CREDITS}|[RM]T)\s*:?\s*)?(?<![\w@.]){_MENTIONS}")
_TAG = r"(?<![\w&/#])[#＃](?=\w*[^\W\d_])"  # "#1" is a number
HASHTAG = re.compile(rf"{_TAG}(\w+)")
TRAILING_HASHTAGS = re.compile(rf"(?:\s*{_TAG}\w+[\s.,;!|•·]*)+$")
OPEN_END = re.compile(
    r"(?i)(?:\b(?:of|a|an|the|with|in|is|was|are|for|to|and|or|from|on|by|vs|no|showing|shows)|[&:=])\s*$"
)
CREDIT = re.compile(rf"(?i)\s*\b(?:{_CREDITS})\s*:?\s*(?=$|[.,;)])")
SPACE = re.compile(r"[\s\u200b\u200c\u200e\u200f\u2060\ufeff]+")
SPACE_BEFORE = re.compile(r"\s+([,;.!)\]])(?=\s|$)")
EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]")
# but not the minus of "ER-" or "CD34 -"
EDGES = re.compile(
    r"^(?:[-–—|•·,;:.]+\s+)+|(?: (?<![A-Za-z]\d )(?<![A-Za-z]\d\d )(?<![A-Za-z]\d{3} )[-–—|•·]+)+$|[\s,;:|]+$"
)
LOOSE_JOINERS = re.compile(r"(?<!\w)\u200d|\u200d(?!\w)")
CUT = re.compile(r"\s*\S*…\s*$")

# emoji that stand for signs a pathologist writes; every other emoji goes
SIGNS = {
    "➡": "→",
    "⬅": "←",
    "⬆": "↑",
    "⬇": "↓",
    "↗": "↗",
    "↘": "↘",
    "↔": "↔",
    "↕": "↕",
    "➕": "+",
    "➖": "-",
    "✖": "x",
    "™": "™",
    "©": "©",
    "®": "®",
    "〰": "~",
    "♀": "♀",
    "♂": "♂",
}


@lru_cache(maxsize=4096)
def clean(text: str, *, hashtags: HashtagPolicy = "strip_trailing", is_truncated: bool = False) -> str:
    """The caption in a post's text; may be empty.

    In order: HTML entities, mojibake (ftfy), Unicode NFC, markup, links, mentions, emoji, hashtags, space.
    Tokens such as CD20+, ER-/PR-, p40, H&E, 40x, 1:100, >50% and arrows stay as written.

    Args:
        text: As the platform gives it.
        hashtags: ``strip_trailing`` drops the run of tags at the end and writes the others in words,
            ``unwrap`` writes all in words, ``strip`` drops all (as OpenPath did).
        is_truncated: Drop the last, cut word.

    Example:
        >>> clean("@a @b Nice H&amp;E, CD20+ 🔬 #BCC of the <b>skin</b> #dermpath #pathtwitter https://t.co/x1")
        'Nice H&E, CD20+ BCC of the skin'
    """
    for _ in range(2 if "&" in text else 0):  # what was quoted once more is escaped twice
        text = ENTITY.sub(lambda match: html.unescape(match.group()), text)
    text = unicodedata.normalize("NFC", _fix(text))
    text = MARKUP.sub(" ", text) if "<" in text else text
    text = URL.sub(" ", text)
    if "@" in text:
        text = MENTIONS.sub("", LEADING_MENTIONS.sub("", RETWEET_MARK.sub("", text)))
    text = _without_emoji(text)
    text = _hashtags(SPACE.sub(" ", text).strip(), hashtags)
    text = CUT.sub("", text) if is_truncated else text
    text = SPACE.sub(" ", EMPTY_BRACKETS.sub("", text))
    text = SPACE_BEFORE.sub(r"\1", text)
    return EDGES.sub("", CREDIT.sub("", text)).strip()


def _fix(text: str) -> str:
    if text.isascii():
        return text
    import ftfy

    return ftfy.fix_text(text, unescape_html=False, uncurl_quotes=True, normalization=None)


def _without_emoji(text: str) -> str:
    if text.isascii():
        return text
    import emoji

    def replace(found: str, _: object) -> str:
        return SIGNS.get(found[0], " ") if len(found.rstrip("\ufe0f\ufe0e")) == 1 else " "

    return (
        LOOSE_JOINERS.sub("", emoji.replace_emoji(text, replace)).replace("\ufe0f", "").replace("\ufe0e", "")
    )


def _hashtags(text: str, policy: HashtagPolicy) -> str:
    if policy == "strip":
        return HASHTAG.sub("", text)
    if policy == "strip_trailing":
        text = TRAILING_HASHTAGS.sub(_last_word, text)
    return HASHTAG.sub(lambda match: in_words(match.group(1)), text)


def _last_word(run: re.Match[str]) -> str:
    """Nothing, or the first tag of the run where the sentence needs it ("a case of #melanoma #dermpath")."""
    first = HASHTAG.search(run.group())
    needed = first and OPEN_END.search(run.string[: run.start()]) and not names_a_field(first.group(1))
    return f" {first.group()}" if first and needed else ""
