"""The input of the ingest benchmark: posts with painted micrographs, and the same list for img2dataset."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

from pathclip.synthetic import CLASSES, WORDS, paint_tile

SHEET_PX = 2560
SHEETS = 40
SIZES = (  # X serves copies of at most 680, 1200 and 2048 px; uploads that are smaller lie between
    ((680, 510), 2),
    ((900, 675), 2),
    ((1024, 768), 2),
    ((1200, 675), 2),
    ((1200, 900), 4),
    ((900, 1200), 1),
    ((1280, 960), 1),
    ((1600, 1200), 2),
    ((2048, 1536), 4),
)
QUALITY = 85  # of X's own copies, chroma halved
PLACES = ("colon", "skin", "lung", "breast", "kidney", "liver", "thyroid", "prostate")


def write_input(folder: Path, pictures: int, given: list[Path], seed: int = 0) -> list[Path]:
    """Write ``media/*.jpg``, ``posts.jsonl`` (v2, flat) and ``list.jsonl`` (url, caption) once.

    Args:
        folder: Gone on with where it holds pictures already.
        pictures: How many in all.
        given: Files to take first; the rest is painted.
        seed: Of the painted ones.

    Returns:
        The pictures.
    """
    media = folder / "media"
    media.mkdir(parents=True, exist_ok=True)
    paths = [media / f"3_{7_000_000_000 + number}.jpg" for number in range(pictures)]
    for path, source in zip(paths, given, strict=False):
        path.write_bytes(source.read_bytes())
    _paint(paths[len(given) :], seed)
    for path in set(media.iterdir()) - set(paths):
        path.unlink()
    captions = [_caption(number) for number in range(pictures)]
    _write_lines(folder / "posts.jsonl", [_post(*pair) for pair in zip(paths, captions, strict=True)])
    peers = [{"url": p.as_uri(), "caption": c} for p, c in zip(paths, captions, strict=True)]
    _write_lines(folder / "list.jsonl", peers)
    return paths


def mean_pixels(paths: list[Path]) -> float:
    """Mean of width times height."""
    total = 0
    for path in paths:
        with Image.open(path) as picture:
            total += picture.width * picture.height
    return total / len(paths)


def _paint(paths: list[Path], seed: int) -> None:
    """Pieces of large painted sheets, each at a place, scale and size of its own."""
    chance = random.Random(seed)
    shapes = chance.choices([s for s, _ in SIZES], [w for _, w in SIZES], k=len(paths))
    for sheet in range(min(SHEETS, len(paths))):
        canvas: Image.Image | None = None
        for number in range(sheet, len(paths), SHEETS):
            place = random.Random(f"{seed} {number}")
            width, height = shapes[number]
            zoom = place.uniform(0.6, 1.0)
            cut_w, cut_h = int(width * zoom), int(height * zoom)
            left, top = place.randrange(SHEET_PX - cut_w), place.randrange(SHEET_PX - cut_h)
            if paths[number].exists():
                continue
            if canvas is None:
                canvas = Image.fromarray(paint_tile(CLASSES[sheet % len(CLASSES)], seed + sheet, SHEET_PX))
            piece = canvas.crop((left, top, left + cut_w, top + cut_h)).resize((width, height))
            turned = np.rot90(np.asarray(piece), place.choice((0, 2)))
            Image.fromarray(turned).save(paths[number], quality=QUALITY)


def _caption(number: int) -> str:
    label = CLASSES[number % len(CLASSES)]
    site = PLACES[number // len(CLASSES) % len(PLACES)]
    return f"{WORDS[label][0].capitalize()} in a biopsy of the {site}, case {number}"


def _post(path: Path, caption: str) -> dict[str, object]:
    key = path.stem
    ident = "15" + key.rpartition("_")[2].zfill(16)
    return {
        "id": ident,
        "text": f"{caption} #pathtwitter https://t.co/{ident[-10:]}",
        "author_id": ident[-6:],
        "conversation_id": ident,
        "created_at": "2022-03-23T12:26:00.000Z",
        "lang": "en",
        "possibly_sensitive": False,
        "public_metrics": {"retweet_count": 1, "reply_count": 0, "like_count": 3, "quote_count": 0},
        "entities": {"hashtags": [{"start": 0, "end": 11, "tag": "pathtwitter"}]},
        "attachments": {
            "media_keys": [key],
            "media": [{"media_key": key, "type": "photo", "url": f"https://pbs.twimg.com/media/{key}.jpg"}],
        },
    }


def _write_lines(path: Path, records: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
