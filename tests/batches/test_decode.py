from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pathclip.batches import AugmentConfig, BadImageError, decode, decode_crop
from pathclip.batches.augment import STAINS, choose_box, jitter_stain, turn


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    channels = [128 + 100 * np.sin(x / 17 + i) * np.cos(y / 23 - i) for i in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> memoryview:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return memoryview(buffer.getvalue())


def whole(width: int, height: int) -> tuple[float, float, float, float]:
    return 0, 0, width, height


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (200, 300, (16, 24, 112, 120)),
        (512, 512, (0, 0, 512, 512)),
        (400, 900, (248, 0, 648, 400)),
        (64, 64, (5, 5, 37, 37)),
    ],
)
def test_scaled_decoding_is_close_to_decoding_in_full(
    height: int, width: int, box: tuple[int, int, int, int]
) -> None:
    data = simplejpeg.encode_jpeg(smooth_picture(height, width), quality=95, colorsubsampling="444")
    got = decode_crop(memoryview(data), 48, lambda w, h: box)
    full = Image.open(io.BytesIO(data)).resize((48, 48), Image.Resampling.BICUBIC, box=box)
    difference = np.abs(got.astype(int) - np.asarray(full).astype(int))
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99) <= 6


@pytest.mark.parametrize("left", range(240, 257, 3))
def test_a_crop_is_cut_at_the_nearest_whole_pixels_of_the_decoded_picture(left: int) -> None:
    ramp = np.repeat(np.tile(np.arange(0, 225, 0.25), (400, 1))[..., None], 3, axis=-1).astype(np.uint8)
    data = memoryview(simplejpeg.encode_jpeg(ramp, quality=98, colorsubsampling="444"))
    got = decode_crop(data, 48, lambda w, h: (left, 0, left + 400, 400))  # an eighth: 8 pixels, 2 levels each
    assert abs(got.mean() - (left + 200) / 4) <= 4 / 4 + 0.75  # half a decoded pixel, and rounding


def test_factor_follows_the_crop_not_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict] = []
    plain = simplejpeg.decode_jpeg
    monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", lambda d, **k: asked.append(k) or plain(d, **k))
    data = memoryview(simplejpeg.encode_jpeg(smooth_picture(800, 800)))
    decode_crop(data, 100, lambda w, h: (0, 0, 800, 800))  # an eighth is enough
    decode_crop(data, 100, lambda w, h: (0, 0, 200, 200))  # a half, because only a quarter is used
    decode_crop(data, 100, lambda w, h: (0, 0, 90, 90))  # in full: the crop is enlarged
    assert asked == [{"min_height": 100, "min_width": 100}, {"min_height": 400, "min_width": 400}, {}]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P", "I;16"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_colour_mode_comes_out_as_rgb(mode: str, kind: str) -> None:
    if (kind == "JPEG" and mode in ("RGBA", "P", "I;16")) or (kind != "JPEG" and mode == "CMYK"):
        pytest.skip("this format has no such mode")
    if kind == "WEBP" and mode == "I;16":
        pytest.skip("this format has no such mode")
    grey = np.full((30, 30), 180, np.uint8)
    source = (
        Image.fromarray(np.full((30, 30), 180 * 257, np.uint16))
        if mode == "I;16"
        else Image.fromarray(grey).convert(mode)
    )
    got = decode_crop(encoded(source, kind), 16, whole)
    assert got.shape == (16, 16, 3)
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - 180).max() <= 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no picture"),
        (b"<html>404</html>", "no picture"),
        (bytes(simplejpeg.encode_jpeg(smooth_picture(64, 64)))[:900], "remature end"),
        (b"\xff\xd8\xff\xe0nothing", "could not determine subsampling|header|JPEG"),
    ],
)
def test_what_is_no_picture_is_a_bad_image(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode_crop(memoryview(data), 16, whole)


def test_too_many_pixels_are_refused_by_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    for data in (
        simplejpeg.encode_jpeg(smooth_picture(40, 40)),
        bytes(encoded(Image.new("RGB", (40, 40)), "PNG")),
    ):
        with pytest.raises(BadImageError, match="40x40 pixels, more than 1000"):
            decode_crop(memoryview(data), 16, whole)


def test_without_augmentation_the_crop_is_the_centre_square() -> None:
    rng = np.random.default_rng(0)
    assert choose_box(300, 200, AugmentConfig.off(), rng) == (50, 0, 250, 200)
    assert choose_box(160, 160, AugmentConfig.off(), rng) == (0, 0, 160, 160)


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 900), st.integers(8, 900), st.floats(0.05, 1), st.floats(1, 2), st.integers(0, 99))
def test_a_crop_lies_inside_and_is_as_large_as_asked(
    width: int, height: int, min_scale: float, max_aspect: float, seed: int
) -> None:
    config = AugmentConfig(min_scale=min_scale, max_aspect=max_aspect)
    left, upper, right, lower = choose_box(width, height, config, np.random.default_rng(seed))
    assert -1e-9 <= left < right <= width + 1e-9
    assert -1e-9 <= upper < lower <= height + 1e-9
    area = (right - left) * (lower - upper) / min(width, height) ** 2
    assert area <= 1 + 1e-9
    assert area >= min_scale / max_aspect - 1e-9  # a side may be cut at the edge


def test_turns_and_mirrors_give_the_eight_symmetries_of_a_square() -> None:
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    config = AugmentConfig()
    seen = {turn(image, config, np.random.default_rng(i)).tobytes() for i in range(200)}
    assert len(seen) == 8
    only_mirror = AugmentConfig(quarter_turns=False)
    assert len({turn(image, only_mirror, np.random.default_rng(i)).tobytes() for i in range(50)}) == 2
    assert np.array_equal(turn(image, AugmentConfig.off(), np.random.default_rng(1)), image)


def jitter_slowly(pixel: np.ndarray, factors: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """One pixel: density -> amounts of each stain -> scaled and shifted -> density -> light."""
    density = [-np.log((value + 1.0) / 256) for value in pixel.tolist()]
    amounts = np.linalg.solve(STAINS.T, density) * factors + shifts
    light = [256 * np.exp(-sum(amounts[s] * STAINS[s][c] for s in range(3))) - 1 for c in range(3)]
    return np.clip(np.round(light), 0, 255)


def test_stain_jitter_agrees_with_a_slow_reference() -> None:
    config = AugmentConfig(stain=0.3, stain_shift=0.05)
    image = np.random.default_rng(5).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    got = jitter_stain(image, config, np.random.default_rng(11))
    rng = np.random.default_rng(11)
    factors, shifts = 1 + 0.3 * rng.uniform(-1, 1, 3), 0.05 * rng.uniform(-1, 1, 3)
    for pixel, result in zip(image.reshape(-1, 3), got.reshape(-1, 3), strict=True):
        assert np.abs(result - jitter_slowly(pixel, factors, shifts)).max() <= 1


def test_stain_jitter_of_strength_zero_changes_nothing() -> None:
    image = np.random.default_rng(5).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    assert jitter_stain(image, AugmentConfig.off(), np.random.default_rng(0)) is image


def test_white_stays_white_when_stains_are_only_scaled() -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    config = AugmentConfig(stain=0.5, stain_shift=0)
    assert (jitter_stain(white, config, np.random.default_rng(1)) == 255).all()
