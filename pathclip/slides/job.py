"""Many slides: one bad one never stops the others, a rerun resumes, and the tables say how each one ended."""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathclip.core import engine as engines
from pathclip.core.errors import FaultError, PathclipError, UserError
from pathclip.core.files import claim, strict_json
from pathclip.slides.classify import embed_open, features_key, model_sha256, score
from pathclip.slides.config import SlideConfig
from pathclip.slides.export import save_prediction
from pathclip.slides.features import SlideFeatures, read_features
from pathclip.slides.folder import OutputFolder, SlideRecord, place_of
from pathclip.slides.inputs import SlideInput, read_inputs
from pathclip.slides.slide import check_file, open_slide

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder
    from pathclip.heads import Prompts

__all__ = ["SlideRun", "run_slides"]

log = logging.getLogger("pathclip")
TABLES_EVERY_S = 5.0


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


@dataclass(frozen=True, slots=True)
class _Task:
    """One slide, as workers get it."""

    slide: SlideInput
    name: str
    features: Path | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """What all slides of a run share, as workers get it."""

    model: DualEncoder | str
    model_sha: str
    precision: str
    config: SlideConfig
    out: Path
    run: str
    overwrite: bool
    prompts: Prompts | None = None
    classifier: np.ndarray | None = None
    torch_threads: int | None = None


@dataclass(slots=True)
class _Found:
    """What is known of a slide while it is worked on."""

    key: str = ""
    features: SlideFeatures | None = None
    files: list[str] = field(default_factory=list)
    outcome: dict[str, Any] = field(default_factory=dict)


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
    config = config or SlideConfig()
    features = [Path(path) for path in features]
    inputs = [] if features and not slides else read_inputs(slides)
    if features and classes is None:
        raise UserError("features can only be scored, and for that classes are needed")
    if config.mask is not None and not config.mask.is_dir() and len(inputs) > 1:
        raise UserError(
            f"--mask {config.mask} is one mask for {len(inputs)} slides; "
            "give a folder of masks named as the slides"
        )
    if engine != "serial" and not isinstance(model, str | Path):
        raise UserError(f"engine {engine!r} needs the model by name or path, as each worker loads its own")
    folder = OutputFolder(out)
    job = _prepare(model, classes, config, folder, overwrite, engine, workers)
    tasks = _tasks(inputs, features, folder)
    return _work_through(tasks, job, folder, engine, workers)


