"""The Typer application and the one wrapper around every verb: errors in a line, ``--json``, exit codes."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from pathclip._version import __version__
from pathclip.core.errors import PathclipError
from pathclip.core.files import strict_json

__all__ = ["JsonOption", "Outcome", "SetOption", "app", "verb"]

app = typer.Typer(
    name="pathclip",
    help="From pathologists' posts to zero-shot classified slides. For research; not a diagnostic device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, last on standard output.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="a.b=c", help="Override a config value; may be repeated.")
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb did.

    Attributes:
        data: The JSON object of ``--json``; None where another process of the job prints it.
        text: What a person sees instead: text or rich renderables, printed in order.
        exit_code: 0 done, 1 partial failure.
    """

    data: dict[str, Any] | None
    text: list[Any] = field(default_factory=list)
    exit_code: int = 0


def verb(group: typer.Typer, name: str) -> Callable[[Callable[..., Outcome]], Callable[..., None]]:
    """Register a function returning an `Outcome` as ``pathclip NAME``; ``json`` is its ``--json``."""

    def decorate(function: Callable[..., Outcome]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
            logging.getLogger("pathclip").setLevel(logging.INFO)
            # before torch loads: threads that spin while waiting slow training fivefold on a busy machine
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            as_json = bool(kwargs.get("json"))
            try:
                outcome = function(*args, **kwargs)
            except Exception as error:
                message, code = _explain(error)
                typer.echo(f"error: {message}", err=True)
                outcome = Outcome({"error": message, "exit_code": code}, exit_code=code)
            except KeyboardInterrupt:
                typer.echo("interrupted", err=True)
                outcome = Outcome({"error": "interrupted", "exit_code": 130}, exit_code=130)
            _show(outcome, as_json)
            raise typer.Exit(outcome.exit_code)

        return group.command(name)(run)

    return decorate


def _explain(error: Exception) -> tuple[str, int]:
    if os.environ.get("PATHCLIP_DEBUG"):
        raise error
    if isinstance(error, PathclipError):
        return str(error), error.exit_code
    if isinstance(error, typer.Exit | typer.Abort) or type(error).__module__.startswith(("click", "typer")):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk{f' for {error.filename}' if error.filename else ''}", 1
    return f"{type(error).__name__}: {error} (PATHCLIP_DEBUG=1 shows where)", 1


def _show(outcome: Outcome, as_json: bool) -> None:
    if as_json and outcome.data is not None:
        typer.echo(strict_json(outcome.data))
        return
    if outcome.text:
        from rich.console import Console

        console = Console(highlight=False)
        for item in outcome.text:
            console.print(item, soft_wrap=True)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"pathclip {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass
