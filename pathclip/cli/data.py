"""``pathclip data``: look into a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pathclip.cli.app import JsonOption, Outcome, app, verb

group = typer.Typer(help="Look into a dataset folder made by `pathclip ingest`.", no_args_is_help=True)
app.add_typer(group, name="data")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The dataset folder.")]


@verb(group, "report")
def report(folder: Folder, json: JsonOption = False) -> Outcome:
    """Show the funnel: what came in, what was kept, and the reason for everything else.

    Example: pathclip data report dataset
    """
    from pathclip.ingest import open_report

    found = open_report(folder)
    return Outcome(data={**found.data, "out": str(folder)}, text=found.funnel())


@verb(group, "verify")
def verify(
    folder: Folder,
    decode: Annotated[bool, typer.Option(help="Also decode every picture.")] = True,
    json: JsonOption = False,
) -> Outcome:
    """Check checksums, indexes, pictures, split leaks and sums; exit 1 where something is wrong.

    Example: pathclip data verify dataset
    """
    from pathclip.ingest import check

    found = check(folder, decode=decode)
    verdict = "all is well" if found.ok else f"{len(found.problems)} problems"
    return Outcome(
        data={"ok": found.ok, "shards": found.shards, "samples": found.samples, "problems": found.problems},
        text=[*found.problems, f"{found.shards} shards, {found.samples} samples: {verdict}"],
        exit_code=0 if found.ok else 1,
    )


@verb(group, "explain")
def explain(
    folder: Folder,
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="A sample id, post id, media key, file:line, or a table's picture path."
        ),
    ],
    json: JsonOption = False,
) -> Outcome:
    """Tell what became of one post, picture, row or sample, and why.

    Needs the private part of the dataset folder. Example: pathclip data explain dataset 1500001000811622509
    """
    from rich.markup import escape

    from pathclip.ingest import explain as look_up

    found = look_up(folder, wanted)
    lines = [
        f"{post['source']}: {post['kind']}, lang {post['lang']}: {post['text']!r}" for post in found["posts"]
    ]
    for row in found["decisions"]:
        name = row["media_key"] or row["tweet_id"] or row.get("source")
        if row["decision"] == "kept":
            texts = "; ".join(f"{c['source']}: {c['text']}" for c in row["captions"])
            lines.append(f"{name}: kept as {row['sample_id']} in {row['shard']} ({row['index']}): {texts}")
        else:
            detail = f" ({row['detail']})" if row["detail"] else ""
            lines.append(f"{name}: rejected at {row['stage']}: {row['code']}, {row['meaning']}{detail}")
    lines += [f"captions {row['sample_id']}: {row['text']}" for row in found["captions"]]
    return Outcome(data=found, text=[escape(line) for line in lines])
