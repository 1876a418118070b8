"""`DualEncoder`: an image tower and a text tower that end in one space, whatever the format they came in."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pathclip.core.errors import UserError
from pathclip.core.files import sha256_file
from pathclip.encoders.architecture import Architecture, build_clip, evaluation_transform, find_architecture
from pathclip.encoders.coca import caption_nats
from pathclip.encoders.feed import encode_pictures
from pathclip.encoders.generate import GenerateConfig, Generated, generate
from pathclip.encoders.onednn import pays, use_onednn
from pathclip.encoders.short_text import encode_short, used_length
from pathclip.encoders.source import Source
from pathclip.encoders.texts import check_texts, encode_texts
from pathclip.encoders.tokens import tokenizer_of
from pathclip.encoders.towers import pooled_features

__all__ = ["DualEncoder", "Source", "create"]

log = logging.getLogger("pathclip")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
Features = Literal["projected", "pooled"]


class DualEncoder(nn.Module):
    """An open_clip model with pictures and texts as people have them going in, and unit features coming out.

    Args:
        clip: The open_clip model.
        architecture: What it was built from; saved with it.
        precision: ``"fp32"``; ``"bf16"`` or ``"fp16"`` run the towers under autocast and leave the weights as
            they are.
        source: Where the weights came from.

    Attributes:
        image_size: Side of the input picture in pixels.
        mean: Per channel, of pixels in 0..1.
        std: Per channel, of pixels in 0..1.
        embed_dim: D, length of a feature.
        context_length: T, tokens per text.
        name: Name of the architecture.
    """

    def __init__(
        self,
        clip: nn.Module,
        architecture: Architecture,
        *,
        precision: str = "fp32",
        source: Source | None = None,
    ) -> None:
        super().__init__()
        self.clip = use_onednn(clip) if pays() else clip
        self.architecture = architecture
        self.precision = self.checked_precision(precision)
        self.source = source or Source()
        self.name = architecture.name
        self.image_size = _square(clip.visual.image_size, architecture.name)
        self.mean: tuple[float, ...] = tuple(architecture.preprocess_cfg["mean"])
        self.std: tuple[float, ...] = tuple(architecture.preprocess_cfg["std"])
        self.embed_dim = int(architecture.model_cfg["embed_dim"])
        self.context_length = int(clip.context_length)
        self.register_buffer("_mean", torch.tensor(self.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(self.std).view(3, 1, 1), persistent=False)
        self._transform = evaluation_transform(architecture, self.image_size)

    @staticmethod
    def checked_precision(precision: str) -> str:
        """The name of a precision.

        Raises:
            UserError: If it is unknown.
        """
        if precision not in ("fp32", *AUTOCAST):
            raise UserError(f"precision {precision!r} is unknown; known: fp32, {', '.join(AUTOCAST)}")
        return precision

    @property
    def logit_scale(self) -> nn.Parameter:
        """The log of the inverse temperature."""
        return self.clip.logit_scale

    @property
    def logit_bias(self) -> nn.Parameter | None:
        """The bias that SigLIP-style models add to their logits."""
        return self.clip.logit_bias

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.clip.logit_scale.device

    @property
    def has_decoder(self) -> bool:
        """Whether it can put a picture into words (open_clip's CoCa)."""
        return hasattr(self.clip, "text_decoder")

    def forward(self, images: Tensor, tokens: Tensor, *, captions: bool = False) -> tuple[Tensor, ...]:
        """Encode a batch of pairs.

        Args:
            images: uint8 or normalised float (B, 3, S, S); or image features (B, D) of unit length, known
                already, which go through as they are.
            tokens: int64 (B, T).
            captions: Have the decoder say the texts too; only where `has_decoder`.

        Returns:
            Image features (B, D) and text features (B, D), float32 and of unit length, and the scale,
            ``logit_scale.exp()``; with ``captions`` also their negative log-likelihood in nats, a sum.
        """
        if not captions:
            image = images.to(self.device) if images.ndim == 2 else self.encode_pixels(images)
            return image, self.encode_tokens(tokens), self.logit_scale.exp()
        pixels, tokens = self.prepared(images), tokens.to(self.device)
        with self.casting():
            image, image_tokens = self.clip.visual(pixels)
            text, text_tokens = self.clip.text(tokens)
            nats = caption_nats(self.clip, image_tokens, text_tokens, tokens)
        features = (F.normalize(encoded.float(), dim=-1) for encoded in (image, text))
        return (*features, self.logit_scale.exp(), nats)

    def normalize_pixels(self, images_uint8: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> float32 (x / 255 - mean) / std, same layout, on the model's device."""
        images = images_uint8.to(self.device, non_blocking=True)
        mean, std = self._mean, self._std
        if not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last):
            rows = images.permute(0, 2, 3, 1).flatten(2)  # (B, H, W * 3): long runs instead of threes
            mean, std = (value.view(3).repeat(images.shape[3]) for value in (mean, std))
            pixels = rows.float().div_(255).sub_(mean).div_(std)
            return pixels.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)
        return images.float().div_(255).sub_(mean).div_(std)

    def encode_pixels(
        self, images: Tensor, *, normalize: bool = True, features: Features = "projected"
    ) -> Tensor:
        """Features of a batch of prepared pictures; differentiable.

        Args:
            images: uint8, or float already normalised, (B, 3, S, S) with S = ``image_size``.
            normalize: Scale each feature to unit length.
            features: ``"projected"`` for the shared space, ``"pooled"`` for the tower before projection.

        Returns:
            (B, D) float32 on the model's device.

        Raises:
            UserError: If the shape does not fit or ``features`` is unknown.
        """
        pixels = self.prepared(images)
        if features not in ("projected", "pooled"):
            raise UserError(f'features={features!r} is unknown; known: "projected", "pooled"')
        with self.casting():
            encode = (
                self.clip.visual
                if features == "projected"
                else lambda x: pooled_features(self.clip.visual, x)
            )
            encoded = _without_tokens(encode(pixels)).float()
        return F.normalize(encoded, dim=-1) if normalize else encoded

    def prepared(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S), uint8 or normalised, as normalised float32 on the model's device.

        Raises:
            UserError: If the shape does not fit.
        """
        size = self.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise UserError(
                f"images {tuple(images.shape)} do not fit {self.name}; expected (B, 3, {size}, {size})"
            )
        return (
            self.normalize_pixels(images) if images.dtype == torch.uint8 else images.to(self.device).float()
        )

    def encode_tokens(self, tokens: Tensor, *, normalize: bool = True) -> Tensor:
        """Features of tokens, int64 (B, T) -> (B, D) float32 on the model's device; differentiable."""
        with self.casting():
            ids = tokens.to(self.device)
            encoded = self.clip.text(ids)[0] if self.has_decoder else encode_short(self.clip, ids)
            encoded = encoded.float()
        return F.normalize(encoded, dim=-1) if normalize else encoded

    def trim_tokens(self, tokens: Tensor) -> Tensor:
        """Without the columns behind the longest text, where features do not depend on them.

        Args:
            tokens: int64 (B, T), best on the CPU: on a GPU its length must be waited for.

        Returns:
            A view (B, T'), T' <= T, that `encode_tokens` takes; its features differ by rounding only.
        """
        return tokens[:, : used_length(self.clip, tokens)]

    def generate(self, images: Tensor, options: GenerateConfig | None = None) -> list[Generated]:
        """Put prepared pictures into words, where the model `has_decoder`; `pathclip.describe` takes files.

        Args:
            images: uint8 or normalised float (B, 3, S, S).
            options: How words are chosen; by default the likeliest next one, the same each time.

        Returns:
            B texts. They are made up in the manner of the training captions: no finding, no diagnosis.

        Raises:
            UserError: If there is no decoder, or the options ask for more than it can say.
        """
        return generate(self, images, options)

    def tokenize(self, texts: str | Sequence[str]) -> Tensor:
        """Texts -> int64 (B, T); longer texts are cut, their last token being the end mark.

        Raises:
            UserError: If an item is no text.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        check_texts(texts)
        if not texts:
            return torch.zeros(0, self.context_length, dtype=torch.int64)
        return tokenizer_of(self.architecture)(texts, context_length=self.context_length)

    def preprocess(self, image: Image.Image) -> Tensor:
        """Evaluation transform of one RGB picture: resize the short side, centre crop; uint8 (3, S, S).

        The same pixels as open_clip's evaluation transform, before its ``ToTensor`` and ``Normalize``.
        """
        for step in self._transform:
            image = step(image)
        return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()

    def encode_images(
        self,
        images: Any,
        *,
        batch_size: int = 64,
        normalize: bool = True,
        features: Features = "projected",
        progress: bool = False,
        cache: str | Path | None = None,
    ) -> Tensor:
        """Features of pictures in any form, without gradient and in evaluation mode.

        Args:
            images: A folder of pictures, a dataset of shards or one of its tars; one or a list of paths, PIL
                pictures, uint8 arrays (H, W, 3), uint8 tensors (3, H, W), or float tensors (3, S, S) that are
                already normalised; or a batch array or tensor.
            batch_size: Pictures per pass.
            normalize: Scale each feature to unit length.
            features: ``"projected"`` or ``"pooled"``.
            progress: Show how far along the work is.
            cache: Folder to keep features in and to find them again, by weights, transform and content.

        Returns:
            (N, D) float32 on the CPU. A picture that cannot be decoded has a row of NaN, and one warning line
            names all of these.
        """
        encoded, bad = encode_pictures(
            self,
            images,
            batch_size=batch_size,
            normalize=normalize,
            features=features,
            progress=progress,
            cache=cache,
        )
        if bad:
            named = "; ".join(f"{item.name}: {item.reason}" for item in bad[:5])
            more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
            log.warning(
                "%d of %d pictures not encoded (rows of NaN): %s%s", len(bad), len(encoded), named, more
            )
        return encoded

    def encode_text(
        self,
        texts: str | Sequence[str],
        *,
        batch_size: int = 256,
        normalize: bool = True,
        cache: str | Path | None = None,
    ) -> Tensor:
        """Features of one or many texts, without gradient, in evaluation mode: (N, D) float32 on the CPU.

        With ``cache``, a folder, they are kept there and found again by weights and text.
        """
        return encode_texts(self, texts, batch_size=batch_size, normalize=normalize, cache=cache)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode inside the block; after it each part has its mode back (a tower may be frozen)."""
        was_training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            yield
        finally:
            for module in was_training:
                module.training = True

    def save(
        self, folder: str | Path, *, prompts: Any = None, training: Mapping[str, Any] | None = None
    ) -> None:
        """Write a folder that `pathclip.load` and open_clip's ``local-dir:`` both read.

        KEEP, CONCH and MUSK have no form in open_clip: they get ``model.safetensors`` in their own layout.

        Args:
            folder: Gets ``open_clip_config.json``, ``open_clip_model.safetensors``, ``pathclip.json``.
            prompts: JSON-like: the prompts the model was used with.
            training: JSON-like: how it was trained.
        """
        from pathclip.encoders.folder import save_folder

        save_folder(self, Path(folder), prompts=prompts, training=training)

    def provenance(self) -> dict[str, Any]:
        """How features are obtained: model, pretrained, checkpoint_sha256, precision, transform, versions."""
        from pathclip.encoders.folder import versions

        if self.source.sha256 is None and self.source.path is not None:
            self.source.sha256 = sha256_file(self.source.path)
        return {
            "model": self.name,
            "pretrained": self.source.pretrained,
            "checkpoint_sha256": self.source.sha256,
            "precision": self.precision,
            "transform": {"size": self.image_size, **self.architecture.preprocess_cfg},
            "versions": versions(),
        }

    def casting(self) -> contextlib.AbstractContextManager[Any]:
        """The autocast that ``precision`` asks for."""
        if self.precision == "fp32":
            return contextlib.nullcontext()  # an autocast of the caller's stays in force
        return torch.autocast(self.device.type, dtype=AUTOCAST[self.precision])


def create(name: str | Path, *, seed: int = 0, **overrides: Any) -> DualEncoder:
    """Build a model from scratch, its weights drawn from ``seed``; torch's random state is left as it was.

    Args:
        name: A shipped config (``"tiny-vit-112"``), an open_clip model name, or the path of a JSON config.
        seed: Equal seeds give equal weights.
        overrides: Changes to the config, for example ``embed_dim=64``, ``image_size=224``,
            ``vision_cfg={"layers": 4}``.

    Raises:
        UserError: If the name or an override is unknown.
    """
    architecture = find_architecture(name)
    if overrides:
        architecture = architecture.overridden(**overrides)
    return DualEncoder(build_clip(architecture, seed=seed), architecture)


def _without_tokens(encoded: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """A tower's feature alone; those of a CoCa give their tokens beside it."""
    return encoded[0] if isinstance(encoded, tuple) else encoded


def _square(size: int | tuple[int, int], name: str) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise UserError(
            f"model {name} wants pictures of {height} x {width} px; pathclip handles square ones only"
        )
    return int(height)
