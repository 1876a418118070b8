"""What is said of a picture: the post's own words, its alt text, and the replies that answer it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from pathclip.core.config import Config
from pathclip.pairs.pair import Caption, Drop
from pathclip.pairs.terms import has_pathology_term
from pathclip.tweets.text import HashtagPolicy, clean
from pathclip.tweets.tweet import Media, Tweet

__all__ = [
    "CaptionConfig",
    "TextConfig",
    "is_question",
    "own_caption",
    "picture_captions",
    "rank_replies",
    "reply_caption",
]

QUESTION_MARK = re.compile(r"[?？؟⁇⁈⁉¿]")
ASKS = re.compile(
    r"(?i)\b(?:what(?:'s| is| are)? (?:is )?(?:your|the|this|ur) (?:diagnosis|dx|ddx|thoughts?)|any thoughts|"
    r"any ideas?|your diagnosis|guess the|name (?:the|this) (?:diagnosis|lesion|entity)|diagnosis please|"
    r"dx please|spot diagnosis|thoughts (?:please|welcome|appreciated)|opinions? (?:please|welcome)|"
    r"help (?:please|needed|with))\b"
)


class TextConfig(Config):
    """How a post's text is cleaned."""

    hashtags: HashtagPolicy = Field(default="strip_trailing", description="strip_trailing, unwrap or strip")


class CaptionConfig(Config):
    """Which texts become captions."""

    questions: Literal["drop", "mark", "keep"] = Field(
        default="drop",
        description="drop: a question never captions a picture; mark: only a question mark makes one; "
        "keep: a post's own question may",
    )
    min_words: int = Field(default=1, ge=1, description="words a post's own text must have")
    min_letters: int = Field(default=3, ge=1, description="letters any caption must have")
    alt_text: bool = Field(default=True, description="take the author's description of the picture")
    max_replies: int = Field(
        default=3, ge=0, description="replies taken as captions of a post, most liked first"
    )
    reply_min_words: int = Field(default=3, ge=1, description="words a reply must have")
    reply_term: bool = Field(default=True, description="a reply must hold a pathology term")
    reply_choice: Literal["best", "most_liked"] = Field(
        default="best",
        description="best: the author's own first, then by likes; most_liked: by likes alone, and a chosen "
        "question leaves its place empty",
    )
    pairs: Literal["picture", "caption"] = Field(
        default="picture", description="one pair per picture, or one per caption as OpenPath has it"
    )


def is_question(text: str, *, has_poll: bool = False, only_mark: bool = False) -> bool:
    """True if the text asks, with or without a question mark, or comes with a poll.

    Args:
        text: Cleaned (links may hold question marks).
        has_poll: Whether a poll is attached.
        only_mark: Judge by the question mark alone, as OpenPath did.
    """
    if only_mark:
        return QUESTION_MARK.search(text) is not None
    return has_poll or QUESTION_MARK.search(text) is not None or ASKS.search(text) is not None


def own_caption(tweet: Tweet, config: CaptionConfig, text: TextConfig) -> Caption | Drop:
    """The caption in a post's own text, or why there is none."""
    cleaned = clean(tweet.text, hashtags=text.hashtags, is_truncated=tweet.is_truncated)
    if config.questions != "keep" and _asks(cleaned, tweet, config):
        return Drop("question")
    if problem := _too_short(cleaned, config.min_words, config.min_letters):
        return Drop("no_caption", problem)
    return Caption(cleaned, "tweet", tweet.id, tweet.author_id)


def reply_caption(reply: Tweet, config: CaptionConfig, text: TextConfig) -> Caption | Drop:
    """The caption in a reply, or why it is none: it must not ask, show own pictures or only applaud."""
    if reply.media:
        return Drop("no_caption", "has pictures of its own")
    if reply.is_bot:
        return Drop("no_caption", "written by a bot")
    cleaned = clean(reply.text, hashtags=text.hashtags, is_truncated=reply.is_truncated)
    if problem := _too_short(cleaned, config.reply_min_words, config.min_letters):
        return Drop("no_caption", problem)
    if config.reply_term and not has_pathology_term(cleaned):
        return Drop("no_caption", "no pathology term")
    if _asks(cleaned, reply, config):
        return Drop("question")
    return Caption(cleaned, "reply", reply.id, reply.author_id)


def _asks(text: str, tweet: Tweet, config: CaptionConfig) -> bool:
    return is_question(text, has_poll=tweet.has_poll, only_mark=config.questions == "mark")


def rank_replies(replies: Iterable[Tweet], author_id: str | None) -> list[Tweet]:
    """Best first: the author's own, then by likes, then the earlier, then by id; a total order."""
    return sorted(
        replies,
        key=lambda r: (
            author_id is None or r.author_id != author_id,
            -r.like_count,
            r.created_at or "9",
            len(r.id),
            r.id,
        ),
    )


def picture_captions(
    tweet: Tweet, media: Media, own: Caption | Drop, replies: Iterable[Caption], config: CaptionConfig
) -> tuple[Caption, ...] | Drop:
    """All captions of one picture of a post, best first, none twice; or why there are none."""
    captions = [own] if isinstance(own, Caption) else []
    if config.alt_text and media.alt_text:
        described = clean(media.alt_text)
        if not _too_short(described, config.reply_min_words, config.min_letters) and not is_question(
            described
        ):
            captions.append(Caption(described, "alt_text", tweet.id, tweet.author_id))
    captions += replies
    if not captions:
        assert isinstance(own, Drop)
        return own
    first: dict[str, Caption] = {}
    for caption in captions:
        first.setdefault(caption.text, caption)
    return tuple(first.values())


def _too_short(text: str, min_words: int, min_letters: int) -> str | None:
    words = [word for word in text.split() if any(c.isalnum() for c in word)]
    letters = sum(c.isalpha() for c in text)
    if len(words) < min_words:
        return f"{len(words)} words; at least {min_words}"
    return f"{letters} letters; at least {min_letters}" if letters < min_letters else None
