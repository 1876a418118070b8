"""Miniature trees in the layouts that the benchmarks are published in."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from colour_model import COLOURS, paint
from PIL import Image

KATHER = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
LC25000 = {
    "colon_image_sets": ("colon_aca", "colon_n"),
    "lung_image_sets": ("lung_aca", "lung_n", "lung_scc"),
}
ORGANS = ("Adrenal_gland", "Breast", "Colon")


def kather(root: Path) -> Path:
    for folder, count in (("NCT-CRC-HE-100K", 3), ("CRC-VAL-HE-7K", 2)):
        for c, label in enumerate(KATHER):
            for i in range(count):
                colour = list(COLOURS)[c % len(COLOURS)]
                paint(root / folder / label / f"{label}-{i:04d}.tif", colour, seed=c * 10 + i, size=(32, 32))
    return root


def lc25000(root: Path) -> Path:
    for group, labels in LC25000.items():
        for c, label in enumerate(labels):
            for i in range(10):
                paint(
                    root / "lung_colon_image_set" / group / label / f"{label}{i}.jpeg",
                    list(COLOURS)[c],
                    seed=i,
                )
    return root


def bach(root: Path) -> Path:
    photos = root / "ICIAR2018_BACH_Challenge/Photos"
    for c, (label, stem) in enumerate(
        {"Benign": "b", "InSitu": "is", "Invasive": "iv", "Normal": "n"}.items()
    ):
        for i in range(4):
            paint(photos / label / f"{stem}{i:03d}.tif", list(COLOURS)[c], seed=i)
        (photos / label / "Thumbs.db").write_bytes(b"x")
    (photos / "microscopy_ground_truth.csv").write_text("n000.tif,Normal\n")
    return root


def mhist(root: Path) -> Path:
    rows = []
    for i in range(8):
        name = f"MHIST_{i:03d}.png"
        paint(root / "images" / name, "red" if i % 2 else "blue", seed=i)
        rows.append([name, "SSA" if i % 2 else "HP", 6 if i % 2 else 1, "train" if i < 4 else "test"])
    head = [
        "Image Name",
        "Majority Vote Label",
        "Number of Annotators who Selected SSA (Out of 7)",
        "Partition",
    ]
    with open(root / "annotations.csv", "w", newline="") as handle:
        csv.writer(handle).writerows([head, *rows])
    return root


def kimia(root: Path) -> Path:
    for c in range(4):
        for i in range(3):
            paint(root / "KIMIA_Path24C/Test-patches" / f"s{c}" / f"{i}.jpg", list(COLOURS)[c], seed=i)
    return root


def wsss4luad(root: Path) -> Path:
    kinds = ("[1, 0, 0]", "[1, 1, 0]", "[0, 1, 0]", "[0, 0, 1]")
    for slide in range(6):
        for i, bits in enumerate(kinds):
            name = f"1.2.276.{slide}-{100 * i}-{200 * i}-{bits}.png"
            colour = "red" if bits.startswith("[1") else "blue"
            paint(root / "1.training/1.training" / name, colour, seed=slide, size=(40, 25))
    return root


def pcam(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 6), ("valid", 4), ("test", 8)):
        stem = root / f"camelyonpatch_level_2_split_{split}"
        truth = np.arange(count) % 2
        pixels = np.stack([np.full((96, 96, 3), COLOURS["red" if t else "blue"], np.uint8) for t in truth])
        with h5py.File(f"{stem}_x.h5", "w") as file:
            file.create_dataset("x", data=pixels, chunks=(1, 96, 96, 3), compression="gzip")
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file.create_dataset("y", data=truth.astype(np.uint8).reshape(-1, 1, 1, 1))
        with open(f"{stem}_meta.csv", "w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["", "coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi"])
            writer.writerows(
                [i, 10 * i, 20 * i, bool(t), bool(t), f"wsi_{i // 2}"] for i, t in enumerate(truth)
            )
    return root


def mask(neoplastic: int, inflammatory: int, first: int = 1, side: int = 24) -> np.ndarray:
    """A PanNuke mask (side, side, 6) of nuclei of one pixel each, as float64 instance ids."""
    ids = np.zeros((side * side, 6))
    ids[:neoplastic, 0] = np.arange(first, first + neoplastic)
    ids[neoplastic : neoplastic + inflammatory, 1] = np.arange(first, first + inflammatory)
    ids[neoplastic + inflammatory :, 5] = 1
    return ids.reshape(side, side, 6)


PANNUKE = ((12, 4), (0, 9), (5, 5), (0, 0))
"""Neoplastic and inflammatory nuclei: malignant, benign, between the two, none at all."""


def pannuke(root: Path, kinds: Sequence[tuple[int, int]] = PANNUKE, repeats: int = 5) -> Path:
    for fold in (1, 2, 3):
        rows = [(kind, organ) for organ in ORGANS for kind in kinds for _ in range(repeats)]
        images = [np.full((24, 24, 3), COLOURS["red" if k[0] else "blue"], np.float64) for k, _ in rows]
        base = root / f"fold_{fold}" / f"Fold {fold}"
        for part in ("images", "masks"):
            (base / part / f"fold{fold}").mkdir(parents=True)
        np.save(base / f"images/fold{fold}/images.npy", np.stack(images))
        np.save(base / f"images/fold{fold}/types.npy", np.array([organ for _, organ in rows]))
        np.save(base / f"masks/fold{fold}/masks.npy", np.stack([mask(*kind) for kind, _ in rows]))
    return root


def digestpath(root: Path, slides: int = 4) -> Path:
    """Pictures of 960 px: at half size two crops a side, the left ones tissue; positives hold tumour."""
    base = root / "Colonoscopy_tissue_segment_dataset"
    for i in range(slides):
        for folder, positive in (("tissue-train-neg", False), ("tissue-train-pos-v1", True)):
            (base / folder).mkdir(parents=True, exist_ok=True)
            pixels = np.full((960, 960, 3), 250, np.uint8)
            pixels[:, :520] = (200, 90 + i, 160)
            stem = base / folder / f"2019_{i:02d}{'p' if positive else 'n'}"
            Image.fromarray(pixels).save(f"{stem}.jpg", quality=95)
            if positive:
                tumour = np.zeros((960, 960), np.uint8)
                tumour[:450, :520] = 255
                Image.fromarray(tumour).save(f"{stem}_mask.jpg", quality=95)
    return root


def tar_of(path: Path, samples: Sequence[Mapping[str, bytes]]) -> Path:
    """A webdataset tar; keys are numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i, sample in enumerate(samples):
            for extension, data in sample.items():
                info = tarfile.TarInfo(f"s{i:07d}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def picture(root: Path, colour: str, seed: int = 0) -> bytes:
    return paint(root / "scratch" / f"{colour}{seed}.png", colour, seed=seed).read_bytes()


def wds(root: Path, scratch: Path, kind: str = "classification") -> Path:
    """Two shards of ``test``; classes red, green, blue, of which blue has no sample."""
    texts = {"red": "a red one\nred again\n", "green": "a green one\n"}
    targets = {"red": [1, 0, 0], "green": [0, 1, 1]}
    shards: list[list[dict[str, bytes]]] = [[], []]
    for i in range(6):
        colour = ("red", "green")[i % 2]
        buffer = io.BytesIO()
        np.save(buffer, np.array(targets[colour]))
        part = {
            "classification": {"cls": str(("red", "green").index(colour)).encode()},
            "multilabel": {"npy": buffer.getvalue()},
            "retrieval": {"txt": texts[colour].encode()},
        }[kind]
        shards[i // 3].append({"png": picture(scratch, colour, i), **part})
    for number, samples in enumerate(shards):
        tar_of(root / f"test/{number}.tar", samples)
    (root / "test/nshards.txt").write_text("2")
    if kind != "classification":
        (root / "dataset_type.txt").write_text(kind)
    if kind != "retrieval":
        (root / "classnames.txt").write_text("red tissue\ngreen tissue\nblue tissue\n")
        (root / "zeroshot_classification_templates.txt").write_text("a photo of {c}\n{c}\n")
    return root


def strict(path: Path) -> dict:
    """JSON without NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no strict JSON")

    return json.loads(path.read_text(), parse_constant=refuse)
