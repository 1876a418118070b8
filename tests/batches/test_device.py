"""Decoding on the device, its logic on a CPU: the pictures of the ordinary path, whoever decodes them."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from pydantic import ValidationError
from shard_factory import make_dataset, picture
from torch import Tensor

from pathclip.batches import AugmentConfig, Batch, BatchConfig, ShardLoader, device, staged
from pathclip.batches.device import DeviceDecoder, unsuited
from pathclip.core.errors import UserError
from pathclip.shards import Dataset, Sample

CPU = torch.device("cpu")
SIZE_PX = 40  # of pictures of 44 pixels, of which at least nine tenths are cut: no scaled decoding
SHAPES = AugmentConfig(min_scale=0.9, max_aspect=1.02, stain=0, stain_shift=0)
ALL = AugmentConfig(min_scale=0.9, max_aspect=1.02, stain=0.3, stain_shift=0.05, restain=0.5)


def pixels_of(batches: list[Batch]) -> np.ndarray:
    return torch.cat([b.images for b in batches]).cpu().numpy().astype(int)


def loader(root: Path, *, on: torch.device = CPU, image_size: int = SIZE_PX, **config: Any) -> ShardLoader:
    values = {"size": 8, "workers": 0, "decode": "gpu", "augment": SHAPES, **config}
    chosen = BatchConfig.model_validate(values)

    def tokenize(texts: list[str]) -> Tensor:
        return torch.tensor([[len(t), ord(t[0])] for t in texts])

    data = Dataset.open(root)
    return ShardLoader(data, "train", chosen, tokenize, image_size=image_size, seed=3, device=on)


def both(root: Path, count: int, **options: Any) -> tuple[list[Batch], list[Batch], ShardLoader]:
    """Batches of the ordinary path and of the device's, and the loader of these."""
    ours = loader(root, **options)
    plain = list(islice(loader(root, **{**options, "decode": "cpu"}), count))
    return plain, list(islice(ours, count)), ours


