"""What was taken down, as keyed hashes: known again in any later dump, and readable in none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import atomic_path
from pathclip.ingest.key import fingerprint
from pathclip.pairs import keyed_id
from pathclip.tweets import Fault, Media, Row, Tweet

__all__ = ["TAKEN_DOWN", "Kind", "Stone", "Tombstones"]

TAKEN_DOWN = "taken_down"
FILE = "tombstones.parquet"
NUMBER = re.compile(r"\d+")
Kind = Literal["post", "version", "author", "media", "picture", "row", "sample"]
"""What a stone stands for: a post with all its versions, one version of a post, everything by an author, an
attachment, one picture of one post (a copy of one that left), a table's picture, a sample."""
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("kind", "name", "cause", "reason", "date")],
    metadata={"schema": "pathclip.tombstones/1"},
)


@dataclass(frozen=True, slots=True)
class Stone:
    """One thing that was taken down.

    Attributes:
        kind: What it was.
        name: Its keyed id.
        cause: Keyed id of what was asked for: its own, its post's or its author's.
        reason: ``request``, or the action of a compliance event.
        date: Day of the takedown, ISO 8601.
    """

    kind: str
    name: str
    cause: str
    reason: str
    date: str


@dataclass(frozen=True)
class Tombstones:
    """All that was taken down from a dataset.

    Attributes:
        key: The dataset's key, under which names are hashed.
        stones: (kind, name) to the stone.
    """

    key: bytes = b""
    stones: Mapping[tuple[str, str], Stone] = field(default_factory=dict)

    @classmethod
    def load(cls, private: Path, key: bytes) -> Tombstones:
        """The stones in a dataset's private folder; none where nothing was ever taken down.

        Raises:
            UserError: If they were made under another key, so that nothing would be recognised.
            FaultError: If the file is damaged.
        """
        path = private / FILE
        if not path.is_file():
            return cls(key)
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise FaultError(f"{path} cannot be read ({error}); restore it: takedowns hang on it") from None
        made_with = (table.schema.metadata or {}).get(b"key", b"").decode()
        if made_with != fingerprint(key):
            raise UserError(
                f"{path} was made under another key, so what was taken down could not be known; use that "
                "key (--key-file), or another --out"
            )
        return cls(key, {(row["kind"], row["name"]): Stone(**row) for row in table.to_pylist()})

    def write(self, path: Path) -> None:
        """Write all stones, sorted."""
        rows = [
            {name: getattr(stone, name) for name in SCHEMA.names} for _, stone in sorted(self.stones.items())
        ]
        metadata = {**(SCHEMA.metadata or {}), b"key": fingerprint(self.key).encode()}
        table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(metadata))
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def name(self, kind: Kind, thing: str) -> str:
        """The keyed id of a thing; a sample's own id is one already."""
        return thing if kind == "sample" else keyed_id(self.key, f"tombstone {kind}", thing)

    def cause(self, kind: Kind, thing: str | None) -> str | None:
        """Keyed id of why the thing is gone, or None if it is not."""
        if thing is None or kind not in self._kinds:
            return None
        stone = self.stones.get((kind, self.name(kind, thing)))
        return stone.cause if stone else None

    def also(
        self, things: Iterable[tuple[Kind, str, str | None]], reason: str, date: str | None = None
    ) -> Tombstones:
        """With more stones: (kind, thing, cause), the cause being the thing itself where it is None."""
        today = date or datetime.now(UTC).date().isoformat()
        stones = dict(self.stones)
        for kind, thing, cause in things:
            name = self.name(kind, thing)
            stones.setdefault((kind, name), Stone(kind, name, cause or name, reason, today))
        return Tombstones(self.key, stones)

    def lifted(self, kind: Kind, things: Iterable[str], reasons: frozenset[str]) -> Tombstones:
        """Without the stones that stand for these things for one of the reasons, and all that they caused."""
        names = {self.name(kind, thing) for thing in things}
        causes = {n for n in names if (s := self.stones.get((kind, n))) and s.reason in reasons}
        return Tombstones(self.key, {k: s for k, s in self.stones.items() if s.cause not in causes})

    @cached_property
    def _kinds(self) -> frozenset[str]:
        return frozenset(kind for kind, _ in self.stones)

    def covers(self, tweet: Tweet) -> str | None:
        """Why a post is gone (a keyed id), or None if it may stay.

        A post goes with its author, with any version of it, and a retweet with what it repeats.
        """
        found = (
            self.cause("author", tweet.author_id)
            or self.cause("post", tweet.id)
            or self.cause("version", tweet.id)
            or self.cause("post", tweet.retweet_of_id)
        )
        if found:
            return found
        older = (self.cause("post", version) or self._named(version) for version in tweet.edit_history)
        shown = (self.cause("media", m.key) for m in tweet.media if tweet.kind == "retweet")
        return next((cause for cause in (*older, *shown) if cause), None)

    def _named(self, name: str) -> str | None:
        """The cause of a post that is only known by its keyed id any more."""
        stone = self.stones.get(("post", name))
        return stone.cause if stone else None

    def obey(self, item: Tweet | Row | Fault) -> Tweet | Row | Fault:
        """The item without what was taken down; a `Fault` that names nothing, where nothing is left."""
        if not self.stones:
            return item
        if isinstance(item, Row):
            return Fault(TAKEN_DOWN, "", item.source) if self.cause("row", item.image) else item
        if isinstance(item, Fault):
            return replace(item, detail=self.scrubbed(item.detail))
        return Fault(TAKEN_DOWN, "", item.source) if self.covers(item) else self._without_links(item)

    def scrubbed(self, text: str) -> str:
        """A message in which ids of what is gone are replaced."""
        return NUMBER.sub(lambda match: "(taken down)" if self._is_gone(match[0]) else match[0], text)

    def _without_links(self, tweet: Tweet) -> Tweet:
        """Ids of posts that are gone become keyed ids, so that threads still hold together."""
        return replace(
            tweet,
            conversation_id=self._or_keyed(tweet.conversation_id),
            in_reply_to_id=self._or_keyed(tweet.in_reply_to_id),
            edit_history=tuple(self._or_keyed(i) or i for i in tweet.edit_history),
            media=tuple(self._media(tweet.id, m) for m in tweet.media if not self.cause("media", m.key)),
        )

    def _media(self, tweet_id: str, media: Media) -> Media:
        if self.cause("picture", f"x:{tweet_id}:{media.key}"):
            return Media(media.key, TAKEN_DOWN)
        return media

    def _or_keyed(self, tweet_id: str | None) -> str | None:
        return self.name("post", tweet_id) if tweet_id and self._is_gone(tweet_id) else tweet_id

    def _is_gone(self, number: str) -> bool:
        return any(self.cause(kind, number) for kind in ("post", "version", "author"))
