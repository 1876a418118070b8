"""Which candidates show the same picture or belong together, and which of them give way."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from pathclip.ingest.candidates import Candidate
from pathclip.ingest.config import IngestConfig
from pathclip.pairs import Components, Drop, keyed_id, near_pairs

__all__ = ["drop_near", "merge_exact", "near", "reject_beside_held_out", "sample_id", "ties"]

Near = tuple[Candidate, Candidate, int]


def near(living: list[Candidate], radius: int, *, panels: bool = False) -> list[Near]:
    """Pairs of candidates whose pictures look alike, nearest first; one comparison per different hash.

    Of candidates with equal hashes the first of ``living`` stands for all: it is paired with each. With
    ``panels``, one panel that looks alike is enough.
    """
    by_hash: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in living:
        parts = [panel.phash for panel in candidate.panels] if panels else []
        for name in {candidate.picture["phash"], *parts} - {None}:
            by_hash[name].append(candidate)
    names = sorted(by_hash)
    hashes = np.array([int(name, 16) for name in names], dtype=np.uint64)
    found = [(same[0], other, 0) for same in by_hash.values() for other in same[1:]] if radius >= 0 else []
    for i, j, distance in near_pairs(hashes, radius) if radius >= 0 else ():
        found.append((by_hash[names[i]][0], by_hash[names[j]][0], distance))
    return sorted(found, key=lambda pair: (pair[2], pair[0].id, pair[1].id))


def ties(living: list[Candidate], alike: list[Near], config: IngestConfig) -> tuple[Components, Components]:
    """Coarse components for splitting and fine ones for the loss, over the candidates' ids."""
    groups, positives = Components(), Components()
    for candidate in living:
        same_bytes = ("bytes", candidate.picture["sha256"])
        groups.join(candidate.id, same_bytes)
        positives.join(candidate.id, same_bytes)
        if candidate.thread is not None:
            groups.join(candidate.id, ("thread", candidate.thread))
            positives.join(candidate.id, ("thread", candidate.thread))
        if candidate.author_id is not None and config.split.tie_authors:
            groups.join(candidate.id, ("author", candidate.author_id))
        if candidate.case is not None:
            groups.join(candidate.id, ("case", candidate.case))
    for first, second, _ in alike:
        groups.join(first.id, second.id)
        positives.join(first.id, second.id)
    return groups, positives


def reject_beside_held_out(living: list[Candidate], groups: Components) -> None:
    """Given splits win: what shares a group with given test members goes, then what shares one with val."""
    for split, code in (("test", "group_in_test"), ("val", "group_in_val")):
        held_out = {groups.find(c.id) for c in living if c.alive and c.given_split == split}
        lower = ("train", "val") if split == "test" else ("train",)
        for candidate in living:
            if candidate.alive and candidate.given_split in lower and groups.find(candidate.id) in held_out:
                candidate.reject(Drop(code, f"given as {candidate.given_split}"))


def _preference(candidate: Candidate, key: bytes) -> tuple[Any, ...]:
    """Smallest is kept: a given test member, the larger picture, the earlier post, the smaller sample id."""
    picture = candidate.picture
    return (
        candidate.given_split != "test",
        -picture["width"] * picture["height"],
        candidate.created_at or "9",
        sample_id(candidate, key),
    )


def merge_exact(living: list[Candidate], key: bytes, config: IngestConfig) -> None:
    """Of byte-identical pictures one is kept, with the captions of all."""
    if not config.dedup.exact:
        return
    by_bytes: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in living:
        if candidate.alive:
            by_bytes[candidate.picture["sha256"]].append(candidate)
    for same in by_bytes.values():
        first, *others = sorted(same, key=lambda c: _preference(c, key))
        for other in others:
            held = {caption.text for caption in first.captions}
            first.captions += tuple(c for c in other.captions if c.text not in held)
            first.hashtag = first.hashtag or other.hashtag
            other.reject(Drop("duplicate_exact", f"same bytes as {first.id}"))


def drop_near(living: list[Candidate], key: bytes, config: IngestConfig) -> None:
    """Nearest pairs first: of two near-identical pictures the less preferred goes, if both still stand."""
    living = sorted((c for c in living if c.alive), key=lambda c: _preference(c, key))
    rank = {candidate.id: number for number, candidate in enumerate(living)}
    for pair in near(living, config.dedup.drop_radius):
        keep, lose = sorted(pair[:2], key=lambda c: rank[c.id])
        if keep.alive and lose.alive:
            lose.reject(Drop("duplicate_near", f"distance {pair[2]} from {keep.id}"))


def sample_id(candidate: Candidate, key: bytes, *more: str, panel: int = 0) -> str:
    """The sample's id, from its source, the file's bytes, the panel (0: the whole picture) and more."""
    return keyed_id(key, "sample", candidate.source_key, candidate.picture["sha256"], str(panel), *more)
