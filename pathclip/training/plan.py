"""``--dry-run``: what a run would do, without doing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pathclip.batches import ShardLoader
from pathclip.core.config import to_toml
from pathclip.core.files import size_text
from pathclip.encoders import DualEncoder
from pathclip.shards import Dataset
from pathclip.training.config import TrainConfig
from pathclip.training.folder import resolved
from pathclip.training.image_cache import feature_store
from pathclip.training.inputs import build_loader, build_model, fingerprint, open_datasets
from pathclip.training.judge import check_sets
from pathclip.training.memory import estimate_memory, memory_room

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes:
        config: Resolved.
        datasets: Path, samples and shards of each.
        samples: In the split, over all datasets.
        steps: In all.
        epochs: Passes over the data.
        parameters: Of the model.
        memory_bytes: At the highest point on a CPU, of one process that has the whole batch; see
            `estimate_memory`.
        memory_room_bytes: What a process can have here; None on a GPU, and where the system does not tell.
        disk_bytes: That streamed shards take here at a time, at most; None where nothing is streamed, or
            nobody states how large the shards are.
        image_features: Of ``model.image_cache``: folder, how many there are and will be, bytes of these; or
            None.
    """

    config: TrainConfig
    datasets: list[dict[str, Any]]
    samples: int
    steps: int
    epochs: float
    parameters: int
    memory_bytes: int
    memory_room_bytes: int | None
    disk_bytes: int | None
    image_features: dict[str, Any] | None = None

    def data(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "config": self.config.model_dump(mode="json"),
            "datasets": self.datasets,
            "samples": self.samples,
            "steps": self.steps,
            "epochs": self.epochs,
            "parameters": self.parameters,
            "memory_bytes": self.memory_bytes,
            "memory_room_bytes": self.memory_room_bytes,
            "image_features": self.image_features,
            "disk_bytes": self.disk_bytes,
        }

    def text(self) -> str:
        """For people."""
        room = self.memory_room_bytes
        beside = "" if room is None else f"; {room / 2**30:.2f} GiB can be had"
        found = [f"{d['path']}: {d['samples']} samples in {d['shards']} shard(s)" for d in self.datasets]
        return "\n".join(
            [
                to_toml(self.config).replace("[", "\\["),  # rich would take [data] for a style
                *found,
                f"{self.steps} steps of {self.config.batch.size} = {self.epochs:.1f} passes over the data",
                f"{self.parameters / 1e6:.1f} million parameters",
                *self._cache_lines(),
                f"about {self.memory_bytes / 2**30:.2f} GiB of memory at the highest point{beside}",
                *self._disk(),
            ]
        )

    def _cache_lines(self) -> list[str]:
        cache = self.image_features
        if cache is None:
            return []
        left = cache["total"] - cache["kept"]
        rest = f"{left} are computed before the first step" if left else "none is left to compute"
        return [
            f"{cache['total']} image features ({cache['bytes'] / 2**20:.1f} MiB) in {cache['folder']}: {rest}"
        ]

    def _disk(self) -> list[str]:
        if self.disk_bytes is None:
            return []
        return [f"at most {size_text(self.disk_bytes)} of shards on this disk at a time"]


def make_plan(config: TrainConfig) -> Plan:
    """Look at everything a run needs.

    Raises:
        UserError: As `pathclip.training.train` would at its start.
    """
    config = resolved(config)
    datasets = open_datasets(config, count=False)
    check_sets(config)
    model = build_model(config)
    loader = build_loader(config, datasets, model)
    on_cpu = config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available())
    steps = config.schedule.total_steps(loader.count, config.batch.size)
    return Plan(
        config=config,
        datasets=[
            {
                "path": d.url or str(d.root),
                "samples": d.count(config.data.split),
                "shards": len(d.shards(config.data.split)),
            }
            for d in datasets
        ],
        samples=loader.count,
        steps=steps,
        epochs=steps * config.batch.size / loader.count,
        parameters=sum(p.numel() for p in model.parameters()),
        memory_bytes=estimate_memory(model, config, loader),
        memory_room_bytes=memory_room() if on_cpu else None,
        image_features=_cache(config, model, loader, datasets),
        disk_bytes=loader.shards.most_bytes(loader.window) if loader.shards is not None else None,
    )


def _cache(
    config: TrainConfig, model: DualEncoder, loader: ShardLoader, datasets: list[Dataset]
) -> dict[str, Any] | None:
    if config.model.image_cache is None:
        return None
    found = feature_store(config, model, loader, fingerprint(datasets, config.data.split))
    assert found is not None
    store = found[0]
    total = store.count * store.views
    kept = sum(part.stop - part.start for part in store.parts if store.path(part).is_file())
    return {"folder": str(store.folder), "kept": kept, "total": total, "bytes": 4 * store.dim * total}
