"""Components: pictures tied by an author, a conversation, a case or by looking alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

from pydantic import Field, model_validator

from pathclip.core.config import Config

__all__ = ["Components", "DedupConfig"]


class DedupConfig(Config):
    """When two pictures are the same, and when they are alike; distances are bits of phash_v2."""

    exact: bool = Field(default=True, description="byte-identical pictures: keep one, merge the captions")
    drop_radius: int = Field(
        default=4, ge=-1, le=16, description="up to this distance one is kept; -1 keeps all"
    )
    tie_radius: int = Field(
        default=8, ge=-1, le=16, description="up to this distance pictures share group and positive id"
    )

    @model_validator(mode="after")
    def _ordered(self) -> DedupConfig:
        if self.tie_radius < self.drop_radius:
            raise ValueError(f"tie_radius {self.tie_radius} must be at least drop_radius {self.drop_radius}")
        return self


class Components:
    """Union-find over any hashable nodes."""

    def __init__(self) -> None:
        self._up: dict[Hashable, Hashable] = {}

    def find(self, node: Hashable) -> Hashable:
        """The component's representative; depends on the order of joining, so only for comparing."""
        root = node
        while (up := self._up.setdefault(root, root)) != root:
            root = up
        while (up := self._up[node]) != root:
            self._up[node] = root
            node = up
        return root

    def join(self, a: Hashable, b: Hashable) -> None:
        """Make ``a`` and ``b`` one component."""
        self._up[self.find(a)] = self.find(b)

    def members(self, nodes: Iterable[Hashable]) -> list[list[Hashable]]:
        """The components of ``nodes``, members in the given order."""
        found: dict[Hashable, list[Hashable]] = defaultdict(list)
        for node in nodes:
            found[self.find(node)].append(node)
        return list(found.values())
