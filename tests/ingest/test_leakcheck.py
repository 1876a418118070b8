from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.ingest import IngestConfig, ingest, leakcheck
from pathclip.pairs import decode, phash


@pytest.fixture
def dataset(dump, tmp_path) -> Path:
    for n in range(6):
        dump.picture(f"p{n}.jpg", n)
        dump.post(str(300 + n), f"Melanoma {n} of the skin", f"p{n}")
    out = tmp_path / "out"
    ingest(IngestConfig(sources=(dump.tweets,), media=dump.media, out=out, split={"val": 0, "test": 0}))
    return out


@pytest.fixture
def benchmark(dump, tmp_path) -> Path:
    """Five kinds of copies, and three pictures that are none."""
    folder = tmp_path / "benchmark"
    (folder / "tumour").mkdir(parents=True)
    original = Image.open(io.BytesIO((dump.media / "p0.jpg").read_bytes()))
    (folder / "same.jpg").write_bytes((dump.media / "p1.jpg").read_bytes())
    original.save(folder / "tumour" / "lossless.png")
    original.resize((100, 100)).save(folder / "tumour" / "small.jpg", quality=70)
    original.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png")
    original.transpose(Image.Transpose.TRANSVERSE).save(folder / "mirrored.png")
    for n in range(90, 93):
        dump.picture("other.jpg", n)
        (folder / f"other{n}.jpg").write_bytes((dump.media / "other.jpg").read_bytes())
    return folder


def test_copies_are_found_by_bytes_pixels_and_looks(dataset, benchmark):
    found = leakcheck(dataset, benchmark, workers=1)
    assert (found.pictures, found.against, found.bad) == (6, 8, [])
    assert {leak["benchmark"]: (leak["match"], leak["split"]) for leak in found.leaks} == {
        "same.jpg": ("bytes", "train"),
        "tumour/lossless.png": ("pixels", "train"),
        "tumour/small.jpg": ("near", "train"),
    }
    assert all(leak["distance"] <= 8 and leak["matches"] == 1 for leak in found.leaks)


def test_turned_and_mirrored_copies_are_found_where_asked_for(dataset, benchmark):
    names = {leak["benchmark"] for leak in leakcheck(dataset, benchmark, turns=True, workers=1).leaks}
    assert names == {"same.jpg", "tumour/lossless.png", "tumour/small.jpg", "turned.png", "mirrored.png"}


def test_a_radius_of_minus_one_compares_exactly(dataset, benchmark):
    found = leakcheck(dataset, benchmark, radius=-1, workers=1)
    assert {leak["match"] for leak in found.leaks} == {"bytes", "pixels"}


def test_near_matches_agree_with_comparing_everything_with_everything(tmp_path):
    """The slow reference: every pair, bit by bit."""
    rng = np.random.default_rng(4)
    hashes: dict[str, dict[str, int]] = {"a": {}, "b": {}}
    bases = [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(12)]
    for side in hashes:
        (tmp_path / side).mkdir()
        for n, base in enumerate(bases):
            noise = rng.integers(-20, 21, base.shape)
            small = (base + noise * rng.integers(0, 4)).clip(0, 255).astype(np.uint8)
            path = tmp_path / side / f"{n}.png"
            Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(path)
            hashes[side][path.name] = int(phash(decode(path.read_bytes())) or "0", 16)
    for radius in (0, 4, 12):
        slow = {
            name
            for name, theirs in hashes["b"].items()
            if any((ours ^ theirs).bit_count() <= radius for ours in hashes["a"].values())
        }
        found = leakcheck(tmp_path / "a", tmp_path / "b", radius=radius, workers=1)
        assert {leak["benchmark"] for leak in found.leaks} == slow
    assert 3 <= len(slow) <= 12


def test_two_datasets_and_one_split_can_be_compared(dataset, tmp_path, benchmark):
    assert len(leakcheck(dataset, dataset, workers=1).leaks) == 6
    with pytest.raises(UserError, match="no split 'val'"):
        leakcheck(dataset, dataset, split="val")
    with pytest.raises(UserError, match="does not exist"):
        leakcheck(dataset, tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        leakcheck(dataset, tmp_path / "empty", workers=1)


def test_the_verb_exits_with_one_on_leaks_and_on_pictures_it_could_not_clear(dataset, benchmark):
    def call(*more):
        result = CliRunner().invoke(
            app, ["data", "leakcheck", str(dataset), "--against", str(benchmark), "--workers", "1", *more]
        )
        return result.exit_code, result.stdout

    code, text = call("--json")
    assert (code, json.loads(text)["ok"], len(json.loads(text)["leaks"])) == (1, False, 3)
    code, text = call()
    assert "tumour/small.jpg" in text
    assert "3 of 8 benchmark pictures are among 6" in text
    for name in ("same.jpg", "tumour/lossless.png", "tumour/small.jpg"):
        (benchmark / name).unlink()
    code, text = call()
    assert (code, text) == (0, "0 of 5 benchmark pictures are among 6\n")
    (benchmark / "cut.jpg").write_bytes(b"\xff\xd8\xff no picture")
    code, text = call()
    assert code == 1
    assert "cut.jpg: " in text


def test_one_and_two_processes_find_the_same(dataset, benchmark):
    one, two = (leakcheck(dataset, benchmark, workers=n) for n in (1, 2))
    assert one == two
