"""What an index is built from: a dataset, a folder of pictures, or a list -> pictures and their rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import sha256_file
from pathclip.core.remote import meant_url
from pathclip.encoders import PICTURE_SUFFIXES
from pathclip.encoders.pictures import as_rgb, describe, split_batch
from pathclip.shards import Dataset, ShardReader

__all__ = ["COLUMNS", "Source", "open_source", "read_picture"]

COLUMNS = {
    "key": str,
    "image_path": str,
    "caption": str,
    "label": str,
    "hashtag": str,
    "split": str,
    "group_id": str,
    "positive_id": str,
    "width": int,
    "height": int,
    "shard": str,
    "shard_row": int,
}


@dataclass(frozen=True, slots=True)
class Source:
    """Pictures to index.

    Attributes:
        kind: ``dataset``, ``folder`` or ``list``.
        path: Absolute folder that ``image_path`` and ``shard`` are relative to; None for a list.
        index_sha256: Hash of the dataset's index.json.
        pictures: What `encode_pictures` takes: bytes in shards, paths, PIL pictures, arrays, tensors.
        rows: Metadata of each, some of ``COLUMNS``.
    """

    kind: str
    path: Path | None
    index_sha256: str | None
    pictures: list[Any]
    rows: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """As recorded in the index."""
        return {"kind": self.kind, "path": self.path, "index_sha256": self.index_sha256}


def open_source(data: Any) -> Source:
    """Find out what was given.

    Args:
        data: A dataset folder, its shards, a folder of tars, one tar, a folder of pictures, one picture,
            or a list of paths, PIL pictures, arrays or tensors.

    Raises:
        UserError: If it does not exist or holds no pictures.
    """
    source = _from_path(Path(data)) if isinstance(data, str | Path) else _from_list(split_batch(data))
    if not source.pictures:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        place = data if isinstance(data, str | Path) else "the list"
        raise UserError(f"{place} holds no pictures (looked for shards and {suffixes})")
    return source


def read_picture(root: Path | None, row: dict[str, Any]) -> Image.Image:
    """The picture of a row, RGB.

    Raises:
        FaultError: If it is no longer where it was, or does not decode.
    """
    if root is None or row["image_path"] is None:
        raise FaultError("the picture was given in memory and is not kept")
    if row["shard"] is None:
        return as_rgb(root / row["image_path"])
    try:
        reader = ShardReader(root / row["shard"])
        if reader.key(row["shard_row"]) != row["key"]:  # rewritten since, for example by a takedown
            raise FaultError(f"{row['shard']} was rewritten since; build the index again")
        return as_rgb(bytes(reader.jpg(row["shard_row"])))
    except (UserError, IndexError, OSError) as error:
        raise FaultError(f"{row['shard']}: {error}") from None


def _from_path(path: Path) -> Source:
    if meant_url(path):
        return _from_dataset(Dataset.open(path))
    if path.is_file() and path.suffix != ".tar":
        return _from_list([path])
    if not path.exists():
        raise UserError(f"{path} does not exist; expected a dataset, a folder of pictures or a picture")
    if path.suffix == ".tar" or _holds_shards(path):
        return _from_dataset(Dataset.open(path))
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in PICTURE_SUFFIXES)
    rows = [_folder_row(file.relative_to(path)) for file in files]
    return Source("folder", path.resolve(), None, list(files), rows)


def _holds_shards(path: Path) -> bool:
    homes = (path, path.parent) if path.name == "shards" else (path,)
    return any((home / "index.json").is_file() for home in homes) or any(path.glob("*.tar"))


def _from_dataset(dataset: Dataset) -> Source:
    pictures: list[Any] = []
    rows: list[dict[str, Any]] = []
    for split, shards in dataset.splits.items():
        for shard, reader in zip(shards, dataset.readers(split), strict=True):
            for i in range(len(reader)):
                pictures.append(reader.jpg(i))
                rows.append(_shard_row(reader, i, split, shard.path))
    index = dataset.root / "index.json"
    digest = sha256_file(index) if index.is_file() else None
    return Source("dataset", dataset.root.resolve(), digest, pictures, rows)


def _shard_row(reader: ShardReader, i: int, split: str, shard: str) -> dict[str, Any]:
    record, key = reader.record(i), reader.key(i)
    captions = [caption["text"] for caption in record.get("captions", ()) if caption["text"].strip()]
    kept = {name: record.get(name) for name in ("hashtag", "group_id", "positive_id", "width", "height")}
    return {
        "key": key,
        "image_path": f"{shard}/{key}.jpg",
        "caption": captions[0] if captions else None,
        "split": split,
        "shard": shard,
        "shard_row": i,
        **kept,
    }


def _folder_row(relative: Path) -> dict[str, Any]:
    label = relative.parent.as_posix() if relative.parent.name else None
    return {"key": relative.as_posix(), "image_path": relative.as_posix(), "label": label}


def _from_list(items: Iterable[Any]) -> Source:
    items = list(items)
    rows = [_list_row(item, index) for index, item in enumerate(items)]
    return Source("list", Path("/") if any(row["image_path"] for row in rows) else None, None, items, rows)


def _list_row(item: Any, index: int) -> dict[str, Any]:
    path = str(Path(item).resolve()) if isinstance(item, str | Path) else None
    return {"key": describe(item, index), "image_path": path}
