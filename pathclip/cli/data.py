"""``pathclip data``: look into a dataset folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    from pathclip.ingest import check, notes_on

    found, notes = check(folder, decode=decode), notes_on(folder)
    verdict = "all is well" if found.ok else f"{len(found.problems)} problems"
    return Outcome(
        data={
            "ok": found.ok,
            "shards": found.shards,
            "samples": found.samples,
            "problems": found.problems,
            "notes": notes,
        },
        text=[*found.problems, *notes, f"{found.shards} shards, {found.samples} samples: {verdict}"],
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


@verb(group, "card")
def card(
    folder: Folder,
    legal_basis: Annotated[
        str | None,
        typer.Option(help="Why the posts may be used and shared. Mandatory, unless the card states it."),
    ] = None,
    license: Annotated[str | None, typer.Option(help="Licence, as Hugging Face spells it.")] = None,
    name: Annotated[str | None, typer.Option(help="Title of the card.")] = None,
    creator: Annotated[str | None, typer.Option(help="Who made the dataset.")] = None,
    url: Annotated[str | None, typer.Option(help="Where it can be found.")] = None,
    json: JsonOption = False,
) -> Outcome:
    """Write README.md (for Hugging Face) and croissant.json again, from counts and what is stated here.

    What stands below the last line of the card is kept.

    Example: pathclip data card dataset --legal-basis "own posts; all authors agreed in writing"
    """
    from pathclip.cli._text import plain
    from pathclip.ingest import card as write

    path = write(folder, legal_basis=legal_basis, license=license, name=name, creator=creator, url=url)
    croissant = path.with_name("croissant.json")
    return Outcome({"card": path, "croissant": croissant}, [plain(f"{path} and {croissant} are written")])


@verb(group, "takedown")
def takedown(
    folder: Folder,
    ids: Annotated[
        Path | None,
        typer.Option(help="Post ids (or sample ids, or pictures of a table): one a line, or a CSV."),
    ] = None,
    events: Annotated[
        Path | None, typer.Option(help="Compliance events of posts and users, as JSON lines.")
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(metavar="EMB_DIR", help="An index built from the dataset; may be repeated."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="The key of the ids, where ingest was given one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would leave, write nothing.")
    ] = False,
    json: JsonOption = False,
) -> Outcome:
    """Remove posts or authors from every file of a dataset, and from indexes built of it.

    Untouched shards keep their bytes; a later ingest leaves the same posts out. Files under --media stay.

    Example: pathclip data takedown dataset --events compliance.jsonl --also emb
    """
    from pathclip.cli._text import plain
    from pathclip.core.errors import UserError
    from pathclip.ingest import read_events, read_ids
    from pathclip.ingest import takedown as take_down

    if (ids is None) == (events is None):
        raise UserError("name what to take down: either --ids FILE or --events FILE")
    requests = read_ids(ids) if ids is not None else read_events(events)  # type: ignore[arg-type]
    done = take_down(folder, requests, key_file=key_file, removers=_removers(also or []), dry_run=dry_run)
    text = [plain(line) for line in done.lines()]
    return Outcome(done.to_json(), text, exit_code=1 if done.unread else 0)


def _removers(folders: list[Path]) -> list[Any]:
    """One per index; a folder that is none is found before anything is changed."""
    if not folders:
        return []
    from pathclip.heads.index import remover  # loads torch, which nothing else here needs

    return [remover(folder) for folder in folders]
