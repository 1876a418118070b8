"""One slide as a worker does it: features, scores, files, and the record that says how it ended."""

from __future__ import annotations

import base64
import errno
import functools
import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathclip.core.errors import FaultError, PathclipError, UserError
from pathclip.core.files import claim, sha256_file
from pathclip.slides.classify import embed_open, score
from pathclip.slides.cohort import write_thumbnail
from pathclip.slides.config import SlideConfig
from pathclip.slides.draws import draw_winners
from pathclip.slides.export import save_prediction
from pathclip.slides.features import SlideFeatures, read_features
from pathclip.slides.folder import OutputFolder, SlideRecord, place_of
from pathclip.slides.foreign import with_slide
from pathclip.slides.identity import features_key
from pathclip.slides.inputs import SlideInput
from pathclip.slides.segment import drawing_of, write_segment
from pathclip.slides.slide import check_file, open_slide

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder
    from pathclip.heads import Prompts
    from pathclip.slides.prediction import SlidePrediction

__all__ = ["SlideJob", "SlideTask", "load_model", "model_of", "work_on"]


@dataclass(frozen=True, slots=True)
class SlideTask:
    """One slide, as workers get it.

    Attributes:
        slide: What the user named.
        name: Stem of its files.
        features: Cached features to score instead of reading the slide.
        known: The slide's record, where the features lie in the output folder itself; they stay that slide's.
    """

    slide: SlideInput
    name: str
    features: Path | None = None
    known: SlideRecord | None = None


@dataclass(frozen=True, slots=True)
class SlideJob:
    """What all slides of a run share, as workers get it.

    Attributes:
        model: The model, or its name for workers that load their own.
        model_sha: Its hash.
        precision: Of its forward pass.
        config: How to read, tile and score.
        out: The folder.
        run: Hash of settings, model and prompts; see `SlideRecord.run`.
        overwrite: Do finished slides again.
        prompts: The classes; None only encodes.
        classifier: (D, C), made once for all slides.
        draw_classifiers: (P, D, C) of the draws of prompts, where they are asked for.
        torch_threads: Threads for a worker's forward pass.
    """

    model: DualEncoder | str
    model_sha: str
    precision: str
    config: SlideConfig
    out: Path
    run: str
    overwrite: bool
    prompts: Prompts | None = None
    classifier: np.ndarray | None = None
    draw_classifiers: np.ndarray | None = None
    torch_threads: int | None = None


@dataclass(slots=True)
class _Found:
    """What is known of a slide while it is worked on."""

    key: str = ""
    features: SlideFeatures | None = None
    files: list[str] = field(default_factory=list)
    outcome: dict[str, Any] = field(default_factory=dict)


def work_on(task: SlideTask, job: SlideJob) -> tuple[SlideRecord | None, str]:
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


def _classify(task: SlideTask, job: SlideJob, folder: OutputFolder, found: _Found) -> str:
    """Features, scores and files of one slide; returns how it was done, for the log."""
    model = model_of(job)
    config = job.config
    slide = None
    if task.slide.path.resolve() != task.features:
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
        elif slide is not None:
            features = with_slide(features, slide, task.slide.mpp)
        found.features = features
        if task.features is None or task.known is not None:
            found.files = [f"{task.name}.h5"]
        if job.prompts is not None:
            prediction = score(
                model, features, job.prompts, job.classifier, config, slide=slide, model_sha=job.model_sha
            )
            written = save_prediction(prediction, folder.path, task.name, features=False)
            found.files += [path.name for path in written]
            write_thumbnail(folder.thumbnail_path(task.name), prediction)
            found.outcome = _outcome(task, job, prediction)
            if config.segment.label is not None:
                paths, found.outcome["segment"] = write_segment(
                    folder.path, task.name, prediction, config.segment, task.slide.path
                )
                found.files += [path.name for path in paths]
        return how
    finally:
        if slide is not None:
            slide.close()


