"""`run_demo`: the whole road on embedded data, and ``summary.json`` about it."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pathclip._version import __version__
from pathclip.core.errors import UserError
from pathclip.core.files import write_json
from pathclip.demo import road
from pathclip.demo.plan import FULL, DemoPlan

__all__ = ["SCHEMA", "run_demo"]

log = logging.getLogger("pathclip")
SCHEMA = "pathclip.demo/1"
MARKER = ".pathclip-demo"
Show = Callable[[Any], None]


def run_demo(
    out: str | Path, seed: int = 0, *, plan: DemoPlan = FULL, show: Show | None = None
) -> dict[str, Any]:
    """Go the whole road: dump, ingest, train, classify tiles and a slide, retrieve, search.

    Nothing is downloaded. A folder that holds an earlier demo is replaced.

    Args:
        out: The folder for everything that is made.
        seed: Of the data and of training.
        plan: Sizes of the stages.
        show: Called with what a person should see at each stop: text or rich renderables.

    Returns:
        The content of ``summary.json`` (schema ``pathclip.demo/1``).

    Raises:
        UserError: If ``out`` holds something else, or the seed is negative.
    """
    from pathclip.demo.page import write_page

    folder = _prepare(Path(out), seed)
    step = _Stops(show or (lambda item: None))
    tissues, diagnoses = road.write_classes(folder)

    step("painting a tweet dump and held-out tiles")
    dump = road.make_dump(folder, seed, plan)
    road.make_tiles(folder, seed, plan)

    step(f"ingesting {dump.tweets}")
    ingested = road.ingest_dump(folder, dump, plan)
    for item in ingested.funnel()[:2]:
        step.show(item)

    step(f"training {plan.model} from scratch, {plan.steps} steps")
    trained = road.train_model(folder, seed, plan, tissues)

    step("classifying held-out tiles by words")
    from pathclip.encoders import load

    model = load(trained.model, device="cpu")
    zeroshot = road.classify_tiles(folder, model, dump, tissues)
    retrieval = road.measure_retrieval(folder, model)

    step("classifying a pyramidal slide")
    slide = road.classify_slide(folder, seed, plan, model, tissues, diagnoses)

    step("searching by text")
    index, found = road.build_index(folder, model)

    summary = {
        "schema": SCHEMA,
        "version": __version__,
        "seed": seed,
        "seconds": 0.0,
        "ingest": {key: ingested.data[key] for key in ("in", "kept", "rejected", "by_code")},
        "train": {
            "steps": trained.steps,
            "loss_first": trained.loss_first,
            "loss_last": trained.loss_last,
            "samples_per_s": trained.samples_per_s,
        },
        "zeroshot": _zeroshot(zeroshot),
        "retrieval": {way: _recall(retrieval.metrics[way]) for way in ("image_to_text", "text_to_image")},
        "slide": {
            "label": slide.diagnosis.label,
            "expected": slide.truth.label,
            "tiles": len(slide.names),
            "tissue_accuracy": slide.tissue_accuracy,
            "html": str(slide.page.relative_to(folder)),
        },
        "index": {"pictures": len(index), "queries": list(found)},
        "page": "index.html",
    }
    summary["seconds"] = round(step.seconds(), 1)
    write_page(folder, summary, ingested, zeroshot, slide, index, found)
    write_json(folder / "summary.json", summary)
    return summary


def _zeroshot(result: road.ZeroShot) -> dict[str, Any]:
    metrics, intervals = result.report.metrics, result.report.intervals
    return {
        "balanced_accuracy": metrics["balanced_accuracy"],
        "interval": list(intervals["balanced_accuracy"]),
        "chance": 1 / len(result.report.classnames),
        "n": result.report.counts["scored"],
        "baseline": result.baseline,
        "baseline_name": "nearest mean colour of the training pictures",
    }


def _recall(way: dict[str, Any]) -> dict[str, Any]:
    return {**{k: way[k] for k in ("R@1", "R@10")}, "random": {k: way["random"][k] for k in ("R@1", "R@10")}}


def _prepare(out: Path, seed: int) -> Path:
    if seed < 0:
        raise UserError(f"seed is {seed}; expected 0 or more")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; expected a folder")
    if out.is_dir() and any(out.iterdir()):
        if not (out / MARKER).is_file():
            raise UserError(f"{out} holds something else than a demo; choose another --out or empty it")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text("made by pathclip demo; replaced by the next run\n", encoding="utf-8")
    return out


class _Stops:
    """Says which stop the demo has reached, and when."""

    def __init__(self, show: Show) -> None:
        self.show = show
        self.started = time.monotonic()

    def __call__(self, what: str) -> None:
        self.show(f"\n{self.seconds():4.0f} s  {what}")
        log.debug("demo: %s", what)

    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self.started
