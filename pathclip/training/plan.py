"""``--dry-run``: what a run would do, without doing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pathclip.core.config import to_toml
from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder
from pathclip.training.config import TrainConfig
from pathclip.training.folder import resolved
from pathclip.training.inputs import build_loader, build_model, open_datasets
from pathclip.training.judge import check_sets

__all__ = ["Plan", "estimate_memory", "make_plan"]


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
        memory_bytes: Weights, gradients, optimizer state and one batch's activations, on one process.
    """

    config: TrainConfig
    datasets: list[dict[str, Any]]
    samples: int
    steps: int
    epochs: float
    parameters: int
    memory_bytes: int

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
        }

    def text(self) -> str:
        """For people."""
        found = [f"{d['path']}: {d['samples']} samples in {d['shards']} shard(s)" for d in self.datasets]
        return "\n".join(
            [
                to_toml(self.config).replace("[", "\\["),  # rich would take [data] for a style
                *found,
                f"{self.steps} steps of {self.config.batch.size} = {self.epochs:.1f} passes over the data",
                f"{self.parameters / 1e6:.1f} million parameters",
                f"about {self.memory_bytes / 2**30:.2f} GiB on top of Python and torch",
            ]
        )


def make_plan(config: TrainConfig) -> Plan:
    """Look at everything a run needs.

    Raises:
        UserError: As `pathclip.training.train` would at its start.
    """
    config = resolved(config)
    datasets = open_datasets(config)
    check_sets(config)
    model = build_model(config)
    loader = build_loader(config, datasets, model)
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
        memory_bytes=estimate_memory(model, config),
    )


def estimate_memory(model: DualEncoder, config: TrainConfig) -> int:
    """Bytes of weights, gradients, two AdamW moments, and the activations of one batch.

    Activations are counted, not guessed: what autograd keeps of two samples, times half the batch.
    """
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # so that no two share an address
        return tensor

    alive: list[torch.Tensor] = []
    images = torch.zeros(2, 3, model.image_size, model.image_size, dtype=torch.uint8)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16")
    state = {name: value.clone() for name, value in model.clip.named_buffers()}
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), cast:
            model.train()(images, model.tokenize(["a", "b"]))
    except RuntimeError as error:
        raise UserError(f"model {model.name} does not run: {str(error).splitlines()[0]}") from None
    finally:
        for name, value in model.clip.named_buffers():
            value.copy_(state[name])
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    copies = 4 if config.optim.ema is None else 5
    together = -(-config.batch.size // config.accumulation)
    return copies * parameters + sum(kept.values()) * together // 2
