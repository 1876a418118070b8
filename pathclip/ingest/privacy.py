"""What is not even kept in the private folder: names of accounts, and links that lead to them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TypeVar

from pathclip.tweets import Fault, Row, Tweet

__all__ = ["nameless", "without_names"]

Item = TypeVar("Item", Tweet, Row, Fault)
HANDLE = re.compile(r"(?<![\w@])@(?!\d+(?:[.,]\d+)?[xX×]\b)\w{1,20}\b", re.ASCII)  # "@40x" is a magnification
POST_LINK = re.compile(r"(?i)\bhttps?://(?:\w+\.)?(?:twitter|x)\.com/\S+")
NOBODY, NOWHERE = "@user", "https://t.co/post"


def nameless(text: str) -> str:
    """A text as written, with every account called ``@user``; the captions lose these words anyway.

    Example:
        >>> nameless("RT @jane_doe: @40x, thanks @Bob!")
        'RT @user: @40x, thanks @user!'
    """
    return HANDLE.sub(NOBODY, POST_LINK.sub(NOWHERE, text))


def without_names(item: Item) -> Item:
    """A post whose texts name no account; rows and faults as they are."""
    if not isinstance(item, Tweet):
        return item
    media = tuple(replace(m, alt_text=nameless(m.alt_text)) if m.alt_text else m for m in item.media)
    return replace(item, text=nameless(item.text), media=media)
