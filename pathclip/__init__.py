"""From pathologists' posts to zero-shot classified slides.

Import it (`load`, `classify`, `Index`), train from shards (`train`), zero-shot classify slides
(`classify_slide`). Importing this package loads no torch and touches no network; the names below are loaded
when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pathclip._version import __version__

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder, GenerateConfig, load
    from pathclip.heads import Descriptions, Index, ZeroShotResult, classify, describe
    from pathclip.ingest import IngestConfig, IngestReport, ingest
    from pathclip.slides import SlideConfig, SlidePrediction, classify_slide
    from pathclip.training import TrainConfig, TrainResult, train

_HOMES = {
    "DualEncoder": "pathclip.encoders",
    "load": "pathclip.encoders",
    "GenerateConfig": "pathclip.encoders",
    "Descriptions": "pathclip.heads",
    "Index": "pathclip.heads",
    "ZeroShotResult": "pathclip.heads",
    "classify": "pathclip.heads",
    "describe": "pathclip.heads",
    "IngestConfig": "pathclip.ingest",
    "IngestReport": "pathclip.ingest",
    "ingest": "pathclip.ingest",
    "SlideConfig": "pathclip.slides",
    "SlidePrediction": "pathclip.slides",
    "classify_slide": "pathclip.slides",
    "TrainConfig": "pathclip.training",
    "TrainResult": "pathclip.training",
    "train": "pathclip.training",
}

__all__ = [
    "Descriptions",
    "DualEncoder",
    "GenerateConfig",
    "Index",
    "IngestConfig",
    "IngestReport",
    "SlideConfig",
    "SlidePrediction",
    "TrainConfig",
    "TrainResult",
    "ZeroShotResult",
    "__version__",
    "classify",
    "classify_slide",
    "describe",
    "ingest",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pathclip' has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    value = module if name == "ingest" else getattr(module, name)  # the package `ingest` is itself callable
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
