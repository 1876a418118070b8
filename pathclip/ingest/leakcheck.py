"""Do pictures of a benchmark lie in a dataset? By bytes, by decoded pixels, and by looking alike."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from pathclip.core import engine
from pathclip.core.errors import FaultError, UserError
from pathclip.core.progress import track
from pathclip.pairs import Drop, decode, near_pairs, phash, read_header, small_picture
from pathclip.shards import Dataset, ShardReader

__all__ = ["LeakReport", "leakcheck"]

RADIUS = 8  # bits of phash_v2; no two different micrographs of 688 came nearer than 12
MAX_PIXELS = 178_000_000
FILES_PER_TASK = 64
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"))
TURNS = tuple(Image.Transpose)
"""The seven turns and flips of a square beside leaving it as it is."""
Match = Literal["bytes", "pixels", "near"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture as it is compared.

    Attributes:
        name: Sample id, or path within the folder.
        split: Its split in a dataset, or None.
        bytes_sha256: Of the file or the shard's member.
        pixels_sha256: Of size and RGB pixels after the canonical decode; None where it does not decode.
        hashes: phash_v2 as it is, then, where asked for, of its turns; without structure there is none.
        problem: Why it could not be looked at.
    """

    name: str
    split: str | None
    bytes_sha256: str = ""
    pixels_sha256: str | None = None
    hashes: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class LookTask:
    """Some pictures to look at: the files of a folder, one tar, or pictures by name."""

    root: Path
    files: tuple[str, ...]
    split: str | None
    turns: bool
    named: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What was compared and found.

    Attributes:
        pictures: Pictures of the dataset.
        against: Pictures of the benchmark.
        leaks: One per picture of the benchmark that lies in the dataset: ``benchmark``, ``sample``,
            ``split``, ``match`` (bytes, pixels or near), ``distance`` (bits) and ``matches``
            (how many samples).
        bad: Pictures that could not be looked at, ``name: why``.
        radius: Bits up to which pictures count as near.
    """

    pictures: int
    against: int
    leaks: list[dict[str, Any]]
    bad: list[str]
    radius: int

    @property
    def ok(self) -> bool:
        """True if nothing leaked and everything was looked at."""
        return not self.leaks and not self.bad

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"ok": self.ok, **{name: getattr(self, name) for name in self.__dataclass_fields__}}


def leakcheck(
    data: str | Path,
    against: str | Path | Sequence[tuple[str, Any]],
    *,
    split: str | None = None,
    radius: int = RADIUS,
    turns: bool = False,
    workers: int | None = None,
) -> LeakReport:
    """Find the pictures of a benchmark that a dataset holds too.

    Args:
        data: A dataset folder, shards, or a folder of pictures.
        against: The benchmark, likewise; or (name, picture) each, where a picture is a path, or a callable
            that gives the file's bytes, an array uint8 (H, W, 3) or a PIL picture.
        split: Only this split of ``data``; all by default.
        radius: Hamming distance of phash_v2 up to which pictures count as near; -1 compares exactly only.
        turns: Also compare the seven turns and flips of each benchmark picture.
        workers: Processes; all cores by default.

    Raises:
        UserError: If a side is missing or holds no pictures.
    """
    if not -1 <= radius <= 16:
        raise UserError(f"radius is {radius}; expected -1 to 16 bits of 64")
    ours = _look(Path(data), split, turns=False, workers=workers)
    benchmark = Path(against) if isinstance(against, str | Path) else tuple(against)
    theirs = _look(benchmark, None, turns=turns, workers=workers)
    bad = [f"{seen.name}: {seen.problem}" for seen in (*ours, *theirs) if seen.problem]
    found: dict[int, dict[int, tuple[int, Match]]] = defaultdict(dict)
    for i, j, distance, match in _matches(ours, theirs, radius):
        if j not in found[i] or (distance, match) < found[i][j]:
            found[i][j] = (distance, match)
    leaks = [_leak(theirs[i], ours, found[i]) for i in sorted(found)]
    return LeakReport(len(ours), len(theirs), leaks, bad, radius)


def _leak(seen: Seen, ours: list[Seen], found: dict[int, tuple[int, Match]]) -> dict[str, Any]:
    nearest = min(found, key=lambda j: (found[j], ours[j].name))
    distance, match = found[nearest]
    return {
        "benchmark": seen.name,
        "sample": ours[nearest].name,
        "split": ours[nearest].split,
        "match": match,
        "distance": max(distance, 0),
        "matches": len(found),
    }


def _matches(ours: list[Seen], theirs: list[Seen], radius: int) -> Iterator[tuple[int, int, int, Match]]:
    """(theirs, ours, distance, how); exact ones rank below every distance, bytes below pixels."""
    exact: tuple[tuple[str, Match, int], ...] = (
        ("bytes_sha256", "bytes", -2),
        ("pixels_sha256", "pixels", -1),
    )
    for attribute, match, rank in exact:
        held = _by(((getattr(seen, attribute), j) for j, seen in enumerate(ours)))
        for i, seen in enumerate(theirs):
            for j in held.get(getattr(seen, attribute), ()) if getattr(seen, attribute) else ():
                yield i, j, rank, match
    if radius < 0:
        return
    left = _by((h, j) for j, seen in enumerate(ours) for h in seen.hashes)
    right = _by((h, i) for i, seen in enumerate(theirs) for h in seen.hashes)
    names = sorted(left.keys() | right.keys())
    same = ((name, name, 0) for name in left.keys() & right.keys())
    hashes = np.array([int(name, 16) for name in names], dtype=np.uint64)
    near = ((names[a], names[b], distance) for a, b, distance in near_pairs(hashes, radius))
    for first, second, distance in (*same, *near):
        for one, other in {(first, second), (second, first)}:
            for i in right.get(one, ()):
                for j in left.get(other, ()):
                    yield i, j, distance, "near"


def _by(items: Iterable[tuple[str | None, int]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for key, number in items:
        if key:
            found[key].append(number)
    return found


def _look(
    path: Path | tuple[tuple[str, Any], ...], split: str | None, *, turns: bool, workers: int | None
) -> list[Seen]:
    name = path.name if isinstance(path, Path) else "the benchmark"
    tasks = list(_tasks(path, split, turns) if isinstance(path, Path) else _named(path, turns))
    workers = min(workers or os.cpu_count() or 1, max(1, len(tasks)))
    chosen: engine.EngineName = "serial" if workers == 1 else "processes"
    results = engine.map(_look_at, tasks, engine=chosen, workers=workers)
    found = [seen for _, many in track(results, f"parts of {name}", len(tasks)) for seen in many]
    if not found:
        raise UserError(f"{name} holds no pictures; expected a dataset, shards or a folder of pictures")
    return sorted(found, key=lambda seen: (seen.name, seen.split or ""))


def _tasks(path: Path, split: str | None, turns: bool) -> Iterator[LookTask]:
    if not path.exists():
        raise UserError(f"{path} does not exist; expected a dataset, shards or a folder of pictures")
    if (path / "index.json").is_file() or path.suffix == ".tar" or any(path.glob("*.tar")):
        dataset = Dataset.open(path)
        for name in (split,) if split else tuple(dataset.splits):
            for shard in dataset.shards(name):
                yield LookTask(dataset.root, (shard.path,), name, turns)
        return
    files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if _is_picture(p))
    for start in range(0, len(files), FILES_PER_TASK):
        yield LookTask(path, tuple(files[start : start + FILES_PER_TASK]), None, turns)


def _named(pictures: tuple[tuple[str, Any], ...], turns: bool) -> Iterator[LookTask]:
    for start in range(0, len(pictures), FILES_PER_TASK):
        yield LookTask(Path(), (), None, turns, pictures[start : start + FILES_PER_TASK])


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _look_at(task: LookTask) -> list[Seen]:
    if task.named:
        return [_picture(name, picture, task) for name, picture in task.named]
    if task.files[0].endswith(".tar"):
        reader = ShardReader(task.root / task.files[0])
        return [_sample(reader, i, task) for i in range(len(reader))]
    return [_file(task, name) for name in task.files]


def _sample(reader: ShardReader, i: int, task: LookTask) -> Seen:
    """The hash in the record was made before the picture was scaled down, so it is taken."""
    seen = _seen(reader.key(i), task.split, bytes(reader.jpg(i)), task.turns)
    recorded = reader.record(i).get("phash")
    return replace(seen, hashes=tuple(dict.fromkeys((recorded, *seen.hashes)))) if recorded else seen


def _file(task: LookTask, name: str) -> Seen:
    try:
        return _seen(name, task.split, (task.root / name).read_bytes(), task.turns)
    except OSError as error:
        return Seen(name, task.split, problem=error.strerror or str(error))


def _picture(name: str, picture: Any, task: LookTask) -> Seen:
    if isinstance(picture, Path):
        return replace(_file(replace(task, root=picture.parent), picture.name), name=name)
    try:
        held = picture()
    except (FaultError, OSError) as error:
        return Seen(name, None, problem=str(error))
    if isinstance(held, bytes):
        return _seen(name, None, held, task.turns)
    image = held if isinstance(held, Image.Image) else Image.fromarray(held)
    return _decoded(Seen(name, None), image.convert("RGB"), task.turns)


def _seen(name: str, split: str | None, data: bytes, turns: bool) -> Seen:
    seen = Seen(name, split, hashlib.sha256(data).hexdigest())
    header = read_header(data, max_pixels=MAX_PIXELS)
    image = header if isinstance(header, Drop) else decode(data)
    if isinstance(image, Drop):
        return replace(seen, problem=image.detail or image.code)
    return _decoded(seen, image, turns)


def _decoded(seen: Seen, image: Image.Image, turns: bool) -> Seen:
    small = small_picture(image)
    views = (small, *(small.transpose(turn) for turn in TURNS)) if turns else (small,)
    pixels = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
    hashes = tuple(dict.fromkeys(h for h in map(phash, views) if h))
    return replace(seen, pixels_sha256=pixels, hashes=hashes)
