"""Small datasets for the tests of batches and training, without ingest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg

from pathclip.shards import Sample, write_index, write_shard

COLOURS = {
    "fat": (240, 235, 240),
    "muscle": (220, 120, 140),
    "nuclei": (90, 60, 140),
    "mucin": (150, 170, 210),
}


def picture(label: str, seed: int, size_px: int = 40) -> np.ndarray:
    """A coloured square with stripes: enough for a tiny model to learn the four names."""
    rng = np.random.default_rng([seed, len(label)])
    image = np.full((size_px, size_px, 3), COLOURS[label], np.float64)
    image[:: 2 + len(label) % 3] *= 0.8
    return (image + rng.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)


def make_sample(number: int, split: str = "train", size_px: int = 40) -> Sample:
    """Sample ``number``; two captions, label by turns."""
    label = list(COLOURS)[number % len(COLOURS)]
    jpg = simplejpeg.encode_jpeg(picture(label, number, size_px), quality=92)
    return Sample(
        sample_id=f"{split[:2]}{number:014d}",
        group_id=f"group{number:011d}",
        positive_id=f"positive{number // 2:08d}",
        captions=((f"{label}.", "table"), (f"An H&E image of {label}", "reply")),
        hashtag=None,
        width=size_px,
        height=size_px,
        phash=None,
        split=split,
        jpg=jpg,
    )


def make_dataset(
    root: Path,
    count: int = 24,
    *,
    shards: int = 2,
    splits: tuple[str, ...] = ("train",),
    change: Callable[[Sample], Sample] = lambda sample: sample,
) -> Path:
    """Write ``count`` samples per split, in ``shards`` shards each."""
    infos = {}
    for split in splits:
        samples = [change(make_sample(i, split)) for i in range(count)]
        parts = [samples[s * count // shards : (s + 1) * count // shards] for s in range(shards)]
        infos[split] = [
            write_shard(root / f"shards/{split}-{i:06d}.tar", part, root=root) for i, part in enumerate(parts)
        ]
    write_index(root, infos)
    return root
