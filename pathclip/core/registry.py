"""One registry type; an instance per kind of part (readers, encoders, losses, datasets)."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pathclip.core.errors import UserError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to parts. A duplicate is a bug; an unknown name is the user's mistake and prints a near match.

    Args:
        kind: What the parts are called in messages, for example ``"loss"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, T | str] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a part under ``name``."""

        def file(part: T) -> T:
            self._add(name, part)
            return part

        return file

    def register_lazy(self, name: str, target: str) -> None:
        """File ``"package.module:attribute"``, imported when first asked for."""
        self._add(name, target)

    def _add(self, name: str, part: T | str) -> None:
        if name in self._parts:
            raise KeyError(f"{self.kind} {name!r} is registered twice")
        self._parts[name] = part

    def __getitem__(self, name: str) -> T:
        if name not in self._parts:
            near = difflib.get_close_matches(name, self._parts, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(f"unknown {self.kind} {name!r}; {hint}known: {', '.join(sorted(self._parts))}")
        part = self._parts[name]
        if isinstance(part, str):
            module, _, attribute = part.partition(":")
            part = getattr(importlib.import_module(module), attribute)
            self._parts[name] = part
        return part

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

    def __len__(self) -> int:
        return len(self._parts)
