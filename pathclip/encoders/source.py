"""Where a model's weights came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Source"]


@dataclass(slots=True)
class Source:
    """Where the weights came from.

    Attributes:
        pretrained: Hub name or path; None for weights drawn from a seed.
        path: The weights file.
        sha256: Its hash, computed when first asked for.
        prompts: Prompts the model was trained or evaluated with, if its folder says so.
        training: Training record, if its folder holds one.
    """

    pretrained: str | None = None
    path: Path | None = None
    sha256: str | None = None
    prompts: Any = None
    training: Any = None
