"""``pathclip data``: look into a dataset folder."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pathclip.cli.app import JsonOption, Outcome, app, verb

group = typer.Typer(help="Look into a dataset folder made by `pathclip ingest`.", no_args_is_help=True)
app.add_typer(group, name="data")


class IdFormat(StrEnum):
    """Formats of exported ids."""

    TXT = "txt"
    CSV = "csv"


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The dataset folder.")]


@verb(group, "report")
def report(folder: Folder, json: JsonOption = False) -> Outcome:
    """Show the funnel: what came in, what was kept, and the reason for everything else.

    Example: pathclip data report dataset
    """
    from pathclip.ingest import open_report

    found = open_report(folder)
    return Outcome(data={**found.data, "out": str(folder)}, text=found.funnel())


@verb(group, "fit-filter")
def fit_filter(
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="CSV: image, label (micrograph or other).")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the filter goes.")] = Path("filter.json"),
    media: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the pictures; the CSV's own by default.")
    ] = None,
    json: JsonOption = False,
) -> Outcome:
    """Fit a picture filter of your own to labelled pictures; use it with --set filter.model=FILE.

    Example: pathclip data fit-filter labels.csv --media media --out filter.json
    """
    from pathclip.pairs import fit_filter as fit
    from pathclip.pairs import read_labels

    fitted = fit(*read_labels(labels, media))
    fitted.save(out)
    record, held_out = fitted.record, fitted.record["held_out"]
    counts, bad = record["labels"], record["unusable"]
    text = [
        f"{counts['micrograph']} micrographs, {counts['other']} others; "
        f"held out in {held_out['folds']} folds: "
        f"{held_out['others_rejected']:.1%} of the others rejected, "
        f"{held_out['micrographs_lost']:.1%} of the micrographs lost",
        *(f"not used: {place}: {reason}" for place, reason in list(bad.items())[:5]),
        *([f"and {len(bad) - 5} more labels that cannot be used"] if len(bad) > 5 else []),
        f"{out}: use it with pathclip ingest ... --set filter.model={out}",
    ]
    return Outcome({"out": str(out), "threshold": fitted.threshold, **record}, text)


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


@verb(group, "export-ids")
def export_ids(
    folder: Folder,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the lists.", show_default="DIR/ids, which takedowns update"),
    ] = None,
    format: Annotated[
        IdFormat, typer.Option(help="One id a line, or a CSV with the header id.")
    ] = IdFormat.TXT,
    part_ids: Annotated[
        int, typer.Option(min=1, help="Ids per file; X allows a recipient 1.5 million in 30 days.")
    ] = 1_500_000,
    json: JsonOption = False,
) -> Outcome:
    """Write the ids of the posts in a dataset, with checksums and the recipe to make it again from them.

    Needs the private part, and writes nothing of it but post ids. Example: pathclip data export-ids dataset
    """
    from pathclip.cli._text import plain
    from pathclip.ingest import export_ids as export

    done = export(folder, out, format=format.value, part_ids=part_ids)
    text = [
        f"{done.ids} post ids in {len(done.parts)} files, SHA256SUMS and recipe.toml: {done.folder}",
        "these ids leave the private part and lead to the posts and their authors; nothing else does",
    ]
    return Outcome(done.to_json(), [plain(line) for line in text])


@verb(group, "leakcheck")
def leakcheck(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Dataset, shards or folder of pictures.")],
    against: Annotated[
        Path, typer.Option(metavar="DIR2", help="The benchmark: dataset, shards or folder of pictures.")
    ],
    split: Annotated[
        str | None, typer.Option(help="Only this split of DIR.", show_default="all splits")
    ] = None,
    radius: Annotated[
        int, typer.Option(min=-1, max=16, help="Bits of phash_v2 that count as near; -1: exact only.")
    ] = 8,
    turns: Annotated[bool, typer.Option("--turns", help="Also find turned and mirrored pictures.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    json: JsonOption = False,
) -> Outcome:
    """Find pictures of a benchmark that lie in a dataset; exit 1 where there are any.

    Compares bytes, decoded pixels, and perceptual hashes. A picture that cannot be read is named, and counts
    as not cleared (exit 1).

    Example: pathclip data leakcheck dataset --against benchmark/test
    """
    from pathclip.cli._text import columns, plain
    from pathclip.ingest import leakcheck as compare

    found = compare(folder, against, split=split, radius=radius, turns=turns, workers=workers)
    names = ("benchmark", "sample", "split", "match", "distance", "matches")
    rows = [[str("" if leak[name] is None else leak[name]) for name in names] for leak in found.leaks]
    text = columns(rows, header=names) if rows else []
    text += [plain(line) for line in found.bad]
    verdict = f"{len(found.leaks)} of {found.against} benchmark pictures are among {found.pictures}"
    unread = f"; {len(found.bad)} could not be read" if found.bad else ""
    return Outcome(found.to_json(), [*text, plain(verdict + unread)], exit_code=0 if found.ok else 1)


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
