"""From posts and tables to a dataset folder: collect, plan, materialise, report.

The module is also the function: ``pathclip.ingest(config)`` is `pathclip.ingest.ingest`.
"""

from __future__ import annotations

import sys
import types

from pathclip.ingest.card import card
from pathclip.ingest.check import check, notes_on
from pathclip.ingest.codes import MEANING, STAGES, Code
from pathclip.ingest.config import (
    PRESETS,
    CardConfig,
    CollectConfig,
    ImageConfig,
    IngestConfig,
    PrivacyConfig,
    preset,
)
from pathclip.ingest.explain import explain
from pathclip.ingest.export import IdExport, export_ids
from pathclip.ingest.leakcheck import LeakReport, leakcheck
from pathclip.ingest.publish import publish
from pathclip.ingest.report import IngestReport, open_report
from pathclip.ingest.requests import Requests, read_events, read_ids
from pathclip.ingest.run import ingest
from pathclip.ingest.takedown import Remaining, TakedownReport, takedown

__all__ = [
    "MEANING",
    "PRESETS",
    "STAGES",
    "CardConfig",
    "Code",
    "CollectConfig",
    "IdExport",
    "ImageConfig",
    "IngestConfig",
    "IngestReport",
    "LeakReport",
    "PrivacyConfig",
    "Remaining",
    "Requests",
    "TakedownReport",
    "card",
    "check",
    "explain",
    "export_ids",
    "ingest",
    "leakcheck",
    "notes_on",
    "open_report",
    "preset",
    "publish",
    "read_events",
    "read_ids",
    "takedown",
]


class _Callable(types.ModuleType):
    """A module that can be called, because the room and its one function share a name."""

    def __call__(self, config: IngestConfig) -> IngestReport:
        """Run the ingest; see `pathclip.ingest.run.ingest`."""
        return ingest(config)


sys.modules[__name__].__class__ = _Callable
