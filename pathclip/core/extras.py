"""Optional dependencies: asked for where they are used, and named with the line that installs them."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from pathclip.core.errors import UserError

__all__ = ["require"]


def require(module: str, *, extra: str, why: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: Dotted module name.
        extra: The extra of ``setup.cfg`` that brings it.
        why: What needs it, for the message.

    Raises:
        UserError: If the package is absent. A package that is present but broken raises its own error.
    """
    root = module.partition(".")[0]
    if importlib.util.find_spec(root) is None:
        raise UserError(f"{why} needs {root}; install it with: pip install 'pathclip[{extra}]'")
    return importlib.import_module(module)
