"""Pictures put into words by a model with a decoder: made-up text in the manner of what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from open_clip.tokenizer import SimpleTokenizer
from pydantic import Field, model_validator
from torch import Tensor

from pathclip.core.config import Config
from pathclip.core.errors import FaultError, UserError
from pathclip.encoders.coca import decoder_states
from pathclip.encoders.search import beam_search, draw
from pathclip.encoders.tokens import tokenizer_of

if TYPE_CHECKING:
    from pathclip.encoders.encoder import DualEncoder

__all__ = ["GenerateConfig", "Generated", "check_decoder", "generate"]


class GenerateConfig(Config):
    """How words are chosen; by default the likeliest next one each time, so that a picture has one text."""

    max_tokens: int | None = Field(
        None, ge=1, description="tokens of a text at most, its end mark included; unset: what the model reads"
    )
    beams: int = Field(1, ge=1, description="candidates followed at a time; 1: the likeliest next token")
    top_k: int | None = Field(
        None, ge=1, description="draw each token from so many of the likeliest; unset: no drawing"
    )
    temperature: float | None = Field(
        None, gt=0, description="of drawing: below 1 keeps to what is likely; unset: 1"
    )
    seed: int | None = Field(None, ge=0, description="of drawing; unset: 0")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.top_k is None and (self.temperature is not None or self.seed is not None):
            raise ValueError("temperature and seed are of drawing: set top_k too")
        if self.top_k is not None and self.beams > 1:
            raise ValueError("beams follow the likeliest, top_k draws: set one of them")
        return self


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model says of a picture.

    Attributes:
        text: In lower case, as CLIP's tokenizer knows texts; may be empty.
        logprob: Mean log-probability of a token, its end mark included. How sure the model is of the wording,
            which is not how likely the statement is to be true.
        complete: Whether it ended by itself; False where it was cut at ``max_tokens``.
    """

    text: str
    logprob: float
    complete: bool


def check_decoder(model: DualEncoder, options: GenerateConfig) -> int:
    """The most tokens that a text may have.

    Raises:
        UserError: If the model has no decoder, or reads fewer tokens than asked for.
    """
    if not model.has_decoder:
        raise UserError(
            f"{model.name} has no decoder, so it cannot put pictures into words; train a CoCa model "
            '(model.name = "tiny-coca-112"), or compare pictures with texts of yours: pathclip classify'
        )
    most = model.context_length - 1  # the start mark takes one
    if options.max_tokens is not None and options.max_tokens > most:
        raise UserError(f"max_tokens is {options.max_tokens}; {model.name} reads {most} after the start mark")
    return options.max_tokens or most


@torch.no_grad()
def generate(
    model: DualEncoder, images: Tensor, options: GenerateConfig | None = None, *, places: Sequence[int] = ()
) -> list[Generated]:
    """See `DualEncoder.generate`; ``places`` among all pictures keep batches from changing what is drawn."""
    options = options or GenerateConfig()
    length = check_decoder(model, options)
    tokenizer = tokenizer_of(model.architecture)
    assert isinstance(tokenizer, SimpleTokenizer)  # a CoCa with another is refused
    if not len(images):
        return []
    marks = {"length": length, "start": tokenizer.sot_token_id, "end": tokenizer.eot_token_id}
    with model.evaluating(), model.casting():
        _, image_tokens = model.clip.visual(model.prepared(images))
        if options.top_k is not None:
            seeds = [_seed(options.seed or 0, place) for place in places or range(len(images))]
            found = draw(
                _Next(model, image_tokens),
                seeds,
                top_k=options.top_k,
                temperature=options.temperature or 1.0,
                **marks,
            )
        else:
            repeated = image_tokens.repeat_interleave(options.beams, dim=0)
            found = beam_search(_Next(model, repeated), len(images), beams=options.beams, **marks)
    return [_read(tokens, score, tokenizer) for tokens, score in found]


@dataclass(frozen=True, slots=True)
class _Next:
    """Log-probabilities of the token after each of (N, t) tokens; padding is never one."""

    model: DualEncoder
    image_tokens: Tensor

    def __call__(self, tokens: Tensor) -> Tensor:
        clip = self.model.clip
        _, text_tokens = clip.text(tokens.to(self.image_tokens.device))
        states = decoder_states(clip.text_decoder, self.image_tokens, text_tokens)[:, -1]
        logits = (states @ clip.text_decoder.text_projection).float()
        if logits.isnan().any():
            raise FaultError(f"{self.model.name} gives NaN for a word: its weights are damaged")
        logits[:, clip.pad_id] = -torch.inf
        return logits.log_softmax(dim=-1)


def _seed(seed: int, place: int) -> int:
    return (seed * 1_000_003 + place) % 2**63


def _read(tokens: list[int], score: float, tokenizer: SimpleTokenizer) -> Generated:
    complete = tokens[-1] == tokenizer.eot_token_id
    words = [t for t in tokens if t in tokenizer.decoder and t not in tokenizer.all_special_ids]
    text = " ".join(tokenizer.decode(words).split())
    return Generated(text, score / len(tokens), complete)
