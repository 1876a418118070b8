"""X API v1.1 posts (twarc1, hydrators, streams) and the near-identical entries of a personal archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pathclip.tweets.fields import (
    as_bool,
    as_count,
    as_id,
    as_list,
    as_mapping,
    as_text,
    basename,
    is_rounded,
    looks_cut,
    looks_retweeted,
    utc,
)
from pathclip.tweets.tweet import Fault, Media, Tweet, TweetKind

__all__ = ["v1_posts"]

Json = Mapping[str, Any]
MAX_DEPTH = 4


def v1_posts(
    post: Json,
    source: str,
    *,
    depth: int = 0,
    author_id: str | None = None,
    own_media: bool = False,
) -> Iterator[Tweet | Fault]:
    """One v1.1 post, then the retweeted and quoted posts inside it.

    Text, in order: ``extended_tweet.full_text``, ``full_text``, ``text``. Pictures come from
    ``extended_entities`` (``entities.media`` has only the first).

    Args:
        post: The payload.
        source: ``file:line``.
        depth: Within how many other posts it stood.
        author_id: The author where the payload names none (an archive holds its owner's posts).
        own_media: Name pictures as an archive stores them, ``<tweet id>-<basename>``.
    """
    yield _post(post, source, depth > 0, author_id, own_media)
    for name in ("retweeted_status", "quoted_status"):
        inner = as_mapping(post.get(name))
        if inner and depth == MAX_DEPTH:
            yield Fault("unknown_shape", f"posts within posts, over {MAX_DEPTH} deep", f"{source}>{name}")
        elif inner:
            yield from v1_posts(inner, f"{source}>{name}", depth=depth + 1)


def _post(post: Json, source: str, referenced: bool, owner: str | None, own_media: bool) -> Tweet | Fault:
    user = as_mapping(post.get("user"))
    named = {name: post.get(f"{name}_str") or post.get(name) for name in ("id", "in_reply_to_status_id")}
    for name, value in (*named.items(), ("user.id", user.get("id_str") or user.get("id"))):
        if is_rounded(value):
            return Fault("float_id", f"{name} went through a float and lost its last digits", source)
    tweet_id = as_id(post.get("id_str")) or as_id(post.get("id"))
    if tweet_id is None:
        return Fault("unknown_shape", "a post without an id", source)
    extended = as_mapping(post.get("extended_tweet"))
    full = as_text(extended.get("full_text")) or as_text(post.get("full_text"))
    text = full or as_text(post.get("text")) or ""
    entities = as_mapping(extended.get("entities")) or as_mapping(post.get("entities"))
    return Tweet(
        id=tweet_id,
        text=text,
        lang=as_text(post.get("lang")),
        created_at=utc(post.get("created_at")),
        kind=_kind(post, text),
        conversation_id=as_id(post.get("conversation_id_str")) or as_id(post.get("conversation_id")),
        in_reply_to_id=as_id(post.get("in_reply_to_status_id_str"))
        or as_id(post.get("in_reply_to_status_id")),
        author_id=as_id(user.get("id_str")) or as_id(user.get("id")) or owner,
        like_count=as_count(post.get("favorite_count")),
        sensitive=as_bool(post.get("possibly_sensitive")),
        hashtags=tuple(
            t for t in (as_text(as_mapping(h).get("text")) for h in as_list(entities.get("hashtags"))) if t
        ),
        media=_media(post, extended, tweet_id, own_media),
        is_truncated=looks_cut(text) or (full is None and as_bool(post.get("truncated"))),
        has_poll="poll" in (as_text(as_mapping(post.get("card")).get("name")) or ""),
        is_bot=(as_text(user.get("screen_name")) or "").lower().endswith("bot"),
        is_withheld=bool(post.get("withheld_in_countries") or post.get("withheld_copyright")),
        is_referenced=referenced,
        edit_history=_versions(post),
        retweet_of_id=_retweeted(post),
        source=source,
    )


def _kind(post: Json, text: str) -> TweetKind:
    if as_mapping(post.get("retweeted_status")) or looks_retweeted(text):
        return "retweet"
    if as_id(post.get("in_reply_to_status_id_str")) or as_id(post.get("in_reply_to_status_id")):
        return "reply"
    return "quote" if as_bool(post.get("is_quote_status")) else "original"


def _versions(post: Json) -> tuple[str, ...]:
    """Ids of all versions, as archives list them; the first version says it otherwise than later ones."""
    info = as_mapping(post.get("edit_info"))
    first = as_mapping(info.get("initial")) or as_mapping(
        as_mapping(info.get("edit")).get("editControlInitial")
    )
    return tuple(i for i in map(as_id, as_list(first.get("editTweetIds"))) if i)


def _retweeted(post: Json) -> str | None:
    inner = as_mapping(post.get("retweeted_status"))
    return as_id(inner.get("id_str")) or as_id(inner.get("id"))


def _media(post: Json, extended: Json, tweet_id: str, own_media: bool) -> tuple[Media, ...]:
    for holder in (extended, post):
        for name in ("extended_entities", "entities"):
            found = as_list(as_mapping(holder.get(name)).get("media"))
            if found:
                return tuple(_one(as_mapping(m), n, tweet_id, own_media) for n, m in enumerate(found))
    return ()


def _one(raw: Json, n: int, tweet_id: str, own_media: bool) -> Media:
    url = as_text(raw.get("media_url_https")) or as_text(raw.get("media_url"))
    key = as_id(raw.get("id_str")) or as_id(raw.get("id")) or f"{tweet_id}-{n}"
    return Media(
        key=key,
        kind=as_text(raw.get("type")) or "photo",
        url=url,
        alt_text=as_text(raw.get("ext_alt_text")),
        path=f"{tweet_id}-{basename(url)}" if own_media and url else None,
    )
