"""Benchmarks that are published as trees of pictures, read as their archives unpack."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathclip.core.errors import UserError
from pathclip.encoders import PICTURE_SUFFIXES
from pathclip.evaluation.datasets import LabelledImages
from pathclip.evaluation.protocol import ProtocolName
from pathclip.evaluation.splits import choose, grouped_split, plip_split, stratified_split

__all__ = [
    "find_folder",
    "read_bach",
    "read_kather",
    "read_kimia",
    "read_lc25000",
    "read_mhist",
    "read_wsss4luad",
]

KATHER = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
KATHER_SPLITS = {
    "train": ("NCT-CRC-HE-100K", "NCT-CRC-HE-100K-NONORM"),
    "test": ("CRC-VAL-HE-7K",),
}
LC25000 = {
    "colon_image_sets": ("colon_aca", "colon_n"),
    "lung_image_sets": ("lung_aca", "lung_n", "lung_scc"),
}
BACH = ("Benign", "InSitu", "Invasive", "Normal")
WSSS_NAME = re.compile(r"^(?P<slide>TCGA-\w{2}-\w{4}|.+?)(?:[-_]\d+)*[-_]?\s*\[(?P<bits>[01][^\]]*)\]$")
"""Slide, place, bits: 436219-7159-48057-[1, 0, 0].png; numbers behind the slide are places."""
BY_PICTURE = "70 of 100 pictures of each class train (seed 1): the set names no patient"


def read_kather(data: Path, split: str | None, protocol: ProtocolName) -> LabelledImages:
    """NCT-CRC-HE-100K (train) and CRC-VAL-HE-7K (test): nine folders of 224 px tiles each."""
    split = split or "test"
    if split not in KATHER_SPLITS:
        raise UserError(f"benchmark 'kather' has no split {split!r}; it has test, train")
    names = KATHER_SPLITS[split]
    root = find_folder(data, names, KATHER, "kather", f"{names[0]}/ with a folder per class")
    found = _labelled(root, {label: label for label in KATHER}, "kather")
    return _data("kather", split, root, found, how=(f"published split: {root.name}",))


def read_lc25000(data: Path, split: str | None, protocol: ProtocolName) -> LabelledImages:
    """LC25000: five folders of 5,000 pictures, augmented from 250 originals each."""
    base = find_folder(data, ("lung_colon_image_set", "LC25000"), LC25000, "lc25000", "lung_colon_image_set/")
    folders = {f"{group}/{label}": label for group, labels in LC25000.items() for label in labels}
    found = _labelled(base, folders, "lc25000")
    whole = _data("lc25000", None, base, found)
    note = "pictures are augmented copies of 250 originals a class, which train and test share"
    return choose(whole, split or "all", stratified_split(whole.truth), how=(BY_PICTURE, note))


def read_bach(data: Path, split: str | None, protocol: ProtocolName) -> LabelledImages:
    """BACH (ICIAR 2018): the 400 labelled microscopy pictures."""
    names = ("ICIAR2018_BACH_Challenge/Photos", "Photos")
    base = find_folder(data, names, BACH, "bach", "ICIAR2018_BACH_Challenge/Photos/")
    whole = _data("bach", None, base, _labelled(base, {label: label for label in BACH}, "bach"))
    return choose(whole, split or "all", stratified_split(whole.truth), how=(BY_PICTURE,))


def read_mhist(data: Path, split: str | None, protocol: ProtocolName) -> LabelledImages:
    """MHIST: ``annotations.csv`` with the majority of seven pathologists (HP or SSA), and ``images/``."""
    import polars as pl

    table = data / "annotations.csv"
    if not table.is_file() or not (data / "images").is_dir():
        raise UserError(f"{data}: benchmark 'mhist' expects annotations.csv and images/ there")
    rows = pl.read_csv(table, infer_schema=False)
    wanted = {"Image Name", "Majority Vote Label", "Partition"}
    if lacking := sorted(wanted - set(rows.columns)):
        raise UserError(f"{table} lacks the column {', '.join(lacking)}; it has {', '.join(rows.columns)}")
    known = rows["Partition"].unique().sort().to_list()
    split = split or "test"
    if split not in known:
        raise UserError(f"{table} has no partition {split!r}; it has {', '.join(map(str, known))}")
    rows = rows.filter(pl.col("Partition") == split)
    found = [
        (data / "images" / name, label)
        for name, label in zip(rows["Image Name"], rows["Majority Vote Label"], strict=True)
    ]
    return _data("mhist", split, data, found, how=("published split: the column Partition",))


def read_kimia(data: Path, split: str | None, protocol: ProtocolName) -> LabelledImages:
    """KIMIA Path24C: patches of 24 slides; the class is the slide, ``s0`` to ``s23``."""
    if split not in (None, "test"):
        raise UserError(
            f"benchmark 'kimia' has no split {split!r}; its test patches are searched among themselves"
        )
    names = (
        "KIMIA_Path24C/Test-patches",
        "Test-patches",
        "RGBPatches-test",
        "KIMIAPath24_RGB/RGBPatches-test",
    )
    base = find_folder(data, names, ("s0", "s1"), "kimia", "Test-patches/ with a folder per slide")
    folders = {path.name: path.name for path in sorted(base.iterdir()) if re.fullmatch(r"s\d+", path.name)}
    found = _labelled(base, folders, "kimia")
    return _data("kimia", "test", base, found, how=("each test patch is searched among the other ones",))


def read_wsss4luad(data: Path, split: str | None, protocol: ProtocolName) -> LabelledImages:
    """WSSS4LUAD: the training pictures, whose names end in ``[tumor, stroma, normal]``.

    Tumour 1 is ``tumor``, anything else ``normal``.
    """
    names = ("1.training/1.training", "1.training", "training", "WSSS4LUAD/1.training")
    base = find_folder(
        data, names, (), "wsss4luad", "1.training/ with names ending in [tumor, stroma, normal]"
    )
    pictures, truth, slides, ignored = [], [], [], []
    for path in sorted(base.iterdir()):
        match = WSSS_NAME.match(path.stem)
        if path.suffix.lower() not in PICTURE_SUFFIXES or match is None:
            ignored.append(path)
            continue
        pictures.append(path)
        truth.append("tumor" if match["bits"].startswith("1") else "normal")
        slides.append(match["slide"])
    if len(set(truth)) < 2:
        raise UserError(
            f"{base}: benchmark 'wsss4luad' expects names ending in [tumor, stroma, normal], such as "
            f"1234-10-20-[1, 0, 0].png, of both kinds; {len(pictures)} such pictures are there"
        )
    whole = LabelledImages(
        "wsss4luad", base, None, tuple(pictures), tuple(truth), tuple(slides), tuple(ignored)
    )
    if protocol == "plip-compat":
        quirks = ("patch_split", "listing_order", "stroma_is_normal")
        return choose(whole, split, plip_split(len(pictures)), quirks=quirks)
    how = ("whole slides, 70 of 100 train (seed 1)", "tumour bit 1 is tumor, anything else normal")
    return choose(whole, split, grouped_split(slides), how=how)


def find_folder(
    data: Path, names: Sequence[str], holds: Sequence[str], benchmark: str, expected: str
) -> Path:
    """The folder of a layout: ``data`` itself, or what its archive unpacks to within.

    Args:
        data: What the user named.
        names: Folders below it to try.
        holds: What it must hold, for ``data`` itself to count.
        benchmark: For the message.
        expected: What should be there, for the message.

    Raises:
        UserError: If it is nowhere, saying what was expected where.
    """
    if not data.is_dir():
        raise UserError(f"{data} does not exist; benchmark {benchmark!r} expects a folder with {expected}")
    for name in names:
        if (data / name).is_dir():
            return data / name
    if data.name in {part for name in names for part in (name, Path(name).name)}:
        return data
    if holds and all((data / name).is_dir() for name in holds):
        return data
    raise UserError(f"{data}: benchmark {benchmark!r} expects {expected} there; found {_listing(data)}")


def _listing(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nothing"


def _labelled(root: Path, folders: dict[str, str], benchmark: str) -> list[tuple[Path, str]]:
    missing = [name for name in folders if not (root / name).is_dir()]
    if missing:
        raise UserError(f"{root}: benchmark {benchmark!r} expects the folders {', '.join(missing)} there")
    found = [(path, label) for name, label in folders.items() for path in _files(root / name)]
    without = sorted(set(folders.values()) - {label for _, label in found})
    if without:
        raise UserError(f"{root}: no pictures in {', '.join(without)}; unpack the archive again")
    return found


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))


def _data(
    name: str, split: str | None, root: Path, found: list[tuple[Path, str]], how: tuple[str, ...] = ()
) -> LabelledImages:
    pictures = [(path, label) for path, label in found if path.suffix.lower() in PICTURE_SUFFIXES]
    return LabelledImages(
        name=f"{name}/{split}" if split else name,
        root=root,
        split=split,
        pictures=tuple(path for path, _ in pictures),
        truth=tuple(label for _, label in pictures),
        ignored=tuple(path for path, _ in found if path.suffix.lower() not in PICTURE_SUFFIXES),
        how=how,
    )
