"""Models of a few weights, configs with a change, runs cut back or on two ranks: for the training tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathclip.training import TrainConfig

TINY_MODEL: dict[str, dict[str, Any]] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
}

TINY_COCA = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {
            **TINY_MODEL["model_cfg"]["vision_cfg"],
            "attentional_pool": True,
            "attn_pooler_queries": 4,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {**TINY_MODEL["model_cfg"]["text_cfg"], "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    },
}


def changed(config: TrainConfig, **tables: Any) -> TrainConfig:
    """A copy with some values of some tables changed."""
    values = config.model_dump()
    for name, change in tables.items():
        values[name] = {**values[name], **change} if isinstance(change, dict) else change
    return TrainConfig.model_validate(values)


def changed_model(config: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A model's config with some values of its parts changed."""
    parts = dict(config["model_cfg"])
    for name, value in change.items():
        parts[name] = {**parts[name], **value} if isinstance(value, dict) else value
    return {"model_cfg": parts}


def cut_back(run: Path, step: int) -> None:
    """Leave the run as a kill after checkpoint ``step`` would: rows and keys beyond it, a torn last line."""
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name[5:]) > step:
            shutil.rmtree(folder)
    shutil.rmtree(run / "model")
    (run / "checkpoints" / ".step-00000099.part").mkdir()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[: step + 1]) + lines[-1][:20])


def on_two_ranks(
    file: Path, *arguments: str, program: Sequence[str] = ("-m", "pathclip")
) -> subprocess.CompletedProcess[str]:
    """``pathclip train FILE`` under torchrun."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [sys.executable, *command, *program, "train", str(file), "--json", *arguments],
        capture_output=True,
        text=True,
        cwd=file.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
