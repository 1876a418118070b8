"""One (post, media) pair on its way through the plan: kept at the end, or rejected once with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pathclip.ingest.codes import stage_of
from pathclip.ingest.media import Place
from pathclip.pairs import Box, Caption, Drop

__all__ = ["Candidate", "Panel"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of a figure: its number from 1, its box in the upright picture, and its hash."""

    number: int
    box: Box
    phash: str | None


@dataclass(slots=True)
class Candidate:
    """The unit of the funnel; the one mutable thing of the plan.

    Attributes:
        id: ``x:<tweet id>:<media key>``, ``t:<image>#<n>`` or ``l:<file:line>``; stays in the private folder.
        source_key: What the sample's id is made from: the id, without ``#n`` for tables.
        source: ``file:line``.
        tweet_id: None for rows and lines.
        media_key: None for posts without media and for lines; the picture's path for rows.
        author_id: Who posted the picture.
        created_at: ISO 8601, or None.
        thread: Equal for posts of one conversation, or None.
        case: The table's group, or None.
        given_split: The table's split, or None.
        hashtag: The hashtag it is counted under, or None.
        place: Where its picture lies, or None.
        picture: Columns of ``pictures``, once looked up.
        captions: Best first.
        num_panels: How many panels its picture shows; 0 where it is a single picture or none are asked for.
        panels: Those of them that become samples of their own; none where the picture stays whole.
        phi: What in its picture may name a patient, where such are kept and marked.
        drop: Why it is rejected; None as long as it is not.
    """

    id: str
    source: str
    source_key: str = ""
    tweet_id: str | None = None
    media_key: str | None = None
    author_id: str | None = None
    created_at: str | None = None
    thread: str | None = None
    case: str | None = None
    given_split: str | None = None
    hashtag: str | None = None
    place: Place | None = None
    picture: dict[str, Any] = field(default_factory=dict)
    captions: tuple[Caption, ...] = ()
    num_panels: int = 0
    panels: tuple[Panel, ...] = ()
    phi: str | None = None
    drop: Drop | None = None

    @property
    def alive(self) -> bool:
        """True as long as nothing rejected it."""
        return self.drop is None

    def reject(self, drop: Drop) -> None:
        """End here, with a reason of the closed list."""
        assert self.drop is None, f"{self.id} ends twice: {self.drop}, {drop}"
        stage_of(drop.code)
        self.drop = drop
