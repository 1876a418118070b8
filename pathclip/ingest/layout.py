"""Kept candidates become pairs: named components, splits, places in shards, and origins."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pathclip.ingest.candidates import Candidate, Panel
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.resolve import sample_id
from pathclip.pairs import SPLITS, Caption, Components, Pair, Split, assign_splits, keyed_id, part_captions

__all__ = ["PlacedPair", "lay_out", "pair_of_row"]


@dataclass(frozen=True, slots=True)
class PlacedPair:
    """A pair and its place: the tar's stem and the position in it; and the candidate it was."""

    pair: Pair
    shard: str
    index: int
    candidate: Candidate

    def row(self) -> dict[str, Any]:
        """Its row of ``plan``."""
        pair = self.pair
        return {
            "sample_id": pair.sample_id,
            "shard": self.shard,
            "index": self.index,
            "split": pair.split,
            "group_id": pair.group_id,
            "positive_id": pair.positive_id,
            "captions": [
                {"text": c.text, "source": c.source, "positional": c.positional} for c in pair.captions
            ],
            "hashtag": pair.hashtag,
            "phash": pair.phash,
            "root": pair.image_root,
            "file": pair.image_path,
            "sha256": pair.image_sha256,
            "panels": pair.panels,
            "panel": pair.panel,
            "box": pair.box,
            "phi": self.candidate.phi,
        }

    def provenance(self) -> list[dict[str, Any]]:
        """Its rows of ``provenance``: the picture, then each caption."""
        candidate, name = self.candidate, self.pair.sample_id
        image = {
            "sample_id": name,
            "role": "image",
            "tweet_id": candidate.tweet_id,
            "media_key": candidate.media_key,
            "author_id": candidate.author_id,
        }
        captions = [
            {
                "sample_id": name,
                "role": "caption",
                "caption_index": number,
                "tweet_id": caption.tweet_id,
                "media_key": candidate.media_key if caption.source in ("alt_text", "table") else None,
                "author_id": caption.author_id,
                "caption_source": caption.source,
            }
            for number, caption in enumerate(self.pair.captions)
        ]
        return [image, *captions]


def pair_of_row(row: dict[str, Any]) -> Pair:
    """The pair that a row of ``plan`` describes; who wrote a caption stands in ``provenance`` alone."""
    return Pair(
        sample_id=row["sample_id"],
        group_id=row["group_id"],
        positive_id=row["positive_id"],
        captions=tuple(
            Caption(c["text"], c["source"], positional=bool(c["positional"])) for c in row["captions"]
        ),
        image_path=row["file"],
        image_root=row["root"],
        image_sha256=row["sha256"],
        phash=row["phash"],
        hashtag=row["hashtag"],
        split=row["split"],
        panels=row["panels"],
        panel=row["panel"],
        box=tuple(row["box"]) if row["box"] else None,
    )


def lay_out(
    kept: list[Candidate], groups: Components, positives: Components, key: bytes, config: IngestConfig
) -> list[PlacedPair]:
    """Name the components, split, and number the samples of each split in keyed order."""
    samples = dict(sorted(_samples(kept, key, config)))
    group_of = _named("group", key, groups, samples)
    positive_of = _named("positive", key, positives, samples)
    splits = _splits(samples, group_of, config)
    placed: list[PlacedPair] = []
    for split in SPLITS:
        names = [name for name in samples if splits[name] == split]
        for number, name in enumerate(names):
            shard, index = divmod(number, config.pack.shard_samples)
            pair = _pair(name, samples[name], group_of[name], positive_of[name], split)
            placed.append(PlacedPair(pair, f"{split}-{shard:06d}", index, samples[name][0]))
    return placed


_Sample = tuple[Candidate, tuple[Caption, ...], Panel | None]


def _samples(kept: list[Candidate], key: bytes, config: IngestConfig) -> Iterator[tuple[str, _Sample]]:
    """Sample ids with what they show: one per picture or panel, or one per caption of these."""
    for candidate in kept:
        for panel in candidate.panels or (None,):
            number, captions = 0, candidate.captions
            if panel is not None:
                number = panel.number
                captions = part_captions(captions, (number - 1, candidate.num_panels), config.caption)
            if config.caption.pairs == "picture":
                yield sample_id(candidate, key, panel=number), (candidate, captions, panel)
                continue
            for place, caption in enumerate(captions):
                yield sample_id(candidate, key, str(place), panel=number), (candidate, (caption,), panel)


def _pair(name: str, sample: _Sample, group_id: str, positive_id: str, split: Split) -> Pair:
    candidate, captions, panel = sample
    assert candidate.place is not None
    return Pair(
        sample_id=name,
        group_id=group_id,
        positive_id=positive_id,
        captions=captions,
        image_path=candidate.place[1],
        image_root=candidate.place[0],
        image_sha256=candidate.picture["sha256"],
        phash=candidate.picture["phash"] if panel is None else panel.phash,
        hashtag=candidate.hashtag,
        split=split,
        panels=candidate.num_panels,
        panel=0 if panel is None else panel.number,
        box=None if panel is None else panel.box,
    )


def _named(kind: str, key: bytes, ties: Components, samples: dict[str, _Sample]) -> dict[str, str]:
    """Sample id to its component's id: an HMAC over the members, so never a member's own id."""
    members: dict[Any, list[str]] = defaultdict(list)
    for name, (candidate, *_) in samples.items():
        members[ties.find(candidate.id)].append(name)
    named: dict[str, str] = {}
    for names in members.values():
        component = keyed_id(key, kind, *sorted(names))
        named.update(dict.fromkeys(names, component))
    return named


def _splits(samples: dict[str, _Sample], group_of: dict[str, str], config: IngestConfig) -> dict[str, str]:
    """Given splits win and draw the other members of their group along; the rest is shared out."""
    given = {name: c.given_split for name, (c, *_) in samples.items() if c.given_split}
    drawn = {
        group_of[name]: split
        for split in ("train", "val", "test")  # the last word is test's
        for name, its in given.items()
        if its == split
    }
    free = Counter(group_of[name] for name in samples if group_of[name] not in drawn)
    shared = {**assign_splits(free, config.split), **drawn}
    return {name: given.get(name) or shared[group_of[name]] for name in samples}
