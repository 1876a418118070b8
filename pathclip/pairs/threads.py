"""Which reply belongs to which pictures: conversations put together from what the payload tells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from pathclip.tweets.tweet import Tweet

__all__ = ["Threads", "last_edits"]


def last_edits(posts: Iterable[Tweet]) -> tuple[dict[str, Tweet], dict[str, str], int]:
    """One record per post, and which posts are older versions of another.

    A post met several times keeps one record, whatever the order it was met in: a collected post before a
    referenced one, then the longer edit history, more known attachments, more likes, then by content.

    Returns:
        Posts by id; older version's id to the newest version present; how many records were repeats.
    """
    best: dict[str, Tweet] = {}
    count = 0
    for post in posts:
        count += 1
        held = best.get(post.id)
        if held is None or _rank(post) > _rank(held):
            best[post.id] = post
    newest: dict[str, str] = {}
    for post in best.values():
        present = [i for i in post.edit_history if i in best]
        for older in present[:-1]:
            newest[older] = max(newest.get(older, ""), present[-1], key=_as_number)
    return best, newest, count - len(best)


class Threads:
    """Threads of posts: by conversation id and by chains of replies, whichever the payload has.

    Args:
        posts: By id.
        newest: Older version's id to the newest version's.
    """

    def __init__(self, posts: Mapping[str, Tweet], newest: Mapping[str, str] | None = None) -> None:
        self._posts = posts
        self._newest = newest or {}
        self._root: dict[str, str] = {}
        self._known_above: dict[str, tuple[str | None, bool]] = {}
        for post in posts.values():
            if post.conversation_id:
                self._join(post.id, f"c:{post.conversation_id}")
                self._join(f"c:{post.conversation_id}", self._id(post.conversation_id))
            if post.in_reply_to_id:
                self._join(post.id, self._id(post.in_reply_to_id))
            self._join(post.id, self._id(post.id))
        self._holders: dict[str, list[str]] = defaultdict(list)
        for post in posts.values():
            if post.media and post.kind != "retweet" and post.id not in self._newest:
                self._holders[self._find(post.id)].append(post.id)

    def thread(self, tweet_id: str) -> str:
        """The same text for every post of a thread; only for comparing."""
        return self._find(tweet_id)

    def pictures_of(self, reply: Tweet) -> str | None:
        """The post with pictures that a reply speaks of, or None.

        The nearest post with pictures up the chain of replies; where the chain is broken, the conversation's
        first post, or the only one in the thread that has pictures. A post does not speak of its own.
        """
        above, is_lost = self._above(reply)
        if above is not None and above != reply.id:
            return above
        first = self._id(reply.conversation_id)
        answers = reply.in_reply_to_id is not None or first not in (None, reply.id)
        is_broken = answers and (is_lost or reply.in_reply_to_id is None)
        if not is_broken:
            return None
        if first is not None and self._holds(first):
            return first
        holders = [i for i in self._holders.get(self._find(reply.id), ()) if i != reply.id]
        return holders[0] if len(holders) == 1 else None

    def _above(self, reply: Tweet) -> tuple[str | None, bool]:
        """The nearest post with pictures up the chain, and whether the chain ends at a post that is not here.

        What is found holds for every post on the way and is kept, so that long chains are walked once; a
        circle without pictures ends in nothing.
        """
        way: dict[str, None] = {}
        node = reply
        found: tuple[str | None, bool] = (None, False)
        while node.id not in way:
            if node.id in self._known_above:
                found = self._known_above[node.id]
                break
            way[node.id] = None
            parent = self._id(node.in_reply_to_id)
            if parent is None or parent not in self._posts:
                found = (None, parent is not None)
                break
            if self._holds(parent):
                found = (parent, False)
                break
            node = self._posts[parent]
        self._known_above.update(dict.fromkeys(way, found))
        return found

    def continues(self, reply: Tweet, target: str) -> bool:
        """True where a reply goes on from a post through none but posts of the same author."""
        author = self._posts[target].author_id
        post: Tweet | None = reply
        seen: set[str] = set()
        while post is not None and post.id not in seen and author is not None and post.author_id == author:
            if post.id == target:
                return True
            seen.add(post.id)
            post = self._posts.get(self._id(post.in_reply_to_id) or "")
        return False

    def _holds(self, tweet_id: str) -> bool:
        post = self._posts.get(tweet_id)
        return post is not None and bool(post.media) and post.kind != "retweet"

    def _id(self, tweet_id: str | None) -> str | None:
        return self._newest.get(tweet_id, tweet_id) if tweet_id else None

    def _find(self, node: str) -> str:
        root = node
        while (up := self._root.get(root, root)) != root:
            root = up
        while (up := self._root.get(node, node)) != root:
            self._root[node] = root
            node = up
        return root

    def _join(self, a: str, b: str | None) -> None:
        if b is not None:
            first, second = sorted((self._find(a), self._find(b)))
            self._root[second] = first


def _rank(post: Tweet) -> tuple[object, ...]:
    known = sum(m.kind != "unlisted" for m in post.media)
    content = (post.text, post.media, post.hashtags, post.created_at or "", post.author_id or "")
    return (
        not post.is_referenced,
        len(post.edit_history),
        known,
        post.like_count,
        repr(content),
        post.conversation_id or "",
        [-ord(c) for c in post.source],
    )


def _as_number(tweet_id: str) -> tuple[int, str]:
    return (len(tweet_id), tweet_id)