def _outcome(task: SlideTask, job: SlideJob, prediction: SlidePrediction) -> dict[str, Any]:
    """What the record keeps of the answer."""
    out: dict[str, Any] = {
        "label": prediction.label,
        "agreement": prediction.agreement,
        "scores": {str(k): row for k, row in prediction.scores.items()},
        "means": prediction.means,
        "tile_mm2": prediction.tile_mm2,
    }
    if (summary := prediction.summary) is not None:
        out["class_tiles"] = dict(zip(prediction.classes, summary.counts.tolist(), strict=True))
        if (task.known or task.slide).patient is not None:
            out["best"] = base64.b64encode(summary.best.astype("<f4").tobytes()).decode()
    if job.draw_classifiers is not None:
        background = job.config.background_columns(prediction.classes)
        out["draws"] = draw_winners(prediction.slide, job.draw_classifiers, job.config, background)
    return out


def _cached(task: SlideTask, job: SlideJob, path: Path) -> SlideFeatures | None:
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


def _key_parts(task: SlideTask, job: SlideJob) -> tuple[Path, str, SlideConfig, float | None]:
    return task.slide.path, f"{job.model_sha} {job.precision}", job.config, task.slide.mpp


def _key(task: SlideTask, job: SlideJob) -> str:
    if task.features is not None:
        try:
            stat = task.features.stat()
        except OSError:
            raise UserError(f"features file {task.features} does not exist") from None
        inner = f"{stat.st_size} {stat.st_mtime_ns} {task.slide.path.resolve() != task.features}"
    else:
        check_file(task.slide.path)
        inner = features_key(*_key_parts(task, job))
    if job.prompts is not None and (drawing := drawing_of(task.slide.path, job.config.segment)) is not None:
        inner += f" {sha256_file(drawing)}"
    return hashlib.sha256(f"{inner} {job.run} {task.slide.patient} {task.slide.truth}".encode()).hexdigest()


def _failure(reason: str, mistake: bool) -> dict[str, Any]:
    return {"state": "failed", "reason": " ".join(reason.split()), "mistake": mistake}


def _record(task: SlideTask, job: SlideJob, found: _Found, seconds: float) -> SlideRecord:
    shown: dict[str, Any] = {"state": "done", **found.outcome}
    if found.features is not None and shown["state"] == "done":
        features = found.features
        shown |= {"tiles": len(features.xy), "unreadable": features.unreadable, "files": tuple(found.files)}
        if features.mpp is not None:
            shown |= {"mpp": features.mpp.value, "mpp_source": features.mpp.source}
        if features.state == "empty":
            shown |= {"state": "empty", "reason": _why_empty(features)}
    if task.known is not None:
        shown |= {key: getattr(task.known, key) for key in ("slide", "place", "file", "patient", "truth")}
    else:
        shown |= _identity(task.slide, task.features or task.slide.path)
    return SlideRecord(name=task.name, key=found.key, run=job.run, seconds=round(seconds, 3), **shown)


def _identity(slide: SlideInput, path: Path) -> dict[str, Any]:
    try:
        stat = path.stat()
        file = (path.name, stat.st_size, stat.st_mtime_ns)
    except OSError:
        file = None
    known = {"patient": slide.patient, "truth": slide.truth}
    return {"slide": slide.given, "place": place_of(path), "file": file, **known}


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


def model_of(job: SlideJob) -> DualEncoder:
    """The job's model; a worker process loads it once."""
    if not isinstance(job.model, str):
        return job.model
    if job.torch_threads is not None:
        import torch

        torch.set_num_threads(job.torch_threads)
    return _loaded_once(job.model, job.config.device, job.config.precision)


def load_model(name: str, device: str, precision: str) -> DualEncoder:
    """Load a model by name or path onto a device; ``auto`` is the first GPU, or the CPU."""
    import torch

    from pathclip.encoders import load

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return load(name, device=device, precision=precision)


# only worker processes come here, and they end with the run: a retrained model under the same path is seen
_loaded_once = functools.lru_cache(maxsize=1)(load_model)
