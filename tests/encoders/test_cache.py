"""Features kept on disk: found by content and by what made them, never by anything less."""

from __future__ import annotations

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, create, encode_pictures
from pathclip.encoders.cache import FeatureCache, content_key

SMALL = Path(__file__).with_name("small.json")


@pytest.fixture
def files(tmp_path: Path, picture: Image.Image) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        picture.rotate(17 * i).save(path)
    return paths


def silent(model: DualEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the towers must not be asked."""
    for name in ("encode_pixels", "encode_tokens"):
        monkeypatch.setattr(model, name, lambda *_, **__: pytest.fail("encoded again"))


def test_what_was_encoded_once_is_found_again(
    model: DualEncoder, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, raw = model.encode_images(files), model.encode_images(files, normalize=False)
    first = model.encode_images(files, cache=tmp_path / "c")
    silent(model, monkeypatch)
    torch.testing.assert_close(first, plain, atol=1e-6, rtol=0)
    assert torch.equal(model.encode_images(files, cache=tmp_path / "c"), first)
    torch.testing.assert_close(
        model.encode_images(files, normalize=False, cache=tmp_path / "c"), raw, atol=1e-6, rtol=1e-6
    )


def test_content_counts_not_the_name(
    model: DualEncoder, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = model.encode_images(files[:2], cache=tmp_path / "c")
    shutil.copy(files[0], tmp_path / "copy.png")
    shutil.copy(files[2], files[1])  # same name, other picture
    forms = [tmp_path / "copy.png", files[0].read_bytes(), memoryview(files[0].read_bytes())]
    changed = model.encode_images(files[1], cache=tmp_path / "c")
    torch.testing.assert_close(changed, model.encode_images(files[2]), atol=1e-6, rtol=0)
    silent(model, monkeypatch)
    assert torch.equal(model.encode_images(forms, cache=tmp_path / "c"), first[:1].expand(3, -1))


def test_equal_pictures_are_encoded_once(
    model: DualEncoder, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    encode = model.encode_pixels
    monkeypatch.setattr(model, "encode_pixels", lambda x, **k: rows.append(len(x)) or encode(x, **k))
    found = model.encode_images([files[0], files[1], files[0], files[0]], cache=tmp_path / "c")
    assert sum(rows) == 2
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[0], found[3])


def test_arrays_and_tensors_are_known_by_their_pixels(picture: Image.Image) -> None:
    array = np.asarray(picture)
    assert content_key(array) == content_key(array.copy())
    assert content_key(array) != content_key(array.reshape(array.shape[1], array.shape[0], 3))
    assert content_key(torch.from_numpy(array.copy())) != content_key(array)  # another order of axes
    assert content_key(array[:, ::2]) == content_key(array[:, ::2].copy())
    assert content_key("absent.png") is None


def test_pil_pictures_are_known_by_what_the_transform_gets(
    model: DualEncoder, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Image.open(files[1]).convert("RGB")
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # shown turned back
    clear = picture.convert("RGBA")
    first = model.encode_images([picture], cache=tmp_path / "c")
    assert content_key(picture) != content_key(picture.transpose(Image.Transpose.ROTATE_90))
    assert content_key(picture) != content_key(np.asarray(picture))
    assert content_key(Image.new("F", (4, 4))) is None
    silent(model, monkeypatch)
    for same in (picture.copy(), turned, clear):
        assert torch.equal(model.encode_images([same], cache=tmp_path / "c"), first)


@pytest.mark.parametrize("change", ["weights", "transform", "precision", "features"])
def test_other_weights_transform_precision_or_tower_are_other_features(
    change: str, files: list[Path], tmp_path: Path
) -> None:
    model = create(SMALL).eval()
    before = model.encode_images(files[:1], cache=tmp_path / "c")
    kind = "pooled" if change == "features" else "projected"
    if change == "weights":
        with torch.no_grad():
            model.clip.visual.proj.mul_(-1)  # in memory: the file it came from says nothing of it
    if change == "transform":
        model = create(SMALL, preprocess_cfg={"resize_mode": "squash"}).eval()
    if change == "precision":
        model.precision = "bf16"
    after = model.encode_images(files[:1], features=kind, cache=tmp_path / "c")
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, model.encode_images(files[:1], features=kind), atol=1e-6, rtol=0)
    abouts = [json.loads(path.read_text()) for path in (tmp_path / "c").glob("*/about.json")]
    assert len(abouts) == 2
    assert {about["schema"] for about in abouts} == {"pathclip.features/1"}


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_file_is_removed_counted_and_its_features_made_again(
    damage: str, model: DualEncoder, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = model.encode_images(files, cache=tmp_path / "c")
    (path,) = (tmp_path / "c").glob("*/*.safetensors")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes({"flip": bytes(data), "cut": data[:-9], "empty": b"", "foreign": b"x" * 99}[damage])
    with caplog.at_level(logging.WARNING, logger="pathclip"):
        assert torch.equal(model.encode_images(files, cache=tmp_path / "c"), expected)
    assert "1 damaged files removed; what they held is encoded again" in caplog.text
    caplog.clear()
    assert torch.equal(model.encode_images(files, cache=tmp_path / "c"), expected)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_bad_pictures_are_named_each_time_and_never_kept(
    model: DualEncoder, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    items = [files[0], tmp_path / "broken.jpg", tmp_path / "absent.jpg"]
    for _ in range(2):
        rows, bad = encode_pictures(model, items, cache=tmp_path / "c")
        assert rows.isnan().all(dim=1).tolist() == [False, True, True]
        assert [item.index for item in bad] == [1, 2]
    (tmp_path / "broken.jpg").write_bytes(files[1].read_bytes())  # mended since
    assert [item.index for item in encode_pictures(model, items, cache=tmp_path / "c")[1]] == [2]


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    def add(number: int) -> None:
        FeatureCache(tmp_path, {"a": 1}).add([bytes([number]) * 32], [torch.full((4,), float(number))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    store = FeatureCache(tmp_path, {"a": 1})
    assert [float(store.get(bytes([n]) * 32)[0]) for n in range(12)] == list(range(12))  # type: ignore[index]
    assert store.damaged == 0
    assert FeatureCache(tmp_path, {"a": 2}).get(bytes(32)) is None


def test_texts_are_kept_too(model: DualEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["fat", "mucin", "fat"]
    expected = model.encode_text(texts)
    first = model.encode_text(texts, cache=tmp_path)
    torch.testing.assert_close(first, expected, atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="text 1 is int"):
        model.encode_text(["a", 3], cache=tmp_path)  # type: ignore[list-item]
    silent(model, monkeypatch)
    assert torch.equal(model.encode_text("mucin", cache=tmp_path), first[1:2])
    assert model.encode_text([], cache=tmp_path).shape == (0, model.embed_dim)


def test_a_cache_that_is_a_file_is_a_mistake(model: DualEncoder, files: list[Path]) -> None:
    with pytest.raises(UserError, match=r"0\.png is a file; expected a folder"):
        model.encode_images(files, cache=files[0])
