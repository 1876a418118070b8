"""One measurement of training, ours or open_clip's own trainer, in a process of its own; prints JSON.

Called by ``train.py`` beside this file: ``train_sides.py '{"side": ..., "what": ..., ...}'``.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

SKIP = 4  # batches before the clock starts: worker start, first shuffle


def main(spec: dict[str, Any]) -> dict[str, float]:
    """Samples per second of wall clock, and CPU milliseconds per sample where the input path is alone."""
    if spec["side"] == "pathclip":
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `pathclip train` does
    import torch

    torch.set_num_threads(spec["threads"])
    return {
        "input": {"pathclip": _input, "open_clip": _peer_input},
        "step": {"pathclip": _step, "open_clip": _peer_step},
    }[spec["what"].split("+")[0]][spec["side"]](spec)


def _timed(batches: Any, spec: dict[str, Any], ready: Any) -> dict[str, float]:
    """Pull batches, put each into the form that a tower takes, and count."""
    iterator = iter(batches)
    for batch in islice(iterator, SKIP):
        ready(batch)
    cpu, started, samples = _cpu(), time.perf_counter(), 0
    for batch in islice(iterator, spec["batches"]):
        samples += ready(batch)
    seconds = time.perf_counter() - started
    del iterator
    return {
        "samples_per_s": samples / seconds,
        "samples": samples,
        "self_cpu_ms": 1e3 * (_cpu() - cpu) / samples,
    }


def _cpu() -> float:
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime


def _input(spec: dict[str, Any]) -> dict[str, float]:
    from pathclip.batches import ShardLoader
    from pathclip.encoders import create
    from pathclip.shards import Dataset
    from pathclip.training import TrainConfig

    config = TrainConfig.model_validate(_config(spec))
    model = create(spec["model"])
    loader = ShardLoader(
        Dataset.open(spec["data"]), "train", config.batch, model.tokenize, image_size=model.image_size, seed=0
    )

    def normalised(batch: Any) -> int:
        return len(model.normalize_pixels(batch.images))

    return _timed(
        loader, spec, normalised if spec["what"] == "input+normalise" else lambda batch: len(batch.images)
    )


def _config(spec: dict[str, Any]) -> dict[str, Any]:
    """The same work as open_clip's transform: a crop of 0.9 to 1 of the area, nothing else."""
    plain = {
        "min_scale": 0.9,
        "max_aspect": 4 / 3,
        "flips": False,
        "quarter_turns": False,
        "stain": 0,
        "stain_shift": 0,
    }
    return {
        "data": {"dataset": spec["data"]},
        "model": {"name": spec["model"]},
        "batch": {"size": spec["batch"], "workers": spec["workers"], "augment": plain},
        "checkpoint": {"every_steps": 0, "every_minutes": 0},
        "precision": spec["precision"],
        "threads": spec["threads"],
    }


def _step(spec: dict[str, Any]) -> dict[str, float]:
    from pathclip.training import TrainConfig, read_metrics, train

    config = {**_config(spec), "out": spec["out"], "schedule": {"steps": SKIP + spec["batches"]}}
    run = train(TrainConfig.model_validate(config)).run
    rows = read_metrics(run / "metrics.jsonl")[SKIP:]
    seconds = sum(spec["batch"] / row["samples_per_s"] for row in rows)
    return {
        "samples_per_s": spec["batch"] * len(rows) / seconds,
        "samples": spec["batch"] * len(rows),
        "loss_last": sum(row["loss"] for row in rows[-5:]) / 5,
    }


def _peer_arguments(spec: dict[str, Any]) -> list[str]:
    count = sum(
        json.loads(path.read_text())["count"] for path in Path(spec["data"]).glob("shards/train-*.stats.json")
    )
    shards = sorted(Path(spec["data"]).glob("shards/train-*.tar"))
    pattern = str(shards[0].with_name(f"train-{{000000..{len(shards) - 1:06d}}}.tar"))
    needed = (spec["batches"] + SKIP) * spec["batch"]
    return [
        *(
            "--train-data",
            pattern,
            "--train-num-samples",
            str(min(count, needed)),
            "--dataset-type",
            "webdataset",
        ),
        *(
            "--batch-size",
            str(spec["batch"]),
            "--workers",
            str(spec["workers"]),
            "--model",
            Path(spec["model"]).stem,
        ),
        *(
            "--precision",
            {"fp32": "fp32", "bf16": "amp_bf16"}[spec["precision"]],
            "--device",
            "cpu",
            "--logs",
            spec["out"],
        ),
        *("--epochs", str(-(-needed // min(count, needed)) + 1), "--name", "peer", "--save-frequency", "0"),
        *("--warmup", "10", "--lr", "1e-3", "--wd", "0.1", "--log-every-n-steps", "1000"),
    ]


def _peer_ready(spec: dict[str, Any]) -> None:
    import open_clip

    open_clip.add_model_config(spec["model"])


def _peer_input(spec: dict[str, Any]) -> dict[str, float]:
    import open_clip
    from open_clip_train.data import get_wds_dataset
    from open_clip_train.params import parse_args

    _peer_ready(spec)
    args = parse_args(_peer_arguments(spec))
    args.world_size, args.rank, args.distributed = 1, 0, False
    _, transform, _ = open_clip.create_model_and_transforms(args.model)
    tokenizer = open_clip.get_tokenizer(args.model)

    def batches() -> Any:
        info = get_wds_dataset(args, transform, True, tokenizer=tokenizer)
        for epoch in range(10**6):
            info.set_epoch(epoch)
            yield from info.dataloader

    return _timed(batches(), spec, lambda batch: len(batch[0]))


def _peer_step(spec: dict[str, Any]) -> dict[str, float]:
    import open_clip_train.main as trainer

    _peer_ready(spec)
    seconds: list[float] = []
    plain = trainer.train_one_epoch

    def timed(model: Any, data: Any, *rest: Any, **named: Any) -> Any:
        started = time.perf_counter()
        result = plain(model, data, *rest, **named)
        seconds.append(time.perf_counter() - started)
        samples.append(data["train"].dataloader.num_samples)
        return result

    samples: list[int] = []
    trainer.train_one_epoch = timed
    trainer.main(_peer_arguments(spec))
    return {"samples_per_s": sum(samples[1:]) / sum(seconds[1:]), "samples": sum(samples[1:])}


def speak(run: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer the spec on the command line with one line of JSON; all else goes to standard error."""
    asked = json.loads(sys.argv[1])
    shown, sys.stdout = sys.stdout, sys.stderr
    shown.write(json.dumps(run(asked)) + "\n")
    shown.flush()
    os._exit(0)  # the peer's workers have nothing more to say


if __name__ == "__main__":
    speak(main)
