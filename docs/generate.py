"""Write the pages that are derived from the code: ``python docs/generate.py``; the tests compare them."""

from __future__ import annotations

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
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    usage = " ".join(
        [name, *command.collect_usage_pieces(command.make_context(name, [], resilient_parsing=True))]
    )
    text = "\n".join(line.strip() for line in (command.help or "").splitlines()).replace("\b", "").strip()
    table = "\n".join(["| option | meaning | default |", "|---|---|---|", *rows])
    return f"\n## {name}\n\n```text\n{usage}\n```\n\n{text}\n\n{table}\n"


def _row(parameter) -> str:
    names = (
        ", ".join(parameter.opts + parameter.secondary_opts)
        if parameter.opts[0].startswith("-")
        else parameter.human_readable_name
    )
    default = (
        parameter.default
        if parameter.default not in (None, (), [], False, "") and not callable(parameter.default)
        else ""
    )
    text = " ".join((parameter.help or "").split()).replace("|", "\\|")
    return f"| `{names}` | {text} | {f'`{default}`' if default != '' else ''} |"


if __name__ == "__main__":
    (HERE / "reference/cli.md").write_text(cli_reference(), encoding="utf-8")
