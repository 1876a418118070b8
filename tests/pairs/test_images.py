from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import QUARTERS, corners, encoded, png_bomb, quarters, texture
from PIL import Image, ImageCms

from pathclip.pairs import Drop, PackConfig, decode, read_header, stored_jpeg, strip_metadata

MAX = 64_000_000


def near(a: object, b: object, tolerance: int = 12) -> bool:
    return bool(np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= tolerance)


def with_exif(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "PhoneMaker"
    exif.get_ifd(0x8825)[1] = "N"
    return encoded(image, exif=exif.tobytes())


TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_every_exif_orientation_is_turned_upright_and_stored_without_metadata(orientation):
    upright = quarters()
    turn = TURNS[orientation]
    data = with_exif(upright.transpose(turn) if turn is not None else upright, orientation)
    header = read_header(data, max_pixels=MAX)
    assert (header.width, header.height) == upright.size
    image = decode(data)
    assert image.size == upright.size
    assert near(corners(image), QUARTERS)
    jpg, width, height = stored_jpeg(data, PackConfig())
    stored = Image.open(io.BytesIO(jpg))
    assert (stored.size, (width, height)) == (upright.size, upright.size)
    assert near(corners(stored), QUARTERS)
    assert not stored.getexif()
    assert b"Exif" not in jpg
    assert b"PhoneMaker" not in jpg


def test_broken_exif_does_not_cost_the_picture():
    data = encoded(quarters(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xffgarbage" * 3)
    assert read_header(data, max_pixels=MAX).orientation == 1
    assert near(corners(decode(data)), QUARTERS)
    assert near(corners(Image.open(io.BytesIO(stored_jpeg(data, PackConfig())[0]))), QUARTERS)


def test_cmyk_comes_out_in_the_right_colours():
    data = encoded(quarters().convert("CMYK"))
    assert read_header(data, max_pixels=MAX).mode == "CMYK"
    assert near(corners(decode(data)), QUARTERS, 40)


def test_alpha_is_laid_on_white():
    rgba = quarters().convert("RGBA")
    alpha = np.full((128, 160), 255, np.uint8)
    alpha[64:] = 0
    rgba.putalpha(Image.fromarray(alpha))
    image = decode(encoded(rgba, "PNG"))
    assert corners(image) == [*QUARTERS[:2], (255, 255, 255), (255, 255, 255)]
    grey = Image.new("LA", (150, 150), (100, 0))
    assert decode(encoded(grey, "PNG")).getpixel((5, 5)) == (255, 255, 255)


def test_a_palette_with_transparency_is_laid_on_white():
    image = quarters().quantize(4)
    clear = image.getpixel((5, 5))
    assert corners(decode(encoded(image, "PNG", transparency=clear))) == [(255, 255, 255), *QUARTERS[1:]]


def test_sixteen_bit_greys_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 200 * 200).reshape(200, 200).astype(np.uint16)
    image = decode(encoded(Image.fromarray(ramp), "PNG"))
    values = np.asarray(image)[..., 0].astype(float)
    assert values.mean() == pytest.approx(127.5, abs=1)
    assert (values.min(), values.max()) == (0, 255)


def test_float_greys_are_scaled():
    ramp = np.linspace(0, 1, 200 * 200, dtype=np.float32).reshape(200, 200)
    assert np.asarray(decode(encoded(Image.fromarray(ramp), "TIFF"))).mean() == pytest.approx(127.5, abs=1)


def test_a_foreign_colour_profile_is_converted_to_srgb():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain = encoded(quarters(), icc_profile=srgb)
    assert near(corners(decode(plain)), QUARTERS)
    assert b"ICC_PROFILE" not in stored_jpeg(plain, PackConfig())[0]
    assert near(
        corners(decode(encoded(quarters(), icc_profile=lab))), QUARTERS
    )  # a profile that does not fit
    assert near(corners(decode(encoded(quarters(), icc_profile=b"junk"))), QUARTERS)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_every_still_format_is_read(form):
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(quarters(), form, **options)
    header = read_header(data, max_pixels=MAX)
    assert (header.format, header.width, header.height, header.is_animated) == (form, 160, 128, False)
    assert near(corners(decode(data)), QUARTERS)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_are_an_animation(form):
    frames = [texture(n) for n in range(3)]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    assert read_header(data, max_pixels=MAX).is_animated


def test_a_phones_multi_picture_jpeg_is_one_picture():
    data = encoded(quarters(), "MPO", save_all=True, append_images=[texture(1)], quality=95)
    assert not read_header(data, max_pixels=MAX).is_animated
    assert near(corners(decode(data)), QUARTERS, 40)
    jpg = stored_jpeg(data, PackConfig())[0]
    assert len(jpg) < len(data)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_cut_picture_is_truncated(form, share):
    data = encoded(texture(3), form)
    data = data[: int(len(data) * share)]
    header = read_header(data, max_pixels=MAX)
    found = header if isinstance(header, Drop) else decode(data)
    assert isinstance(found, Drop)
    assert found.code == "image_truncated"


@pytest.mark.parametrize(
    "data", [b"<html>404</html>", b"", b"GIF8 no more", b"%!PS-Adobe-3.0 EPSF", b"\xff\xd8\xff", b"II*\0junk"]
)
def test_what_is_no_picture_is_told_from_a_damaged_one(data):
    found = read_header(data, max_pixels=MAX)
    assert isinstance(found, Drop)
    assert found.code in ("not_an_image", "image_truncated")
    assert (found.code == "not_an_image") == data.startswith((b"<", b"%", b"GIF8 no")) or data in (
        b"",
        b"\xff\xd8\xff",
        b"II*\0junk",
    )


def test_size_is_judged_before_pixels():
    assert read_header(png_bomb(30000), max_pixels=MAX).code == "image_oversized"
    assert "100 MP" in read_header(png_bomb(10000), max_pixels=MAX).detail
    assert isinstance(read_header(encoded(texture(1)), max_pixels=160 * 160), object)
    assert read_header(encoded(texture(1)), max_pixels=160 * 160 - 1).code == "image_oversized"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_bomb_costs_no_memory():
    # not ru_maxrss: a child starts with its parent's
    code = f"""
import sys
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
from pictures import png_bomb
from pathclip.pairs import read_header
def peak_kib():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
data = png_bomb(30000)
before = peak_kib()
assert read_header(data, max_pixels=64_000_000).code == "image_oversized"
assert peak_kib() - before < 20_000, "20 MB"
assert peak_kib() < 1_000_000, "1 GB in all"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_small_plain_jpeg_passes_through_with_its_pixels():
    data = encoded(texture(5), quality=80, comment=b"by somebody")
    jpg, width, height = stored_jpeg(data, PackConfig())
    assert (width, height) == (160, 160)
    assert b"somebody" not in jpg
    assert len(jpg) <= len(data)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(jpg))), np.asarray(Image.open(io.BytesIO(data))))
    assert stored_jpeg(jpg, PackConfig())[0] == jpg


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_blocks": 4}, {"optimize": True}])
def test_stripping_keeps_the_pixels_of_every_kind_of_jpeg(options):
    data = with_trailer = encoded(texture(6), comment=b"x" * 300, **options)
    with_trailer = data + b"trailing secrets"
    stripped = strip_metadata(with_trailer)
    assert b"secrets" not in stripped
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(stripped))), np.asarray(Image.open(io.BytesIO(data)))
    )


@pytest.mark.parametrize("cut", [3, 20, 200])
def test_what_cannot_be_cut_safely_is_not_stripped(cut):
    assert strip_metadata(encoded(texture(6))[:cut]) is None
    assert strip_metadata(b"\x89PNG") is None


@pytest.mark.parametrize(
    ("image", "form", "options"),
    [
        (texture(7, 800, 700), "JPEG", {}),
        (texture(7, 1400, 300), "JPEG", {}),
        (texture(7).convert("L"), "JPEG", {}),
        (texture(7), "PNG", {}),
    ],
    ids=["large", "long", "grey", "png"],
)
def test_all_else_is_stored_in_one_setting(image, form, options):
    jpg, width, height = stored_jpeg(encoded(image, form, **options), PackConfig())
    stored = Image.open(io.BytesIO(jpg))
    assert stored.mode == "RGB"
    assert stored.size == (width, height)
    assert min(stored.size) == min(512, *image.size)
    assert stored.layer[1][1:3] == stored.layer[0][1:3] == (1, 1)  # 4:4:4
    assert width / height == pytest.approx(image.width / image.height, rel=0.01)


def test_passthrough_can_be_switched_off():
    data = encoded(texture(5), quality=60)
    assert stored_jpeg(data, PackConfig(passthrough=False))[0] != stored_jpeg(data, PackConfig())[0]