def assert_alike(plain: list[Batch], ours: list[Batch]) -> None:
    for a, b in zip(plain, ours, strict=True):
        assert a.keys == b.keys
        assert a.sampler == b.sampler
        for name in ("tokens", "positive_ids", "caption_ids"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        assert a.images.shape == b.images.shape
        assert b.images.dtype == torch.uint8
        assert b.images.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return make_dataset(folder, 24, change=lambda s: dataclasses.replace(s, jpg=jpeg(int(s.sample_id[2:]))))


def jpeg(number: int, size_px: int = 44, **options: Any) -> bytes:
    pixels = picture("mucin" if number % 2 else "nuclei", number, size_px)
    return simplejpeg.encode_jpeg(pixels, quality=92, **options)


def test_crops_turns_and_mirrors_are_those_of_the_ordinary_path(root: Path) -> None:
    plain, ours, stream = both(root, 9)
    assert_alike(plain, ours)
    assert np.abs(pixels_of(plain) - pixels_of(ours)).max() <= 1  # floats are resized here, bytes there
    assert not stream.on_cpu
    other = pixels_of(list(islice(loader(root, augment=AugmentConfig.off()), 9)))
    assert np.abs(pixels_of(plain) - other).mean() > 10  # the check can fail


def test_all_that_the_ordinary_path_does_is_done(root: Path) -> None:
    plain, ours, _ = both(root, 9, augment=ALL)
    assert_alike(plain, ours)
    difference = np.abs(pixels_of(plain) - pixels_of(ours))
    assert difference.mean() < 0.5  # a level of the resize, which a new stain may multiply
    assert np.percentile(difference, 99) <= 3
    gently = AugmentConfig(min_scale=0.9, max_aspect=1.02)
    plain, ours, _ = both(root, 9, augment=gently)
    assert np.abs(pixels_of(plain) - pixels_of(ours)).max() <= 2


CHANGES: list[dict[str, Any]] = [{"restain": 1}, {"stain": 0.9}, {"flips": True}, {"quarter_turns": True}, {}]


@pytest.mark.parametrize("change", CHANGES)
def test_without_a_resize_each_change_is_exact(root: Path, change: dict[str, Any]) -> None:
    augment = AugmentConfig(**{**AugmentConfig.off().model_dump(), **change})
    plain, ours, _ = both(root, 6, image_size=44, augment=augment)
    assert_alike(plain, ours)
    difference = np.abs(pixels_of(plain) - pixels_of(ours))
    assert difference.max() <= (1 if "stain" in change else 0)  # exp may round otherwise


def test_scaled_decoding_is_near_decoding_in_full(tmp_path: Path) -> None:
    y, x = np.mgrid[:200, :260]
    waves = np.stack([128 + 100 * np.sin(x / 17 + i) * np.cos(y / 23 - i) for i in range(3)], axis=-1)
    data = simplejpeg.encode_jpeg(waves.astype(np.uint8), quality=95, colorsubsampling="444")
    make_dataset(tmp_path, 8, change=lambda s: dataclasses.replace(s, jpg=data))
    plain, ours, _ = both(tmp_path, 3, image_size=48, augment=AugmentConfig(stain=0, stain_shift=0))
    assert_alike(plain, ours)
    difference = np.abs(pixels_of(plain) - pixels_of(ours))
    # boxes are cut at whole pixels: of an eighth there, of the picture here
    assert difference.mean() < 4
    assert np.percentile(difference, 99) <= 24


@pytest.mark.parametrize("options", [{"workers": 3}, {"workers": 1, "processes": True}])
def test_workers_and_processes_change_nothing(root: Path, options: dict[str, Any]) -> None:
    plain, ours = list(islice(loader(root), 6)), list(islice(loader(root, **options), 6))
    assert_alike(plain, ours)
    assert np.array_equal(pixels_of(plain), pixels_of(ours))


def test_a_loader_goes_on_where_another_stopped(root: Path) -> None:
    whole, first, second = list(islice(loader(root), 8)), loader(root), loader(root)
    list(islice(first, 5))
    second.load_state_dict(first.state_dict())
    assert np.array_equal(pixels_of(whole[5:]), pixels_of(list(islice(second, 3))))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RGB = Image.fromarray(picture("fat", 5, 44))
KINDS: dict[str, Callable[[], bytes]] = {
    "no JPEG": lambda: saved(RGB, "PNG"),
    "colours in CMYK": lambda: saved(RGB.convert("CMYK"), "JPEG"),
    "colours in Gray": lambda: saved(RGB.convert("L"), "JPEG"),
    "progressive": lambda: saved(RGB, "JPEG", progressive=True),
    "no end mark": lambda: saved(RGB, "JPEG") + b"\0",
    "damaged header": lambda: b"\xff\xd8\xff\xe0nothing",
}


@pytest.mark.parametrize("reason", [*KINDS, None])
def test_what_is_not_for_the_device_is_told_by_its_headers(reason: str | None) -> None:
    assert unsuited(memoryview(KINDS[reason]() if reason else jpeg(1))) == reason


def with_kinds(sample: Sample) -> Sample:
    """Every kind twice, among pictures that the device decodes."""
    number = int(sample.sample_id[2:])
    kinds = [kind() for kind in KINDS.values()]
    return dataclasses.replace(sample, jpg=jpeg(number) if number % 2 else kinds[number // 2 % len(kinds)])


def test_the_rest_is_decoded_on_the_cpu_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_dataset(tmp_path, 24, change=with_kinds)
    plain, ours, stream = both(tmp_path, 3)
    assert_alike(plain, ours)
    assert np.abs(pixels_of(plain) - pixels_of(ours)).max() <= 1
    for a, b in zip(plain, ours, strict=True):
        for key, x, y in zip(a.keys, a.images, b.images, strict=True):
            assert int(key[2:]) % 2 or torch.equal(x, y), key
    assert stream.on_cpu == {kind: 2 for kind in KINDS if kind != "damaged header"}
    told = [record.getMessage() for record in caplog.records]
    assert sum("is decoded on the CPU: progressive (told once)" in each for each in told) == 1
    assert sorted(name[-16:] for name in stream.bad) == ["tr00000000000010", "tr00000000000022"]


def test_what_fails_on_the_device_is_decoded_on_the_cpu_or_replaced(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = jpeg(4), jpeg(7)[:-200] + b"\xff\xd9"  # of this, libjpeg makes something grey
    files = {4: whole, 7: cut}

    def change(sample: Sample) -> Sample:
        number = int(sample.sample_id[2:])
        return dataclasses.replace(sample, jpg=files.get(number) or jpeg(number))

    make_dataset(tmp_path, 24, change=change)
    plain_decode = device.decode

    def fastidious(data: list[bytes], place: torch.device) -> list[Tensor]:
        if {whole, cut} & set(data):
            raise RuntimeError("nvJPEG status 4")
        return plain_decode(data, place)

    monkeypatch.setattr(device, "decode", fastidious)
    plain, ours, stream = both(tmp_path, 3)
    assert_alike(plain, ours)  # sample 7 was replaced by sample 8, captions and all
    assert np.abs(pixels_of(plain) - pixels_of(ours)).max() <= 1
    assert stream.bad == {
        "train-000000.tar, key tr00000000000007": "Corrupt JPEG data: premature end of data segment"
    }
    assert stream.on_cpu == {"the device failed": 2}


def test_a_full_device_is_no_fault_of_the_pictures(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    stream = loader(root)

    def full(*_: Any) -> list[Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device, "decode", full)
    with pytest.raises(torch.OutOfMemoryError):
        next(iter(stream))


def test_a_torchvision_that_cannot_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: Any) -> list[Tensor]:
        raise RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support\nstack")

    monkeypatch.setattr(device, "decode", lacking)
    with pytest.raises(UserError, match=r"does not decode JPEGs on cpu \(.* nvJPEG support\); set "):
        loader(root)


def test_the_recipe_of_plip_stays_with_the_workers() -> None:
    with pytest.raises(ValidationError, match=r'knows no augment.recipe = "plip": set decode = "cpu"'):
        BatchConfig(decode="gpu", augment=AugmentConfig(recipe="plip"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_batches_but_for_its_decoder(root: Path) -> None:
    cuda = torch.device("cuda")
    plain, ours, stream = both(root, 9, on=cuda)
    assert_alike(plain, ours)
    assert {b.images.device.type for b in ours} == {"cuda"}
    assert np.abs(pixels_of(plain) - pixels_of(ours)).mean() < 4  # nvJPEG's chroma filter is another
    assert not stream.on_cpu
    staged_ones = list(islice(staged(loader(root, on=cuda), cuda), 9))
    assert np.array_equal(pixels_of(staged_ones), pixels_of(ours))
    decoder = DeviceDecoder(44, cuda)
    assert decoder([None])[0].device.type == "cuda"
