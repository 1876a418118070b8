"""Write every file of a dataset again without what a survey found; only files that change are staged."""

from __future__ import annotations

import bisect
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pathclip.core.files import atomic_path, read_json, write_json
from pathclip.ingest.card import read_card, settings_of, write_card
from pathclip.ingest.export import FOLDER, export_to, post_ids
from pathclip.ingest.journal import Journal
from pathclip.ingest.ledger import LEDGER, Ledger
from pathclip.ingest.media import names_of
from pathclip.ingest.report import recount
from pathclip.ingest.report_page import write_page
from pathclip.ingest.survey import Survey, files_of
from pathclip.ingest.tables import items_to_tables, read_rows, rows_to_tweets, write_rows
from pathclip.ingest.thumbs import KEPT
from pathclip.ingest.tombstones import TAKEN_DOWN
from pathclip.shards import Dataset, Sample, ShardInfo, ShardReader, write_index, write_shard
from pathclip.tweets import Fault

__all__ = ["rewrite"]

Row = dict[str, Any]
CAPTIONED = re.compile(r"^captions (x:(\d\w*):\S+)$")


def rewrite(journal: Journal, found: Survey) -> int:
    """Stage all files that change; returns how many shards do."""
    private = journal.out / "private"
    places, posts, repeated = _parts(journal, private, found)
    _rejects(journal, private, found, places)
    _provenance(journal, private, found)
    touched = _plan(journal, private, found)
    splits = _shards(journal, found, touched)
    report = _report(journal, found, posts, repeated)
    write_json(journal.staged("report.json"), report)
    _page(journal, private, found, report)
    _exported(journal, private)
    stated = read_card(journal.out / "README.md")
    write_card(journal.out, journal.root, report, splits, stated, settings_of(journal.out))
    return len(touched)


def edit(journal: Journal, path: Path, change: Callable[[Row], Row | None], more: Iterable[Row] = ()) -> bool:
    """Stage a parquet file with some rows changed (None: left out) and more at its end; True if changed."""
    name = path.relative_to(journal.out).as_posix()
    staged, differs = journal.staged(name), False
    with (
        pq.ParquetFile(path) as file,
        atomic_path(staged) as temporary,
        pq.ParquetWriter(temporary, file.schema_arrow, compression="zstd") as writer,
    ):
        for batch in file.iter_batches():
            old = batch.to_pylist()
            new = [row for row in (change(dict(row)) for row in old) if row is not None]
            differs |= new != old
            writer.write_batch(_batch(new, file))
        extra = list(more)
        differs |= bool(extra)
        writer.write_batch(_batch(extra, file))
    if not differs:
        staged.unlink()
    return differs


def _batch(rows: list[Row], file: pq.ParquetFile) -> Any:
    return pa.RecordBatch.from_pylist(rows, schema=file.schema_arrow)


def _parts(journal: Journal, private: Path, found: Survey) -> tuple[list[str], int, int]:
    """Posts, rows, faults and pictures; returns the places of what left, posts that stay, their repeats."""
    sources: dict[str, list[str]] = defaultdict(list)
    with_referenced = read_json(private / "run.json")["config"]["collect"]["referenced"]
    staying: Counter[str] = Counter()
    gone_names: set[str] = set()
    kept_names: set[str] = set()
    ledger = Ledger(private / "media")

    def post(row: Row) -> Row | None:
        (tweet,) = rows_to_tweets([{**row, "media": [dict(m) for m in row["media"]]}])
        left = found.gone.obey(tweet)
        for media in tweet.media:
            is_gone = isinstance(left, Fault) or media not in left.media  # type: ignore[union-attr]
            names = gone_names if is_gone else kept_names
            names.update(names_of(tweet.id, media))
            if media.url and (fetched := ledger.get(media.url)) and fetched.state == "ok":
                names.add(ledger.file(fetched))
        if isinstance(left, Fault):
            sources[number].append(tweet.source)
            return None
        if with_referenced or not tweet.is_referenced:
            staying[tweet.id] += 1
        return row if left == tweet else items_to_tables([left])["posts"][0]

    def table_row(row: Row) -> Row | None:
        if row["image"] not in found.images:
            kept_names.add(row["image"])
            return row
        gone_names.add(row["image"])
        sources[number].append(row["source"])
        return None

    for table, change in (("posts", post), ("rows", table_row)):
        for path in files_of(private, table):
            number = path.stem.rpartition("-")[2]
            edit(journal, path, change)
    _faults(journal, private, found, sources)
    _pictures(journal, private, gone_names - kept_names)
    places = [place for number in sorted(sources) for place in sources[number]]
    return places, len(staying), staying.total() - len(staying)


