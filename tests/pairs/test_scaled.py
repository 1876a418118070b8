from __future__ import annotations

import io

import imagehash
import numpy as np
import pytest
from pictures import encoded, quarters, texture
from PIL import Image, ImageCms

from pathclip.pairs import LOOK_SIDE_PX, Drop, damage, decode, phash, read_header, small_picture
from pathclip.pairs.scaled import EIGHTHS, decode_jpeg
from pathclip.synthetic import CLASSES, paint_tile

MAX = 64_000_000


def both_ways(data: bytes, **options: int) -> tuple[Image.Image | Drop, Image.Image | Drop]:
    header = read_header(data, max_pixels=MAX)
    return decode(data, **options), decode(data, **options, header=header)


def drop_of(decoded: Image.Image | Drop) -> Drop | None:
    return decoded if isinstance(decoded, Drop) else None


def tissue(width: int, height: int) -> Image.Image:
    return Image.fromarray(paint_tile(CLASSES[0], 3, max(width, height))).crop((0, 0, width, height))


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 2}, {"progressive": True}, {"subsampling": 1, "quality": 60}]
)
@pytest.mark.parametrize("size", [(160, 128), (161, 93), (17, 640)])
def test_full_size_is_pixel_by_pixel_what_pillow_decodes(size, options):
    data = encoded(texture(4, *size), **options)
    for image in both_ways(data):
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(data))))
        assert type(image) is Image.Image
        assert not image.info


@pytest.mark.parametrize(
    ("size", "short"), [((1100, 1030), 515), ((1000, 817), 511), ((640, 600), 600), ((4200, 520), 520)]
)
def test_the_scale_leaves_the_short_side_that_was_asked_for(size, short):
    image = decode(encoded(texture(5, *size)), min_side_px=min(short, 512))
    assert min(image.size) == short
    assert image.width / image.height == pytest.approx(size[0] / size[1], rel=0.01)


@pytest.mark.parametrize("eighths", EIGHTHS)
def test_a_scaled_picture_is_the_picture_scaled(eighths):
    full = tissue(1200, 904)
    small = decode_jpeg(encoded(full), 904 * eighths // 8)
    assert small.size == (1200 * eighths // 8, 904 * eighths // 8)
    plain = full.resize(small.size, Image.Resampling.LANCZOS)
    error = np.asarray(small, float) - np.asarray(plain, float)
    assert 10 * np.log10(255**2 / (error**2).mean()) > 30


def test_what_pillow_turns_and_converts_is_turned_and_converted_when_scaled():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = quarters(1600, 1200)
    data = encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif.tobytes())
    for image in both_ways(data, min_side_px=512):
        assert image.size == (800, 600)
        assert image.getpixel((700, 10))[0] > 240
    linear = ImageCms.createProfile("XYZ")
    profile = ImageCms.ImageCmsProfile(linear).tobytes()
    assert not read_header(encoded(upright, icc_profile=profile), max_pixels=MAX).is_plain_jpeg


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
@pytest.mark.parametrize("side", [None, 64])
def test_a_cut_jpeg_is_truncated_at_every_scale(share, side):
    data = encoded(texture(3, 300, 300), "JPEG")
    for found in both_ways(data[: int(len(data) * share)], min_side_px=side):
        assert isinstance(found, Drop)
        assert found.code == "image_truncated"


@pytest.mark.parametrize("options", [{}, {"subsampling": 2, "progressive": True}, {"restart_marker_rows": 2}])
def test_damage_is_found_wherever_a_full_decode_finds_it(options):
    data = encoded(texture(7, 90, 70), **options)
    header, rng = read_header(data, max_pixels=MAX), np.random.default_rng(0)
    assert damage(data, header) is None
    for _ in range(60):
        broken = bytearray(data)
        broken[rng.integers(600, len(data))] = rng.integers(256)  # behind the header
        assert damage(bytes(broken), header) == drop_of(decode(bytes(broken), min_side_px=1, header=header))
    for length in range(len(data) // 2, len(data) - 2, 97):
        assert damage(data[:length], header).code == "image_truncated"


@pytest.mark.parametrize("size", [(300, 200), (512, 512), (513, 100), (2048, 1536), (100, 3000)])
def test_the_small_picture_fits_and_keeps_its_shape(size):
    small = small_picture(Image.new("RGB", size))
    assert max(small.size) <= LOOK_SIDE_PX
    assert max(small.size) > LOOK_SIDE_PX // 2 or small.size == size
    assert small.width == pytest.approx(size[0] * small.height / size[1], abs=size[0] / size[1] + 1)


def test_the_hash_of_the_small_picture_is_the_librarys_of_the_whole_within_four_bits():
    distances = []
    for number, (w, h) in enumerate([(1200, 900), (2048, 1536), (1600, 1200), (900, 1200), (680, 510)]):
        full = Image.fromarray(paint_tile(CLASSES[number % len(CLASSES)], number, max(w, h))).crop(
            (0, 0, w, h)
        )
        data = encoded(full, quality=85, subsampling=2)
        ours = phash(small_picture(decode(data, min_side_px=LOOK_SIDE_PX)))
        theirs = str(imagehash.phash(Image.open(io.BytesIO(data))))
        distances.append((int(ours, 16) ^ int(theirs, 16)).bit_count())
    assert max(distances) <= 4
    assert np.median(distances) <= 1
