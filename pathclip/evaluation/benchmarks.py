"""The benchmarks by name; a new one is a reader, its task and, if it has them, its prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pathclip.core.registry import Registry
from pathclip.evaluation.datasets import read_csv, read_folder
from pathclip.evaluation.retrieval import read_shards

__all__ = ["Benchmark", "benchmarks"]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Where the pictures come from and what is asked of them.

    Attributes:
        task: The question.
        read: ``(data, split)`` to `LabelledImages` or `CaptionedImages`.
        summary: What ``data`` must hold, for people.
        prompts: Shipped prompt set to use where no classes are given; None takes the classes' names.
    """

    task: Literal["zeroshot_classification", "zeroshot_retrieval"]
    read: Callable[[Path, str | None], Any]
    summary: str
    prompts: str | None = None


benchmarks: Registry[Benchmark] = Registry("benchmark")
benchmarks.register("folder")(Benchmark("zeroshot_classification", read_folder, "a folder per class"))
benchmarks.register("csv")(
    Benchmark("zeroshot_classification", read_csv, "a CSV file: path,label[,split,group]")
)
benchmarks.register("retrieval")(
    Benchmark("zeroshot_retrieval", read_shards, "a dataset folder of `pathclip ingest`")
)
