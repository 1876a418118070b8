"""``pathclip`` and ``python -m pathclip.cli``: import the verbs, run the application."""

from __future__ import annotations

import importlib
import pkgutil

import pathclip.cli
from pathclip.cli.app import app

__all__ = ["app", "main"]

for _module in sorted(m.name for m in pkgutil.iter_modules(pathclip.cli.__path__)):
    if _module not in ("__main__", "app"):
        importlib.import_module(f"pathclip.cli.{_module}")


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
