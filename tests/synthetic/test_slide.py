"""Slides: read back by OpenSlide with the right scale, colour and regions; no compiled TIFF codec."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import openslide
import pytest
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.synthetic import CLASSES, Region, SlideTruth, Stain, write_slide
from pathclip.synthetic.pyramid import write_aperio, write_generic

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "reference" / "schemas"
FLAT = {"red": (200, 30, 40), "green": (40, 160, 60), "blue": (60, 70, 190), "pink": (235, 170, 205)}


def flat_picture(size=(700, 560)):
    """Four quarters of known colour."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    half = (slice(0, height // 2), slice(height // 2, None)), (slice(0, width // 2), slice(width // 2, None))
    for k, colour in enumerate(FLAT.values()):
        pixels[half[0][k // 2], half[1][k % 2]] = colour
    return pixels


@pytest.mark.parametrize("writer", [write_generic, write_aperio])
def test_colours_come_back_as_they_were_painted_at_every_level(tmp_path, writer):
    """The trap of tifffile's word ``ycbcr``: converted twice, everything turns magenta."""
    pixels = flat_picture()
    levels = writer(tmp_path / "a.tif", pixels, 0.5)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert slide.level_count == len(levels) == 2
        for level, downsample in enumerate(levels):
            w, h = slide.level_dimensions[level]
            assert (w, h) == (-(-700 // downsample), -(-560 // downsample))
            seen = np.asarray(slide.read_region((0, 0), level, (w, h)).convert("RGB"), int)
            for k, colour in enumerate(FLAT.values()):
                middle = seen[h * (1 + 2 * (k // 2)) // 4, w * (1 + 2 * (k % 2)) // 4]
                assert np.abs(middle - colour).max() <= 4, (level, colour, middle)


def test_scale_and_vendor_are_what_readers_expect(tmp_path):
    pixels = flat_picture()
    write_generic(tmp_path / "a.tiff", pixels, 0.25)
    write_aperio(tmp_path / "a.svs", pixels, 0.499)
    with openslide.OpenSlide(tmp_path / "a.tiff") as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25, rel=1e-4)
        assert not slide.associated_images
    with openslide.OpenSlide(tmp_path / "a.svs") as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert float(slide.properties["openslide.mpp-x"]) == 0.499
        assert float(slide.properties["openslide.objective-power"]) == pytest.approx(20.04, abs=0.01)
        assert set(slide.associated_images) == {"label", "macro", "thumbnail"}
        thumbnail = np.asarray(slide.associated_images["thumbnail"].convert("RGB"), int)
        corner = thumbnail[thumbnail.shape[0] // 8, thumbnail.shape[1] // 8]
        assert np.abs(corner - FLAT["red"]).max() <= 4


@pytest.mark.parametrize("writer", [write_generic, write_aperio])
def test_without_a_scale_the_file_states_none(tmp_path, writer):
    writer(tmp_path / "a.tif", flat_picture(), None)
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert "openslide.mpp-x" not in slide.properties
        assert "openslide.objective-power" not in slide.properties


def test_slides_are_written_where_imagecodecs_is_absent(tmp_path):
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from pathclip.synthetic import write_slide\n"
        f"for f in ('tiff', 'svs'): write_slide(r'{tmp_path}/a.' + f, 0, (512, 384), 1.0, format=f)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for suffix in ("tiff", "svs"):
        with openslide.OpenSlide(tmp_path / f"a.{suffix}") as slide:
            assert slide.dimensions == (512, 384)


def test_tifffile_reads_the_same_tags_and_bytes(tmp_path):
    """Another reader's view of our own writer: tags, levels, and every tile a whole JPEG."""
    import simplejpeg
    import tifffile

    write_generic(tmp_path / "a.tiff", flat_picture(), 0.5, tile_px=128)
    with tifffile.TiffFile(tmp_path / "a.tiff") as tiff:
        page = tiff.pages[0]
        assert (page.imagewidth, page.imagelength, page.tilewidth, page.tilelength) == (700, 560, 128, 128)
        assert (page.compression.name, page.photometric.name, page.samplesperpixel) == ("JPEG", "YCBCR", 3)
        assert page.tags["XResolution"].value[0] / page.tags["XResolution"].value[1] == 20000
        assert len(page.dataoffsets) == 6 * 5
        tiff.filehandle.seek(page.dataoffsets[0])
        tile = simplejpeg.decode_jpeg(tiff.filehandle.read(page.databytecounts[0]))
        assert np.abs(tile[60, 60].astype(int) - FLAT["red"]).max() <= 4
        assert [p.subfiletype for p in tiff.pages] == [0, 1]


def test_a_file_beyond_four_gigabytes_is_refused(tmp_path):
    from pathclip.core.errors import FaultError
    from pathclip.synthetic.tiff import LIMIT_BYTES, TiffPage, TiffWriter

    with open(tmp_path / "a.tiff", "wb") as handle:
        writer = TiffWriter(handle)
        handle.seek(LIMIT_BYTES + 1)  # a hole: takes no space
        with pytest.raises(FaultError, match="larger than 4 GiB"):
            writer.add(TiffPage(16, 16, tile_px=16), [b"stream"])


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> SlideTruth:
    path = tmp_path_factory.mktemp("slide") / "small.tiff"
    return write_slide(path, 4, (1024, 768), 2.0, stain=Stain(blur_px=0, grain=0))


def test_the_truth_names_what_is_painted(small):
    """Adipose tissue and the empty slide are bright, lymphocytes are dark, at the places the truth gives."""
    with openslide.OpenSlide(small.path) as slide:
        grey = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("L"), float)
    places = {label: [] for label in (*CLASSES, None)}
    for y in range(16, 768, 32):
        for x in range(16, 1024, 32):
            places[small.label_at(x, y)].append(grey[y - 6 : y + 6, x - 6 : x + 6].mean())
    mean = {label: np.mean(values) for label, values in places.items() if values}
    assert mean[None] > 238
    assert mean["lymphocytes"] < mean["adenocarcinoma"] < mean["stroma"] < mean["adipose_tissue"] < mean[None]


def test_every_slide_has_its_label_in_several_regions_and_other_tissues_around(small):
    labels = [region.label for region in small.regions]
    assert small.label == "adenocarcinoma"
    assert labels.count("adenocarcinoma") == 3
    assert {"stroma", "smooth_muscle", "adipose_tissue", "lymphocytes"} < set(labels)


@pytest.mark.parametrize("label", CLASSES)
def test_any_tissue_may_be_the_diagnosis(tmp_path, label):
    truth = write_slide(tmp_path / "a.tiff", 1, (384, 256), 4.0, label=label)
    assert label in {truth.label_at(*np.mean(r.polygon, axis=0)) for r in truth.regions}


def test_equal_arguments_give_equal_pixels(tmp_path):
    one, two, other = (
        write_slide(tmp_path / f"{k}.tiff", seed, (512, 384), 2.0) for k, seed in enumerate((7, 7, 8))
    )
    pixels = [
        np.asarray(openslide.OpenSlide(t.path).read_region((0, 0), 0, (512, 384))) for t in (one, two, other)
    ]
    assert np.array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels[0], pixels[2])
    assert one.regions == two.regions != other.regions


def test_pen_and_black_edge_are_where_they_should_be(tmp_path):
    truth = write_slide(tmp_path / "a.tiff", 0, (1024, 768), 2.0, pen=True, black_edge=True)
    with openslide.OpenSlide(truth.path) as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"), int)
    assert pixels[-12:].max() < 12
    assert pixels[:, -12:].max() < 12
    pen = pixels[200:560, 10:100]
    assert (np.ptp(pen, axis=-1) > 40).mean() > 0.02 or (pen.max(-1) < 90).mean() > 0.02
    assert truth.label_at(40, 384) is None


def test_own_regions_are_painted_in_order(tmp_path):
    square = ((100.0, 100.0), (400.0, 100.0), (400.0, 300.0), (100.0, 300.0))
    inner = ((200.0, 150.0), (300.0, 150.0), (300.0, 250.0), (200.0, 250.0))
    regions = (Region("stroma", square), Region("adipose_tissue", inner))
    truth = write_slide(tmp_path / "a.svs", 0, (512, 400), 0.5, format="svs", regions=regions, label="stroma")
    assert truth.label_at(120, 120) == "stroma"
    assert truth.label_at(250, 200) == "adipose_tissue"
    assert truth.label_at(50, 50) is None
    with openslide.OpenSlide(truth.path) as slide:
        empty = np.asarray(slide.read_region((10, 10), 0, (60, 60)).convert("L"), float)
        tissue = np.asarray(slide.read_region((110, 110), 0, (60, 60)).convert("L"), float)
    assert empty.mean() > tissue.mean() + 25


def test_the_truth_as_json_fits_its_schema(small):
    schema = json.loads((SCHEMAS / "slide-truth.schema.json").read_text())
    record = small.to_json()
    jsonschema.validate(record, schema)
    assert record["regions"][0]["polygon"][0] == pytest.approx(small.regions[0].polygon[0], abs=0.05)


def test_unknown_labels_and_formats_are_refused(tmp_path):
    with pytest.raises(UserError, match="unknown slide format 'ndpi'; known: tiff, svs"):
        write_slide(tmp_path / "a", 0, format="ndpi")
    with pytest.raises(UserError, match="unknown tissue class 'glia'"):
        write_slide(tmp_path / "a", 0, label="glia")


def test_a_region_outside_the_slide_is_left_out(tmp_path):
    outside = Region("mucin", ((900.0, 900.0), (950.0, 900.0), (950.0, 950.0)))
    truth = write_slide(tmp_path / "a.tiff", 0, (256, 256), 1.0, regions=(outside,))
    with openslide.OpenSlide(truth.path) as slide:
        assert np.asarray(slide.read_region((0, 0), 0, (256, 256)).convert("L")).min() > 200


def test_tiny_slides_have_two_levels_at_least(tmp_path):
    levels = write_generic(tmp_path / "a.tiff", flat_picture((200, 100)), 1.0)
    assert levels == (1, 4)
    with Image.open(tmp_path / "a.tiff") as image:
        assert image.size == (200, 100)
