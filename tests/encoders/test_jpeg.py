"""The quick way from a JPEG to a model's pixels: Pillow's within one level, or none at all."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, encode_pictures
from pathclip.encoders.jpeg import prepare_jpeg


def jpeg(size: tuple[int, int], mode: str = "RGB", seed: int = 0, **options: Any) -> bytes:
    """Blurred noise, as a camera's grain is."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 3 + 1, size[0] // 3 + 1, 3), np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=90, **options)
    return buffer.getvalue()


def config(**changes: str) -> dict[str, str]:
    return {"resize_mode": "shortest", "interpolation": "bicubic", **changes}


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", [(512, 512), (300, 201), (97, 411), (42, 42), (43, 42)])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_open_clips_within_one_level(size: tuple[int, int], mode: str, interpolation: str) -> None:
    data = jpeg(size)
    cfg = PreprocessCfg(size=42, resize_mode=mode, interpolation=interpolation)
    steps = image_transform_v2(cfg, is_train=False).transforms[:-2]
    picture: Any = Image.open(io.BytesIO(data))
    for step in steps:
        picture = step(picture)
    found = prepare_jpeg(data, 42, config(resize_mode=mode, interpolation=interpolation))
    assert found is not None
    assert (found.shape, found.dtype) == ((3, 42, 42), torch.uint8)
    difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - np.asarray(picture).astype(int))
    assert difference.max() <= 1
    assert difference.mean() < 0.25


def test_grey_and_progressive_files_and_paths_are_taken(tmp_path: Path) -> None:
    for number, options in enumerate(({"mode": "L"}, {"progressive": True}, {"exif": Image.Exif()})):
        data = jpeg((60, 50), **options)
        (tmp_path / f"{number}.jpg").write_bytes(data)
        found = prepare_jpeg(tmp_path / f"{number}.jpg", 42, config())
        assert found is not None
        assert torch.equal(found, prepare_jpeg(memoryview(data), 42, config()))
        whole = np.asarray(
            Image.open(io.BytesIO(data)).convert("RGB").resize((50, 42), Image.Resampling.BICUBIC)
        )
        assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - whole[:, 4:46]).max() <= 1


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize(
    "item",
    [
        jpeg((60, 50), exif=exif(6)),
        jpeg((60, 50), xmp=b'<x tiff:Orientation="6"/>'),
        jpeg((60, 50), mode="CMYK"),
        jpeg((60, 41)),
        jpeg((60, 50))[:-300],
        b"\xff\xd8 nothing of the kind",
        b"GIF89a",
        b"",
        "absent.jpg",
        Path("."),
        Image.new("RGB", (60, 50)),
        np.zeros((60, 50, 3), np.uint8),
    ],
    ids=[
        "turned",
        "turned-xmp",
        "cmyk",
        "small",
        "cut",
        "no-jpeg",
        "gif",
        "empty",
        "absent",
        "folder",
        "pil",
        "array",
    ],
)
def test_what_is_not_a_plain_jpeg_is_left_to_the_slower_way(item: Any) -> None:
    assert prepare_jpeg(item, 42, config()) is None


def test_a_padded_picture_and_one_over_pillows_limit_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare_jpeg(jpeg((60, 50)), 42, config(resize_mode="longest")) is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60 * 50 - 1)
    assert prepare_jpeg(jpeg((60, 50)), 42, config()) is None


def test_a_turned_jpeg_is_encoded_as_the_upright_picture(model: DualEncoder, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg((90, 60), exif=exif(6)))
    upright = np.asarray(Image.open(path).transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(model.encode_images(path), model.encode_images(upright))


def test_features_of_a_jpeg_are_those_of_its_decoded_pixels(model: DualEncoder) -> None:
    files = [jpeg((90 + i, 60 + 2 * i), seed=i) for i in range(8)]
    decoded = [np.asarray(Image.open(io.BytesIO(data))) for data in files]
    assert F.cosine_similarity(model.encode_images(files), model.encode_images(decoded)).min() > 0.99999


def test_threads_side_by_side_give_what_one_gives(model: DualEncoder, two_threads: None) -> None:
    items: list[Any] = [jpeg((50, 60), seed=i) for i in range(41)]
    items[7], items[33] = "absent.jpg", np.zeros((3, 3), np.float32)
    found, bad = encode_pictures(model, items, batch_size=8)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    expected, same = encode_pictures(model, items, batch_size=8)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0, equal_nan=True)
    assert bad == same
    assert [item.index for item in bad] == [7, 33]


def test_a_mistake_in_one_thread_stops_the_others_and_gives_the_threads_back(
    model: DualEncoder, two_threads: None
) -> None:
    with pytest.raises(UserError, match="int is no picture"):
        model.encode_images([jpeg((50, 60))] * 40 + [7] + [jpeg((50, 60))] * 400)
    assert torch.get_num_threads() == 2


def test_a_callers_autocast_stays_in_force(model: DualEncoder, two_threads: None) -> None:
    files = [jpeg((50, 60), seed=i) for i in range(5)]
    plain = model.encode_images(files)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = model.encode_images(files)
    model.precision = "bf16"
    torch.testing.assert_close(inside, model.encode_images(files), atol=2e-3, rtol=0)
    assert not torch.equal(inside, plain)
