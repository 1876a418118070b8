"""Phase A: read every line and look at every picture, chunk by chunk, into ``private/parts``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pathclip.core import engine
from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import atomic_write
from pathclip.core.progress import track
from pathclip.ingest.ahead import ahead_folder
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.look import LookTask, Scorer, look_apart, look_at_many, picture_file
from pathclip.ingest.media import MediaFolders, Place
from pathclip.ingest.privacy import without_names
from pathclip.ingest.retry import forget_known, known_pictures
from pathclip.ingest.tables import read_rows, rows_to_tweets, writing_items
from pathclip.ingest.tombstones import Tombstones
from pathclip.pairs import Drop
from pathclip.tweets import Chunk, Fault, Item, Row, Tweet, archive_media, chunks, halves, read
from pathclip.tweets.media_table import described, read_media_table
from pathclip.tweets.packed import is_zip

__all__ = ["Collected", "collect", "collect_share", "media_roots"]

PICTURES_PER_TASK = 64


@dataclass(frozen=True, slots=True)
class Collected:
    """What phase A left behind.

    Attributes:
        parts: The folder of the parts.
        folders: Where pictures lie.
        folders_of_tables: Chunk number to the folder its rows name files in.
        lines: Lines that are not blank.
        gone: What was taken down.
    """

    parts: Path
    folders: MediaFolders
    folders_of_tables: dict[int, int]
    lines: int
    gone: Tombstones = field(default_factory=Tombstones)

    def files(self, table: str) -> list[Path]:
        """The parts of one table, in order."""
        return sorted(self.parts.glob(f"{table}-*.parquet"))

    def posts(self) -> Iterator[Tweet]:
        """Every post read, repeats included."""
        return rows_to_tweets(read_rows(self.files("posts")))

    def rows(self) -> Iterator[tuple[Row, Place | Drop]]:
        """Every table row, and where its picture should lie."""
        for path in self.files("rows"):
            folder = self.folders_of_tables[int(path.stem.rpartition("-")[2])]
            for values in read_rows([path]):
                yield Row(**values), self.folders.of_row(values["image"], folder)


@dataclass(frozen=True, slots=True)
class ReadTask:
    """One chunk of input, where its parts go, what may not come back, and what is known of attachments."""

    number: int
    chunk: Chunk
    parts: Path
    gone: Tombstones
    media_table: Path | None = None


def collect(
    config: IngestConfig,
    parts: Path,
    gone: Tombstones | None = None,
    likely: Callable[[Collected], set[Place]] | None = None,
    fetch: Callable[[Collected], None] | None = None,
    scorer: Scorer | None = None,
) -> Collected:
    """Read all sources, find the pictures they name, look at each once.

    A part that exists is not made again, so a killed run goes on where it was. Of what was taken down only
    the place is kept (a fault ``taken_down``); names of accounts are not kept at all.

    Args:
        config: Of the whole ingest.
        parts: The folder of the parts.
        gone: What was taken down.
        likely: Tells which pictures will likely be kept: they are stored ahead, so that the shards need no
            second decode. It changes no result.
        fetch: Downloads pictures that no folder holds and adds them to the folders.
        scorer: Says how likely a picture is a micrograph.

    Raises:
        UserError: If a source is missing, empty or of no known shape, or holds nothing at all.
    """
    read_tasks = _read_tasks(config, parts, gone)
    _read_all(config, read_tasks)
    collected = _collected(config, read_tasks, parts, gone)
    if fetch is not None:
        fetch(collected)
    look_tasks = [task for task in _look_tasks(config, collected) if not picture_file(task).is_file()]
    if likely is not None and look_tasks:
        wanted = likely(collected)
        look_tasks = [replace(task, likely=wanted.intersection(task.places)) for task in look_tasks]
    _look_all(config, [replace(task, scorer=scorer) for task in look_tasks])
    forget_known(parts)
    return collected


def collect_share(
    config: IngestConfig, parts: Path, gone: Tombstones, scorer: Scorer | None = None
) -> tuple[int, int]:
    """What of `collect` falls to ``config.rank``: its chunks, then, once all are read, its pictures.

    Returns:
        Chunks and batches of pictures that are still missing when the share is done.
    """
    mine = slice(config.rank, None, config.world_size)
    read_tasks = _read_tasks(config, parts, gone)
    _read_all(config, read_tasks[mine])
    if unread := sum(not _lines_file(task).is_file() for task in read_tasks):
        return unread, 0
    look_tasks = list(_look_tasks(config, _collected(config, read_tasks, parts, gone)))
    _look_all(config, [replace(task, scorer=scorer) for task in look_tasks[mine]])
    return 0, sum(not picture_file(task).is_file() for task in look_tasks)


def _read_tasks(config: IngestConfig, parts: Path, gone: Tombstones | None) -> list[ReadTask]:
    parts.mkdir(parents=True, exist_ok=True)
    found, table = enumerate(_all_chunks(config.sources)), config.media_table
    return [ReadTask(n, chunk, parts, gone or Tombstones(), table) for n, chunk in found]


def _read_all(config: IngestConfig, tasks: list[ReadTask]) -> None:
    todo = [task for task in tasks if not _lines_file(task).is_file()]
    reads = engine.map(_read_chunk, todo, on_lost=_read_apart, **config.engine_for(todo, apart=True))
    for _ in track(reads, "input chunks", len(todo)):
        pass


def _look_all(config: IngestConfig, tasks: list[LookTask]) -> None:
    todo = [task for task in tasks if not picture_file(task).is_file()]
    looks = engine.map(look_at_many, todo, on_lost=look_apart, **config.engine_for(todo, apart=True))
    for _ in track(looks, "batches of pictures", len(todo)):
        pass


def _collected(
    config: IngestConfig, tasks: list[ReadTask], parts: Path, gone: Tombstones | None
) -> Collected:
    lines = sum(int(_lines_file(task).read_text()) for task in tasks)
    if lines == 0:
        raise UserError(f"{', '.join(map(str, config.sources))}: nothing to read, every line is blank")
    return replace(_with_folders(config, tasks, parts, lines), gone=gone or Tombstones())


def media_roots(config: IngestConfig) -> list[Path]:
    """The folders that attachments are searched in: ``--media`` and those of archives."""
    roots = [config.media] if config.media is not None else []
    for source in config.sources:
        inside = archive_media(source) if source.is_dir() or is_zip(source) else None
        if inside is not None:
            roots.append(inside)
    return roots


def _with_folders(config: IngestConfig, tasks: list[ReadTask], parts: Path, lines: int) -> Collected:
    """Tables name files relative to ``--media``, or to their own folder where none is given."""
    roots = media_roots(config)
    tables = [task for task in tasks if (parts / f"rows-{task.number:05d}.parquet").is_file()]
    if config.media is not None:
        return Collected(parts, MediaFolders(roots), {task.number: 0 for task in tables}, lines)
    beside = sorted({task.chunk.path.parent for task in tables})
    numbers = {task.number: len(roots) + beside.index(task.chunk.path.parent) for task in tables}
    return Collected(parts, MediaFolders(roots, beside), numbers, lines)


def _all_chunks(sources: Iterable[Path]) -> Iterator[Chunk]:
    """Chunks of all sources; where two sources share a file name, messages give more of the path."""
    found = [chunk for source in sources for chunk in chunks(source)]
    paths: dict[str, set[Path]] = {}
    for chunk in found:
        paths.setdefault(chunk.name, set()).add(chunk.path)
    for chunk in found:
        shared = len(paths[chunk.name]) > 1
        yield replace(chunk, name=chunk.path.as_posix()) if shared else chunk


def _read_chunk(task: ReadTask) -> None:
    _write_items(task, _items(task))


def _items(task: ReadTask) -> Iterator[tuple[int, Item]]:
    known = read_media_table(task.media_table) if task.media_table else {}
    for number, item in read(task.chunk):
        item = described(item, known) if known and isinstance(item, Tweet) else item
        yield number, task.gone.obey(without_names(item))


def _write_items(task: ReadTask, numbered: Iterable[tuple[int, Item]]) -> None:
    """Write the chunk's posts, rows and faults, and last of all how many lines it had."""
    last, lines = None, 0
    with writing_items(task.parts, task.number) as write:
        for number, item in numbered:
            lines += number != last
            last = number
            write(item)
    with atomic_write(_lines_file(task), "w") as handle:
        handle.write(str(lines))


