"""``private/run.json``: what a dataset folder was made of, and whether a new run may go on in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pathclip._version import __version__
from pathclip.core.files import read_json, sha256_file, write_json
from pathclip.ingest.collect import media_roots
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.key import fingerprint
from pathclip.ingest.media import MediaFolders
from pathclip.ingest.retry import failures, set_aside
from pathclip.tweets import archive_files, archive_sides

__all__ = ["decide", "difference", "fingerprints", "previous", "write_record"]

SCHEMA = "pathclip.run/1"


def fingerprints(config: IngestConfig, key: bytes) -> dict[str, Any]:
    """What the input is: files by content, media by names and sizes, the key; all sorted."""
    beside = [path for path in (config.ids, config.media_table) if path is not None]
    files = sorted({*beside, *(path for source in config.sources for path in _files(source))})
    inputs = [{"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in files]
    return {
        "inputs": sorted(inputs, key=lambda file: file["sha256"]),
        "media": MediaFolders(media_roots(config)).fingerprint(),
        "key": fingerprint(key),
    }


def previous(out: Path) -> dict[str, Any] | None:
    """The record of the run that wrote the folder, or None."""
    path = out / "private" / "run.json"
    return read_json(path) if path.is_file() else None


def difference(config: IngestConfig, now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """What differs so much that the folder cannot be gone on with, a phrase each."""
    found = []
    old, new = ({file["sha256"] for file in inputs} for inputs in (before["inputs"], now["inputs"]))
    if old != new:
        found.append(f"input: {len(new - old)} files are new, {len(old - new)} gone or changed")
    was, are = before["media"]["files"], now["media"]["files"]
    if before["media"] != now["media"] and not (config.retry_failed and was <= are):
        hint = " (--retry-failed takes in those that came back)" if was < are else ""
        found.append(f"media: {was} files then, {are} now{hint}" if was != are else "media: files changed")
    if before["hashes"]["collect"] != config.hashes()["collect"]:
        was, are = before["config"]["collect"], config.sections()["collect"]
        names = [f"collect.{k} was {was.get(k)!r}, is {v!r}" for k, v in are.items() if was.get(k) != v]
        if before["config"]["download"]["enabled"] != config.download.enabled:
            names.append(f"download.enabled is {config.download.enabled} now")
        found.append(", ".join(names) or "the reader's version changed")
    if before["key"] != now["key"]:
        found.append("the key of the ids is another one (--key-file)")
    return found


def decide(config: IngestConfig, before: dict[str, Any]) -> tuple[str, list[str]]:
    """How to go on in a folder of the same input: ``rebuilt``, ``unchanged`` or ``resumed``, and why."""
    now, was = config.hashes(), before["hashes"]
    messages = []
    if changed := [phase for phase in ("plan", "pack") if now[phase] != was[phase]]:
        messages.append(f"settings of {' and '.join(changed)} changed: rebuilding from the {changed[0]}")
    report = config.out / "report.json"
    if config.retry_failed and (failed := failures(read_json(report)) if report.is_file() else "all"):
        messages.append(f"looking again for {failed} pictures that were missing or unreadable")
    if messages:
        return "rebuilt", messages
    if (config.out / "index.json").is_file() and (config.out / "report.json").is_file():
        return "unchanged", ["nothing to do: same input, settings and key"]
    return "resumed", ["going on where the last run ended"]


def write_record(config: IngestConfig, now: dict[str, Any], state: str) -> None:
    """Write down what the folder is made of, after taking back what no longer holds.

    A new dataset takes over no parts, a rebuilt one no shards, one that retries no pictures that failed.
    """
    if state == "new":
        shutil.rmtree(config.out / "private" / "parts", ignore_errors=True)
    if state in ("new", "rebuilt"):
        for name in ("index.json", "report.json"):
            (config.out / name).unlink(missing_ok=True)
        for stats in (config.out / "shards").glob("*.stats.json"):
            stats.unlink()
    if config.retry_failed and state == "rebuilt":
        set_aside(config.out / "private" / "parts")
    run = {
        "schema": SCHEMA,
        "code_version": __version__,
        "config": config.sections(),
        "hashes": config.hashes(),
    }
    write_json(config.out / "private" / "run.json", {**run, **now})


def _files(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield from (*archive_files(source), *archive_sides(source))
    else:
        yield source
