"""What is known about a dump: the decision on every candidate."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Decision", "DumpTruth"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What should become of one candidate.

    Attributes:
        tweet_id: The post.
        media_key: The attachment; None for a post without one.
        rule: Why it is in the dump: the kind of post or fault.
        kept: Whether it becomes a sample; None where both are defensible.
        code: The reject code expected where it is not kept.
        label: The tissue shown, or None.
        caption_from: tweet, reply or alt_text: where the naming caption stands; None where nothing names it.
        file: Name of its file in the media folder, or None.
    """

    tweet_id: str
    media_key: str | None
    rule: str
    kept: bool | None
    code: str | None = None
    label: str | None = None
    caption_from: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class DumpTruth:
    """A written dump.

    Attributes:
        tweets: ``tweets.jsonl``.
        media: The folder of the pictures.
        decisions: One per (post, media) candidate, in file order; lines without posts are in ``extra_lines``.
        extra_lines: Lines that hold no post, by the code under which they are rejected.
    """

    tweets: Path
    media: Path
    decisions: tuple[Decision, ...]
    extra_lines: dict[str, int] = field(default_factory=dict)

    def by_rule(self) -> dict[str, int]:
        """Candidates per rule."""
        return dict(sorted(Counter(d.rule for d in self.decisions).items()))
