"""A dataset's public files, copied to an object store (``publish``) and kept in step there by takedowns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import sha256_file, write_json
from pathclip.core.remote import LocalFile, Synced, local_place, meant_url, sync
from pathclip.ingest.check import notes_on
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.record import previous
from pathclip.ingest.report import IngestReport
from pathclip.shards import Dataset, ShardInfo

__all__ = ["check_places", "publish", "published", "remembered", "standing_url"]

AT_THE_TOP = ("report.json", "README.md", "croissant.json")


def check_places(config: IngestConfig) -> None:
    """Find what cannot be meant, before any work.

    Raises:
        UserError: If ``out`` is a url, or the copy would lie in the dataset folder.
    """
    if url := meant_url(config.out):
        raise UserError(
            f"--out {url} is a url; a dataset is made in a local folder and copied from there: "
            f"--out DIR --set publish={url}"
        )
    target = local_place(config.publish)
    if target is not None and target.is_relative_to(config.out.resolve()):
        raise UserError(f"publish = {config.publish} lies in the dataset folder itself; name another place")


def remembered(out: Path) -> str:
    """Where the dataset is published to; empty where it is not."""
    return (previous(out) or {"config": {}})["config"].get("publish", "")


def standing_url(config: IngestConfig) -> str:
    """What this run says, or else what was said before: a copy is kept in step until ``off`` ends it."""
    if config.publish == "off":
        return ""
    return config.publish or remembered(config.out)


def published(report: IngestReport, url: str, before: str) -> IngestReport:
    """The end of an ingest: write down where the dataset is published, and publish it.

    Args:
        report: Of the complete dataset.
        url: Where to; empty for nowhere.
        before: Where it was published before this run.

    Raises:
        FaultError: If the store is away or refuses; the dataset is complete all the same.
    """
    _remember(report.out, url)
    notes = []
    if before and before != url:
        notes.append(f"{before} is not kept in step any more, takedowns do not reach it: remove it there")
    if not url:
        return replace(report, messages=(*report.messages, *notes))
    done = publish(report.out, url)
    return replace(
        report, published=done, messages=(*report.messages, *notes, *notes_on(report.out), done.line())
    )


def publish(out: str | Path, url: str) -> Synced:
    """Copy the public files of a complete dataset, ``index.json`` last; nothing of ``private/`` is opened.

    Args:
        out: The dataset folder; no other run writes it meanwhile.
        url: Any fsspec url.

    Raises:
        UserError: If there is no dataset, or the place holds something else.
        FaultError: If the store is away or refuses, or a shard is not what ``index.json`` says.
    """
    files = _public_files(Path(out))
    try:
        return sync(files, url)
    except FaultError as error:
        raise FaultError(
            f"{out} is complete, but its copy is not in step: {error}; run the same command again to publish"
        ) from error


def _public_files(out: Path) -> list[LocalFile]:
    """Shards with indexes and stats, what stands at the top, ``index.json``: in the order of writing."""
    shards = [shard for shards in Dataset.open(out).splits.values() for shard in shards]
    files = [file for shard in shards for file in _of_shard(out, shard)]
    top = [name for name in AT_THE_TOP if (out / name).is_file()]
    return [*files, *(_file(out, name) for name in (*top, "index.json"))]


def _of_shard(out: Path, shard: ShardInfo) -> list[LocalFile]:
    """The tar is not read for its checksum: ``index.json`` knows it."""
    tar = out / shard.path
    beside = [tar.with_suffix(suffix) for suffix in (".idx", ".stats.json")]
    if any(not path.is_file() for path in (tar, *beside)) or tar.stat().st_size != shard.bytes:
        raise FaultError(f"{tar} is not what index.json says; see `pathclip data verify {out}`")
    whole = LocalFile(shard.path, tar, shard.bytes, shard.sha256)
    return [whole, *(_file(out, path.relative_to(out).as_posix()) for path in beside)]


def _file(out: Path, name: str) -> LocalFile:
    path = out / name
    return LocalFile(name, path, path.stat().st_size, sha256_file(path))


def _remember(out: Path, url: str) -> None:
    run = previous(out)
    if run is not None and run["config"].get("publish", "") != url:
        write_json(out / "private" / "run.json", {**run, "config": {**run["config"], "publish": url}})
