"""What a run starts from: datasets, model, loader."""

from __future__ import annotations

import os
from typing import Any

import torch

from pathclip.batches import BatchConfig, ShardLoader
from pathclip.core.errors import UserError
from pathclip.core.files import sha256_file
from pathclip.encoders import DualEncoder, create, load
from pathclip.shards import Dataset, ShardInfo
from pathclip.training.config import TrainConfig
from pathclip.training.world import World

__all__ = ["build_loader", "build_model", "fingerprint", "open_datasets"]

GPU_WORKERS = 16  # decode processes of a rank, at most


def open_datasets(config: TrainConfig, *, count: bool = True) -> list[Dataset]:
    """The datasets of a config.

    Args:
        config: The run.
        count: Read shards whose samples nobody states, once, to count them.

    Raises:
        UserError: If none is named, or one has no such split.
    """
    if not config.data.dataset:
        raise UserError(
            "data.dataset is not set: name a dataset folder, for example --set data.dataset=tiles "
            "(from `pathclip ingest`)"
        )
    stream = config.data.stream_shards is not None
    datasets = [Dataset.open(path, stream=stream, count=count) for path in config.data.dataset]
    for dataset in datasets:
        dataset.shards(config.data.split)
    return datasets


def build_model(config: TrainConfig) -> DualEncoder:
    """The model as the run starts with it."""
    if config.model.init is not None:
        return load(config.model.init)
    return create(config.model.name, seed=config.seed)


def build_loader(
    config: TrainConfig, datasets: list[Dataset], model: DualEncoder, world: World | None = None
) -> ShardLoader:
    """This rank's batches.

    Raises:
        UserError: As `ShardLoader`, or if a GPU is to decode and there is none.
    """
    return ShardLoader(
        datasets,
        config.data.split,
        _fitted(config.batch, world),
        model.tokenize,
        image_size=model.image_size,
        seed=config.seed,
        rank=world.rank if world else 0,
        world_size=world.size if world else 1,
        weights=config.data.weights,
        device=_decoding_device(config, world),
        window=config.data.stream_shards,
    )


def _decoding_device(config: TrainConfig, world: World | None) -> torch.device | None:
    if config.batch.decode == "cpu":
        return None
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    device = world.device if world else torch.device("cuda" if on_gpu else "cpu")
    if device.type != "cuda":
        raise UserError(
            'batch.decode = "gpu" needs a CUDA device, this run is on the CPU: set batch.decode = "cpu"'
        )
    return device


def _fitted(config: BatchConfig, world: World | None) -> BatchConfig:
    """Workers where the config leaves them open: two threads, for a GPU as many processes as cores."""
    gpu = world is not None and world.device.type == "cuda"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    per_rank = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1)
    workers = config.workers if config.workers is not None else min(per_rank, GPU_WORKERS) if gpu else 2
    processes = config.processes if config.processes is not None else gpu and config.decode == "cpu"
    return config.replace(workers=workers, processes=processes)


def fingerprint(datasets: list[Dataset], split: str) -> list[dict[str, Any]]:
    """What the samples and their order hang on: shards by checksum, where one is stated or the shard here."""

    def checksum(dataset: Dataset, shard: ShardInfo) -> str:
        if shard.sha256 or dataset.locate(shard) is not None:
            return shard.sha256
        return sha256_file(dataset.root / shard.path)

    return [
        {"path": shard.path, "count": shard.count, "sha256": checksum(dataset, shard)}
        for dataset in datasets
        for shard in dataset.shards(split)
    ]