def _faults(journal: Journal, private: Path, found: Survey, sources: dict[str, list[str]]) -> None:
    """What left is a fault from now on, one per record, so that a new plan still accounts for its line."""

    def fault(row: Row) -> Row:
        return {**row, "detail": found.gone.scrubbed(row["detail"] or "")}

    standing = {path.stem.rpartition("-")[2]: path for path in files_of(private, "faults")}
    for number, path in standing.items():
        edit(journal, path, fault, (_fault(place) for place in sources.get(number, ())))
    for number in sources.keys() - standing.keys():
        name = f"private/parts/faults-{number}.parquet"
        write_rows(journal.staged(name), "faults", [_fault(place) for place in sources[number]])


def _fault(place: str) -> Row:
    return {"code": TAKEN_DOWN, "detail": "", "source": place}


def _pictures(journal: Journal, private: Path, names: set[str]) -> None:
    """Rows of files that only what left has named, and copies of such files in the dataset's own store."""
    hashes: set[str] = set()
    staying: set[str] = set()

    def picture(row: Row) -> Row | None:
        base = row["file"].rpartition("/")[2]
        if not {row["file"], base, base.partition(".")[0]} & names:
            staying.add(row["sha256"])
            return row
        hashes.add(row["sha256"])
        return None

    for path in files_of(private, "pictures"):
        edit(journal, path, picture)
    stems = names | (hashes - staying - {None})
    store = private / "media"
    gone: set[str] = set()
    for file in sorted(store.rglob("*")) if store.is_dir() else ():
        own = {file.name, file.name.partition(".")[0], file.relative_to(store).as_posix()}
        if file.is_file() and own & stems:
            journal.delete(file.relative_to(journal.out).as_posix())
            gone.add(file.name)
    if gone and (store / LEDGER).is_file():
        lines = (store / LEDGER).read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not any(name in line for name in gone)]
        journal.staged(f"private/media/{LEDGER}").write_text("".join(kept), encoding="utf-8")


def _rejects(journal: Journal, private: Path, found: Survey, places: list[str]) -> None:
    def reject(row: Row) -> Row | None:
        if row["tweet_id"] in found.posts or row["media_key"] in found.images:
            return None
        if row["candidate_id"] in found.copies:
            return {**row, **_because("select", TAKEN_DOWN, "a copy of a picture that was taken down")}
        captioned = CAPTIONED.match(row["detail"] or "")
        if captioned and captioned[2] in found.posts and row["tweet_id"] not in found.captioning:
            return {**row, **_because("caption", "no_media", "reply not used: its picture was taken down")}
        detail = found.gone.scrubbed(row["detail"]) if row["detail"] else row["detail"]
        return {**row, "detail": detail}

    files = files_of(private, "rejects")
    for path in files:
        more = _new_rejects(private, found, places) if path == files[0] else ()
        edit(journal, path, reject, more)


def _because(stage: str, code: str, detail: str) -> Row:
    return {"stage": stage, "code": code, "detail": detail}


def _new_rejects(private: Path, found: Survey, places: list[str]) -> Iterator[Row]:
    blank = {"tweet_id": None, "media_key": None, "scores": "{}"}
    for place in places:
        yield {**blank, "candidate_id": f"l:{place}", "source": place, **_because("select", TAKEN_DOWN, "")}
    wanted = {tweet_id for tweet_id, _ in found.pictures}
    sources = {
        row["id"]: row["source"]
        for row in read_rows(files_of(private, "posts"), ["id", "source"])
        if row["id"] in wanted
    }
    for tweet_id, media_key in sorted(found.pictures, key=str):
        yield {
            **blank,
            "candidate_id": f"x:{tweet_id}:{media_key}",
            "tweet_id": tweet_id,
            "media_key": media_key,
            "source": sources.get(tweet_id or "", ""),
            **_because("caption", "no_caption", "all that was said of it was taken down"),
        }


def _provenance(journal: Journal, private: Path, found: Survey) -> None:
    leaving, fewer = found.leaving, found.recaptioned

    def origin(row: Row) -> Row | None:
        name, number = row["sample_id"], row["caption_index"]
        if name in leaving or (number is not None and number in fewer.get(name, ())):
            return None
        if number is None or name not in fewer:
            return row
        return {**row, "caption_index": number - sum(n < number for n in fewer[name])}

    for path in files_of(private, "provenance"):
        edit(journal, path, origin)


