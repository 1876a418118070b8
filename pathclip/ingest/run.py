"""`ingest`: collect, plan, materialise, report; and what a second run into the same folder does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pathclip.core.errors import FaultError, UserError
from pathclip.core.extras import require
from pathclip.core.files import claim, write_json
from pathclip.ingest.ahead import clear_ahead
from pathclip.ingest.card import merged, read_card, write_card
from pathclip.ingest.collect import Collected, collect, media_roots
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.fetch import fetcher
from pathclip.ingest.generation import clear_leftovers, swap_in
from pathclip.ingest.job_array import ranks_at_work, run_rank
from pathclip.ingest.journal import finish
from pathclip.ingest.key import load_key
from pathclip.ingest.ledger import copy_store
from pathclip.ingest.look import Scorer
from pathclip.ingest.materialise import materialise
from pathclip.ingest.media import Place
from pathclip.ingest.nominate import nominate
from pathclip.ingest.plan import plan, write_plan
from pathclip.ingest.publish import check_places, published, remembered, standing_url
from pathclip.ingest.record import decide, difference, fingerprints, previous, write_record
from pathclip.ingest.report import IngestReport, make_report, open_report
from pathclip.ingest.report_page import write_page
from pathclip.ingest.selection import listed_ids
from pathclip.ingest.tables import read_rows
from pathclip.ingest.thumbs import write_thumbs
from pathclip.ingest.tombstones import Tombstones
from pathclip.shards import Dataset, ShardInfo, write_index
from pathclip.tweets import sniff
from pathclip.tweets.language import load_guesser
from pathclip.tweets.media_table import read_media_table
from pathclip.tweets.packed import is_packed_folder

__all__ = ["ingest"]


def ingest(config: IngestConfig, *, scorer: Scorer | None = None) -> IngestReport:
    """From dumps and tables to a dataset folder.

    Run again into the same folder it goes on where it was killed, says that nothing is to do, or, where the
    settings of the plan or of the shards changed, redoes those. Other input or other ``collect`` settings are
    refused unless ``force_new``. Where ``publish`` names a store, the complete dataset is copied there.

    Args:
        config: Sources, place and settings.
        scorer: What stands behind ``collect.scorer``: a picture to the probability that it is a micrograph,
            such as ``pathclip.heads.PictureScorer``. It must be picklable unless the engine is serial.

    Raises:
        UserError: If a source, the media folder or the key is missing or wrong, or the folder was made from
            other input.
        FaultError: If the disk is full, a picture vanished on the way, or the store of ``publish`` is away.
    """
    _check(config)
    if (config.collect.scorer is None) != (scorer is None):
        raise UserError(
            "collect.scorer names a checkpoint and scorer is what asks it: give both or none, for example "
            "scorer=pathclip.heads.PictureScorer(config.collect.scorer)"
        )
    config = config.replace(sources=_unique(config.sources), publish=standing_url(config))
    if config.dry_run:
        return _dry_run(config, scorer)
    private = config.out / "private"
    is_new = not private.exists()
    if is_new and not config.force_new and any((config.out / n).exists() for n in ("index.json", "shards")):
        raise UserError(
            f"{config.out} holds shards without the private part they were made with; choose another "
            "--out, or replace them with --force-new"
        )
    _make_private(private)
    if config.world_size > 1:
        return run_rank(config, scorer)
    with claim(private / "lock") as owned:
        if owned and (at_work := ranks_at_work(private)):
            raise UserError(
                f"{len(at_work)} ranks of a job array are writing {config.out}; wait for them, or remove "
                f"{private / at_work[0]} and its like if they are dead"
            )
        if not owned:
            raise UserError(f"another run is writing {config.out}; wait for it, or choose another --out")
        finish(config.out)  # a takedown that was killed
        clear_leftovers(config.out)
        before = remembered(config.out)
        try:
            report = _run(config, scorer)
        except UserError:
            if is_new:  # the user's mistake: leave the place as it was found
                shutil.rmtree(private, ignore_errors=True)
            raise
        return published(report, config.publish, before)


def _run(config: IngestConfig, scorer: Scorer | None) -> IngestReport:
    before = previous(config.out)
    if config.force_new and (before is not None or (config.out / "index.json").exists()):
        return _new_generation(config, scorer)
    key = load_key(config.out / "private", config.key_file)
    now = fingerprints(config, key)
    state, messages = "new", []
    if before is not None:
        if differs := difference(config, now, before):
            raise UserError(
                f"{config.out} was made from something else: {'; '.join(differs)}. Choose another --out, or "
                "start over with --force-new"
            )
        state, messages = decide(config, before)
        if state == "unchanged":
            dataset = Dataset.open(config.out)
            splits = {split: list(shards) for split, shards in dataset.splits.items()}
            _write_card(config, open_report(config.out).data, splits)
            return IngestReport(config.out, open_report(config.out).data, state, tuple(messages))
    write_record(config, now, state)
    return _phases(config, key, state, messages, scorer)


def _phases(
    config: IngestConfig, key: bytes, state: str, messages: list[str], scorer: Scorer | None
) -> IngestReport:
    """The road in five lines; ``index.json`` comes last of all and says that everything is there."""
    private = config.out / "private"
    likely = _likely_kept(config) if config.ahead else None
    fetch = fetcher(config, private / "media") if config.download.enabled else None
    collected = collect(config, private / "parts", Tombstones.load(private, key), likely, fetch, scorer)
    planned = plan(collected, config, key, private / "rejects")
    write_plan(planned, private)
    splits = materialise(config, config.out, collected.folders.roots)
    clear_ahead(private / "parts")
    report = make_report(planned)
    write_json(config.out / "report.json", report)
    write_thumbs(private / "thumbs.parquet", planned.candidates, collected.folders.roots)
    write_page(private / "report.html", report, read_rows([private / "thumbs.parquet"]))
    _write_card(config, report, splits)
    write_index(config.out, splits)
    return IngestReport(config.out, report, state, (*messages, *_notes(report)))


def _likely_kept(config: IngestConfig) -> Callable[[Collected], set[Place]]:
    """The pictures of posts that have a caption: all that can be known before a picture is looked at."""
    return lambda collected: {
        c.place for c in nominate(collected, config).candidates if c.alive and c.place is not None
    }


def _write_card(config: IngestConfig, report: dict[str, Any], splits: dict[str, list[ShardInfo]]) -> None:
    """The card states what the settings state, else what it stated before."""
    stated = merged(config.card, read_card(config.out / "README.md"))
    write_card(config.out, config.out, report, splits, stated, config.sections())


def _new_generation(config: IngestConfig, scorer: Scorer | None) -> IngestReport:
    """Build beside the old dataset, then swap; the key stays unless another is named."""
    fresh = config.out / ".new"
    _make_private(fresh / "private")
    key = config.out / "private" / "key"
    if config.key_file is None and key.is_file():
        shutil.copy2(key, fresh / "private" / "key")
    for name in (
        "private/tombstones.parquet",
        "README.md",
    ):  # takedowns, and what a person stated, outlast it
        if (config.out / name).is_file():
            shutil.copy2(config.out / name, fresh / name)
    store = config.out / "private" / "media"
    if store.is_dir() and not (fresh / "private" / "media").exists():  # what was fetched need not be again
        copy_store(store, fresh / "private" / "media")
    report = _run(config.replace(out=fresh, force_new=False), scorer)
    swap_in(config.out, fresh)
    return IngestReport(
        config.out, report.data, "new", (*report.messages, "a new generation replaced the old one")
    )


def _check(config: IngestConfig) -> None:
    """Find the user's mistakes before anything is written."""
    check_places(config)
    if not config.sources:
        raise UserError("no source given; name a dump, an archive folder or a table")
    for source in config.sources:
        sniff(source)
    for root in media_roots(config):
        if not root.is_dir() and not is_packed_folder(root):
            raise UserError(
                f"media folder {root} does not exist; name the folder of the pictures with --media"
            )
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"--out {config.out} is a file; expected a folder")
    if config.ids is not None:
        listed_ids(config.ids)
    if config.media_table is not None:
        read_media_table(config.media_table)
    config.privacy.cleared_names()
    if config.language.detector == "py3langid":
        load_guesser(config.language.languages)
    if config.download.enabled:
        require("httpx", extra="download", why="downloading pictures (download.enabled)")
    if config.world_size > 1 and config.download.enabled:
        raise UserError("download.enabled is for one run, not for the ranks of a job array; download first")
    if config.world_size > 1 and (config.force_new or config.retry_failed or config.dry_run):
        raise UserError(
            "--force-new, --retry-failed and --dry-run are for one run, not for the ranks of a job array; "
            "leave them out, or leave out rank and world_size"
        )
    if config.engine == "ray":
        require("ray", extra="ray", why="engine 'ray'")


