"""`Hit`: one found picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Hit"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One found picture.

    Attributes:
        rank: 1 is the most similar.
        score: Cosine of query and picture.
        key: Sample id, or path inside the folder.
        caption: First caption, if it has any.
        location: The file, or ``shard.tar/KEY.jpg`` inside a shard; None for a picture given in memory.
        row: Its row in the index.
        metadata: Its other columns.
    """

    rank: int
    score: float
    key: str
    caption: str | None
    location: str | None
    row: int
    metadata: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "rank": self.rank,
            "score": self.score,
            "key": self.key,
            "caption": self.caption,
            "location": self.location,
            "metadata": self.metadata,
        }
