from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_factory import make_dataset

from pathclip.core.errors import FaultError, UserError
from pathclip.encoders import DualEncoder
from pathclip.encoders.pictures import as_rgb, describe, split_batch
from pathclip.shards import Dataset


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", **options)
    return buffer.getvalue()


def pixels(item: object) -> np.ndarray:
    image = as_rgb(item)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_transparency_shows_white() -> None:
    image = Image.new("RGBA", (4, 2), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    found = pixels(png(image))
    assert found[0, 0].tolist() == [255, 0, 0]
    assert found[0, 1].tolist() == [255, 255, 255]
    assert found[0, 2].tolist() == pytest.approx([127, 127, 127], abs=1)


def test_a_transparent_palette_colour_shows_white() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert pixels(png(image, transparency=0)).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_a_transparent_rgb_colour_shows_white() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    assert pixels(png(image, transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [9, 9, 9]]]


def test_grey_with_alpha_shows_white() -> None:
    image = Image.new("LA", (1, 1), (0, 0))
    assert pixels(png(image)).tolist() == [[[255, 255, 255]]]


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    assert pixels(png(Image.fromarray(values)))[0, :, 0].tolist() == [0, 100, 255]
    assert pixels(values)[0, :, 1].tolist() == [0, 100, 255]
    assert pixels(Image.fromarray(values.astype(np.int32)))[0, :, 2].tolist() == [0, 100, 255]


def test_cmyk_becomes_the_colours_seen(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow ink: red
    image.save(tmp_path / "a.jpg", quality=95)
    red = pixels(tmp_path / "a.jpg")[8, 8]
    assert red[0] > 240
    assert red[1] < 20
    assert red[2] < 20


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (3, 5)), (6, (0, 3)), (8, (5, 0))])
def test_exif_orientation_is_applied(orientation: int, corner: tuple[int, int]) -> None:
    image = Image.new("RGB", (6, 4), "white")
    image.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(png(image, exif=exif))
    assert found.shape[:2] == ((4, 6) if orientation in (1, 3) else (6, 4))
    assert found[corner].tolist() == [0, 0, 0]


def test_grey_bilevel_and_four_channel_arrays_are_taken() -> None:
    assert pixels(np.full((2, 3), 7, np.uint8)).tolist() == [[[7, 7, 7]] * 3] * 2
    assert pixels(Image.new("1", (1, 1), 1)).tolist() == [[[255, 255, 255]]]
    assert pixels(np.zeros((1, 1, 4), np.uint8)).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (np.zeros((3, 4), np.float32), "array of float32; expected uint8"),
        (np.zeros((3, 4, 2), np.uint8), r"array of shape \(3, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"array of shape \(0, 4, 3\)"),
        (Image.new("F", (2, 2)), "floating-point pixels"),
        (b"not a picture", "not a picture"),
        (b"", "not a picture"),
    ],
)
def test_what_cannot_be_a_picture_is_refused_with_the_reason(item: object, reason: str) -> None:
    with pytest.raises(FaultError, match=reason):
        as_rgb(item)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("jpg", "png", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(FaultError, match=r"cannot be decoded|not a picture"):
            as_rgb(path)


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(FaultError, match="is a folder"):
        as_rgb(tmp_path)


def test_a_picture_over_the_limit_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(Image.new("L", (60, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(FaultError, match=r"too large|over PIL\.Image\.MAX_IMAGE_PIXELS"):
        as_rgb(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(FaultError, match="too large"):
        as_rgb(data)


def test_the_limit_can_be_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert as_rgb(png(Image.new("L", (60, 50)))).size == (60, 50)


def test_a_picture_is_named_by_its_path_or_place(tmp_path: Path) -> None:
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    assert describe(tmp_path / "a.png", 0) == str(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert describe(image, 0) == str(tmp_path / "a.png")
    assert describe(np.zeros(3), 4) == "item 4 (ndarray)"
    assert describe(io.BytesIO(), 1) == "item 1 (BytesIO)"


def test_a_callable_is_opened_when_its_turn_comes_and_its_fault_is_the_pictures() -> None:
    opened = []

    def picture() -> np.ndarray:
        opened.append(1)
        return np.full((4, 5, 3), 7, np.uint8)

    assert as_rgb(picture).size == (5, 4)
    assert opened == [1]

    def broken() -> bytes:
        raise FaultError("the tar is cut")

    with pytest.raises(FaultError, match="the tar is cut"):
        as_rgb(broken)


def test_a_folder_gives_its_pictures_at_any_depth_in_settled_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("c.JPG", "b/2.png", "b/1.png", "a.tif", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = [path.relative_to(tmp_path).as_posix() for path in split_batch(tmp_path)]
    assert found == ["a.tif", "b/1.png", "b/2.png", "c.JPG"]
    assert split_batch(str(tmp_path)) == split_batch(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no pictures; looked for shards and"):
        split_batch(tmp_path / "empty")


def test_a_dataset_its_shards_and_one_tar_give_the_pictures_inside(
    tmp_path: Path, model: DualEncoder
) -> None:
    root = make_dataset(tmp_path / "data", 4, splits=("train", "test"))
    readers = [reader for split in ("train", "test") for reader in Dataset.open(root).readers(split)]
    expected = [bytes(reader.jpg(row)) for reader in readers for row in range(len(reader))]
    assert len(expected) == 8
    for given in (root, root / "shards"):
        assert sorted(map(bytes, split_batch(given))) == sorted(expected)
    tar = sorted((root / "shards").glob("*.tar"))[0]
    assert len(split_batch(tar)) == 2
    assert np.allclose(model.encode_images(root), model.encode_images(list(split_batch(root))))
    with pytest.raises(UserError, match=r"absent\.tar"):
        split_batch(tmp_path / "absent.tar")
