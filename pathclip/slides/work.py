"""One slide as a worker does it, in two halves, and the record that says how it ended."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathclip.core.errors import FaultError, PathclipError, UserError
from pathclip.core.files import claim, sha256_file
from pathclip.slides.classify import score
from pathclip.slides.cohort import write_thumbnail
from pathclip.slides.config import SlideConfig
from pathclip.slides.draws import draw_winners
from pathclip.slides.encode import Features
from pathclip.slides.export import save_prediction
from pathclip.slides.features import SlideFeatures, read_features
from pathclip.slides.folder import OutputFolder, SlideRecord, place_of
from pathclip.slides.foreign import with_slide
from pathclip.slides.identity import features_key
from pathclip.slides.inputs import SlideInput
from pathclip.slides.prepare import PreparedSlide, embed_prepared, prepare
from pathclip.slides.segment import drawing_of, write_segment
from pathclip.slides.slide import Slide, check_file, open_slide
from pathclip.slides.spool import FeatureSpool
from pathclip.slides.tasks import SlideJob, SlideTask, model_of

if TYPE_CHECKING:
    from pathclip.slides.prediction import SlidePrediction

__all__ = ["BegunSlide", "begin", "failing", "finish", "work_ahead", "work_on"]


@dataclass(slots=True)
class BegunSlide:
    """A slide between its two halves: claimed, opened, its first tiles read.

    Attributes:
        task: What is being done.
        started: When, by the monotonic clock.
        held: The claim, the open slide, the reading threads; closing it gives them back.
        owned: False where another process has the slide.
        key: Hash of all that decides its outcome.
        before: Its record, where it was done before and nothing is left to do.
        slide: Open, unless there are only features.
        prepared: Its tiles; None where features are cached.
        encoded: What the encoder saw, where that was done together with other slides.
        features: As cached, then as encoded.
        how: How it was done, for the log.
        files: Names of what was written.
        outcome: What the record will say.
    """

    task: SlideTask
    started: float
    held: ExitStack
    owned: bool = True
    key: str = ""
    before: SlideRecord | None = None
    slide: Slide | None = None
    prepared: PreparedSlide | None = None
    encoded: Features | None = None
    features: SlideFeatures | None = None
    how: str = ""
    files: list[str] = field(default_factory=list)
    outcome: dict[str, Any] = field(default_factory=dict)


def work_on(task: SlideTask, job: SlideJob) -> tuple[SlideRecord | None, str]:
    """Do one slide; whatever happens to it ends as its record. None: another process has it."""
    return finish(begin(task, job), job)


def work_ahead(
    tasks: Iterable[SlideTask], job: SlideJob
) -> Iterator[tuple[SlideTask, tuple[SlideRecord | None, str]]]:
    """Slides one after the other, the next one opened and its first tiles read while one is encoded."""
    with ThreadPoolExecutor(1, thread_name_prefix="next-slide") as pool:
        waiting: Future[BegunSlide] | None = None
        try:
            for task in tasks:
                current, waiting = waiting, pool.submit(begin, task, job)
                if current is not None:
                    yield current.result().task, finish(current.result(), job)
            if waiting is not None:
                last, waiting = waiting, None
                yield last.result().task, finish(last.result(), job)
        finally:
            if waiting is not None:  # interrupted: give the slide that was opened ahead back
                waiting.result().held.close()


def begin(task: SlideTask, job: SlideJob) -> BegunSlide:
    """The half that needs no encoder: claim the slide, see what is left to do, open it and read ahead."""
    folder = OutputFolder(job.out)
    with ExitStack() as held:
        begun = BegunSlide(task, time.monotonic(), held)
        begun.owned = held.enter_context(claim(folder.claim_path(task.name)))
        if begun.owned:
            with failing(begun):
                _open(begun, job, folder)
        begun.held = held.pop_all()  # not given back here, unless something unforeseen was raised
        return begun


def _open(begun: BegunSlide, job: SlideJob, folder: OutputFolder) -> None:
    task = begun.task
    begun.key = _key(task, job)
    before = folder.record(task.name) if not job.overwrite else None
    if before and before.key == begun.key and before.state != "failed" and folder.is_whole(before):
        begun.before = before
        return
    if task.slide.path.resolve() != task.features:
        begun.slide = open_slide(task.slide.path)
        begun.held.callback(begun.slide.close)
    begun.features = _cached(task, job, task.features or folder.path / f"{task.name}.h5")
    if begun.features is None:
        assert begun.slide is not None
        side_px = model_of(job).image_size
        begun.prepared = prepare(begun.slide, job.config, side_px, row_mpp=task.slide.mpp)
        begun.held.callback(begun.prepared.close)


def finish(begun: BegunSlide, job: SlideJob) -> tuple[SlideRecord | None, str]:
    """The half that encodes, scores and writes; ends with the slide's record."""
    task, folder = begun.task, OutputFolder(job.out)
    with begun.held:
        if not begun.owned:
            return None, ""
        if begun.before is not None:
            return begun.before, "skipped"
        if not begun.outcome:
            with failing(begun):
                _classify(begun, job, folder)
                if _key(task, job) != begun.key:
                    raise FaultError(f"{task.slide.path} changed while it was read; run again")
        record = _record(begun, job, time.monotonic() - begun.started)
        folder.write_record(record)
        return record, begun.how