def _read_apart(task: ReadTask) -> None:
    """Read a chunk one line of which kills every process that does, so that it alone is rejected."""
    _write_items(task, _halved_items(task))


def _held_items(task: ReadTask) -> list[tuple[int, Item]]:
    return list(_items(task))


def _halved_items(task: ReadTask) -> list[tuple[int, Item]]:
    parts = halves(task.chunk)
    if parts is None:
        raise FaultError(
            f"two processes died reading {task.chunk.path}; as plain JSON lines it can be searched"
        )
    if not parts:
        line = task.chunk.first_line
        return [(line, Fault("line_poison", "two processes died reading it", f"{task.chunk.name}:{line}"))]
    tasks = [replace(task, chunk=chunk) for chunk in parts]
    reads = engine.map(_held_items, tasks, engine="processes", workers=1, on_lost=_halved_items)
    return [item for _, items in sorted(reads, key=lambda half: half[0].chunk.start) for item in items]


def _lines_file(task: ReadTask) -> Path:
    return task.parts / f"chunk-{task.number:05d}.lines"


def _look_tasks(config: IngestConfig, collected: Collected) -> Iterator[LookTask]:
    places = sorted(set(_places(collected)))
    known = known_pictures(collected.parts)
    for number, start in enumerate(range(0, len(places), PICTURES_PER_TASK)):
        batch = tuple(places[start : start + PICTURES_PER_TASK])
        seen = tuple(known[place] for place in batch if place in known)
        yield LookTask(
            number,
            batch,
            tuple(collected.folders.roots),
            collected.parts,
            config.collect,
            config.pack,
            ahead_folder(config, collected.parts),
            frozenset(),
            seen,
        )


def _places(collected: Collected) -> Iterator[Place]:
    for tweet in collected.posts():
        for media in tweet.media:
            place = collected.folders.of_post(tweet.id, media)
            if not isinstance(place, Drop):
                yield place
    yield from (place for _, place in collected.rows() if not isinstance(place, Drop))
