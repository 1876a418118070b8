"""What workers get: a slide to do, what all slides of a run share, and the model."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pathclip.core.errors import UserError
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
    return _loaded_once(job.model, job.config)


def load_model(name: str, config: SlideConfig) -> DualEncoder:
    """Load a model by name or path as a run's settings say; device ``auto`` is the first GPU, or the CPU.

    Raises:
        UserError: If it cannot be loaded, or compiled where that is asked for.
    """
    import torch

    from pathclip.encoders import load

    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load(name, device=device, precision=config.precision)
    if config.compile:
        _compile(model, config.batch_size)
    return model


def _compile(model: DualEncoder, batch_size: int) -> None:
    """Compile the image tower for batches of one size, here and not at the first slide."""
    import torch

    model.clip.visual.compile(dynamic=False)
    side = model.image_size
    black = torch.zeros(batch_size, side, side, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    try:
        with torch.inference_mode():
            model.encode_pixels(black)
    except Exception as error:  # no compiler, an old one, a tower it cannot take: torch has no one class
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"compile = true does not work here: {reason}; leave it out") from error


# only worker processes come here, and they end with the run: a retrained model under the same path is seen
_loaded_once = functools.lru_cache(maxsize=1)(load_model)
