"""Two kinds of failure: the user's mistake (exit 2) and a fault (exit 1)."""

from __future__ import annotations

__all__ = ["FaultError", "PathclipError", "UserError"]


class PathclipError(Exception):
    """Anything pathclip reports in one line instead of a stack trace.

    The text names the value, the place, what was expected and the remedy.
    """

    exit_code = 1


class FaultError(PathclipError):
    """A fault of the machine or of the data met during work; the command exits with 1."""


class UserError(PathclipError, ValueError):
    """A mistake the user can mend by changing what was typed or passed in; the command exits with 2."""

    exit_code = 2