def _plan(journal: Journal, private: Path, found: Survey) -> set[str]:
    """Renumber the samples behind those that leave; returns the shards that change."""
    leaving, fewer = found.leaving, found.recaptioned
    holes: dict[str, list[int]] = defaultdict(list)
    touched: set[str] = set()
    for row in read_rows(files_of(private, "plan"), ["sample_id", "shard", "index"]):
        if row["sample_id"] in leaving:
            bisect.insort(holes[row["shard"]], row["index"])
        if row["sample_id"] in leaving or row["sample_id"] in fewer:
            touched.add(row["shard"])

    def planned(row: Row) -> Row | None:
        if row["sample_id"] in leaving:
            return None
        captions = [c for n, c in enumerate(row["captions"]) if n not in fewer.get(row["sample_id"], ())]
        index = row["index"] - bisect.bisect(holes.get(row["shard"], []), row["index"])
        return {**row, "captions": captions, "index": index}

    for path in files_of(private, "plan"):
        edit(journal, path, planned)
    return touched


def _shards(journal: Journal, found: Survey, touched: set[str]) -> dict[str, list[ShardInfo]]:
    """Write the touched shards from what they hold; all others keep their bytes."""
    dataset = Dataset.open(journal.out)
    splits: dict[str, list[ShardInfo]] = {}
    for split, shards in dataset.splits.items():
        for shard in shards:
            path = dataset.root / shard.path
            if path.stem not in touched:
                splits.setdefault(split, []).append(shard)
                continue
            info = write_shard(journal.staged(shard.path), _remaining(path, found), root=journal.root)
            if info.count:
                splits.setdefault(split, []).append(info)
                continue
            for suffix in (".tar", ".idx", ".stats.json"):
                journal.staged(shard.path).with_suffix(suffix).unlink()
                journal.delete(Path(shard.path).with_suffix(suffix).as_posix())
    if touched:
        write_index(journal.root, splits)
    return splits


def _remaining(path: Path, found: Survey) -> Iterator[Sample]:
    leaving, fewer = found.leaving, found.recaptioned
    reader = ShardReader(path)
    names = Sample.__dataclass_fields__.keys() - {"jpg", "captions", "positional"}
    for i in range(len(reader)):
        record = reader.record(i)
        name = record["sample_id"]
        if name not in leaving:
            captions = [c for n, c in enumerate(record["captions"]) if n not in fewer.get(name, ())]
            texts = tuple((c["text"], c["source"]) for c in captions)
            places = frozenset(n for n, c in enumerate(captions) if c.get("positional"))
            values = {n: record[n] for n in names if n in record}
            yield Sample(**values, captions=texts, positional=places, jpg=bytes(reader.jpg(i)))
    reader.close()


def _exported(journal: Journal, private: Path) -> None:
    """Ids that were exported into the dataset folder, again without those that left."""
    folder = journal.out / FOLDER
    parts = sorted(folder.glob("ids-*.*"))
    if not parts:
        return
    for path in folder.iterdir():
        journal.delete(path.relative_to(journal.out).as_posix())
    ids = post_ids(journal.current("private/provenance.parquet"))
    size = max(1, len(parts[0].read_text().split()))
    export_to(
        journal.root / FOLDER,
        ids,
        read_json(private / "run.json"),
        "csv" if parts[0].suffix == ".csv" else "txt",
        size,
    )


def _page(journal: Journal, private: Path, found: Survey, report: dict[str, Any]) -> None:
    """The page without pictures of what left, and without captions that are not what they were."""
    touched = found.taken | found.pictures | found.fewer
    gone = {
        f"t:{key}" if tweet is None else f"x:{tweet}:{key}" for tweet, key in touched
    } | found.copies.keys()

    def thumb(row: Row) -> Row | None:
        name = row["candidate_id"]
        if name in gone or name.partition("#")[0] in gone or name.split(":")[1] in found.posts:
            return None
        return {**row, "note": found.gone.scrubbed(row["note"]) if row["code"] != KEPT else row["note"]}

    for path in files_of(private, "thumbs"):
        edit(journal, path, thumb)
        shown = read_rows([journal.current("private/thumbs.parquet")])
        write_page(journal.staged("private/report.html"), report, shown)


def _report(journal: Journal, found: Survey, posts: int, repeated: int) -> dict[str, Any]:
    """Count again from the tables as they will be."""
    private = journal.out / "private"
    before = read_json(journal.out / "report.json")

    def rows(table: str, columns: list[str]) -> Iterator[Row]:
        names = [path.relative_to(journal.out).as_posix() for path in files_of(private, table)]
        return read_rows([journal.current(name) for name in names], columns)

    return recount(
        before,
        rows("plan", ["split", "group_id", "hashtag", "captions", "panels", "phi"]),
        rows("rejects", ["code"]),
        kept=before["kept"] - len(found.taken | found.pictures),
        posts=posts,
        repeated=repeated,
    )
