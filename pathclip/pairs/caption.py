"""What is said of a picture: the post's own words, its alt text, and the replies that answer it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from pydantic import Field

from pathclip.core.config import Config
from pathclip.pairs.pair import Caption, Drop
from pathclip.pairs.positions import is_positional, shares
from pathclip.pairs.terms import has_pathology_term
from pathclip.tweets.text import HashtagPolicy, clean
from pathclip.tweets.tweet import Media, Tweet

__all__ = [
    "CaptionConfig",
    "TextConfig",
    "is_question",
    "own_caption",
    "part_captions",
    "picture_captions",
    "rank_continuations",
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

LABEL = re.compile(r"(?i)(?=.*\d)[a-z0-9]+(?:[-_][a-z0-9]+){2,}\.?|(?:case|img|image|slide|dsc)[-_ #]*\d+\.?")


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
    max_continuations: int = Field(
        default=3, ge=0, description="the author's own follow-ups taken as captions, the earliest first"
    )
    multi: Literal["all", "first", "drop", "split"] = Field(
        default="all",
        description="posts of several pictures: all have the caption; only the first is taken; none is; "
        "split: each has its part where the caption marks as many (A: ... B: ...), else all have it",
    )
    positional: Literal["keep", "drop"] = Field(
        default="keep", description="captions that tell several pictures apart by place; kept ones are marked"
    )
    labels: Literal["keep", "drop"] = Field(
        default="keep", description="own texts that are a file's or a case's name and no words (some-case-31)"
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
    if config.labels == "drop" and LABEL.fullmatch(cleaned):
        return Drop("no_caption", "a label and no words")
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


def rank_continuations(posts: Iterable[Tweet]) -> list[Tweet]:
    """In the order they were written; a total order."""
    return sorted(posts, key=lambda p: (p.created_at or "9", len(p.id), p.id))


def picture_captions(
    tweet: Tweet,
    media: Media,
    own: Caption | Drop,
    answers: Iterable[Caption],
    config: CaptionConfig,
    place: tuple[int, int] = (0, 1),
) -> tuple[Caption, ...] | Drop:
    """All captions of one picture of a post, best first, none twice; or why there are none.

    The order: the post's own text, its alt text, its author's continuations, the answering replies.

    Args:
        tweet: The post.
        media: The picture.
        own: What `own_caption` found.
        answers: Continuations, then replies, each in their order.
        config: Which of them are taken.
        place: The picture's number, from 0, and how many the post has.
    """
    number, num_pictures = place
    if num_pictures > 1 and (config.multi == "drop" or (config.multi == "first" and number > 0)):
        return Drop("several_pictures", f"picture {number + 1} of {num_pictures}")
    described = _described(tweet, media, config)
    texts = [*([own] if isinstance(own, Caption) else []), *([described] if described else []), *answers]
    said = [c if c is described else _of_picture(c, place, config) for c in texts]
    captions = [c for c in said if not (c.positional and config.positional == "drop")]
    if not captions:
        return own if isinstance(own, Drop) else Drop("no_caption", "tells several pictures apart by place")
    first: dict[str, Caption] = {}
    for caption in captions:
        first.setdefault(caption.text, caption)
    return tuple(first.values())


def part_captions(
    captions: Iterable[Caption], place: tuple[int, int], config: CaptionConfig
) -> tuple[Caption, ...]:
    """The captions of one panel of a figure: its share where they mark as many parts, else all, marked.

    Args:
        captions: Of the figure.
        place: The panel's number, from 0, and how many the figure has.
        config: ``multi = "split"`` shares out.
    """
    first: dict[str, Caption] = {}
    for caption in captions:
        part = _of_picture(caption, place, config)
        first.setdefault(part.text, part)
    return tuple(first.values())


def _of_picture(caption: Caption, place: tuple[int, int], config: CaptionConfig) -> Caption:
    """The picture's share of a caption, or the whole with a mark where it speaks of several by place."""
    number, num_pictures = place
    if num_pictures < 2:
        return caption
    parts = shares(caption.text, num_pictures) if config.multi == "split" else None
    if parts and not any(_too_short(part, config.min_words, config.min_letters) for part in parts):
        return replace(caption, text=parts[number])
    return replace(caption, positional=is_positional(caption.text))


def _described(tweet: Tweet, media: Media, config: CaptionConfig) -> Caption | None:
    """The author's description of the picture, where it says something."""
    if not (config.alt_text and media.alt_text):
        return None
    described = clean(media.alt_text)
    if _too_short(described, config.reply_min_words, config.min_letters) or is_question(described):
        return None
    return Caption(described, "alt_text", tweet.id, tweet.author_id)


def _too_short(text: str, min_words: int, min_letters: int) -> str | None:
    words = [word for word in text.split() if any(map(str.isalnum, word))]
    letters = sum(map(str.isalpha, text))
    if len(words) < min_words:
        return f"{len(words)} words; at least {min_words}"
    return f"{letters} letters; at least {min_letters}" if letters < min_letters else None
