"""The stops of the road, one function each, in the order in which a datum passes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathclip.core.files import write_json
from pathclip.demo.baseline import mean_colours, nearest_colour
from pathclip.demo.plan import DemoPlan
from pathclip.synthetic import (
    CLASSES,
    WORDS,
    DumpTruth,
    SlideTruth,
    write_dump,
    write_slide,
    write_tile_folder,
)

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder
    from pathclip.evaluation import EvaluateReport
    from pathclip.heads import Index
    from pathclip.ingest import IngestReport
    from pathclip.slides import SlidePrediction
    from pathclip.training import TrainResult

__all__ = [
    "DIAGNOSES",
    "QUERIES",
    "SlideResult",
    "ZeroShot",
    "build_index",
    "classify_slide",
    "classify_tiles",
    "ingest_dump",
    "make_dump",
    "make_tiles",
    "measure_retrieval",
    "train_model",
    "write_classes",
]

DIAGNOSES = ("adenocarcinoma", "normal_colon_mucosa")
QUERIES = ("adenocarcinoma with cribriform glands", "mesenteric fat", "muscularis propria", "a mucin lake")
TOP_K = (1, 5, 10, 20)


def make_dump(out: Path, seed: int, plan: DemoPlan) -> DumpTruth:
    """A tweet dump with the noise of real ones."""
    return write_dump(
        out / "dump",
        2 * seed,
        pictures=plan.pictures,
        size_px=plan.tile_px,
        mpp=plan.tile_mpp,
        workers=plan.workers,
    )


def make_tiles(out: Path, seed: int, plan: DemoPlan) -> Path:
    """Held-out tiles: painted with an odd seed, the dump with an even one, so that they share nothing."""
    return write_tile_folder(out / "heldout", plan.heldout, 2 * seed + 1, plan.tile_px, plan.tile_mpp)


def write_classes(out: Path) -> tuple[Path, Path]:
    """Two class files for ``--classes``: all tissues, and the diagnoses a slide may have."""
    words = {label: list(names) for label, names in WORDS.items()}
    write_json(out / "tissues.json", words)
    write_json(out / "diagnoses.json", {label: words[label] for label in DIAGNOSES})
    return out / "tissues.json", out / "diagnoses.json"


def ingest_dump(out: Path, dump: DumpTruth, plan: DemoPlan) -> IngestReport:
    """Posts in, shards out."""
    from pathclip.ingest import IngestConfig, ingest

    return ingest(
        IngestConfig(
            sources=(dump.tweets,),
            media=dump.media,
            out=out / "dataset",
            engine="processes" if plan.workers > 1 else "serial",
            workers=plan.workers,
        )
    )


def train_model(out: Path, seed: int, plan: DemoPlan, tissues: Path) -> TrainResult:
    """A tiny dual encoder from scratch; its towers have never seen a picture or a word before."""
    from pathclip.training import TrainConfig, train

    return train(
        TrainConfig.model_validate(
            {
                "out": out / "run",
                "data": {"dataset": out / "dataset"},
                "model": {"name": plan.model},
                "batch": {"size": plan.batch, "augment": {"min_scale": 0.7}},
                "optim": {"lr": plan.lr, "weight_decay": 0.05},
                "schedule": {"steps": plan.steps},
                "eval": {
                    "every_steps": plan.watch_every,
                    "zeroshot": {"heldout": {"data": out / "heldout", "classes": str(tissues)}},
                },
                "checkpoint": {"every_steps": 0, "every_minutes": 0},
                "prompts": str(tissues),
                "seed": seed,
                "device": "cpu",
            }
        )
    )


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """Held-out tiles classified by words, and by colour beside it.

    Attributes:
        report: The evaluation.
        baseline: Balanced accuracy of the nearest mean colour.
    """

    report: EvaluateReport
    baseline: float


def classify_tiles(out: Path, model: DualEncoder, dump: DumpTruth, tissues: Path) -> ZeroShot:
    """Zero-shot classes of the held-out tiles, and the mean-colour baseline on the same tiles."""
    from pathclip.evaluation import EvaluateConfig, evaluate
    from pathclip.heads import balanced_accuracy

    config = EvaluateConfig(data=out / "heldout", classes=str(tissues), out=out / "zeroshot", device="cpu")
    report = evaluate(config, model=model)
    shown = [d for d in dump.decisions if d.kept and d.label and d.file]
    known = mean_colours([dump.media / str(d.file) for d in shown])
    paths = sorted((out / "heldout").rglob("*.jpg"))
    guesses = nearest_colour(known, [str(d.label) for d in shown], mean_colours(paths))
    truth = [path.parent.name for path in paths]
    codes = {label: k for k, label in enumerate(CLASSES)}
    score = balanced_accuracy([codes[t] for t in truth], [codes[g] for g in guesses])
    return ZeroShot(report, float(score))


def measure_retrieval(out: Path, model: DualEncoder) -> EvaluateReport:
    """Pictures and captions of the dataset's test split, found by each other."""
    from pathclip.evaluation import EvaluateConfig, evaluate

    config = EvaluateConfig(
        benchmark="retrieval",
        data=out / "dataset",
        split="test",
        out=out / "retrieval",
        ks=(1, 10),
        device="cpu",
    )
    return evaluate(config, model=model)