@contextmanager
def failing(begun: BegunSlide) -> Iterator[None]:
    """Whatever goes wrong inside is the slide's outcome; only a full disk stops the run."""
    try:
        yield
    except PathclipError as error:
        _stop_if_disk_is_full(error)
        begun.how, begun.outcome = "", _failure(str(error), isinstance(error, UserError))
    except Exception as error:
        if os.environ.get("PATHCLIP_DEBUG"):
            raise
        begun.how, begun.outcome = "", _failure(f"{type(error).__name__}: {error}", mistake=False)


def _classify(begun: BegunSlide, job: SlideJob, folder: OutputFolder) -> None:
    """Features, scores and files of one slide."""
    task, model = begun.task, model_of(job)
    begun.how = "scored from cached features, " if begun.features else ""
    folder.record_path(task.name).unlink(missing_ok=True)  # from here on the old files are being replaced
    if begun.features is None:
        assert begun.prepared is not None
        begun.features = embed_prepared(
            model,
            begun.prepared,
            job.config,
            row_mpp=task.slide.mpp,
            model_sha=job.model_sha,
            spool=FeatureSpool(model.embed_dim, folder.path),
            encoded=begun.encoded,
        )
        begun.features.save(folder.path, task.name)
    elif begun.slide is not None:
        begun.features = with_slide(begun.features, begun.slide, task.slide.mpp)
    if task.features is None or task.known is not None:
        begun.files = [f"{task.name}.h5"]
    if job.prompts is not None:
        _answer(begun, job, folder)


def _answer(begun: BegunSlide, job: SlideJob, folder: OutputFolder) -> None:
    """The slide's scores, and the files that show them."""
    task, config = begun.task, job.config
    assert begun.features is not None
    assert job.prompts is not None
    prediction = score(
        model_of(job),
        begun.features,
        job.prompts,
        job.classifier,
        config,
        slide=begun.slide if "page" in config.outputs else None,  # it is where tiles are shown
        model_sha=job.model_sha,
    )
    written = save_prediction(
        prediction,
        folder.path,
        task.name,
        features=False,
        every_class=config.heatmap == "all",
        outputs=config.outputs,
    )
    begun.files += [path.name for path in written]
    write_thumbnail(folder.thumbnail_path(task.name), prediction)
    begun.outcome = _outcome(task, job, prediction)
    if config.segment.label is not None:
        paths, begun.outcome["segment"] = write_segment(
            folder.path, task.name, prediction, config.segment, task.slide.path
        )
        begun.files += [path.name for path in paths]


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


def _record(begun: BegunSlide, job: SlideJob, seconds: float) -> SlideRecord:
    task = begun.task
    shown: dict[str, Any] = {"state": "done", **begun.outcome}
    if begun.features is not None and shown["state"] == "done":
        features = begun.features
        shown |= {"tiles": len(features.xy), "unreadable": features.unreadable, "files": tuple(begun.files)}
        if features.mpp is not None:
            shown |= {"mpp": features.mpp.value, "mpp_source": features.mpp.source}
        if features.state == "empty":
            shown |= {"state": "empty", "reason": _why_empty(features)}
    if task.known is not None:
        shown |= {key: getattr(task.known, key) for key in ("slide", "place", "file", "patient", "truth")}
    else:
        shown |= _identity(task.slide, task.features or task.slide.path)
    return SlideRecord(name=task.name, key=begun.key, run=job.run, seconds=round(seconds, 3), **shown)


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
