"""``pathclip ingest``: posts and tables in, shards out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pathclip.cli.app import JsonOption, Outcome, SetOption, app, verb


class Preset(StrEnum):
    """Names of `pathclip.ingest.PRESETS` (a test keeps them equal)."""

    PLIP = "plip"
    STRICT = "strict"
    PERMISSIVE = "permissive"


class Engine(StrEnum):
    """Names of the engines."""

    SERIAL = "serial"
    PROCESSES = "processes"
    RAY = "ray"


@verb(app, "ingest")
def ingest(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Dumps of posts (X API v2 or v1.1 as JSON lines), folders of personal X archives, or tables "
            "with the columns image and caption[, group, split] (CSV, JSON lines, parquet). gzip is fine.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The dataset folder to write; copied to a store with --set publish=URL.")
    ],
    media: Annotated[
        Path | None, typer.Option(help="Folder with the picture files; a table's own folder by default.")
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="Start from a named set of settings: plip (OpenPath's rules, one pair per caption), strict "
            "(fewer and surer pairs) or permissive (all that can be used)."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings as TOML; they win over the preset.")] = None,
    set_: SetOption = None,
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="In this process, in several, or on Ray (at RAY_ADDRESS, else a local cluster).",
            show_default="processes",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes to use; by default all cores, or the whole Ray cluster."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help="File whose bytes are the key of the ids. By default OUT/private/key, made once."),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Look again at pictures that were missing or unreadable, and redo the rest.",
        ),
    ] = False,
    force_new: Annotated[
        bool, typer.Option("--force-new", help="Start over where OUT was made from other input.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and decide everything, show the funnel, write nothing.")
    ] = False,
    json: JsonOption = False,
) -> Outcome:
    """Turn posts of pathologists into image-text pairs, ready to train on.

    Reads every line, decides on every picture with a reason, removes duplicates, keeps what belongs together
    in one split, and writes webdataset shards. Nothing is downloaded.

    Example: pathclip ingest tweets.jsonl --media media --out dataset
    """
    from pathclip.core.config import load_config
    from pathclip.ingest import IngestConfig
    from pathclip.ingest import ingest as run
    from pathclip.ingest import preset as settings_of

    given = {"media": media, "key_file": key_file, "engine": engine and engine.value, "workers": workers}
    settings = load_config(
        IngestConfig,
        config,
        set_ or (),
        base={"engine": _engine(workers), **(settings_of(preset) if preset else {})},
    ).replace(
        sources=tuple(sources),
        out=out,
        force_new=force_new,
        retry_failed=retry_failed,
        dry_run=dry_run,
        **{name: value for name, value in given.items() if value is not None},
    )
    scorer = None
    if settings.collect.scorer is not None:
        from pathclip.encoders import load
        from pathclip.heads import PictureScorer

        load(settings.collect.scorer)  # a mistake is met before any work
        scorer = PictureScorer(settings.collect.scorer)
    report = run(settings, scorer=scorer)
    lines = [*report.funnel(), *report.messages]
    if not dry_run:
        lines.append(f"{report.state}: {report.out}")
    return Outcome(data=report.to_json(), text=lines)


def _engine(workers: int | None) -> str:
    return "serial" if workers == 1 else "processes"
