"""Who asks for what to be taken down: lists of ids, and the platform's compliance events."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.tweets.fields import as_id, as_list, as_mapping, as_text
from pathclip.tweets.sniff import open_source

__all__ = ["Requests", "read_events", "read_ids"]

POST_COLUMNS = ("id", "tweet_id", "post_id", "id_str", "sample_id", "image")
AUTHOR_COLUMNS = ("author_id", "user_id")
POST_URL = re.compile(r"(?i)^https?://[^/]+/.*?/?status(?:es)?/(\d+)")
ROUNDED = re.compile(r"\d+(?:\.\d+)?[eE][+]?\d+$")
# events that take back another one: what was taken down for these reasons may be used again
REVERSALS = {
    "undrop": frozenset({"drop", "withheld", "status_withheld"}),
    "undelete": frozenset({"delete"}),
    "unwithheld": frozenset({"withheld", "status_withheld"}),
    "user_undelete": frozenset({"user_delete", "deactivated"}),
    "user_unprotect": frozenset({"user_protect", "protected"}),
    "user_unsuspend": frozenset({"user_suspend", "suspended"}),
    "user_unwithheld": frozenset({"user_withheld"}),
}
POST_EVENTS = frozenset({"delete", "withheld", "status_withheld", "drop"})
USER_EVENTS = frozenset({"user_delete", "user_protect", "user_suspend", "user_withheld"})
HARMLESS = frozenset({"scrub_geo", "user_profile_modification", "favorite", "unfavorite"})
"""Events about what is never kept: places, profiles, likes."""


@dataclass(slots=True)
class Requests:
    """What is to go, and why.

    Attributes:
        posts: Post ids, sample ids and picture paths of tables, to the reason.
        versions: Ids of outdated versions of edited posts.
        authors: Author ids to the reason.
        lifted: (kind, id, reasons that no longer hold).
        events: How often each action was met.
        unread: Lines that are no event, ``file:line: why``.
        meant: Sample id to the post or picture path that it stands for.
        implied: Those of them in ``posts`` that were not given themselves.
    """

    posts: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    authors: dict[str, str] = field(default_factory=dict)
    lifted: list[tuple[str, str, frozenset[str]]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    meant: dict[str, str] = field(default_factory=dict)
    implied: set[str] = field(default_factory=set)

    def resolve(self, sample_id: str, thing: str) -> None:
        """Have a sample id stand for the post, or the picture path, that it was made of."""
        if thing not in self.posts:
            self.implied.add(thing)
            self.posts[thing] = self.posts[sample_id]
        self.meant[sample_id] = thing

    def asked(self, among: Set[str] | None = None) -> set[str]:
        """The ids that were given to be taken down; with ``among`` those that name one of these things."""
        given = (self.posts.keys() | self.versions.keys() | self.authors.keys()) - self.implied
        return {name for name in given if among is None or self.meant.get(name, name) in among}


def read_ids(path: str | Path) -> Requests:
    """Ids from a text file (one a line) or a CSV with a column id, tweet_id, post_id or author_id.

    Sample ids, links to posts and the picture paths of a table do as well.

    Raises:
        UserError: If the file is missing or empty, has no column of ids, or an id was rounded to a float.
    """
    path = Path(path)
    found = Requests()
    with open_source(path) as handle:
        lines = handle.read().decode("utf-8-sig", "replace").splitlines()
    for number, kind, value in _cells(lines, path):
        if not (value := value.strip().strip("'\"")):
            continue
        if ROUNDED.match(value):
            raise UserError(
                f"{path}:{number}: {value} is a rounded number, not an id; write ids out in full, as text"
            )
        match = POST_URL.match(value)
        (found.authors if kind == "author" else found.posts)[match[1] if match else value] = "request"
    if not found.asked():
        raise UserError(f"{path} holds no ids; expected one a line, or a CSV with a column id")
    return found


def _cells(lines: list[str], path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, post or author, cell) of a list or a table."""
    header = [name.strip().strip('"').lower() for name in re.split(r"[,;\t]", lines[0])] if lines else []
    wanted = {n: "post" for n, name in enumerate(header) if name in POST_COLUMNS}
    wanted |= {n: "author" for n, name in enumerate(header) if name in AUTHOR_COLUMNS and not wanted}
    if not wanted:
        if path.suffix.lower() == ".csv" and len(header) > 1:
            raise UserError(f"{path}: columns are {', '.join(header)}; expected id, tweet_id or author_id")
        yield from ((number, "post", line) for number, line in enumerate(lines, 1))
        return
    delimiter = max(",;\t", key=lines[0].count)
    for number, row in enumerate(csv.reader(lines[1:], delimiter=delimiter), 2):
        yield from ((number, kind, row[n]) for n, kind in wanted.items() if n < len(row))


