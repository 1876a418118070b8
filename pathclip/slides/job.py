"""Many slides: one bad one never stops the others, a rerun resumes, and the tables say how each one ended."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathclip.core import engine as engines
from pathclip.core.errors import UserError
from pathclip.core.files import read_json, strict_json
from pathclip.slides.cohort import write_cohort
from pathclip.slides.config import SlideConfig
from pathclip.slides.draws import draw_classifiers
from pathclip.slides.folder import OutputFolder, SlideRecord
from pathclip.slides.identity import FEATURE_SETTINGS, model_sha256
from pathclip.slides.inputs import SlideInput, read_inputs
from pathclip.slides.mixed import work_mixed
from pathclip.slides.patients import pool_patients
from pathclip.slides.result import write_run_result
from pathclip.slides.tables import write_fractions, write_patients, write_segments
from pathclip.slides.tasks import SlideJob, SlideTask, load_model
from pathclip.slides.work import work_ahead, work_on

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder
    from pathclip.heads import Prompts

__all__ = ["SlideRun", "run_slides"]

log = logging.getLogger("pathclip")
TABLES_EVERY_S = 5.0
NOT_THE_ANSWER = ("batch_size", "threads", "device", "max_unreadable", "mix_slides", "compile")
"""Settings that decide how fast a run is and not what it says."""


@dataclass(frozen=True, slots=True)
class SlideRun:
    """What became of many slides.

    Attributes:
        out: The folder with everything.
        records: One per slide, in the order given.
        skipped: Names of slides that were done already, with the same key.
        elsewhere: Names of slides that another process is working on.
    """

    out: Path
    records: tuple[SlideRecord, ...]
    skipped: frozenset[str] = frozenset()
    elsewhere: tuple[str, ...] = ()

    def count(self, state: str) -> int:
        """Number of slides that ended as ``done``, ``failed`` or ``empty``."""
        return sum(record.state == state for record in self.records)

    @property
    def exit_code(self) -> int:
        """0 if no slide failed; 2 if all failed by the user's mistake; otherwise 1."""
        failed = [record for record in self.records if record.state == "failed"]
        if not failed:
            return 0
        return 2 if len(failed) == len(self.records) and all(record.mistake for record in failed) else 1


