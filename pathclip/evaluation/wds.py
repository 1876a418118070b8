"""clip_benchmark's webdataset folders: ``test/nshards.txt``, ``test/0.tar``, classes as text."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathclip.core.errors import UserError
from pathclip.core.files import sha256_file
from pathclip.evaluation.datasets import CaptionedImages, LabelledImages
from pathclip.evaluation.pictures import TarMember

__all__ = ["MultiLabelImages", "read_wds"]

IMAGES = ("webp", "png", "jpg", "jpeg")
TEMPLATES = "zeroshot_classification_templates.txt"


@dataclass(frozen=True, slots=True)
class MultiLabelImages:
    """Pictures of which each has any number of classes.

    Attributes:
        name: Of the data set.
        root: Its folder.
        split: What was selected.
        pictures: N of them.
        targets: (N, C) bool.
        classnames: The C classes.
        templates: Sentences of the data set; empty where it has none.
    """

    name: str
    root: Path
    split: str
    pictures: tuple[TarMember, ...]
    targets: NDArray[np.bool_]
    classnames: tuple[str, ...]
    templates: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes."""
        return self.classnames

    def relative(self, picture: TarMember) -> str:
        """Tar and member, below the root."""
        return Path(picture.filename).relative_to(self.root).as_posix()


@dataclass(slots=True)
class _Sample:
    picture: TarMember | None = None
    parts: dict[str, bytes] = field(default_factory=dict)


def read_wds(data: Path, split: str | None = None) -> LabelledImages | MultiLabelImages | CaptionedImages:
    """One split of a folder of ``clip_benchmark_export_wds``: classes (cls), several (npy) or captions (txt).

    Raises:
        UserError: If a file of the layout is missing or does not fit, or a sample lacks a part.
    """
    split = split or "test"
    tars = _tars(data, split)
    samples = [sample for tar in tars for sample in _samples(tar)]
    kind_file = data / "dataset_type.txt"
    kind = kind_file.read_text(encoding="utf-8").strip().lower() if kind_file.is_file() else "classification"
    part = {"retrieval": "txt", "multilabel": "npy"}.get(kind, "cls")
    for key, sample in samples:
        if sample.picture is None or part not in sample.parts:
            lacks = "no picture" if sample.picture is None else f"no {part}"
            raise UserError(f"{data}, split {split}: sample {key} has {lacks}; it has {sorted(sample.parts)}")
    name = f"{data.resolve().name}/{split}"
    if kind == "retrieval":
        return _captioned(name, data, split, samples, tars)
    pictures = tuple(sample.picture for _, sample in samples if sample.picture)
    classnames = _lines(data / "classnames.txt")
    templates = tuple(line for line in _lines(data / TEMPLATES)) if (data / TEMPLATES).is_file() else ()
    if kind == "multilabel":
        targets = np.array([_target(key, sample, data) for key, sample in samples]) > 0
        if targets.ndim != 2 or targets.shape[1] != len(classnames):
            raise UserError(f"{data}: npy of shape {targets.shape[1:]} for {len(classnames)} classes")
        return MultiLabelImages(name, data, split, pictures, targets, classnames, templates)
    return LabelledImages(
        name=name,
        root=data,
        split=split,
        pictures=pictures,
        truth=tuple(_class(key, sample, classnames, data) for key, sample in samples),
        classnames=classnames,
        templates=templates,
    )


def _captioned(
    name: str, data: Path, split: str, samples: list[tuple[str, _Sample]], tars: list[Path]
) -> CaptionedImages:
    texts = [
        tuple(line for line in s.parts["txt"].decode("utf-8", "replace").splitlines() if line.strip())
        for _, s in samples
    ]
    kept = [i for i, captions in enumerate(texts) if captions]
    if len(kept) < 2:
        raise UserError(f"{data}, split {split}: {len(kept)} pictures with captions; retrieval needs two")
    members = [samples[i][1].picture for i in kept]
    keys = tuple(f"{member.path.name}#{member.name}" for member in members if member)
    return CaptionedImages(
        name=name,
        root=data,
        split=split,
        keys=keys,
        pictures=tuple(memoryview(member()) for member in members if member),
        captions=tuple(texts[i] for i in kept),
        positives=keys,
        groups=keys,
        index_sha256=sha256_file(tars[0]) if len(tars) == 1 else None,
    )


def _class(key: str, sample: _Sample, classnames: tuple[str, ...], data: Path) -> str:
    text = sample.parts["cls"].decode("utf-8", "replace").strip()
    if not text.isdecimal() or int(text) >= len(classnames):
        raise UserError(
            f"{data}: sample {key} has class {text!r}; "
            f"expected 0 to {len(classnames) - 1}, the lines of classnames.txt"
        )
    return classnames[int(text)]


def _target(key: str, sample: _Sample, data: Path) -> NDArray[Any]:
    try:
        target: NDArray[Any] = np.load(io.BytesIO(sample.parts["npy"]), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{data}: sample {key}: npy cannot be read: {error}") from None
    return target


def _tars(data: Path, split: str) -> list[Path]:
    counts = data / split / "nshards.txt"
    if not counts.is_file():
        raise UserError(f"{data}: benchmark 'wds' expects {split}/nshards.txt and {split}/0.tar there")
    text = counts.read_text(encoding="utf-8").strip()
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{counts} holds {text!r:.40}; expected the number of tars")
    tars = [data / split / f"{number}.tar" for number in range(int(text))]
    missing = [path.name for path in tars if not path.is_file()]
    if missing:
        raise UserError(f"{data / split}: {', '.join(missing)} missing; nshards.txt names {len(tars)} tars")
    return tars


def _samples(tar: Path) -> Iterator[tuple[str, _Sample]]:
    found: dict[str, _Sample] = {}
    try:
        with tarfile.open(tar, "r:") as handle:  # a packed one has no places to read at
            for member in handle:
                if not member.isfile():
                    continue
                folder, _, file = member.name.rpartition("/")
                stem, _, extension = file.partition(".")
                sample = found.setdefault(f"{folder}/{stem}".lstrip("/"), _Sample())
                if extension.lower() in IMAGES:
                    sample.picture = TarMember(tar, member.name, member.offset_data, member.size)
                elif reader := handle.extractfile(member):
                    sample.parts[extension.lower()] = reader.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{tar} cannot be read: {error}") from None
    yield from found.items()


def _lines(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise UserError(f"{path.parent}: benchmark 'wds' expects {path.name} there, a line each")
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