def _prepare(
    model: DualEncoder | str | Path,
    classes: Any | None,
    config: SlideConfig,
    folder: OutputFolder,
    overwrite: bool,
    engine: str,
    workers: int | None,
) -> _Job:
    from pathclip.heads import build_classifier, load_prompts

    prompts = (
        load_prompts(classes) if classes is not None else None
    )  # before the model: it is quicker to fail
    encoder = _load(str(model), config.device, config.precision) if isinstance(model, str | Path) else model
    sha = model_sha256(encoder)
    shared = config.model_dump(mode="json", exclude={"batch_size", "threads", "device", "max_unreadable"})
    run = [sha, shared, prompts.sha256 if prompts else None]
    count = (workers or os.cpu_count() or 1) if engine == "processes" else 1
    return _Job(
        model=encoder if engine == "serial" else str(model),
        model_sha=sha,
        precision=encoder.precision,
        config=config,
        out=folder.path,
        run=hashlib.sha256(strict_json(run).encode()).hexdigest(),
        overwrite=overwrite,
        prompts=prompts,
        classifier=np.asarray(build_classifier(encoder, prompts)) if prompts else None,
        torch_threads=max(1, (os.cpu_count() or 1) // count) if count > 1 else None,
    )


def _tasks(inputs: list[SlideInput], features: list[Path], folder: OutputFolder) -> list[_Task]:
    if not features:
        return [
            _Task(slide, name)
            for slide, name in zip(inputs, folder.names([slide.path for slide in inputs]), strict=True)
        ]
    slides = {slide.path.stem: slide for slide in inputs}
    tasks = []
    for path, name in zip(features, folder.names(features), strict=True):
        slide = slides.pop(path.stem, None) or SlideInput(str(path), path)
        tasks.append(_Task(slide, name, path))
    if slides:
        raise UserError(
            f"slide {next(iter(slides.values())).given} has no features file of its name among --features"
        )
    return tasks


def _work_through(
    tasks: list[_Task], job: _Job, folder: OutputFolder, engine: engines.EngineName, workers: int | None
) -> SlideRun:
    order = [task.name for task in tasks]
    header: list[str] = []
    if job.prompts is not None:
        header = [f"K{k}_{cls}" for k in job.config.top_k for cls in job.prompts.labels]
    records: dict[str, SlideRecord] = {}
    skipped, elsewhere, last = set(), [], time.monotonic()
    for task, (record, how) in engines.map(
        functools.partial(_one, job=job), tasks, engine=engine, workers=workers
    ):
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
    if job.prompts is not None:
        from pathclip.slides.result import write_run_result

        write_run_result(folder.path, shown, job.config, job.prompts, _model_of(job), job.model_sha)
    return run


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


def _one(task: _Task, job: _Job) -> tuple[SlideRecord | None, str]:
    """Do one slide; whatever happens to it ends as its record. None: another process has it."""
    folder = OutputFolder(job.out)
    started = time.monotonic()
    found = _Found()
    with claim(folder.claim_path(task.name)) as owned:
        if not owned:
            return None, ""
        try:
            found.key = _key(task, job)
            before = folder.record(task.name) if not job.overwrite else None
            if before and before.key == found.key and before.state != "failed" and folder.is_whole(before):
                return before, "skipped"
            how = _classify(task, job, folder, found)
            if _key(task, job) != found.key:
                raise FaultError(f"{task.slide.path} changed while it was read; run again")
        except PathclipError as error:
            _stop_if_disk_is_full(error)
            how, found.outcome = "", _failure(str(error), isinstance(error, UserError))
        except Exception as error:
            if os.environ.get("PATHCLIP_DEBUG"):
                raise
            how, found.outcome = "", _failure(f"{type(error).__name__}: {error}", mistake=False)
        record = _record(task, job, found, time.monotonic() - started)
        folder.write_record(record)
        return record, how


def _classify(task: _Task, job: _Job, folder: OutputFolder, found: _Found) -> str:
    """Features, scores and files of one slide; returns how it was done, for the log."""
    model = _model_of(job)
    config = job.config
    slide = None
    if task.features is None or task.slide.path != task.features:
        slide = open_slide(task.slide.path)
    try:
        cached = task.features or folder.path / f"{task.name}.h5"
        features = _cached(task, job, cached)
        how = "scored from cached features, " if features else ""
        folder.record_path(task.name).unlink(missing_ok=True)  # from here on the old files are being replaced
        if features is None:
            assert slide is not None
            features = embed_open(model, slide, config, row_mpp=task.slide.mpp, model_sha=job.model_sha)
            features.save(folder.path, task.name)
        found.features = features
        if task.features is None:
            found.files = [f"{task.name}.h5"]
        if job.prompts is not None:
            prediction = score(
                model, features, job.prompts, job.classifier, config, slide=slide, model_sha=job.model_sha
            )
            written = save_prediction(prediction, folder.path, task.name, features=False)
            found.files += [path.name for path in written]
            found.outcome = {
                "label": prediction.label,
                "agreement": prediction.agreement,
                "scores": {str(k): row for k, row in prediction.scores.items()},
            }
        return how
    finally:
        if slide is not None:
            slide.close()


def _cached(task: _Task, job: _Job, path: Path) -> SlideFeatures | None:
    """Features to score: those the user names, or those that an earlier run left for the same key."""
    if task.features is not None:
        return read_features(path)
    if job.overwrite or not path.is_file():
        return None
    try:
        features = read_features(path)
    except UserError:
        return None
    return features if features.key == features_key(*_key_parts(task, job)) else None


def _key_parts(task: _Task, job: _Job) -> tuple[Path, str, SlideConfig, float | None]:
    return task.slide.path, f"{job.model_sha} {job.precision}", job.config, task.slide.mpp


def _key(task: _Task, job: _Job) -> str:
    if task.features is not None:
        try:
            stat = task.features.stat()
        except OSError:
            raise UserError(f"features file {task.features} does not exist") from None
        inner = f"{stat.st_size} {stat.st_mtime_ns} {task.slide.path != task.features}"
    else:
        check_file(task.slide.path)
        inner = features_key(*_key_parts(task, job))
    return hashlib.sha256(f"{inner} {job.run} {task.slide.patient} {task.slide.truth}".encode()).hexdigest()


def _failure(reason: str, mistake: bool) -> dict[str, Any]:
    return {"state": "failed", "reason": " ".join(reason.split()), "mistake": mistake}


def _record(task: _Task, job: _Job, found: _Found, seconds: float) -> SlideRecord:
    slide = task.slide
    shown: dict[str, Any] = {"state": "done", **found.outcome}
    if found.features is not None and shown["state"] == "done":
        features = found.features
        shown |= {"tiles": len(features.xy), "unreadable": features.unreadable, "files": tuple(found.files)}
        if features.mpp is not None:
            shown |= {"mpp": features.mpp.value, "mpp_source": features.mpp.source}
        if features.state == "empty":
            shown |= {"state": "empty", "reason": _why_empty(features)}
    try:
        stat = slide.path.stat()
        file = (slide.path.name, stat.st_size, stat.st_mtime_ns)
    except OSError:
        file = None
    return SlideRecord(
        name=task.name,
        slide=slide.given,
        place=place_of(slide.path),
        file=file,
        key=found.key,
        run=job.run,
        seconds=round(seconds, 3),
        patient=slide.patient,
        truth=slide.truth,
        **shown,
    )


def _why_empty(features: SlideFeatures) -> str:
    if features.unreadable:
        return f"none of its {features.unreadable} tiles can be read"
    return (
        f"no tile with enough tissue ({features.tissue.area_mm2:.2f} mm2 of tissue found); "
        "--mask gives your own mask, --set tissue=false tiles everything"
    )


def _stop_if_disk_is_full(error: PathclipError) -> None:
    cause = error.__cause__
    if (
        isinstance(error, FaultError)
        and isinstance(cause, OSError)
        and cause.errno in (errno.ENOSPC, errno.EDQUOT)
    ):
        raise error  # every further slide would be computed in vain


def _model_of(job: _Job) -> DualEncoder:
    if not isinstance(job.model, str):
        return job.model
    if job.torch_threads is not None:
        import torch

        torch.set_num_threads(job.torch_threads)
    return _load(job.model, job.config.device, job.config.precision)


@functools.lru_cache(maxsize=1)
def _load(name: str, device: str, precision: str) -> DualEncoder:
    import torch

    from pathclip.encoders import load

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return load(name, device=device, precision=precision)
