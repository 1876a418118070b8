"""Phase B: columns only, no pixels. Candidates in; a plan, its rejects and their provenance out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.ingest.candidates import Candidate
from pathclip.ingest.codes import stage_of
from pathclip.ingest.collect import Collected
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.nominate import nominate
from pathclip.ingest.tables import read_rows, write_rows
from pathclip.pairs import SPLITS, Caption, Components, Drop, assign_splits, keyed_id, near_pairs

__all__ = ["Planned", "plan", "write_plan"]

LARGE_GROUP = 0.2


@dataclass(slots=True)
class Planned:
    """The outcome of phase B.

    Attributes:
        candidates: All of them; those without a drop are kept.
        rows: Rows of ``plan``, in the order of the shards.
        provenance: Rows of ``provenance``.
        lines, posts, repeated: Counted on the way.
        large_groups: Group id, samples and split of groups above a fifth of the samples.
    """

    candidates: list[Candidate]
    lines: int
    posts: int
    repeated: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)
    large_groups: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Sample:
    sample_id: str
    candidate: Candidate
    captions: tuple[Caption, ...]


def plan(collected: Collected, config: IngestConfig, key: bytes) -> Planned:
    """Decide on every candidate, tie groups, and lay the samples out in shards.

    Nothing here depends on the order of the input lines or on the number of workers.
    """
    nominated = nominate(collected, config)
    planned = Planned(nominated.candidates, collected.lines, nominated.posts, nominated.repeated)
    _judge_pictures(planned.candidates, collected, config)
    living = [c for c in planned.candidates if c.alive]
    groups, positives = _ties(living, _near(living, config.dedup.tie_radius), config)
    _reject_beside_held_out(living, groups)
    _merge_exact(living, key, config)
    _drop_near([c for c in living if c.alive], key, config)
    _settle_replies(planned.candidates)
    kept = [c for c in living if c.alive]
    _lay_out(planned, kept, groups, positives, key, config)
    return planned


def write_plan(planned: Planned, private: Path) -> None:
    """Write ``plan.parquet``, ``rejects/rejects-00000.parquet`` and ``provenance.parquet``; the plan last."""
    write_rows(private / "rejects" / "rejects-00000.parquet", "rejects", _rejects(planned.candidates))
    write_rows(private / "provenance.parquet", "provenance", planned.provenance)
    write_rows(private / "plan.parquet", "plan", planned.rows)


def _judge_pictures(candidates: Iterable[Candidate], collected: Collected, config: IngestConfig) -> None:
    pictures = {(p["root"], p["file"]): p for p in read_rows(collected.files("pictures"))}
    for candidate in candidates:
        if candidate.place is None:
            continue
        candidate.picture = pictures[candidate.place]
        if candidate.alive and (drop := _judge(candidate.picture, config)):
            candidate.reject(drop)


def _judge(picture: dict[str, Any], config: IngestConfig) -> Drop | None:
    if picture["code"] is not None:
        return Drop(picture["code"], picture["detail"] or "")
    short, long = sorted((picture["width"], picture["height"]))
    size = f"{picture['width']}x{picture['height']} px"
    if short < config.image.min_side_px:
        return Drop("image_tiny", f"{size}; image.min_side_px is {config.image.min_side_px}")
    if long > short * config.image.max_aspect:
        return Drop("image_aspect", f"{size}; image.max_aspect is {config.image.max_aspect:g}")
    return None


def _near(living: list[Candidate], radius: int) -> list[tuple[Candidate, Candidate, int]]:
    """Pairs of candidates whose pictures look alike, nearest first; one comparison per different hash.

    Of candidates with equal hashes the first of ``living`` stands for all: it is paired with each.
    """
    by_hash: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in living:
        if candidate.picture["phash"] is not None:
            by_hash[candidate.picture["phash"]].append(candidate)
    names = sorted(by_hash)
    hashes = np.array([int(name, 16) for name in names], dtype=np.uint64)
    found = [(same[0], other, 0) for same in by_hash.values() for other in same[1:]] if radius >= 0 else []
    for i, j, distance in near_pairs(hashes, radius) if radius >= 0 else ():
        found.append((by_hash[names[i]][0], by_hash[names[j]][0], distance))
    return sorted(found, key=lambda pair: (pair[2], pair[0].id, pair[1].id))


def _ties(
    living: list[Candidate], near: list[tuple[Candidate, Candidate, int]], config: IngestConfig
) -> tuple[Components, Components]:
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
    for first, second, _ in near:
        groups.join(first.id, second.id)
        positives.join(first.id, second.id)
    return groups, positives


def _reject_beside_held_out(living: list[Candidate], groups: Components) -> None:
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
        _sample_id(candidate, key),
    )


def _merge_exact(living: list[Candidate], key: bytes, config: IngestConfig) -> None:
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


def _drop_near(living: list[Candidate], key: bytes, config: IngestConfig) -> None:
    """Nearest pairs first: of two near-identical pictures the less preferred goes, if both still stand."""
    living = sorted(living, key=lambda c: _preference(c, key))
    rank = {candidate.id: number for number, candidate in enumerate(living)}
    for pair in _near(living, config.dedup.drop_radius):
        keep, lose = sorted(pair[:2], key=lambda c: rank[c.id])
        if keep.alive and lose.alive:
            lose.reject(Drop("duplicate_near", f"distance {pair[2]} from {keep.id}"))


def _settle_replies(candidates: list[Candidate]) -> None:
    """Replies whose text captions a kept picture end as ``used_as_caption``."""
    used = {x.tweet_id: c.id for c in candidates if c.alive for x in c.captions if x.tweet_id != c.tweet_id}
    for candidate in candidates:
        if candidate.media_key is None and candidate.tweet_id in used and candidate.drop is not None:
            candidate.drop = Drop("used_as_caption", f"captions {used[candidate.tweet_id]}")


def _sample_id(candidate: Candidate, key: bytes, *more: str) -> str:
    return keyed_id(key, "sample", candidate.source_key, candidate.picture["sha256"], "0", *more)


def _samples(kept: list[Candidate], key: bytes, config: IngestConfig) -> list[_Sample]:
    if config.caption.pairs == "picture":
        return [_Sample(_sample_id(c, key), c, c.captions) for c in kept]
    return [
        _Sample(_sample_id(c, key, str(n)), c, (caption,))
        for c in kept
        for n, caption in enumerate(c.captions)
    ]


def _lay_out(
    planned: Planned,
    kept: list[Candidate],
    groups: Components,
    positives: Components,
    key: bytes,
    config: IngestConfig,
) -> None:
    """Name the components, split, and number the samples of each split in keyed order."""
    samples = _samples(kept, key, config)
    members = {
        kind: _named(kind, key, ties, samples) for kind, ties in (("group", groups), ("positive", positives))
    }
    splits = _splits(samples, members["group"], config)
    by_split: dict[str, list[_Sample]] = {split: [] for split in SPLITS}
    for sample in sorted(samples, key=lambda s: s.sample_id):
        by_split[splits[sample.sample_id]].append(sample)
    for split, ordered in by_split.items():
        for number, sample in enumerate(ordered):
            shard, index = divmod(number, config.pack.shard_samples)
            planned.rows.append(
                {
                    "sample_id": sample.sample_id,
                    "shard": f"{split}-{shard:06d}",
                    "index": index,
                    "split": split,
                    "group_id": members["group"][sample.sample_id],
                    "positive_id": members["positive"][sample.sample_id],
                    **_content(sample),
                }
            )
            planned.provenance += _origins(sample)
    planned.large_groups = _large_groups(planned.rows)


def _named(kind: str, key: bytes, ties: Components, samples: list[_Sample]) -> dict[str, str]:
    """Sample id to its component's id: an HMAC over the members, so never a member's own id."""
    members: dict[Any, list[str]] = defaultdict(list)
    for sample in samples:
        members[ties.find(sample.candidate.id)].append(sample.sample_id)
    return {
        sample_id: name
        for ids in members.values()
        for name in [keyed_id(key, kind, *sorted(ids))]
        for sample_id in ids
    }


def _splits(samples: list[_Sample], group_of: dict[str, str], config: IngestConfig) -> dict[str, str]:
    """Given splits win; a group with a given split draws its other members along; the rest is shared out."""
    given = {s.sample_id: s.candidate.given_split for s in samples if s.candidate.given_split}
    order = {"test": 0, "val": 1, "train": 2}
    pulled: dict[str, str] = {}
    for sample_id, split in sorted(given.items(), key=lambda item: order[item[1]], reverse=True):
        pulled[group_of[sample_id]] = split
    free = Counter(group_of[s.sample_id] for s in samples if group_of[s.sample_id] not in pulled)
    shared = {**assign_splits(free, config.split), **pulled}
    return {s.sample_id: given.get(s.sample_id) or shared[group_of[s.sample_id]] for s in samples}


def _content(sample: _Sample) -> dict[str, Any]:
    candidate = sample.candidate
    assert candidate.place is not None
    return {
        "captions": [{"text": c.text, "source": c.source} for c in sample.captions],
        "hashtag": candidate.hashtag,
        "phash": candidate.picture["phash"],
        "root": candidate.place[0],
        "file": candidate.place[1],
        "sha256": candidate.picture["sha256"],
    }


def _origins(sample: _Sample) -> list[dict[str, Any]]:
    candidate = sample.candidate
    image = {
        "sample_id": sample.sample_id,
        "role": "image",
        "tweet_id": candidate.tweet_id,
        "media_key": candidate.media_key,
        "author_id": candidate.author_id,
    }
    captions = [
        {
            "sample_id": sample.sample_id,
            "role": "caption",
            "caption_index": n,
            "tweet_id": caption.tweet_id,
            "media_key": candidate.media_key if caption.source in ("alt_text", "table") else None,
            "author_id": caption.author_id,
            "caption_source": caption.source,
        }
        for n, caption in enumerate(sample.captions)
    ]
    return [image, *captions]


def _large_groups(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sizes = Counter((row["group_id"], row["split"]) for row in rows)
    return [
        {"group_id": group, "split": split, "samples": count}
        for (group, split), count in sorted(sizes.items())
        if count > LARGE_GROUP * len(rows) and len(rows) >= 10
    ]


def _rejects(candidates: Iterable[Candidate]) -> Iterable[dict[str, Any]]:
    for candidate in candidates:
        if candidate.drop is not None:
            picture = candidate.picture
            scores = {
                name: picture[name] for name in ("width", "height", "bytes") if picture.get(name) is not None
            }
            yield {
                "candidate_id": candidate.id,
                "tweet_id": candidate.tweet_id,
                "media_key": candidate.media_key,
                "stage": stage_of(candidate.drop.code),
                "code": candidate.drop.code,
                "detail": candidate.drop.detail,
                "source": candidate.source,
                "scores": json.dumps(scores),
            }
