"""A list of ids beside the posts: only those are taken, and those without a post are counted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from pathclip.core.errors import UserError
from pathclip.ingest.candidates import Candidate
from pathclip.ingest.requests import POST_COLUMNS, read_ids
from pathclip.ingest.tombstones import Tombstones
from pathclip.pairs import Drop
from pathclip.tweets import Tweet
from pathclip.tweets.fields import as_id, is_rounded, printable

__all__ = ["is_listed", "listed_ids", "without_posts"]


def listed_ids(path: Path) -> list[str]:
    """The different ids of a list, in its order: one a line, or a CSV or parquet with a column of ids.

    Raises:
        UserError: If it cannot be read, is empty, or an id was rounded to a float.
    """
    if not path.is_file():
        raise UserError(f"the list of ids {path} does not exist")
    with open(path, "rb") as handle:
        is_parquet = handle.read(4) == b"PAR1"
    return list(dict.fromkeys(_of_parquet(path))) if is_parquet else list(read_ids(path).posts)


def is_listed(post: Tweet, ids: Collection[str]) -> bool:
    """True for a post on the list, under the id of any of its versions."""
    return post.id in ids or any(version in ids for version in post.edit_history)


def without_posts(
    path: Path, ids: Iterable[str], read: Collection[str], gone: Tombstones
) -> Iterator[Candidate]:
    """A rejected candidate per id that is not ``read``; it names the place in the list, not the id."""
    for number, tweet_id in enumerate(ids, 1):
        if tweet_id not in read:
            source = f"{printable(path.name)}:{number}"
            code = "taken_down" if gone.cause("post", tweet_id) else "not_hydrated"
            yield Candidate(f"l:ids:{source}", source, drop=Drop(code, "an id of the list without its post"))


def _of_parquet(path: Path) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in POST_COLUMNS if name in file.schema_arrow.names]
            if not names:
                raise UserError(f"the list of ids {path} has no column {', '.join(POST_COLUMNS[:4])}")
            for batch in file.iter_batches(columns=names[:1]):
                for value in batch.column(0).to_pylist():
                    if is_rounded(value):
                        raise UserError(f"{path}: {value} is a rounded number, not an id; store ids as text")
                    if (tweet_id := as_id(value)) is not None:
                        yield tweet_id
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"the list of ids {path} cannot be read: {printable(str(error))}") from None
