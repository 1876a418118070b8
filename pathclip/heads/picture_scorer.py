"""Is it a micrograph? A checkpoint's answer by words, as the ingest takes it: picklable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor

from pathclip.encoders import DualEncoder, load
from pathclip.heads.prompts import load_prompts
from pathclip.heads.zeroshot import build_classifier

__all__ = ["MICROGRAPH_PROMPTS", "PictureScorer"]

MICROGRAPH_PROMPTS = {
    "micrograph": [
        "a histology slide under the microscope",
        "an H&E stained tissue section",
        "an immunohistochemistry stain of tissue",
        "a cytology smear",
        "a whole slide image of tissue",
    ],
    "other": [
        "a photograph of people",
        "a photograph of a place or an object",
        "a chart or diagram",
        "a page of text",
        "a screenshot",
    ],
}
TEMPLATES = ("CLASSNAME.", "this is CLASSNAME.")


@dataclass(slots=True)
class PictureScorer:
    """The probability that a picture is a micrograph, zero-shot.

    Attributes:
        checkpoint: Whatever `pathclip.load` takes. Loaded when the first picture comes, in each process.
        prompts: Whatever `load_prompts` takes, with a label ``micrograph``.
    """

    checkpoint: str
    prompts: Any = field(default_factory=lambda: MICROGRAPH_PROMPTS)
    _ready: tuple[DualEncoder, Tensor, int] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """What the dataset's record calls it."""
        return self.checkpoint

    def __call__(self, image: Image.Image) -> float:
        """Score one upright RGB picture, 0 to 1."""
        if self._ready is None:
            model = load(self.checkpoint)
            prompts = load_prompts(self.prompts, templates=TEMPLATES)
            self._ready = model, build_classifier(model, prompts), prompts.labels.index("micrograph")
        model, classifier, column = self._ready
        scores = model.encode_images([image]) @ classifier  # (1, C)
        return float((model.logit_scale.exp().detach().cpu() * scores).softmax(dim=1)[0, column])

    def __getstate__(self) -> tuple[str, Any]:
        return self.checkpoint, self.prompts

    def __setstate__(self, state: tuple[str, Any]) -> None:
        self.checkpoint, self.prompts, self._ready = *state, None
