"""What workers get: a slide to do, what all slides of a run share, and the model."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pathclip.slides.config import SlideConfig
from pathclip.slides.folder import SlideRecord
from pathclip.slides.inputs import SlideInput

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder
    from pathclip.heads import Prompts

__all__ = ["SlideJob", "SlideTask", "load_model", "model_of"]


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
