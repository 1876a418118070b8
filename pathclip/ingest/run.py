"""`ingest`: collect, plan, materialise, report; and what a second run into the same folder does."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pathclip._version import __version__
from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import atomic_write, claim, read_json, sha256_file, write_json
from pathclip.ingest.collect import collect, media_roots
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.key import fingerprint, load_key
from pathclip.ingest.materialise import materialise
from pathclip.ingest.media import MediaFolders
from pathclip.ingest.plan import plan, write_plan
from pathclip.ingest.readme import readme
from pathclip.ingest.report import IngestReport, make_report, open_report

__all__ = ["ingest"]

log = logging.getLogger("pathclip")
SCHEMA = "pathclip.run/1"


def ingest(config: IngestConfig) -> IngestReport:
    """From dumps and tables to a dataset folder.

    Run again into the same folder it goes on where it was killed, says that nothing is to do, or, where the
    settings of the plan or of the shards changed, redoes those. Other input or other ``collect`` settings are
    refused unless ``force_new``.

    Raises:
        UserError: If a source, the media folder or the key is missing or wrong, or the folder was made from
            other input.
        FaultError: If the disk is full, or a picture vanished on the way.
    """
    _check(config)
    if config.dry_run:
        return _dry_run(config)
    _make_private(config.out / "private")
    with claim(config.out / "private" / "lock") as owned:
        if not owned:
            raise UserError(
                f"{config.out} is being written by another run; wait for it, or choose another --out"
            )
        return _run(config)


def _run(config: IngestConfig) -> IngestReport:
    fingerprints = _fingerprints(config)
    before = _previous(config.out)
    if before is not None and config.force_new and _difference(config, fingerprints, before, None):
        return _new_generation(config)
    key = load_key(config.out / "private", config.key_file)
    state, messages = "new", []
    if before is not None:
        if difference := _difference(config, fingerprints, before, key):
            raise UserError(
                f"{config.out} was made from something else: {'; '.join(difference)}. Choose another --out, "
                "or start over with --force-new"
            )
        state, messages = _decide(config, before)
        if state == "unchanged":
            report = open_report(config.out)
            return IngestReport(
                report.out, report.data, state, ("nothing to do: same input, settings and key",)
            )
    _open_run(config, fingerprints, key, rebuilt=state == "rebuilt")
    return _phases(config, key, state, messages)


def _phases(config: IngestConfig, key: bytes, state: str, messages: list[str]) -> IngestReport:
    """The road in four lines; the report and the card stand before ``index.json`` says that all is there."""
    private = config.out / "private"
    collected = collect(config, private / "parts")
    planned = plan(collected, config, key)
    write_plan(planned, private)
    report = make_report(planned)
    write_json(config.out / "report.json", report)
    with atomic_write(config.out / "README.md", "w") as handle:
        handle.write(readme(report, config))
    materialise(config, config.out, collected.folders.roots)
    messages += _notes(report)
    for message in messages:
        log.info("%s", message)
    return IngestReport(config.out, report, state, tuple(messages))


def _check(config: IngestConfig) -> None:
    if not config.sources:
        raise UserError("no source given; name a dump, an archive folder or a table")
    for source in config.sources:
        if not source.exists():
            raise UserError(f"source {source} does not exist")
    for root in media_roots(config):
        if not root.is_dir():
            raise UserError(
                f"media folder {root} does not exist; name the folder of the pictures with --media"
            )
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"--out {config.out} is a file; expected a folder")
    if config.engine == "ray":
        raise UserError("engine 'ray' is not available yet; use serial or processes")


def _make_private(private: Path) -> None:
    try:
        private.mkdir(parents=True, exist_ok=True)
        private.chmod(0o700)
    except OSError as error:
        raise FaultError(f"cannot write {private}: {error.strerror}") from error


def _fingerprints(config: IngestConfig) -> dict[str, Any]:
    """What the input is: files by content, media by names and sizes; sorted, so order does not matter."""
    files = sorted({path for source in config.sources for path in _files(source)})
    inputs = sorted(
        ({"sha256": sha256_file(p), "bytes": p.stat().st_size} for p in files), key=lambda f: f["sha256"]
    )
    return {"inputs": inputs, "media": MediaFolders(media_roots(config)).fingerprint()}


def _files(source: Path) -> Iterator[Path]:
    if source.is_dir():
        data = source / "data" if (source / "data").is_dir() else source
        yield from sorted(data.glob("tweet*.js"))
    else:
        yield source


def _previous(out: Path) -> dict[str, Any] | None:
    path = out / "private" / "run.json"
    return read_json(path) if path.is_file() else None


def _difference(
    config: IngestConfig, fingerprints: dict[str, Any], before: dict[str, Any], key: bytes | None
) -> list[str]:
    """What differs so much that the folder cannot go on, one phrase each."""
    found = []
    old, new = ({f["sha256"] for f in inputs} for inputs in (before["inputs"], fingerprints["inputs"]))
    if old != new:
        found.append(f"input: {len(new - old)} files are new and {len(old - new)} are gone or changed")
    if before["media"] != fingerprints["media"]:
        was, now = before["media"]["files"], fingerprints["media"]["files"]
        found.append(f"media: {was} files then, {now} now" if was != now else "media: files changed")
    if before["hashes"]["collect"] != config.hashes()["collect"]:
        was, now = before["config"]["collect"], config.sections()["collect"]
        names = [f"collect.{k} was {was.get(k)!r}, is {v!r}" for k, v in now.items() if was.get(k) != v]
        found.append(", ".join(names) or "the reader's version changed")
    if key is not None and before["key"] != fingerprint(key):
        found.append("the key of the ids is another one (--key-file)")
    return found


def _decide(config: IngestConfig, before: dict[str, Any]) -> tuple[str, list[str]]:
    """How to go on in a folder of the same input."""
    now, was = config.hashes(), before["hashes"]
    changed = [phase for phase in ("plan", "pack") if now[phase] != was[phase]]
    if changed:
        return "rebuilt", [f"{' and '.join(changed)} settings changed: rebuilding from the {changed[0]}"]
    if (config.out / "index.json").is_file() and (config.out / "report.json").is_file():
        return "unchanged", []
    return "resumed", ["going on where the last run ended"]


def _open_run(config: IngestConfig, fingerprints: dict[str, Any], key: bytes, *, rebuilt: bool) -> None:
    """Write down what this folder is made of, after taking back what no longer holds."""
    if rebuilt:
        (config.out / "index.json").unlink(missing_ok=True)
        for stats in (config.out / "shards").glob("*.stats.json"):
            stats.unlink()
    run = {
        "schema": SCHEMA,
        "code_version": __version__,
        "config": config.sections(),
        "hashes": config.hashes(),
        **fingerprints,
        "key": fingerprint(key),
    }
    write_json(config.out / "private" / "run.json", run)


def _new_generation(config: IngestConfig) -> IngestReport:
    """Build beside the old dataset, then swap; the key stays unless another is named."""
    fresh = config.out / ".new"
    shutil.rmtree(fresh, ignore_errors=True)
    private = fresh / "private"
    _make_private(private)
    if config.key_file is None and (config.out / "private" / "key").is_file():
        shutil.copy2(config.out / "private" / "key", private / "key")
    report = _run(config.replace(out=fresh, force_new=False))
    _swap(config.out, fresh)
    return IngestReport(
        config.out, report.data, "new", (*report.messages, "a new generation replaced the old one")
    )


def _swap(out: Path, fresh: Path) -> None:
    """Move the new generation in; ``index.json`` goes first and comes last, so none reads a mixture."""
    (out / "index.json").unlink(missing_ok=True)
    old = out / ".old"
    shutil.rmtree(old, ignore_errors=True)
    (old / "private").mkdir(parents=True)
    for name in ("shards", "private/parts", "private/rejects"):
        if (out / name).exists():
            os.replace(out / name, old / name)
        if (fresh / name).exists():
            os.replace(fresh / name, out / name)
    for name in ("private/key", "private/plan.parquet", "private/provenance.parquet", "private/run.json"):
        if (fresh / name).exists():
            os.replace(fresh / name, out / name)
    for name in ("report.json", "README.md", "index.json"):
        os.replace(fresh / name, out / name)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)


def _dry_run(config: IngestConfig) -> IngestReport:
    """Read and plan in a temporary folder, and say what a run into ``out`` would do."""
    before = _previous(config.out)
    with tempfile.TemporaryDirectory(prefix="pathclip-") as folder:
        key = _dry_key(config)
        collected = collect(config, Path(folder) / "parts")
        planned = plan(collected, config, key)
        report = make_report(planned)
    return IngestReport(config.out, report, "dry-run", (_intention(config, before), *_notes(report)))


def _dry_key(config: IngestConfig) -> bytes:
    own = config.out / "private" / "key"
    named = config.key_file or (own if own.is_file() else None)
    return load_key(own.parent, named) if named is not None else b"a dry run's key: ids are not kept"


def _intention(config: IngestConfig, before: dict[str, Any] | None) -> str:
    if before is None:
        return f"dry run: would write a new dataset to {config.out}"
    difference = _difference(config, _fingerprints(config), before, _dry_key(config))
    if difference:
        verb = "would start over" if config.force_new else "would refuse without --force-new"
        return f"dry run: {verb}: {'; '.join(difference)}"
    state, messages = _decide(config, before)
    return f"dry run: {messages[0] if messages else 'nothing would be done'} ({state})"


def _notes(report: dict[str, Any]) -> list[str]:
    notes = [
        f"warning: group {g['group_id']} holds {g['samples']} of {report['samples']} samples and lies whole "
        f"in {g['split']}; split.tie_authors = false ties less"
        for g in report["large_groups"]
    ]
    if not report["kept"]:
        notes.append("warning: nothing was kept; the table of reasons says why")
    return notes
