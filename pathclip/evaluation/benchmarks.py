"""The benchmarks by name; a new one is a reader, its task and, if it has them, its prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pathclip.core.registry import Registry
from pathclip.evaluation import published
from pathclip.evaluation.datasets import read_csv, read_folder
from pathclip.evaluation.digestpath import read_digestpath
from pathclip.evaluation.mcq import read_mcq
from pathclip.evaluation.pannuke import read_pannuke
from pathclip.evaluation.pcam import read_pcam
from pathclip.evaluation.protocol import ProtocolName
from pathclip.evaluation.retrieval import read_shards
from pathclip.evaluation.wds import read_wds

__all__ = ["Benchmark", "benchmarks"]

Reader = Callable[[Path, "str | None", ProtocolName], Any]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Where the pictures come from and what is asked of them.

    Attributes:
        task: The question; ``by data`` where the data say it.
        read: ``(data, split, protocol)`` to `LabelledImages` or `CaptionedImages`.
        summary: What ``data`` must hold, for people.
        prompts: Shipped prompt set to use where no classes are given; None takes the classes' names.
        plip_prompts: The same under ``plip-compat``, the repository's wording.
        status: ``layout-only``: tried on miniature trees of the published layout, not yet on the set itself.
        ordered: The classes from least to most, where they are a scale; adds quadratic kappa.
    """

    task: Literal[
        "zeroshot_classification", "zeroshot_retrieval", "image_retrieval", "multiple_choice", "by data"
    ]
    read: Reader
    summary: str
    prompts: str | None = None
    plip_prompts: str | None = None
    status: Literal["seen", "layout-only"] = "seen"
    ordered: tuple[str, ...] = ()


def _any_protocol(read: Callable[[Path, str | None], Any]) -> Reader:
    """A reader whose data are the same whatever the protocol."""
    return lambda data, split, protocol: read(data, split)


def _classes(read: Reader, summary: str, **more: Any) -> Benchmark:
    return Benchmark("zeroshot_classification", read, summary, status="layout-only", **more)


benchmarks: Registry[Benchmark] = Registry("benchmark")
for _name, _benchmark in {
    "folder": Benchmark("zeroshot_classification", _any_protocol(read_folder), "a folder per class"),
    "csv": Benchmark(
        "zeroshot_classification", _any_protocol(read_csv), "a CSV file: path,label[,split,group]"
    ),
    "retrieval": Benchmark(
        "zeroshot_retrieval",
        _any_protocol(read_shards),
        "a dataset folder of `pathclip ingest`, or a CSV or TSV of image,caption",
    ),
    "neighbours": Benchmark(
        "image_retrieval",
        _any_protocol(lambda data, split: (read_csv if data.is_file() else read_folder)(data, split)),
        "a folder per class or a CSV file, picture to picture",
    ),
    "wds": Benchmark(
        "by data", _any_protocol(read_wds), "clip_benchmark's folder: test/nshards.txt, test/0.tar"
    ),
    "mcq": Benchmark(
        "multiple_choice",
        _any_protocol(read_mcq),
        "a JSON file of questions as PathMMU and PathVQA have them",
        status="layout-only",
    ),
    "kather": _classes(
        published.read_kather,
        "NCT-CRC-HE-100K/ and CRC-VAL-HE-7K/, nine colorectal tissues",
        prompts="crc",
        plip_prompts="plip-kather",
    ),
    "pannuke": _classes(
        read_pannuke,
        "Fold 1/ to Fold 3/ with images.npy, types.npy, masks.npy; benign or malignant",
        prompts="benign-malignant",
        plip_prompts="plip-pannuke",
    ),
    "digestpath": _classes(
        read_digestpath,
        "tissue-train-neg/ and tissue-train-pos-v1/; benign or malignant crops",
        prompts="benign-malignant-colon",
        plip_prompts="plip-digestpath",
    ),
    "wsss4luad": _classes(
        published.read_wsss4luad,
        "1.training/ with names ending in [tumor, stroma, normal]",
        prompts="lung-tumor",
        plip_prompts="plip-wsss4luad",
    ),
    "kimia": Benchmark(
        "image_retrieval", published.read_kimia, "Test-patches/ with a folder per slide", status="layout-only"
    ),
    "pcam": _classes(
        read_pcam, "camelyonpatch_level_2_split_test_{x,y}.h5, _meta.csv", prompts="lymph-node-metastasis"
    ),
    "lc25000": _classes(
        published.read_lc25000, "lung_colon_image_set/, five lung and colon classes", prompts="lc25000"
    ),
    "bach": _classes(
        published.read_bach,
        "ICIAR2018_BACH_Challenge/Photos/, four breast classes",
        prompts="bach",
        ordered=("Normal", "Benign", "InSitu", "Invasive"),
    ),
    "mhist": _classes(published.read_mhist, "annotations.csv and images/, HP or SSA", prompts="mhist"),
}.items():
    benchmarks.register(_name)(_benchmark)
