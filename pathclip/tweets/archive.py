"""The personal archive of an X account, as a folder or a zip: whose it is, its files, its long posts."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.tweets.elements import elements
from pathclip.tweets.fields import as_id, as_list, as_mapping, as_text, utc
from pathclip.tweets.packed import DamagedError, open_source, zipped_names
from pathclip.tweets.sniff import archive_names
from pathclip.tweets.tweet import Tweet

__all__ = ["Owner", "archive_files", "archive_media", "archive_sides", "owner_of", "with_note"]

MEDIA_FOLDERS = ("tweets_media", "tweet_media")
SIDE_FILES = ("account.js", "note-tweet.js")
NOBODY = "archive-owner"
MAX_ENTRY_BYTES = 1 << 20
NOTE_SECONDS = 60.0
PREFIX = re.compile(r"…?(\s*https?://t\.co/\w*…?)*\s*$")
SPACE = re.compile(r"\s+")
MIN_PREFIX = 20


@dataclass(frozen=True, slots=True)
class Note:
    """A long post as ``note-tweet.js`` has it: it bears an id of its own, not the post's."""

    text: str
    created_at: str
    hashtags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Owner:
    """What a file of an archive does not say of itself.

    Attributes:
        author_id: The account's id where ``account.js`` tells it; a name for nobody in particular otherwise.
        notes: Its long posts.
        is_deleted: Whether the file lists deleted posts.
    """

    author_id: str = NOBODY
    notes: tuple[Note, ...] = field(default=(), repr=False)
    is_deleted: bool = False


def archive_files(path: Path) -> list[Path]:
    """The files with posts, and those with deleted posts, which are counted and never taken."""
    if path.is_dir():
        data = _data(path)
        return [data / name for name in archive_names(file.name for file in data.glob("*.js"))]
    return [path / name for name in archive_names(zipped_names(path))]


def archive_sides(path: Path) -> list[Path]:
    """Files beside the posts of an archive folder that are read too."""
    return [file for name in SIDE_FILES if (file := _data(path) / name).is_file()]


def archive_media(path: Path) -> Path | None:
    """The folder with the pictures of an archive's posts (in a zip: where it would lie), or None."""
    if path.is_dir():
        return next((_data(path) / name for name in MEDIA_FOLDERS if (_data(path) / name).is_dir()), None)
    names = zipped_names(path)
    for file in archive_files(path):
        inside = file.parent.relative_to(path)
        for name in MEDIA_FOLDERS:
            folder = (inside / name).as_posix()
            if any(found.startswith(f"{folder}/") for found in names):
                return path / folder
    return None


def owner_of(file: Path) -> Owner:
    """Read what lies beside a file of posts: ``account.js`` and ``note-tweet.js``."""
    account = as_mapping(next(iter(_entries(file.parent / "account.js", "account")), None))
    is_deleted = file.name.startswith("deleted-")
    notes = () if is_deleted else _notes(file.parent)
    return Owner(as_id(account.get("accountId")) or NOBODY, notes, is_deleted)


def with_note(post: Tweet, notes: tuple[Note, ...]) -> Tweet:
    """The post with its full text, where exactly one note of the same minute begins with what is there."""
    if not notes or not post.is_truncated or post.created_at is None:
        return post
    start = SPACE.sub(" ", PREFIX.sub("", post.text)).strip()
    if len(start) < MIN_PREFIX:
        return post
    fitting = {
        note
        for note in notes
        if SPACE.sub(" ", note.text).startswith(start)
        and _seconds(note.created_at, post.created_at) <= NOTE_SECONDS
    }
    if len(fitting) != 1:
        return post
    (note,) = fitting
    return replace(post, text=note.text, hashtags=note.hashtags or post.hashtags, is_truncated=False)


@functools.lru_cache(maxsize=2)
def _notes(data: Path) -> tuple[Note, ...]:
    found = []
    for entry in _entries(data / "note-tweet.js", "noteTweet"):
        core = as_mapping(entry.get("core"))
        text, moment = as_text(core.get("text")), utc(entry.get("createdAt"))
        tags = (as_text(as_mapping(h).get("text")) for h in as_list(core.get("hashtags")))
        if text and moment:
            found.append(Note(text, moment, tuple(t for t in tags if t)))
    return tuple(found)


def _entries(path: Path, name: str) -> list[Mapping[str, Any]]:
    """Entries of a file beside the posts; none where it is missing or damaged: the posts stand without it."""
    try:
        with open_source(path) as handle:
            entries = [_loaded(e) for e in elements(handle, MAX_ENTRY_BYTES) if isinstance(e, bytes)]
    except (UserError, DamagedError):
        return []
    return [as_mapping(as_mapping(entry).get(name)) for entry in entries]


def _loaded(element: bytes) -> Any:
    try:
        return json.loads(element.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _seconds(a: str, b: str) -> float:
    return abs((datetime.fromisoformat(a) - datetime.fromisoformat(b)).total_seconds())


def _data(path: Path) -> Path:
    return path / "data" if (path / "data").is_dir() else path
