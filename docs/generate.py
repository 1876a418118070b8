"""Write the pages that are derived from the code: ``python docs/generate.py``; the tests compare them."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from pathclip.cli.__main__ import app

HERE = Path(__file__).resolve().parent
HEAD = """# Command line

Every verb takes `--json` (one object, last on standard output; logs go to standard error) and exits with
0 when done, 1 after a fault or a partial failure, 2 for a mistake in what was typed or given.
This page is generated from `--help`.
"""


def cli_reference() -> str:
    """The reference of every verb as markdown: usage, what it does, arguments and options."""
    return HEAD + "".join(_section(command, name) for name, command in _walk(get_command(app), "pathclip"))


def _walk(command, name):
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
    for key in sorted(children or {}):
        yield from _walk(children[key], f"{name} {key}")


def _section(command, name: str) -> str:
    parameters = [p for p in command.params if p.name != "help"]
    usage = " ".join([name, *(_placeholder(p) for p in parameters if _is_argument(p)), "[OPTIONS]"])
    text = "\n".join(line.strip() for line in (command.help or "").replace("\b", "").splitlines()).strip()
    text = re.sub(r"\[/?(bold|italic|dim)\]", "`", text)
    table = "\n".join(["| option | meaning | default |", "|---|---|---|", *map(_row, parameters)])
    return f"\n## {name}\n\n```text\n{usage}\n```\n\n{text}\n\n{table}\n"


def _is_argument(parameter) -> bool:
    return not parameter.opts[0].startswith("-")


def _placeholder(parameter) -> str:
    name = (parameter.metavar or parameter.name.upper()).rstrip(".") + (
        "..." if parameter.nargs == -1 else ""
    )
    return name if parameter.required else f"[{name}]"


def _row(parameter) -> str:
    names = _placeholder(parameter)
    if not _is_argument(parameter):
        names = ", ".join([*parameter.opts, *parameter.secondary_opts]) + (
            " (required)" if parameter.required else ""
        )
    default = parameter.default
    shown = "" if default in (None, (), [], False, "") or callable(default) else f"`{default}`"
    text = " ".join((parameter.help or "").split()).replace("|", "\\|")
    names = names.replace("|", "\\|")
    return f"| `{names}` | {text} | {shown} |"


if __name__ == "__main__":
    (HERE / "reference/cli.md").write_text(cli_reference(), encoding="utf-8")
