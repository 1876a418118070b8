"""Read shards by random access: one mmap per tar, offsets from the index beside it."""

from __future__ import annotations

import json
import mmap
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.core.errors import UserError
from pathclip.core.files import read_json
from pathclip.core.remote import local_place, meant_url
from pathclip.shards.listed import open_listed, split_of
from pathclip.shards.mirror import bring, mirror_index
from pathclip.shards.rows import parse_idx, scan_tar
from pathclip.shards.urls import is_listed
from pathclip.shards.write import ShardInfo

__all__ = ["Dataset", "ShardReader"]


class ShardReader:
    """Random access to one tar. Opens lazily and survives pickling, so it can travel to worker processes.

    Args:
        path: The tar. Where no ``.idx`` lies beside it (a foreign webdataset), the tar is scanned once.

    Raises:
        UserError: If the tar is missing, cut, or does not fit its index.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._map: mmap.mmap | None = None
        self._rows: np.ndarray | None = None

    @property
    def rows(self) -> np.ndarray:
        """(N, 6) uint64: offset and size of jpg, txt and json; size 0 where a foreign tar lacks it."""
        if self._rows is None:
            idx = self.path.with_suffix(".idx")
            self._rows = parse_idx(idx.read_bytes(), idx, self.path) if idx.is_file() else scan_tar(self.path)
        return self._rows

    def __len__(self) -> int:
        return len(self.rows)

    def jpg(self, i: int) -> memoryview:
        """The encoded picture, without a copy; valid while the reader lives."""
        return self._member(i, 0)

    def txt(self, i: int) -> str:
        """The first caption."""
        return bytes(self._member(i, 1)).decode("utf-8", "replace")

    def record(self, i: int) -> dict[str, Any]:
        """The json member; for foreign tars a record made from the key and the txt, or the json's caption."""
        data = self._member(i, 2)
        record = json.loads(bytes(data)) if data else {}
        if isinstance(record, dict) and "sample_id" in record:
            return record
        caption = self.txt(i) if self.rows[i, 3] or not isinstance(record, dict) else record.get("caption")
        return {"sample_id": self.key(i), "captions": [{"text": str(caption or ""), "source": "table"}]}

    def key(self, i: int) -> str:
        """The sample's key, read from the tar header before its picture."""
        header = self._bytes()[int(self.rows[i, 0]) - tarfile.BLOCKSIZE :][:100]
        return bytes(header).split(b"\0", 1)[0].decode().rsplit("/", 1)[-1].split(".", 1)[0]

    def forget(self) -> None:
        """Let go of map and index; the map lives on while somebody holds a picture of it."""
        self._map = self._rows = None

    def close(self) -> None:
        """Give the map back; the next access opens it again."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_map": None, "_rows": self._rows}

    def _member(self, i: int, column: int) -> memoryview:
        offset, size = (int(v) for v in self.rows[i, 2 * column : 2 * column + 2])
        return self._bytes()[offset : offset + size]

    def _bytes(self) -> memoryview:
        if self._map is None:
            self._map = self._open()
        if self._map.size() < len(self._map):  # to read on would kill the process
            raise UserError(f"shard {self.path} was cut while it was in use")
        return memoryview(self._map)

    def _open(self) -> mmap.mmap:
        try:
            with open(self.path, "rb") as handle:
                content = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise UserError(f"shard {self.path} cannot be read: {error}") from None
        ends = self.rows[:, 0::2] + self.rows[:, 1::2]
        if len(ends) and int(ends.max()) > len(content):
            raise UserError(
                f"shard {self.path} is cut: {len(content)} bytes, its index ends at {int(ends.max())};"
                " run `pathclip data verify` and write it again"
            )
        return content


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset folder as readers see it: splits to shards.

    Attributes:
        root: The dataset folder; of a url the one that its shards are fetched into when they are read.
        splits: Split name to its shards, in order.
        url: Where it lies, if not on this machine, or the list of its shards.
    """

    root: Path
    splits: dict[str, tuple[ShardInfo, ...]]
    url: str | None = None

    @classmethod
    def open(cls, path: str | Path, *, stream: bool = False, count: bool = True) -> Dataset:
        """Open a dataset folder (with ``index.json``), its ``shards`` folder, a folder of tars, or one tar.

        A url (``s3://bucket/dataset``) is a dataset that was published there.

        Args:
            path: Where it is.
            stream: Shards named one by one (see `is_listed`) will do too.
            count: Read those of them whose samples nobody states, once, to count them.

        Raises:
            UserError: If there is no dataset there.
            FaultError: If a store cannot be reached.
        """
        if is_listed(str(path)):
            if not stream:
                raise UserError(
                    f"{path} is a list of shards: they can be streamed only (data.stream_shards = 8)"
                )
            return cls(*open_listed(str(path), count=count), str(path))
        if url := meant_url(path):
            root = local_place(url) or mirror_index(url)
            return cls.open(root) if local_place(url) else cls(root, _read_index(root), url)
        path = Path(path)
        for root in (path, path.parent):
            if (root / "index.json").is_file() and (root == path or path.name == "shards"):
                return cls(root, _read_index(root))
        if path.name == "shards" and (path.parent / "private").is_dir():
            raise UserError(
                f"{path.parent} has no index.json: its ingest did not finish; run the same command again"
            )
        tars = [path] if path.suffix == ".tar" and path.is_file() else sorted(path.glob("*.tar"))
        if not tars:
            raise UserError(
                f"{path} is no dataset: expected index.json (from `pathclip ingest`) or *.tar in it"
            )
        root = path if path.is_dir() else path.parent
        splits: dict[str, list[ShardInfo]] = {}
        for tar in tars:
            info = ShardInfo(tar.relative_to(root).as_posix(), len(ShardReader(tar)), tar.stat().st_size, "")
            splits.setdefault(split_of(tar.name), []).append(info)
        return cls(root, {split: tuple(shards) for split, shards in splits.items()})

    def count(self, split: str) -> int:
        """Samples of a split."""
        return sum(shard.count for shard in self.shards(split))

    def shards(self, split: str) -> tuple[ShardInfo, ...]:
        """Shards of a split.

        Raises:
            UserError: If the dataset has no such split.
        """
        if split not in self.splits:
            place = self.url or self.root
            raise UserError(f"{place} has no split {split!r}; it has: {', '.join(self.splits) or 'none'}")
        return self.splits[split]

    def locate(self, shard: ShardInfo) -> str | None:
        """The url of a shard, or its command; None where it lies in the folder."""
        if self.url is None or is_listed(shard.path):
            return self.url and shard.path
        return f"{self.url}/{shard.path}"

    def readers(self, split: str) -> list[ShardReader]:
        """A reader per shard of a split, in order; fetches those that are not here yet."""
        if self.url is not None:
            bring(self.url, self.root, self.shards(split))
        return [ShardReader(self.root / shard.path) for shard in self.shards(split)]

    def samples(self, split: str) -> Iterator[tuple[memoryview, dict[str, Any]]]:
        """Every (jpg, record) of a split, in order."""
        for reader in self.readers(split):
            for i in range(len(reader)):
                yield reader.jpg(i), reader.record(i)


def _read_index(root: Path) -> dict[str, tuple[ShardInfo, ...]]:
    data = read_json(root / "index.json")
    if data.get("schema") != "pathclip.index/1":
        raise UserError(
            f"{root / 'index.json'}: schema is {data.get('schema')!r}, expected 'pathclip.index/1'"
        )
    return {s: tuple(ShardInfo(**shard) for shard in table["shards"]) for s, table in data["splits"].items()}
