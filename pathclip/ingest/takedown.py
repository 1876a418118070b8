"""Life after release: what was deleted, protected or asked back leaves every file of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.core.files import claim
from pathclip.core.remote import Synced
from pathclip.ingest.journal import Journal, finish
from pathclip.ingest.key import fingerprint, load_key
from pathclip.ingest.publish import publish, remembered
from pathclip.ingest.record import previous
from pathclip.ingest.requests import Requests
from pathclip.ingest.rewrite import rewrite
from pathclip.ingest.survey import Survey, files_of, survey
from pathclip.ingest.tables import read_rows
from pathclip.ingest.tombstones import Tombstones

__all__ = ["Remaining", "Remover", "TakedownReport", "takedown"]


@dataclass(frozen=True, slots=True)
class Remaining:
    """What an index has to agree with after a takedown.

    Attributes:
        gone: Ids of all samples that were ever taken down from the dataset.
        places: Sample id to shard (relative to the dataset), row in it, and first caption.
        dataset: The dataset folder.
    """

    gone: frozenset[str]
    places: Mapping[str, tuple[str, int, str]]
    dataset: Path


Remover = Callable[[Remaining], int]
"""Makes something that was derived from a dataset agree with it; returns how many entries it removed.

It must be safe to repeat: a takedown that was interrupted calls it again.
"""


@dataclass(frozen=True, slots=True)
class TakedownReport:
    """What a takedown did, in counts.

    Attributes:
        requested: Different ids asked for.
        known: Of these, ids the dataset knew something of.
        before: Ids that had been taken down before.
        posts: Posts that left, retweets of them included.
        samples: Samples that left.
        captions: Captions that left samples which stay.
        shards: Shards written again or removed.
        derived: Entries removed from indexes.
        dry_run: True where nothing was written.
        events: Compliance events by action.
        unread: Lines of the events that were not understood.
        published: What changed at the store the dataset is published to; None without one.
    """

    requested: int
    known: int
    before: int
    posts: int
    samples: int
    captions: int
    shards: int
    derived: int = 0
    dry_run: bool = False
    events: dict[str, int] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    published: Synced | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, counts only."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What a person should know."""
        verb = "would remove" if self.dry_run else "removed"
        lines = [
            f"{self.known} of {self.requested} ids are known here; {verb} {self.posts} posts, "
            f"{self.samples} samples, {self.captions} captions of samples that stay; "
            f"{self.shards} shards {'affected' if self.dry_run else 'rewritten'}"
        ]
        if self.before:
            lines.append(f"{self.before} ids had been taken down before")
        if self.derived:
            lines.append(f"{self.derived} entries left the indexes")
        if self.published:
            lines.append(self.published.line())
        if self.unread:
            lines.append(f"{len(self.unread)} lines were not understood; the first: {self.unread[0]}")
        if not self.dry_run:
            lines.append("a later ingest with this key leaves them out; files under --media were not touched")
        return lines


def takedown(
    out: str | Path,
    requests: Requests,
    *,
    key_file: Path | None = None,
    removers: Iterable[Remover] = (),
    dry_run: bool = False,
) -> TakedownReport:
    """Remove posts and authors from a dataset folder, and remember that they are gone.

    Their captions leave; a sample without picture or caption leaves; a duplicate that had lost to a picture
    that leaves does not take its place. Shards that hold none of it keep their bytes. Killed at any moment,
    the folder is as before, or the next run into it (of any verb that writes) completes what was begun. A
    published dataset is published again, also where nothing was left to remove.

    Args:
        out: The dataset folder with its private part.
        requests: From `read_ids` or `read_events`.
        key_file: The key of the ids, where it does not lie in the dataset.
        removers: What makes indexes of the dataset agree with it.
        dry_run: Count, and write nothing.

    Raises:
        UserError: If this is no complete dataset folder, or the key is another one.
        FaultError: If the store the dataset is published to is away or refuses; the folder is done by then.
    """
    out = Path(out)
    private = out / "private"
    if not (private / "run.json").is_file():
        raise UserError(f"{out} has no private/run.json; takedown needs the folder that ingest wrote, whole")
    with claim(private / "lock") as owned:
        if not owned:
            raise UserError(f"another run is writing {out}; wait for it")
        finish(out)
        key = _key(out, key_file)
        if not (out / "index.json").is_file() or not (private / "plan.parquet").is_file():
            raise UserError(f"{out} is not complete; finish its ingest first (run the same command again)")
        found = survey(private, Tombstones.load(private, key), requests)
        journal = Journal(out)
        try:
            shards = rewrite(journal, found)
            if dry_run:
                journal.abandon()
            else:
                found.gone.write(journal.staged("private/tombstones.parquet"))
                journal.commit()
        except BaseException:
            if not (out / "private" / ".pending" / "todo.json").exists():
                journal.abandon()
            raise
        derived = 0 if dry_run else _derived(out, found.gone, removers)
        url = "" if dry_run else remembered(out)
        copied = publish(out, url) if url else None
    return replace(_report(requests, found, shards, derived, dry_run), published=copied)


def _key(out: Path, key_file: Path | None) -> bytes:
    """The dataset's key, checked against what its ids were made with."""
    private = out / "private"
    if key_file is None and not (private / "key").is_file():
        raise UserError(f"{out} keeps no key; name the one it was made with: --key-file")
    key = load_key(private, key_file)
    if (previous(out) or {}).get("key") != fingerprint(key):
        raise UserError(f"{out} was made with another key; name the right one with --key-file")
    return key


def _derived(out: Path, gone: Tombstones, removers: Iterable[Remover]) -> int:
    removers = list(removers)
    if not removers:
        return 0
    places = {
        row["sample_id"]: (f"shards/{row['shard']}.tar", row["index"], row["captions"][0]["text"])
        for row in read_rows(files_of(out / "private", "plan"))
    }
    names = frozenset(name for kind, name in gone.stones if kind == "sample")
    remaining = Remaining(names, places, out)
    return sum(remover(remaining) for remover in removers)


def _report(requests: Requests, found: Survey, shards: int, derived: int, dry_run: bool) -> TakedownReport:
    known = requests.asked(found.found)
    return TakedownReport(
        requested=len(requests.asked()),
        known=len(known),
        before=len(requests.asked(found.before) - known),
        posts=len(found.posts),
        samples=len(found.leaving),
        captions=sum(len(numbers) for numbers in found.recaptioned.values()),
        shards=shards,
        derived=derived,
        dry_run=dry_run,
        events=dict(sorted(requests.events.items())),
        unread=tuple(requests.unread),
    )
