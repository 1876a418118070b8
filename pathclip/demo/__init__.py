"""The whole road on embedded data, as a library function: from a tweet dump to a classified slide."""

from __future__ import annotations

from pathclip.demo.plan import FULL, DemoPlan
from pathclip.demo.run import SCHEMA, run_demo

__all__ = ["FULL", "SCHEMA", "DemoPlan", "run_demo"]
