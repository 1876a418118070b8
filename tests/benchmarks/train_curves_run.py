"""One run of ``train_curves.py`` beside this file, in a process of its own; prints JSON.

Sides: ``pathclip`` and ``open_clip`` train and tell the loss of every step; ``judge`` tells the balanced
accuracy of the weights that either left in ``out``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import train_sides

WARMUP = 30  # steps


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Do what the spec asks."""
    import torch

    torch.set_num_threads(spec["threads"])
    return {"pathclip": _ours, "open_clip": _peers, "judge": _judge}[spec["side"]](spec)


def _steps(spec: dict[str, Any]) -> int:
    """Whole batches of a pass, times the passes: open_clip's way of counting."""
    return int(_count(spec) // spec["batch"] * spec["epochs"])


def _count(spec: dict[str, Any]) -> int:
    files = Path(spec["data"]).glob("shards/train-*.stats.json")
    return sum(json.loads(path.read_text())["count"] for path in files)


def _ours(spec: dict[str, Any]) -> dict[str, Any]:
    from pathclip.training import TrainConfig, read_metrics, train

    config = train_sides._config({**spec, "precision": "fp32"})
    config["batch"]["captions"] = "first"
    config |= {
        "out": spec["out"],
        "seed": spec["seed"],
        "loss": {"positives": spec["positives"]},
        "optim": {"lr": spec["lr"], "weight_decay": 0.1},
        "schedule": {"steps": _steps(spec), "warmup_steps": WARMUP},
    }
    run = train(TrainConfig.model_validate(config)).run
    return {"losses": [row["loss"] for row in read_metrics(run / "metrics.jsonl")]}


def _peers(spec: dict[str, Any]) -> dict[str, Any]:
    import open_clip_train.main as trainer

    train_sides._peer_ready(spec)
    losses: list[float] = []
    plain = trainer.create_loss

    def watched(args: Any) -> Any:
        loss = plain(args)
        loss.register_forward_hook(
            lambda _module, _inputs, output: losses.append(float(output["contrastive_loss"].detach()))
        )
        return loss

    trainer.create_loss = watched
    shards = sorted(Path(spec["data"]).glob("shards/train-*.tar"))
    named = {
        "train-data": shards[0].with_name(f"train-{{000000..{len(shards) - 1:06d}}}.tar"),
        "train-num-samples": _count(spec) // spec["batch"] * spec["batch"],
        "dataset-type": "webdataset",
        "batch-size": spec["batch"],
        "workers": 1,  # with more, each rounds its share of batches up
        "model": Path(spec["model"]).stem,
        "precision": "fp32",
        "device": "cpu",
        "logs": spec["out"],
        "name": "peer",
        "epochs": spec["epochs"],
        "warmup": WARMUP,
        "lr": spec["lr"],
        "wd": 0.1,
        "beta1": 0.9,
        "beta2": 0.98,
        "eps": 1e-6,
        "seed": spec["seed"],
        "save-frequency": spec["epochs"],
        "log-every-n-steps": 1000,
    }
    trainer.main([word for name, value in named.items() for word in (f"--{name}", str(value))])
    return {"losses": losses}


def _judge(spec: dict[str, Any]) -> dict[str, Any]:
    import torch

    import pathclip
    from pathclip.encoders import create
    from pathclip.training import TrainConfig
    from pathclip.training.judge import judge

    (*_, saved) = [None, *Path(spec["out"]).glob("peer/checkpoints/epoch_*.pt")]
    if saved is None:
        model = pathclip.load(spec["out"])
    else:
        model = create(spec["model"])
        model.clip.load_state_dict(torch.load(saved, map_location="cpu", weights_only=True)["state_dict"])
    sets = {"zeroshot": {"test": {"data": Path(spec["tiles"]) / "test"}}}
    found = judge(model.eval(), TrainConfig.model_validate({"eval": sets}))
    return {"accuracy": found["test"]["balanced_accuracy"]}


if __name__ == "__main__":
    train_sides.speak(main)
