"""Keyed ids, and the split of whole groups in keyed order."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import get_args

from pydantic import Field, model_validator

from pathclip.core.config import Config
from pathclip.pairs.pair import Split

__all__ = ["SPLITS", "SplitConfig", "assign_splits", "keyed_id"]

SPLITS: tuple[Split, ...] = get_args(Split)


class SplitConfig(Config):
    """Target shares of the samples; a group goes whole into one split."""

    val: float = Field(default=0.1, ge=0, lt=1, description="share of validation samples")
    test: float = Field(default=0.1, ge=0, lt=1, description="share of test samples")
    tie_authors: bool = Field(default=True, description="pictures posted by one author share a group")

    @model_validator(mode="after")
    def _room(self) -> SplitConfig:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} + test {self.test} leave nothing to train on")
        return self


def keyed_id(key: bytes, kind: str, *parts: str) -> str:
    """16 lower-case base32 characters (80 bits) of HMAC-SHA256 over the kind and the parts.

    Without the key nothing can be learnt from it: ids of posts are numbers and plain hashes of them can be
    tried out.
    """
    message = "\x1f".join((kind, *parts)).encode()
    digest = hmac.new(key, message, hashlib.sha256).digest()
    return base64.b32encode(digest)[:16].decode().lower()


def assign_splits(group_sizes: Mapping[str, int], config: SplitConfig) -> dict[str, Split]:
    """Give each group, in the order of its keyed id, to the split furthest below its target share.

    Args:
        group_sizes: Samples per group id.
        config: Target shares.
    """
    targets: dict[Split, float] = {
        "train": 1 - config.val - config.test,
        "val": config.val,
        "test": config.test,
    }
    total = sum(group_sizes.values())
    held: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    assigned: dict[str, Split] = {}
    for group in sorted(group_sizes):
        split = _furthest_below(held, targets, total)
        assigned[group] = split
        held[split] += group_sizes[group]
    return assigned


def _furthest_below(held: Mapping[Split, int], targets: Mapping[Split, float], total: int) -> Split:
    open_splits: Iterable[Split] = [s for s in SPLITS if targets[s] > 0]
    return max(open_splits, key=lambda s: (targets[s] - held[s] / total, -SPLITS.index(s)))
