"""Benchmarks are scripts; their tests run them in this process, since each start with torch takes seconds."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a script by its name, as it imports its neighbours."""
    monkeypatch.syspath_prepend(HERE)
    return importlib.import_module
