"""What a locked image tower gives, computed once for each view of a picture and then read (LiT)."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Generator
from itertools import groupby
from typing import Any

import numpy as np
import torch

from pathclip.batches import FeatureStore, OwnPictures, ShardLoader
from pathclip.batches.features import Part
from pathclip.core.errors import UserError
from pathclip.core.files import strict_json, write_json
from pathclip.encoders import DualEncoder
from pathclip.encoders.cache import describe_model
from pathclip.training.captions import caption_loss_weight
from pathclip.training.config import TrainConfig
from pathclip.training.progress import LOG_EVERY_S
from pathclip.training.trainer import placed, towers_cast
from pathclip.training.world import World

__all__ = ["CHUNK", "feature_store", "fill", "input_bytes"]

log = logging.getLogger("pathclip")
CHUNK = 64  # pictures that the tower takes at a time, whoever asks: its rounding may hang on their number


def feature_store(
    config: TrainConfig, model: DualEncoder, loader: ShardLoader, data: list[dict[str, Any]]
) -> tuple[FeatureStore, dict[str, Any]] | None:
    """Where a run's image features are kept, and what they depend on; None where it keeps none.

    The tower's weights, config, transform, precision and versions, the pictures, and what is done to them:
    the folder's name is a hash of these, so that features of anything else are never found.

    Args:
        config: The run.
        model: As it starts.
        loader: Of the run; nothing is read from it.
        data: As `fingerprint` tells it.

    Raises:
        UserError: If a decoder is to learn too.
    """
    if config.model.image_cache is None:
        return None
    if caption_loss_weight(config, model):
        raise UserError(
            "model.image_cache keeps a feature per picture, and a decoder reads the tower's tokens: set "
            "caption_loss_weight = 0, or leave image_cache unset"
        )
    augment = config.batch.augment
    about = {
        "schema": "pathclip.image-features/1",
        **describe_model(model, "training pictures", weights=model.clip.visual),
        "autocast": config.precision,
        "augment": augment.model_dump(mode="json"),
        "seed": None if augment == type(augment).off() else config.seed,
        "shards": [{"count": shard["count"], "sha256": shard["sha256"]} for shard in data],
    }
    key = hashlib.sha256(strict_json(about).encode()).hexdigest()[:32]
    folder = config.model.image_cache / key
    return FeatureStore(folder, loader.source.count, model.embed_dim, _num_views(config, loader)), about


def _num_views(config: TrainConfig, loader: ShardLoader) -> int:
    """Views that the run comes to, what is prepared ahead of its last step included."""
    size = config.batch.size
    steps = config.schedule.total_steps(loader.count, size) + config.batch.prefetch + 2
    views = config.batch.num_views
    assert views is not None  # the config has seen to it
    return min(views, loader.order.passes(steps * size))


def fill(
    store: FeatureStore,
    about: dict[str, Any],
    model: DualEncoder,
    config: TrainConfig,
    loader: ShardLoader,
    world: World,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Compute what a store lacks; the ranks take its parts in turn, each part having one writer.

    A picture goes through the tower as it would in a step: same pixels, same autocast, evaluation mode.

    Args:
        store: Of the run.
        about: What its features depend on, for people to read.
        model: Moved to the world's device.
        config: The run.
        loader: Of the run; decodes with its workers.
        world: The processes.
        stopped: Asked between passes; where it says so, this rank leaves off.

    Returns:
        False if a rank left off; what is whole stays, and the next start goes on from there.

    Raises:
        FaultError: If the disk is full.
        UserError: If the folder cannot be written to, or a rank does not see what another wrote.
    """
    if world.first and not (store.folder / "about.json").is_file():
        write_json(store.folder / "about.json", about)
    mine = store.parts[world.rank :: world.size]
    lacking = [part for part in mine if not store.holds(part)]
    model = placed(model, world.device, torch.channels_last)
    whole = _compute(store, lacking, model, config, loader, world, stopped) if lacking else True
    world.wait()
    if world.any(not whole):
        return False
    absent = [store.path(part) for part in store.parts if not store.path(part).is_file()]
    if absent:
        raise UserError(
            f"image features {absent[0]} are not seen by rank {world.rank}: model.image_cache must lie where "
            "all ranks can read it"
        )
    return True


def _compute(
    store: FeatureStore,
    lacking: list[Part],
    model: DualEncoder,
    config: TrainConfig,
    loader: ShardLoader,
    world: World,
    stopped: Callable[[], bool],
) -> bool:
    left, began, told = sum(part.stop - part.start for part in lacking), time.monotonic(), time.monotonic()
    log.info("computing image features of %d pictures into %s", left, store.folder)
    done = 0
    passes = _encoded(lacking, model, config, loader, world)
    for part, chunks in groupby(passes, key=lambda chunk: chunk[0]):
        rows: list[torch.Tensor] = []
        bad: dict[int, str] = {}
        for _, features, reasons in chunks:
            if stopped():
                passes.close()
                return False
            rows.append(features)
            bad |= reasons
            done += len(features)
            if time.monotonic() - told >= LOG_EVERY_S:
                told = time.monotonic()
                log.info("image features: %d of %d, %.0f a second", done, left, done / (told - began))
        store.write(part, torch.cat(rows), bad)
    return True


def _encoded(
    lacking: list[Part], model: DualEncoder, config: TrainConfig, loader: ShardLoader, world: World
) -> Generator[tuple[Part, torch.Tensor, dict[int, str]], None, None]:
    """(part, its next rows, sample -> why it has none), chunk by chunk."""
    chunks = [
        (part, range(start, min(start + CHUNK, part.stop)))
        for part in lacking
        for start in range(part.start, part.stop, CHUNK)
    ]
    decoders = loader.decoders(OwnPictures(loader.source), CHUNK)
    try:
        stream = decoders.stream([(part.view, index) for index in indices] for part, indices in chunks)
        for (part, indices), (_, pictures, items) in zip(chunks, stream, strict=True):
            bad = {i: item.replaced[0][1] for i, item in zip(indices, items, strict=True) if item.replaced}
            yield part, _encode(pictures, model, config, world), bad
    finally:
        decoders.close()


@torch.no_grad()
def _encode(pictures: np.ndarray, model: DualEncoder, config: TrainConfig, world: World) -> torch.Tensor:
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(world.device)
    with model.evaluating(), towers_cast(config, world.device):
        return model.encode_pixels(images).cpu()


def input_bytes(config: TrainConfig, model: DualEncoder) -> int:
    """Of a sample's picture as a step takes it, or of its feature."""
    return 4 * model.embed_dim if config.model.image_cache else 3 * model.image_size**2