def read_events(path: str | Path) -> Requests:
    """Compliance events, one JSON object a line, in order: a reversal takes back what came before it.

    Reads X's batch compliance results (``{"id", "action", "reason"}``: whether the id is a post's or a user's
    is not said, so both are taken down), and the events of its v2 and v1.1 compliance streams.

    Raises:
        UserError: If the file is missing or holds no event at all.
    """
    path = Path(path)
    found = Requests()
    with open_source(path) as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig"))
                problem = _take(found, record)
            except (ValueError, RecursionError):
                problem = "not JSON"
            if problem:
                found.unread.append(f"{path.name}:{number}: {problem}")
    if not found.events:
        raise UserError(f"{path} holds no compliance event; expected one JSON object a line")
    return found


def _take(found: Requests, record: Any) -> str | None:
    """Add one event; returns what is wrong with it."""
    event = as_mapping(as_mapping(record).get("data")) or as_mapping(record)
    if as_text(event.get("action")):
        return _batch(found, event)
    for action, body in event.items():
        known = POST_EVENTS | USER_EVENTS | HARMLESS | REVERSALS.keys() | {"tweet_edit"}
        if action in known and isinstance(body, Mapping):
            return _stream(found, action, body)
    return f"no known event (keys: {', '.join(sorted(map(str, event))[:5]) or 'none'})"


def _batch(found: Requests, event: Mapping[str, Any]) -> str | None:
    action, reason = as_text(event.get("action")), as_text(event.get("reason"))
    thing = as_id(event.get("id"))
    if thing is None:
        return "an event without an id"
    if action != "delete":
        return f"action {action!r} is not known"
    found.events[f"delete ({reason})" if reason else "delete"] += 1
    if reason != "scrub_geo":
        found.posts[thing] = found.authors[thing] = reason or "delete"
    return None


def _stream(found: Requests, action: str, body: Mapping[str, Any]) -> str | None:
    if action in HARMLESS:
        found.events[action] += 1
        return None
    if action == "tweet_edit":
        return _edit(found, body)
    is_user = action.startswith("user_")
    thing = _user_id(body) if is_user else _post_id(body)
    if thing is None:
        return f"{action} without an id"
    found.events[action] += 1
    target = found.authors if is_user else found.posts
    if action in REVERSALS:
        target.pop(thing, None)
        found.lifted.append(("author" if is_user else "post", thing, REVERSALS[action]))
    else:
        target[thing] = action
        found.lifted = [entry for entry in found.lifted if entry[1] != thing]
    return None


def _edit(found: Requests, body: Mapping[str, Any]) -> str | None:
    """All versions but the last are outdated."""
    named = [as_id(body.get("initial_tweet_id")), *map(as_id, as_list(body.get("edit_tweet_ids")))]
    versions = {i for i in (*named, _post_id(body)) if i}
    if not versions:
        return "tweet_edit without an id"
    found.events["tweet_edit"] += 1
    newest = max(versions, key=lambda i: (len(i), i))
    found.versions |= dict.fromkeys(versions - {newest}, "tweet_edit")
    return None


def _post_id(body: Mapping[str, Any]) -> str | None:
    post = as_mapping(body.get("tweet")) or as_mapping(body.get("status")) or body
    return as_id(post.get("id_str")) or as_id(post.get("id"))


def _user_id(body: Mapping[str, Any]) -> str | None:
    user = as_mapping(body.get("user")) or body
    return as_id(user.get("id_str")) or as_id(user.get("id")) or as_id(user.get("user_id"))