def _unique(sources: tuple[Path, ...]) -> tuple[Path, ...]:
    """Each source once, whatever way it was spelled, in a fixed order."""
    by_place = {source.resolve(): source for source in reversed(sources)}
    return tuple(by_place[place] for place in sorted(by_place))


def _make_private(private: Path) -> None:
    try:
        private.mkdir(parents=True, exist_ok=True)
        private.chmod(0o700)
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise UserError(f"cannot write {private}: {error.strerror}; choose another --out") from None
    except OSError as error:
        raise FaultError(f"cannot write {private}: {error.strerror}") from error


def _dry_run(config: IngestConfig, scorer: Scorer | None) -> IngestReport:
    """Read and plan in a temporary folder, and say what a run into ``out`` would do."""
    own = config.out / "private" / "key"
    named = config.key_file or (own if own.is_file() else None)
    key = load_key(own.parent, named) if named is not None else b"a dry run's key: its ids are not kept"
    with tempfile.TemporaryDirectory(prefix="pathclip-") as folder:
        gone = Tombstones.load(own.parent, key) if named is not None else None
        collected = collect(config, Path(folder) / "parts", gone, scorer=scorer)
        report = make_report(plan(collected, config, key, Path(folder) / "rejects"))
    return IngestReport(config.out, report, "dry-run", (_intention(config, key), *_notes(report)))


def _intention(config: IngestConfig, key: bytes) -> str:
    before = previous(config.out)
    copy = f" and publish it to {config.publish}" if config.publish else ""
    if before is None:
        return f"dry run: would write a new dataset to {config.out}{copy}"
    if config.force_new:
        return f"dry run: would start over and replace {config.out}{copy}"
    if differs := difference(config, fingerprints(config, key), before):
        return f"dry run: would refuse without --force-new: {'; '.join(differs)}"
    state, messages = decide(config, before)
    return f"dry run: {state}: {'; '.join(messages)}{copy}"


def _notes(report: dict[str, Any]) -> list[str]:
    notes = [
        f"warning: group {g['group_id']} holds {g['samples']} of {report['samples']} samples and lies whole "
        f"in {g['split']}; split.tie_authors = false ties less"
        for g in report["large_groups"]
    ]
    if not report["kept"]:
        notes.append("warning: nothing was kept; the table of reasons says why")
    return notes
