"""What a reader hands on: a `Tweet` per post, a `Row` per table row, a `Fault` per line that is neither."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Fault", "Media", "Row", "Tweet", "TweetKind"]

TweetKind = Literal["original", "reply", "quote", "retweet"]


@dataclass(frozen=True, slots=True)
class Media:
    """One attachment of a post.

    Attributes:
        key: The platform's media key, for example ``3_1500001000803959886``.
        kind: ``photo``, ``video`` or ``animated_gif``; ``unlisted`` where the post names a key that its
            payload does not describe; other words of a platform are kept as they are.
        url: Where the picture was served; never fetched unless asked.
        alt_text: The author's own description, or None.
        path: The picture's file relative to the media folder, where the payload names one.
    """

    key: str
    kind: str = "photo"
    url: str | None = None
    alt_text: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Tweet:
    """One post, whatever payload it came in.

    Attributes:
        id: The post's id as text (64-bit ids do not survive floats).
        text: The full text as written, still escaped and with links; cleaned later.
        lang: The platform's language code, or None where it gave none.
        created_at: ISO 8601 in UTC, or None.
        kind: original, reply, quote or retweet.
        conversation_id: The thread's id where the payload has it.
        in_reply_to_id: The post answered, for threading where no conversation id is given.
        author_id: The author's id as text; never leaves the private folder.
        like_count: Likes at the time of collection.
        sensitive: The platform's flag.
        hashtags: As written, without ``#``, in order.
        media: The attachments, in order.
        is_truncated: True where the payload says or shows that the text was cut.
        has_poll: True where a poll is attached.
        is_bot: True where the author's name ends in "bot"; the name itself is not kept.
        is_withheld: True where the post is withheld somewhere.
        is_referenced: True where the post only stood inside another one or among a page's ``includes``.
        edit_history: Ids of all versions of this post, oldest first.
        retweet_of_id: The post that a retweet repeats; it goes when that one is taken down.
        source: ``file:line`` (and ``#n`` within a page) for messages.
    """

    id: str
    text: str
    lang: str | None = None
    created_at: str | None = None
    kind: TweetKind = "original"
    conversation_id: str | None = None
    in_reply_to_id: str | None = None
    author_id: str | None = None
    like_count: int = 0
    sensitive: bool = False
    hashtags: tuple[str, ...] = ()
    media: tuple[Media, ...] = ()
    is_truncated: bool = False
    has_poll: bool = False
    is_bot: bool = False
    is_withheld: bool = False
    is_referenced: bool = False
    edit_history: tuple[str, ...] = ()
    retweet_of_id: str | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of pictures and captions.

    Attributes:
        image: Path of the picture as written in the table.
        caption: As written.
        group: The case, patient or slide it belongs to, or None.
        split: train, val or test where the table gives it.
        source: ``file:line``.
    """

    image: str
    caption: str
    group: str | None = None
    split: str | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """A line, page or row that yields no post.

    Attributes:
        code: A code of the read stage (`pathclip.ingest.codes`).
        detail: What was met.
        source: ``file:line``.
    """

    code: str
    detail: str
    source: str
