"""X API v2: response pages (twarc2, tweepy), streamed single posts and flattened posts."""

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
    is_rounded,
    looks_cut,
    looks_retweeted,
    utc,
)
from pathclip.tweets.tweet import Fault, Media, Tweet, TweetKind

__all__ = ["flat_posts", "page_posts"]

Json = Mapping[str, Any]
ById = Mapping[str | None, Json]
MAX_DEPTH = 4  # posts within posts; the platform nests one deep, twice where a retweet quotes
EVENTS = frozenset({"delete", "undelete", "withheld", "drop", "undrop", "tweet_edit", "scrub_geo"})


def page_posts(page: Json, source: str) -> Iterator[Tweet | Fault]:
    """Posts of one response: those of ``data`` first, then the referenced ones of ``includes.tweets``.

    Joins ``attachments.media_keys`` with ``includes.media``; a key without an entry becomes a `Media` of kind
    ``unlisted``, so that it is counted and not lost.
    """
    includes = as_mapping(page.get("includes"))
    media = {as_id(m.get("media_key")): m for m in map(as_mapping, as_list(includes.get("media")))}
    users = {as_id(u.get("id")): u for u in map(as_mapping, as_list(includes.get("users")))}
    data = page.get("data")
    posts = [as_mapping(post) for post in (as_list(data) if not isinstance(data, Mapping) else [data])]
    if not posts:
        yield Fault("error_page", _errors(page) or "the page holds no posts", source)
    for n, post in enumerate(posts):
        if "id" not in post and any(e in EVENTS or e.startswith("user_") for e in map(str, post)):
            yield Fault("compliance_event", f"{min(map(str, post))} event", f"{source}#{n}")
            continue
        yield _post(post, f"{source}#{n}", media, users, referenced=False)
    for n, post in enumerate(map(as_mapping, as_list(includes.get("tweets")))):
        yield _post(post, f"{source}#includes{n}", media, users, referenced=True)


def flat_posts(post: Json, source: str, *, depth: int = 0) -> Iterator[Tweet | Fault]:
    """One flattened post, then the posts merged into its ``referenced_tweets``.

    A missing include is ``{}`` in this form; such entries count as absent.
    """
    media = {
        as_id(m.get("media_key")): m
        for m in map(as_mapping, as_list(as_mapping(post.get("attachments")).get("media")))
        if m.get("media_key")
    }
    author = as_mapping(post.get("author"))
    users = {as_id(post.get("author_id")): author} if author else {}
    yield _post(post, source, media, users, referenced=depth > 0)
    for n, inner in enumerate(map(as_mapping, as_list(post.get("referenced_tweets")))):
        if not (inner.get("id") and "text" in inner):
            continue
        if depth == MAX_DEPTH:
            yield Fault("unknown_shape", f"posts within posts, over {MAX_DEPTH} deep", f"{source}>{n}")
            return
        yield from flat_posts(inner, f"{source}>{n}", depth=depth + 1)


def _post(post: Json, source: str, media: ById, users: ById, *, referenced: bool) -> Tweet | Fault:
    for name in ("id", "author_id", "conversation_id"):
        if is_rounded(post.get(name)):
            return Fault("float_id", f"{name} went through a float and lost its last digits", source)
    tweet_id = as_id(post.get("id"))
    if tweet_id is None:
        return Fault("unknown_shape", "a post without an id", source)
    note = as_text(as_mapping(post.get("note_tweet")).get("text"))
    text = note or as_text(post.get("text")) or ""
    attachments = as_mapping(post.get("attachments"))
    referenced_tweets = [as_mapping(r) for r in as_list(post.get("referenced_tweets"))]
    if any(is_rounded(r.get("id")) for r in referenced_tweets):
        return Fault("float_id", "the id of a post it refers to went through a float", source)
    references = {as_text(r.get("type")): as_id(r.get("id")) for r in referenced_tweets}
    author_id = as_id(post.get("author_id"))
    return Tweet(
        id=tweet_id,
        text=text,
        lang=as_text(post.get("lang")),
        created_at=utc(post.get("created_at")),
        kind=_kind(references, text),
        conversation_id=as_id(post.get("conversation_id")),
        in_reply_to_id=references.get("replied_to"),
        author_id=author_id,
        like_count=as_count(as_mapping(post.get("public_metrics")).get("like_count")),
        sensitive=as_bool(post.get("possibly_sensitive")),
        hashtags=_hashtags(post),
        media=tuple(_media(key, media) for key in map(as_id, as_list(attachments.get("media_keys"))) if key),
        is_truncated=note is None and looks_cut(text),
        has_poll=bool(attachments.get("poll_ids") or attachments.get("poll")),
        is_bot=(as_text(as_mapping(users.get(author_id)).get("username")) or "").lower().endswith("bot"),
        is_withheld=bool(as_mapping(post.get("withheld"))),
        is_referenced=referenced,
        edit_history=tuple(i for i in map(as_id, as_list(post.get("edit_history_tweet_ids"))) if i),
        retweet_of_id=references.get("retweeted"),
        source=source,
    )


def _kind(references: Mapping[str | None, str | None], text: str) -> TweetKind:
    if "retweeted" in references or looks_retweeted(text):
        return "retweet"
    if "replied_to" in references:
        return "reply"
    return "quote" if "quoted" in references else "original"


def _media(key: str, media: ById) -> Media:
    found = as_mapping(media.get(key))
    if not found:
        return Media(key, "unlisted")
    return Media(
        key=key,
        kind=as_text(found.get("type")) or "photo",
        url=as_text(found.get("url")) or as_text(found.get("preview_image_url")),
        alt_text=as_text(found.get("alt_text")),
    )


def _hashtags(post: Json) -> tuple[str, ...]:
    found = as_list(as_mapping(post.get("entities")).get("hashtags"))
    return tuple(tag for tag in (as_text(as_mapping(h).get("tag")) for h in found) if tag)


def _errors(page: Json) -> str:
    titles = {as_text(as_mapping(e).get("title")) for e in as_list(page.get("errors"))}
    return ", ".join(sorted(t for t in titles if t))
