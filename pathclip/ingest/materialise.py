"""Phase C: the plan becomes shards, one task per shard; a shard that stands complete is not written again."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pathclip.core import engine
from pathclip.core.errors import FaultError
from pathclip.core.files import read_json
from pathclip.core.progress import track
from pathclip.ingest.ahead import Ahead, ahead_folder, find_ahead
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.layout import pair_of_row
from pathclip.ingest.media import safe_path
from pathclip.ingest.tables import read_rows
from pathclip.pairs import SPLITS, Drop, PackConfig, Pair, stored_jpeg
from pathclip.shards import Sample, ShardInfo, write_shard

__all__ = ["materialise"]


SHARD_FILE = re.compile(r"((?:train|val|test)-\d{6})\.(?:tar|idx|stats\.json)")


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to write: its pairs, in order, and those of their pictures that were stored ahead."""

    out: Path
    name: str
    pairs: tuple[Pair, ...]
    roots: tuple[Path, ...]
    config: PackConfig
    ahead: dict[str, Ahead]


def materialise(config: IngestConfig, out: Path, roots: list[Path]) -> dict[str, list[ShardInfo]]:
    """Write the shards that are missing and drop those the plan does not name.

    Returns:
        The shards of each split that has any, in order: what ``index.json`` will say.

    Raises:
        FaultError: If a picture changed or vanished since it was looked at, or the disk is full.
    """
    by_shard: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_rows([out / "private" / "plan.parquet"]):
        by_shard[row["shard"]].append(row)
    _remove_others(out / "shards", set(by_shard))
    tasks = [
        ShardTask(out, name, _in_order(rows), tuple(roots), config.pack, {})
        for name, rows in sorted(by_shard.items())
    ]
    done = {task.name: info for task in tasks if (info := _complete(task)) is not None}
    todo = [task for task in tasks if task.name not in done]
    folder = ahead_folder(config, out / "private" / "parts")
    ahead = find_ahead(folder, (pair.image_sha256 for task in todo for pair in task.pairs))
    todo = [replace(task, ahead=_of(task, ahead)) for task in todo]
    written = engine.map(_write, todo, **config.engine_for(todo))
    for task, info in track(written, "shards", len(todo)):
        done[task.name] = info
    splits: dict[str, list[ShardInfo]] = {}
    for split in SPLITS:
        shards = [done[name] for name in sorted(done) if name.rpartition("-")[0] == split]
        if shards:
            splits[split] = shards
    return splits


def _write(task: ShardTask) -> ShardInfo:
    path = task.out / "shards" / f"{task.name}.tar"
    return write_shard(path, _samples(task), root=task.out)


def _in_order(rows: list[dict[str, Any]]) -> tuple[Pair, ...]:
    return tuple(pair_of_row(row) for row in sorted(rows, key=lambda row: row["index"]))


def _samples(task: ShardTask) -> Iterator[Sample]:
    for pair in task.pairs:
        jpg, width, height = _stored(task, pair)
        yield Sample(
            sample_id=pair.sample_id,
            group_id=pair.group_id,
            positive_id=pair.positive_id,
            captions=tuple((caption.text, caption.source) for caption in pair.captions),
            hashtag=pair.hashtag,
            width=width,
            height=height,
            phash=pair.phash,
            split=pair.split,
            jpg=jpg,
            panels=pair.panels,
            panel=pair.panel,
            positional=frozenset(n for n, caption in enumerate(pair.captions) if caption.positional),
        )


def _of(task: ShardTask, ahead: dict[str, Ahead]) -> dict[str, Ahead]:
    return {p.image_sha256: ahead[p.image_sha256] for p in task.pairs if p.image_sha256 in ahead}


def _stored(task: ShardTask, pair: Pair) -> tuple[bytes, int, int]:
    found = task.ahead.get(pair.image_sha256) if pair.box is None else None
    ahead = found.read() if found is not None else None
    return ahead or stored_jpeg(_bytes(task.roots[pair.image_root], pair), task.config, box=pair.box)


def _bytes(root: Path, pair: Pair) -> bytes:
    path = safe_path(root, pair.image_path)
    try:
        data = b"" if isinstance(path, Drop) else path.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != pair.image_sha256:
        raise FaultError(
            f"picture {root / pair.image_path} changed or vanished since it was looked at; put it back, "
            "or run again with --force-new"
        )
    return data


def _complete(task: ShardTask) -> ShardInfo | None:
    """What the shard's commit marker says, if the shard is whole and fits the plan."""
    tar = task.out / "shards" / f"{task.name}.tar"
    stats = tar.with_suffix(".stats.json")
    if not (stats.is_file() and tar.is_file() and tar.with_suffix(".idx").is_file()):
        return None
    said = read_json(stats)
    info = ShardInfo(said["path"], said["count"], said["bytes"], said["sha256"])
    return info if info.count == len(task.pairs) and info.bytes == tar.stat().st_size else None


def _remove_others(shards: Path, names: set[str]) -> None:
    for path in shards.iterdir() if shards.is_dir() else ():
        match = SHARD_FILE.fullmatch(path.name)
        if match and match.group(1) not in names:
            path.unlink()
