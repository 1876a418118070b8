from __future__ import annotations

import io
import sys

import imagehash
import numpy as np
import pytest
from pictures import encoded, texture
from PIL import Image

from pathclip.pairs import near_pairs, phash
from pathclip.synthetic import CLASSES, paint_tile

GOLDEN = "8000071f3f1f3f3f"


def bits(hexadecimal: str) -> int:
    return int(hexadecimal, 16)


def distance(a: str, b: str) -> int:
    return (bits(a) ^ bits(b)).bit_count()


@pytest.mark.parametrize("size", [(160, 160), (333, 201), (64, 700), (32, 32)])
def test_phash_agrees_with_imagehash(size):
    for seed in range(20):
        image = texture(seed, *size)
        assert distance(phash(image), str(imagehash.phash(image))) <= 2


def test_phash_agrees_with_imagehash_on_tissue():
    for label in CLASSES:
        image = Image.fromarray(paint_tile(label, seed=1))
        assert distance(phash(image), str(imagehash.phash(image))) <= 2


def test_phash_has_a_golden_value():
    """From imagehash 4.3.2, Pillow 12: ``imagehash.phash`` of the same picture."""
    picture = Image.fromarray((np.multiply.outer(np.arange(64), np.arange(96)) % 251).astype(np.uint8))
    assert phash(picture) == phash(picture.convert("RGB")) == GOLDEN


def test_a_picture_that_is_a_sum_of_rows_and_columns_has_a_hash_free_of_rounding_noise():
    ramp = np.add.outer(np.arange(64) * 3 % 97, np.arange(64) * 5 % 89).astype(np.uint8)
    off_axis = [
        bits(phash(Image.fromarray(ramp))) >> (63 - 8 * i - j) & 1 for i in range(1, 8) for j in range(1, 8)
    ]
    assert len(set(off_axis)) == 1


def test_smaller_and_compressed_copies_stay_near():
    for label in CLASSES:
        image = Image.fromarray(paint_tile(label, seed=2))
        small = image.resize((140, 140), Image.Resampling.BICUBIC)
        copy = Image.open(io.BytesIO(encoded(small, quality=70)))
        assert distance(phash(image), phash(copy)) <= 4


def test_a_picture_without_structure_has_no_hash():
    assert phash(Image.new("RGB", (200, 200), (240, 240, 240))) is None
    noise = np.random.default_rng(0).integers(126, 130, (200, 200, 3), np.uint8)
    assert phash(Image.fromarray(noise)) is None


@pytest.mark.parametrize("compared", [1, 50, 1 << 20])
@pytest.mark.parametrize("radius", [0, 3, 10, 40])
def test_near_pairs_equal_the_plain_double_loop(radius, compared, monkeypatch):
    monkeypatch.setattr(sys.modules["pathclip.pairs.phash"], "MAX_COMPARED", compared)
    rng = np.random.default_rng(4)
    hashes = rng.integers(0, 2**63, 60, dtype=np.uint64)
    for k in range(40):  # copies with a few bits turned
        turned = hashes[k]
        for bit in rng.integers(0, 64, k % 8):
            turned ^= np.uint64(1) << np.uint64(bit)
        hashes = np.append(hashes, turned)
    slow = [
        (i, j, d)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (d := (int(hashes[i]) ^ int(hashes[j])).bit_count()) <= radius
    ]
    assert sorted(near_pairs(hashes, radius)) == slow
    assert slow


def test_near_pairs_of_nothing_are_none():
    assert list(near_pairs(np.array([], dtype=np.uint64), 4)) == []