def run_slides(
    slides: str | Path | Iterable[str | Path | SlideInput],
    model: DualEncoder | str | Path,
    classes: Any | None,
    config: SlideConfig | None = None,
    out: str | Path = "slides",
    *,
    features: Iterable[str | Path] = (),
    overwrite: bool = False,
    engine: engines.EngineName = "serial",
    workers: int | None = None,
) -> SlideRun:
    """Classify or embed many slides into a folder.

    A slide that was done with the same file, settings, model and prompts is skipped; one whose features are
    there is only scored anew.

    Args:
        slides: Slides, patterns, or a CSV with columns slide[, mpp, patient, label].
        model: A `DualEncoder`, or whatever `pathclip.load` takes; engines other than serial need the latter.
        classes: As for `classify_slide`; None only encodes.
        config: How to read, tile and score.
        out: The folder.
        features: Cached features to score instead of reading slides; slides of the same stem give pictures.
        overwrite: Do finished slides again.
        engine: ``serial``, ``processes`` or ``ray``.
        workers: Processes; by default one per core.

    Raises:
        UserError: If inputs, model or prompts cannot be read, or the folder cannot be written.
    """
    from pathclip.heads import load_prompts

    config = config or SlideConfig()
    features = list(dict.fromkeys(Path(path).resolve() for path in features))
    inputs = [] if features and not slides else read_inputs(slides)
    if features and classes is None:
        raise UserError("features can only be scored, and for that classes are needed")
    if features and (set_here := _changed(config)):
        raise UserError(
            f"{', '.join(set_here)} cannot be set with --features: that was decided when they were made"
        )
    if config.mask is not None and not config.mask.is_dir() and len(inputs) > 1:
        raise UserError(
            f"--mask {config.mask} is one mask for {len(inputs)} slides; "
            "give a folder of masks named as the slides"
        )
    if engine != "serial" and config.mix_slides:
        raise UserError(f"mix_slides fills one process's batches; with engine {engine!r} leave it out")
    if engine != "serial" and not isinstance(model, str | Path):
        raise UserError(f"engine {engine!r} needs the model by name or path, as each worker loads its own")
    folder = OutputFolder(out)
    prompts = load_prompts(classes) if classes is not None else None  # before the model: quicker to fail
    if prompts is not None:
        config.background_columns(prompts.labels)  # complains here rather than once per slide
    by_name = isinstance(model, str | Path)
    encoder = load_model(str(model), config) if by_name else model
    job = _job(encoder, prompts, config, folder, overwrite)
    if engine != "serial":
        cores = os.cpu_count() or 1
        threads = max(1, cores // (workers or cores))
        job = replace(job, model=str(model), torch_threads=threads)
    run, shown = _work_through(_tasks(inputs, features, folder), job, folder, engine, workers)
    if prompts is not None:
        patients = pool_patients(shown, config, prompts.labels)
        write_fractions(folder.path, shown, prompts.labels)
        write_patients(folder.path, patients, config, prompts.labels)
        write_segments(folder.path, shown, config)
        result = write_run_result(folder.path, shown, patients, config, prompts, encoder, job.model_sha)
        write_cohort(folder, shown, patients, prompts.labels, read_json(result))
    return run


def _job(
    encoder: DualEncoder, prompts: Prompts | None, config: SlideConfig, folder: OutputFolder, overwrite: bool
) -> SlideJob:
    from pathclip.heads import build_classifier

    sha = model_sha256(encoder)
    shared = config.model_dump(mode="json", exclude=set(NOT_THE_ANSWER))
    run = [sha, shared, prompts.sha256 if prompts else None]
    draws = draw_classifiers(encoder, prompts, config.draws) if prompts and config.draws else None
    return SlideJob(
        model=encoder,
        model_sha=sha,
        precision=encoder.precision,
        config=config,
        out=folder.path,
        run=hashlib.sha256(strict_json(run).encode()).hexdigest(),
        overwrite=overwrite,
        prompts=prompts,
        classifier=np.asarray(build_classifier(encoder, prompts)) if prompts else None,
        draw_classifiers=draws,
    )


def _changed(config: SlideConfig) -> list[str]:
    """Settings that decide features and are not the default."""
    default = SlideConfig()
    return [name for name in (*FEATURE_SETTINGS, "mask") if getattr(config, name) != getattr(default, name)]


def _tasks(inputs: list[SlideInput], features: list[Path], folder: OutputFolder) -> list[SlideTask]:
    if not features:
        return [
            SlideTask(slide, name)
            for slide, name in zip(inputs, folder.names([slide.path for slide in inputs]), strict=True)
        ]
    slides = {slide.path.stem: slide for slide in inputs}
    found = [slides.pop(path.stem, None) or SlideInput(str(path), path) for path in features]
    if slides:
        raise UserError(
            f"slide {next(iter(slides.values())).given} has no features file of its name among --features"
        )
    here = [folder.record(path.stem) if path.parent == folder.path.resolve() else None for path in features]
    names = folder.names(features)
    return [
        SlideTask(slide, known.name if known else name, path, known)
        for slide, name, path, known in zip(found, names, features, here, strict=True)
    ]


def _work_through(
    tasks: list[SlideTask],
    job: SlideJob,
    folder: OutputFolder,
    engine: engines.EngineName,
    workers: int | None,
) -> tuple[SlideRun, list[SlideRecord]]:
    order = [task.name for task in tasks]
    folder.sweep(order)
    header: list[str] = []
    if job.prompts is not None:
        header = [f"K{k}_{cls}" for k in job.config.top_k for cls in job.prompts.labels]
    records: dict[str, SlideRecord] = {}
    skipped, elsewhere, last = set(), [], time.monotonic()
    if engine == "serial":
        done = (work_mixed if job.config.mix_slides else work_ahead)(tasks, job)
    else:
        done = engines.map(functools.partial(work_on, job=job), tasks, engine=engine, workers=workers)
    for task, (record, how) in done:
        if record is None:
            elsewhere.append(task.name)
            log.warning("%s: another process is working on it", task.name)
            continue
        records[task.name] = record
        if how == "skipped":
            skipped.add(task.name)
        _say(record, how, len(records), len(tasks))
        if time.monotonic() - last > TABLES_EVERY_S:
            folder.write_tables(order, job.run, header)
            last = time.monotonic()
    shown = folder.write_tables(order, job.run, header)
    run = SlideRun(
        out=folder.path,
        records=tuple(records[name] for name in order if name in records),
        skipped=frozenset(skipped),
        elsewhere=tuple(elsewhere),
    )
    return run, shown


def _say(record: SlideRecord, how: str, number: int, total: int) -> None:
    place = f"[{number}/{total}] {record.slide}"
    if record.state == "failed":
        log.warning("%s: failed: %s", place, record.reason)
    elif record.state == "empty":
        log.warning("%s: empty: %s", place, record.reason)
    elif how == "skipped":
        log.info("%s: done before, skipped (--overwrite does it again)", place)
    else:
        label = f"{record.label}, " if record.label else ""
        lost = f", {record.unreadable} unreadable" if record.unreadable else ""
        log.info("%s: %s%d tiles%s (%s%.1f s)", place, label, record.tiles, lost, how, record.seconds)
