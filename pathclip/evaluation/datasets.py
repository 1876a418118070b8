"""Labelled pictures as benchmarks keep them: a folder per class, or a table."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.encoders import PICTURE_SUFFIXES

__all__ = ["CaptionedImages", "LabelledImages", "read_csv", "read_folder"]

SPLITS = ("test", "val", "valid", "validation", "train")


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Pictures with their classes.

    Attributes:
        name: Of the data set, for the result.
        root: Folder that ``pictures`` lie in.
        split: What was selected; None where there was nothing to select.
        pictures: A path or `LazyPicture` each.
        truth: Label of each.
        groups: Patient, slide or case of each, where known; intervals then resample whole groups.
        ignored: Files that are no pictures by their name.
        how: How labels and split were made, where the reader made them.
        quirks: Names of `protocol.QUIRKS` that went into this.
        strata: What to tell apart in a table beside the total (the organ), where known.
        classnames: Every class in its order, where the data say it; else those that occur.
        templates: Sentences that come with the data.
    """

    name: str
    root: Path
    split: str | None
    pictures: tuple[Any, ...]
    truth: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    ignored: tuple[Path, ...] = ()
    how: tuple[str, ...] = ()
    quirks: tuple[str, ...] = ()
    strata: tuple[str, ...] | None = None
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes: as the data name them, else those that occur, sorted."""
        return self.classnames or tuple(sorted(set(self.truth)))

    def relative(self, picture: Any) -> str:
        """A short name of a picture."""
        path = Path(getattr(picture, "filename", picture))
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def provenance(self, benchmark: str | None) -> dict[str, Any]:
        """Where the pictures came from, for the result."""
        return {
            "path": str(self.root),
            "split": self.split,
            "sha256": self.fingerprint(),
            **({} if benchmark is None else {"benchmark": benchmark}),
        }

    def take(self, places: Sequence[int], split: str | None, **changes: Any) -> LabelledImages:
        """Some of the pictures, in this order, as a split."""
        return replace(
            self,
            name=f"{self.name}/{split}" if split else self.name,
            split=split,
            pictures=tuple(self.pictures[i] for i in places),
            truth=tuple(self.truth[i] for i in places),
            groups=None if self.groups is None else tuple(self.groups[i] for i in places),
            strata=None if self.strata is None else tuple(self.strata[i] for i in places),
            **changes,
        )

    def fingerprint(self) -> str:
        """SHA-256 over names, sizes and labels: equal data, equal fingerprint, in any order."""
        sizes: dict[Path, int] = {}
        for path in {_file_of(picture) for picture in self.pictures}:
            sizes[path] = path.stat().st_size if path.is_file() else -1
        lines = sorted(
            f"{self.relative(picture)}\t{sizes[_file_of(picture)]}\t{label}"
            for picture, label in zip(self.pictures, self.truth, strict=True)
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class CaptionedImages:
    """One split of a dataset: pictures, still encoded, and what may caption them.

    Attributes:
        name: Of the data set, for the result.
        root: The dataset folder.
        split: The split.
        keys: Sample ids.
        pictures: Of each the path, or its bytes, still encoded.
        captions: Every caption of each.
        positives: What near-identical pictures and pictures of one thread share.
        groups: What is resampled as a whole.
        index_sha256: Hash of the dataset's index.json; None for foreign tars.
    """

    name: str
    root: Path
    split: str
    keys: tuple[str, ...]
    pictures: tuple[memoryview | Path, ...]
    captions: tuple[tuple[str, ...], ...]
    positives: tuple[str, ...]
    groups: tuple[str, ...]
    index_sha256: str | None


def read_folder(data: Path, split: str | None = None) -> LabelledImages:
    """One subfolder per class, its name the label; pictures at any depth inside.

    Where the subfolders are splits (train, val, test), the asked one is taken, ``test`` by default.

    Raises:
        UserError: If there is no such folder, fewer than two classes, or a class without pictures.
    """
    if data.is_file():
        raise UserError(
            f"{data} is a file; benchmark 'folder' expects a folder per class (a table: --benchmark csv)"
        )
    if not data.is_dir():
        raise UserError(f"data folder {data} does not exist")
    if (data / "index.json").is_file():
        raise UserError(
            f"{data} is a dataset of shards; benchmark 'folder' expects a folder per class "
            "(recall over shards: --benchmark retrieval)"
        )
    root, chosen = _choose_split(data, split)
    folders = _subfolders(root)
    if len(folders) < 2:
        found = f"found only {folders[0].name!r}" if folders else "found none"
        raise UserError(
            f"{root}: a classification needs a subfolder for each of two classes or more; {found}"
        )
    files = [(path, folder.name) for folder in folders for path in _files(folder)]
    pictures = [(path, label) for path, label in files if path.suffix.lower() in PICTURE_SUFFIXES]
    counts = Counter(label for _, label in pictures)
    empty = [folder.name for folder in folders if not counts[folder.name]]
    if empty:
        raise UserError(f"{root}: no pictures in {', '.join(empty)}; fill or remove these class folders")
    return LabelledImages(
        name=_name(data, chosen),
        root=root,
        split=chosen,
        pictures=tuple(path for path, _ in pictures),
        truth=tuple(label for _, label in pictures),
        ignored=tuple(path for path, _ in files if path.suffix.lower() not in PICTURE_SUFFIXES),
    )


def read_csv(data: Path, split: str | None = None) -> LabelledImages:
    """A table with the columns ``path`` and ``label``, and optionally ``split`` and ``group``.

    Paths are relative to the table's folder.

    Raises:
        UserError: If the table cannot be read, lacks a column or the split, or holds an empty cell.
    """
    import polars as pl

    if not data.is_file():
        raise UserError(f"table {data} does not exist; benchmark 'csv' expects a CSV file with path,label")
    try:
        table = pl.read_csv(data, infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise UserError(f"{data} is no CSV table: {str(error).partition(chr(10))[0]}") from None
    missing = [column for column in ("path", "label") if column not in table.columns]
    if missing:
        raise UserError(f"{data} lacks the column {', '.join(missing)}; it has {', '.join(table.columns)}")
    table = table.with_row_index("line", offset=2)
    table, chosen = _select(table, data, split)
    for column in ("path", "label"):
        blank = table.filter(pl.col(column).fill_null("").str.strip_chars() == "")
        if len(blank):
            raise UserError(f"{data}, line {blank['line'][0]}: {column} is empty")
    if table["label"].n_unique() < 2:
        raise UserError(
            f"{data}: a classification needs two classes or more; found {table['label'].unique().to_list()}"
        )
    groups = table["group"] if "group" in table.columns else None
    if groups is not None and groups.null_count():
        line = table.filter(pl.col("group").is_null())["line"][0]
        raise UserError(
            f"{data}, line {line}: group is empty; name it for every picture or leave the column out"
        )
    return LabelledImages(
        name=_name(data.with_suffix(""), chosen),
        root=data.parent,
        split=chosen,
        pictures=tuple(data.parent / path for path in table["path"]),
        truth=tuple(table["label"]),
        groups=None if groups is None else tuple(groups),
    )


def _file_of(picture: Any) -> Path:
    return picture if isinstance(picture, Path) else Path(picture.path)


def _choose_split(data: Path, split: str | None) -> tuple[Path, str | None]:
    names = [folder.name for folder in _subfolders(data)]
    holds_splits = bool(names) and set(names) <= set(SPLITS)
    if split is None:
        default = next((name for name in SPLITS if name in names), None) if holds_splits else None
        return (data / default, default) if default else (data, None)
    if split in names:
        return data / split, split
    if holds_splits:
        raise UserError(f"{data} has no split {split!r}; it has {', '.join(sorted(names))}")
    return data, None  # the folder of one split was given itself


def _select(table, data: Path, split: str | None):  # type: ignore[no-untyped-def]
    import polars as pl

    if "split" not in table.columns:
        if split is not None:
            raise UserError(f"{data} has no column 'split' to select {split!r} by; leave --split out")
        return table, None
    known = table["split"].drop_nulls().unique().sort().to_list()
    chosen = split or ("test" if "test" in known else None)
    if chosen is None:
        raise UserError(f"{data} has no split 'test'; choose one with --split: {', '.join(known)}")
    if chosen not in known:
        raise UserError(f"{data} has no split {chosen!r}; it has {', '.join(known)}")
    return table.filter(pl.col("split") == chosen), chosen


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def _name(data: Path, split: str | None) -> str:
    return "/".join(filter(None, (Path(os.path.abspath(data)).name, split)))  # a link keeps its own name
