"""Phase B: columns only, no pixels. Candidates in; a plan, its rejects and their provenance out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip.ingest.candidates import Candidate
from pathclip.ingest.collect import Collected
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.layout import PlacedPair, lay_out
from pathclip.ingest.nominate import nominate
from pathclip.ingest.parts import find_parts
from pathclip.ingest.rejects import Rejects
from pathclip.ingest.resolve import drop_near, merge_exact, near, reject_beside_held_out, ties
from pathclip.ingest.tables import read_rows, write_rows
from pathclip.pairs import Drop, FittedFilter, why_no_micrograph

__all__ = ["Planned", "large_groups", "plan", "write_plan"]

LARGE_GROUP = 0.2
SMALL_DATASET = 10


@dataclass(frozen=True, slots=True)
class Planned:
    """The outcome of phase B.

    Attributes:
        candidates: Those that have a picture or caption one; those without a drop are kept.
        codes: Code to the candidates that were rejected for it, all of them.
        pairs: The samples, in the order of the shards.
        lines: Lines that are not blank.
        posts: Posts, each counted once.
        repeated: Further records of posts already counted.
    """

    candidates: list[Candidate]
    codes: Counter[str]
    pairs: list[PlacedPair]
    lines: int
    posts: int
    repeated: int

    def large_groups(self) -> list[dict[str, Any]]:
        """Group id, split and samples of groups above a fifth of a dataset that is not tiny."""
        return large_groups(Counter((p.pair.group_id, p.pair.split) for p in self.pairs))


def large_groups(sizes: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    """Of (group id, split) and their samples, those above a fifth of a dataset that is not tiny."""
    total = sizes.total()
    return [
        {"group_id": group, "split": split, "samples": count}
        for (group, split), count in sorted(sizes.items())
        if count > LARGE_GROUP * total and total >= SMALL_DATASET
    ]


def plan(collected: Collected, config: IngestConfig, key: bytes, folder: Path) -> Planned:
    """Decide on every candidate, tie groups, and lay the samples out in shards.

    Nothing here depends on the order of the input lines or on the number of workers. What is rejected is
    written to ``folder`` on the way.
    """
    rejects = Rejects(folder)
    nominated = nominate(collected, config, rejects)
    _judge_pictures(nominated.candidates, collected, config)
    living = [c for c in nominated.candidates if c.alive]
    groups, positives = ties(living, near(living, config.dedup.tie_radius, panels=True), config)
    reject_beside_held_out(living, groups)
    merge_exact(living, key, config)
    drop_near(living, key, config)
    _settle_replies(nominated.candidates)
    pairs = lay_out([c for c in living if c.alive], groups, positives, key, config)
    rejects.finish(c for c in nominated.candidates if not c.alive)
    return Planned(
        nominated.candidates, rejects.codes, pairs, collected.lines, nominated.posts, nominated.repeated
    )


def write_plan(planned: Planned, private: Path) -> None:
    """Write ``provenance.parquet`` and, last, ``plan.parquet``."""
    provenance = (row for placed in planned.pairs for row in placed.provenance())
    write_rows(private / "provenance.parquet", "provenance", provenance)
    write_rows(private / "plan.parquet", "plan", (placed.row() for placed in planned.pairs))


def _judge_pictures(candidates: Iterable[Candidate], collected: Collected, config: IngestConfig) -> None:
    pictures = {(p["root"], p["file"]): p for p in read_rows(collected.files("pictures"))}
    fitted = FittedFilter.load(config.filter.model) if config.filter.model else None
    cleared = config.privacy.cleared_names()
    for candidate in candidates:
        if candidate.place is None:
            continue
        candidate.picture = pictures[candidate.place]
        if candidate.alive and (drop := _judge(candidate.picture, config, fitted)):
            candidate.reject(drop)
        if candidate.alive and not cleared.intersection((candidate.id, candidate.media_key)):
            _mind_phi(candidate, config)
        if candidate.alive and config.image.panels != "off":
            find_parts(candidate, config, fitted)


def _mind_phi(candidate: Candidate, config: IngestConfig) -> None:
    phi = json.loads(candidate.picture["scores"] or "{}").get("phi")
    if phi and config.privacy.phi == "quarantine":
        candidate.reject(Drop("phi_suspect", phi))
    elif phi and config.privacy.phi == "flag":
        candidate.phi = phi


def _judge(picture: dict[str, Any], config: IngestConfig, fitted: FittedFilter | None) -> Drop | None:
    if picture["code"] is not None:
        return Drop(picture["code"], picture["detail"] or "")
    short, long = sorted((picture["width"], picture["height"]))
    size = f"{picture['width']}x{picture['height']} px"
    if short < config.image.min_side_px:
        return Drop("image_tiny", f"{size}; image.min_side_px is {config.image.min_side_px}")
    if long > short * config.image.max_aspect:
        return Drop("image_aspect", f"{size}; image.max_aspect is {config.image.max_aspect:g}")
    scores = json.loads(picture["scores"] or "{}")
    if config.filter.pictures == "reject" and (why := why_no_micrograph(scores)):
        return Drop("not_micrograph", why)
    if fitted and (why := fitted.why_rejected(scores)):
        return Drop("filter_model", why)
    least = config.filter.scorer_min
    if least is not None and scores["scorer"] < least:
        return Drop("filter_scorer", f"{scores['scorer']:.3f}; filter.scorer_min is {least:g}")
    return None


def _settle_replies(candidates: list[Candidate]) -> None:
    """Replies whose text captions a kept picture end as ``used_as_caption``."""
    used = {x.tweet_id: c.id for c in candidates if c.alive for x in c.captions if x.tweet_id != c.tweet_id}
    for candidate in candidates:
        if candidate.media_key is None and candidate.tweet_id in used and candidate.drop is not None:
            candidate.drop = Drop("used_as_caption", f"captions {used[candidate.tweet_id]}")
