"""What a takedown touches: posts, copies, samples and captions, found in the private tables."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pathclip.ingest.requests import Requests
from pathclip.ingest.tables import read_rows, rows_to_tweets
from pathclip.ingest.tombstones import Kind, Tombstones
from pathclip.tweets import Tweet

__all__ = ["Survey", "files_of", "survey"]

KEEPER = re.compile(r"(x:(\d\w*):(\S+))$")  # how a duplicate's detail names the picture that was kept
Picture = tuple[str | None, str | None]
"""Post id and media key (None and the path for a table's picture)."""


@dataclass(slots=True)
class Survey:
    """Everything that has to go.

    Attributes:
        gone: The stones that stand afterwards.
        posts: Post id to its cause, for all that leave, retweets included.
        media: Media keys that no remaining post shows.
        images: Paths of tables' pictures.
        copies: Candidate ids of duplicates that lost to a picture that leaves, to the cause.
        taken: Kept pictures that leave.
        samples: Sample ids that leave because of their picture, to the cause.
        captions: Sample id to the caption numbers that leave.
        captioned: Caption rows of the samples in ``captions``, so that empty ones are known.
        orphans: Samples that leave because no caption is left, to their picture.
        pictures: Every kept picture that loses all its samples without being taken down itself.
        fewer: Pictures that stay with fewer captions.
        captioning: Post id to a sample that it still captions.
        found: Requested ids that something was known of.
        before: Requested ids that had been taken down before.
    """

    gone: Tombstones
    posts: dict[str, str] = field(default_factory=dict)
    media: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    copies: dict[str, str] = field(default_factory=dict)
    taken: set[Picture] = field(default_factory=set)
    samples: dict[str, str] = field(default_factory=dict)
    captions: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    captioned: Counter[str] = field(default_factory=Counter)
    orphans: dict[str, Picture] = field(default_factory=dict)
    pictures: set[Picture] = field(default_factory=set)
    fewer: set[Picture] = field(default_factory=set)
    captioning: dict[str, str] = field(default_factory=dict)
    found: set[str] = field(default_factory=set)
    before: set[str] = field(default_factory=set)

    @property
    def leaving(self) -> set[str]:
        """All samples that leave."""
        return self.samples.keys() | self.orphans.keys()

    @property
    def recaptioned(self) -> dict[str, set[int]]:
        """Samples that stay with fewer captions."""
        return {name: numbers for name, numbers in self.captions.items() if name not in self.leaving}


def files_of(private: Path, table: str) -> list[Path]:
    """The parquet files of a table of the private folder."""
    folders = {"rejects": private / "rejects", "plan": private, "provenance": private, "thumbs": private}
    return sorted(folders.get(table, private / "parts").glob(f"{table}*.parquet"))


def survey(private: Path, before: Tombstones, requests: Requests) -> Survey:
    """Read the private tables and find what the requests touch; nothing is written."""
    requested = _resolved(private, requests)
    gone = _lift(before, requests)
    found = Survey(_asked(gone, requested))
    for kind, asked in _kinds(requested).items():
        found.before |= {thing for thing in asked if gone.cause(kind, thing)}
    _posts(private, found, requested)
    _rows(private, found, requested)
    _samples(private, found)
    _copies(private, found)
    things: list[tuple[Kind, str, str | None]] = [("sample", n, cause) for n, cause in found.samples.items()]
    things += [("sample", name, None) for name in found.orphans]
    things += [("picture", name, cause) for name, cause in found.copies.items()]
    found.gone = found.gone.also(things, "consequence")
    return found


def _lift(gone: Tombstones, requests: Requests) -> Tombstones:
    for kind, thing, reasons in requests.lifted:
        gone = gone.lifted(kind, [thing], reasons)  # type: ignore[arg-type]
    return gone


def _asked(gone: Tombstones, requests: Requests) -> Tombstones:
    by_reason: dict[str, list[tuple[Kind, str, str | None]]] = defaultdict(list)
    for kind, things in _kinds(requests).items():
        for thing, reason in things.items():
            by_reason[reason].append((kind, thing, None))
    for reason, stones in by_reason.items():
        gone = gone.also(stones, reason)
    return gone


def _kinds(requests: Requests) -> dict[Kind, dict[str, str]]:
    return {"post": requests.posts, "version": requests.versions, "author": requests.authors}


def _resolved(private: Path, requests: Requests) -> Requests:
    """Sample ids stand for the post of their picture."""
    names = {name for name in requests.posts if len(name) == 16 and not name.isdigit()}
    if names:
        for row in read_rows(files_of(private, "provenance")):
            if row["role"] == "image" and row["sample_id"] in names:
                requests.resolve(row["sample_id"], row["tweet_id"] or row["media_key"])
    return requests


def _posts(private: Path, found: Survey, requests: Requests) -> None:
    """Three passes: all versions of what is asked for; its attachments; the retweets that show these."""
    versions: dict[str, str] = {}
    for tweet in _read_posts(private):
        if (cause := found.gone.covers(tweet)) and not _is_version(found, tweet.id):
            versions.update(dict.fromkeys((tweet.id, *tweet.edit_history), cause))
    found.gone = found.gone.also((("post", i, cause) for i, cause in versions.items()), "consequence")
    shown: dict[str, str] = {}
    staying: set[str] = set()
    for tweet in _read_posts(private):
        cause = found.gone.covers(tweet)
        if cause:
            found.posts[tweet.id] = cause
            found.found |= {i for i in (tweet.id, *tweet.edit_history) if i in requests.posts}
            found.found |= {i for i in (tweet.id,) if i in requests.versions}
            found.found |= {i for i in (tweet.author_id,) if i and i in requests.authors}
        if tweet.kind != "retweet":
            keys = [m.key for m in tweet.media]
            shown.update(dict.fromkeys(keys, cause)) if cause else staying.update(keys)
    found.media = shown.keys() - staying
    found.gone = found.gone.also((("media", key, shown[key]) for key in found.media), "consequence")
    retweets: dict[str, str] = {}
    for tweet in _read_posts(private):
        if tweet.id not in found.posts and (cause := found.gone.covers(tweet)):
            retweets[tweet.id] = cause
    found.gone = found.gone.also((("post", i, cause) for i, cause in retweets.items()), "consequence")
    found.posts |= retweets


def _read_posts(private: Path) -> Iterator[Tweet]:
    return rows_to_tweets(read_rows(files_of(private, "posts")))


def _is_version(found: Survey, tweet_id: str) -> bool:
    """True where only this version of the post leaves."""
    return found.gone.cause("version", tweet_id) is not None and found.gone.cause("post", tweet_id) is None


def _rows(private: Path, found: Survey, requests: Requests) -> None:
    for row in read_rows(files_of(private, "rows"), ["image"]):
        if row["image"] in requests.posts:
            found.images.add(row["image"])
            found.found.add(row["image"])
    found.gone = found.gone.also([("row", image, None) for image in found.images], "request")


def _samples(private: Path, found: Survey) -> None:
    place: dict[str, Picture] = {}
    for row in read_rows(files_of(private, "provenance")):
        name, picture = row["sample_id"], (row["tweet_id"], row["media_key"])
        if row["role"] == "image":
            if cause := _cause_of(found, picture):
                found.samples[name] = cause
                found.taken.add(picture)
            continue
        if row["tweet_id"] in found.posts:
            found.captions[name].add(row["caption_index"])
    for row in read_rows(files_of(private, "provenance")):
        name = row["sample_id"]
        if name in found.captions:
            if row["role"] == "image":
                place[name] = (row["tweet_id"], row["media_key"])
            else:
                found.captioned[name] += 1
    for name, numbers in found.captions.items():
        if name not in found.samples and len(numbers) == found.captioned[name]:
            found.orphans[name] = place[name]
    leaving = found.leaving
    staying: set[Picture] = set()
    for row in read_rows(files_of(private, "provenance")):
        if row["sample_id"] not in leaving:
            if row["role"] == "image":
                staying.add((row["tweet_id"], row["media_key"]))
            elif row["tweet_id"]:
                found.captioning[row["tweet_id"]] = row["sample_id"]
    found.pictures = set(found.orphans.values()) - staying
    found.fewer = {place[name] for name in found.captions if name not in found.samples}


def _cause_of(found: Survey, picture: Picture) -> str | None:
    tweet_id, media_key = picture
    if tweet_id is not None:
        return found.posts.get(tweet_id)
    return found.gone.cause("row", media_key) if media_key in found.images else None


def _copies(private: Path, found: Survey) -> None:
    """Duplicates that lost to a picture that leaves, and those that lost to these: none takes its place."""
    keeper: dict[str, str] = {}
    for row in read_rows(files_of(private, "rejects"), ["candidate_id", "code", "detail"]):
        if row["code"].startswith("duplicate_") and (match := KEEPER.search(row["detail"] or "")):
            keeper[row["candidate_id"]] = match[1]
    for loser in keeper:
        winner: str | None = loser
        seen: set[str] = set()
        while (winner := keeper.get(winner)) and winner not in seen:  # type: ignore[arg-type]
            seen.add(winner)
            if cause := found.posts.get(winner.split(":")[1]):
                found.copies[loser] = cause
                break