@dataclass(frozen=True, slots=True)
class SlideResult:
    """A slide, its truth and what the model makes of it.

    Attributes:
        truth: What was painted where.
        diagnosis: The slide against the diagnoses.
        tissues: The same tiles against all tissues.
        names: (N,) tissue painted at the middle of each tile, or None.
        tissue_accuracy: Share of the tiles on painted tissue whose tissue is named rightly.
        page: The page of the diagnosis.
    """

    truth: SlideTruth
    diagnosis: SlidePrediction
    tissues: SlidePrediction
    names: tuple[str | None, ...]
    tissue_accuracy: float
    page: Path


def classify_slide(
    out: Path, seed: int, plan: DemoPlan, model: DualEncoder, tissues: Path, diagnoses: Path
) -> SlideResult:
    """Paint a slide with one of the diagnoses, classify it, then name the tissue of every tile."""
    from pathclip.slides import SlideConfig, rescore
    from pathclip.slides import classify_slide as classify

    folder = out / "slide"
    folder.mkdir(parents=True, exist_ok=True)
    label = DIAGNOSES[seed % len(DIAGNOSES)]
    truth = write_slide(
        folder / "slide.svs", seed, plan.slide_px, plan.slide_mpp, label=label, format="svs", pen=True
    )
    write_json(folder / "truth.json", truth.to_json())
    config = SlideConfig(
        mpp=plan.field_um / plan.model_px,
        tile_px=plan.model_px,
        min_tissue=0.5,
        top_k=TOP_K,
        label_k=10,
        device="cpu",
    )
    diagnosis = classify(model, truth.path, str(diagnoses), config)
    pages = diagnosis.save(folder / "diagnosis")
    named = rescore(diagnosis.slide, model, str(tissues), config)
    named.save(folder / "tissues")
    names = _painted(truth, named)
    guesses = [named.classes[k] for k in named.tile_scores.argmax(axis=1).tolist()] if len(names) else []
    right = [g == n for g, n in zip(guesses, names, strict=True) if n is not None]
    page = next(path for path in pages if path.suffix == ".html")
    return SlideResult(truth, diagnosis, named, names, float(np.mean(right)) if right else 0.0, page)


def _painted(truth: SlideTruth, prediction: SlidePrediction) -> tuple[str | None, ...]:
    """The tissue at the middle of every tile."""
    half = prediction.slide.plan.stride / 2
    return tuple(truth.label_at(x + half, y + half) for x, y in prediction.xy.tolist())


def build_index(
    out: Path, model: DualEncoder, queries: Sequence[str] = QUERIES
) -> tuple[Index, dict[str, list[Any]]]:
    """An index of every picture of the dataset, and what a few queries find in it."""
    from pathclip.heads import Index

    index = Index.build(model, out / "dataset", out / "index")
    return index, {query: index.search(query, k=8) for query in queries}
