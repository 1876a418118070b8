"""Posts and pages in the form of the X API v2, as twarc2 saves them: one page of posts a line."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

__all__ = ["Page", "post"]

START = datetime(2022, 3, 1, tzinfo=UTC)
ENTITY = re.compile(r"(?P<tag>#\w+)|(?P<mention>@\w+)|(?P<url>https://t\.co/\w+)")

Json = dict[str, Any]


def post(
    rng: np.random.Generator,
    tweet_id: str,
    text: str,
    author: int,
    *,
    media_keys: list[str] | None = None,
    lang: str = "en",
    likes: int | None = None,
    sensitive: bool = False,
    reply_to: Json | None = None,
    refers: tuple[str, str] | None = None,
) -> Json:
    """One post object.

    Args:
        rng: Source of the counts.
        tweet_id: Its id; time follows from it.
        text: As delivered: HTML-escaped, with links.
        author: Number of the author.
        media_keys: Keys of its attachments.
        lang: The platform's language code.
        likes: Like count; by chance when None.
        sensitive: The platform's flag.
        reply_to: The post it answers.
        refers: (type, id) of the post it retweets or quotes.
    """
    minutes = (int(tweet_id) - 1_500_000_000_000_000_000) // 4_000_000
    result: Json = {
        "id": tweet_id,
        "text": text,
        "author_id": str(90_000_000 + author),
        "conversation_id": reply_to["conversation_id"] if reply_to else tweet_id,
        "created_at": (START + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "lang": lang,
        "possibly_sensitive": sensitive,
        "edit_history_tweet_ids": [tweet_id],
        "public_metrics": {
            "retweet_count": int(rng.integers(0, 9)),
            "reply_count": 0,
            "like_count": int(rng.integers(0, 60)) if likes is None else likes,
            "quote_count": 0,
        },
    }
    if entities := _entities(text):
        result["entities"] = entities
    if media_keys:
        result["attachments"] = {"media_keys": media_keys}
    if reply_to:
        refers = ("replied_to", reply_to["id"])
        result["in_reply_to_user_id"] = reply_to["author_id"]
        reply_to["public_metrics"]["reply_count"] += 1
    if refers:
        result["referenced_tweets"] = [{"type": refers[0], "id": refers[1]}]
    return result


def _entities(text: str) -> Json:
    found: Json = {}
    for match in ENTITY.finditer(text):
        span = {"start": match.start(), "end": match.end()}
        if match["tag"]:
            found.setdefault("hashtags", []).append({**span, "tag": match["tag"][1:]})
        elif match["mention"]:
            found.setdefault("mentions", []).append({**span, "username": match["mention"][1:]})
        else:
            found.setdefault("urls", []).append({**span, "url": match["url"], "expanded_url": match["url"]})
    return found


class Page:
    """One response page in the making.

    Attributes:
        posts: Its ``data``.
        media: Its ``includes.media``.
        tweets: Its ``includes.tweets``.
    """

    def __init__(self) -> None:
        self.posts: list[Json] = []
        self.media: list[Json] = []
        self.tweets: list[Json] = []

    def line(self) -> str:
        """The page as twarc2 writes it."""
        authors = sorted({p["author_id"] for p in self.posts})
        users = [
            {"id": a, "username": f"user_{int(a) - 90_000_000}", "name": f"Pathologist {a}"} for a in authors
        ]
        includes: Json = {"media": self.media, "users": users}
        if self.tweets:
            includes["tweets"] = self.tweets
        ids = sorted((p["id"] for p in self.posts), key=int)
        page = {
            "data": self.posts,
            "includes": includes,
            "meta": {"newest_id": ids[-1], "oldest_id": ids[0], "result_count": len(self.posts)},
            "__twarc": {
                "url": "https://api.twitter.com/2/tweets/search/all?query=%23pathology",
                "version": "2.14.1",
                "retrieved_at": "2022-11-22T00:00:00+00:00",
            },
        }
        return json.dumps(page, ensure_ascii=False)
