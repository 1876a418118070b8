"""The one public loss: checks its input, states the problem, hands it to a backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from pathclip.core.config import Config
from pathclip.core.errors import UserError
from pathclip.core.registry import Registry
from pathclip.loss import chunked, reference
from pathclip.loss.backend import Backend, Precision, choose, operands
from pathclip.loss.distributed import Ranks
from pathclip.loss.problem import Kind, Positives, Problem

__all__ = ["ContrastiveLoss", "LossConfig", "contrastive_loss"]

backends: Registry[Callable[..., Tensor]] = Registry("loss backend")
for _backend in (reference, chunked):
    for _kind in ("infonce", "siglip"):
        backends.register(f"{_backend.__name__.rsplit('.', 1)[-1]}:{_kind}")(getattr(_backend, _kind))
for _kind in ("infonce", "siglip"):
    backends.register_lazy(f"triton:{_kind}", f"pathclip.loss.triton:{_kind}")


class LossConfig(Config):
    """Which objective, and what samples that agree in an id do to each other."""

    kind: Kind = Field("infonce", description="infonce (two-way softmax) or siglip (sigmoid per pair)")
    positives: Positives = Field(
        "masked",
        description="pairs that agree in an id: diagonal (negatives), masked (left out), shared (positives)",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="infonce only")
    backend: Backend = Field(
        "auto",
        description="auto (triton on a GPU, else chunked), chunked, triton or reference (whole matrix)",
    )
    precision: Precision = Field(
        "auto", description="of the products: auto (the features' dtype), bf16, tf32 or ieee"
    )


class ContrastiveLoss(nn.Module):
    """`contrastive_loss` with its choices made once."""

    def __init__(self, config: LossConfig | None = None) -> None:
        super().__init__()
        self.config = config or LossConfig()
        _check_choices(**self.config.model_dump())

    def forward(self, image_features: Tensor, text_features: Tensor, scale: Tensor, **rest: Any) -> Tensor:
        """See `contrastive_loss`; without ids ``masked`` and ``shared`` have nothing to act on."""
        choices = self.config.model_dump()
        if rest.get("image_ids") is None:
            choices["positives"] = None
        return contrastive_loss(image_features, text_features, scale, **choices, **rest)


def contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    scale: Tensor | float,
    *,
    bias: Tensor | float | None = None,
    image_ids: Tensor | None = None,
    text_ids: Tensor | None = None,
    targets: Tensor | None = None,
    positives: Positives | None = None,
    kind: Kind = "infonce",
    label_smoothing: float = 0.0,
    backend: Backend = "auto",
    process_group: dist.ProcessGroup | None = None,
    precision: Precision = "auto",
) -> Tensor:
    """Contrastive loss between images and texts in which duplicates are not each other's negatives.

    Letters: B images, M texts, D width, K ids per sample. The formula stands in `pathclip.loss.problem`.

    Args:
        image_features: (B, D), unit length (not checked), float16, bfloat16, float32 or float64.
        text_features: (M, D), same dtype and device.
        scale: Scalar, ``logit_scale.exp()``: the inverse temperature.
        bias: Scalar added to every logit. Shifts ``siglip``; cancels in ``infonce`` (its gradient is zero).
        image_ids: int64 (B,) or (B, K). An image and a text match if any of their K ids agree.
        text_ids: int64 (M,) or (M, K).
        targets: int64 (B,), the column of each row's own pair; by default row i owns column i.
        positives: ``diagonal``: only the own pair counts as positive, all others as negatives. ``masked``
            (default where ids are given): matching pairs leave each other's denominators. ``shared``: the
            target is 1/|P| on each of the P matching pairs, per direction.
        kind: ``infonce`` or ``siglip``.
        label_smoothing: Share of the target spread evenly over the visible pairs; ``infonce`` only.
        backend: ``reference`` holds (B, M), ``chunked`` a block of it at a time, ``triton`` none of it beyond
            256 MiB; ``auto`` picks triton on an NVIDIA GPU that can run it, else chunked.
        process_group: Texts are gathered over it and the result is exact under the mean over its ranks (see
            `pathclip.loss.distributed`). Default: this process alone.
        precision: ``bf16`` rounds the features to bfloat16 first; products add up in float32 all the same.
            ``tf32`` and ``ieee`` say how triton multiplies float32 features (elsewhere torch's own setting
            does). ``auto`` keeps the features' dtype and follows `torch.get_float32_matmul_precision`.

    Returns:
        Scalar float32 (float64 for float64 features): mean over the world's images, of both directions.
        Equals log(B) for equal features and no ids.

    Raises:
        UserError: If shapes, dtypes or devices do not fit, or the choices contradict each other.

    Source: Radford et al. 2021 (arXiv:2103.00020), fig. 3; Zhai et al. 2023 (arXiv:2303.15343).

    Example:
        >>> x = torch.eye(4)
        >>> round(contrastive_loss(x, x, torch.tensor(100.0)).item(), 4)
        0.0
    """
    _check_choices(kind, positives, label_smoothing, backend, precision)
    _check_features(image_features, text_features)
    if (image_ids is None) != (text_ids is None):
        raise UserError("image_ids and text_ids come together: one of them is missing")
    if positives in ("masked", "shared") and image_ids is None:
        raise UserError(f"positives={positives!r} needs image_ids and text_ids")
    positives = positives or ("diagonal" if image_ids is None else "masked")
    ids = [
        _checked_ids(x, f, name) if x is not None and positives != "diagonal" else None
        for x, f, name in (
            (image_ids, image_features, "image_ids"),
            (text_ids, text_features, "text_ids"),
        )
    ]
    if ids[0] is not None and ids[1] is not None and ids[0].shape[1] != ids[1].shape[1]:
        raise UserError(f"image_ids have {ids[0].shape[1]} ids per sample, text_ids {ids[1].shape[1]}")
    own = _checked_targets(targets, len(image_features), len(text_features), image_features.device)

    device, dtype = image_features.device, image_features.dtype
    backend = choose(backend, device, dtype)
    rounded, products = operands(dtype, precision)
    full = torch.float64 if dtype == torch.float64 else torch.float32
    with torch.autocast(device.type, enabled=False):
        scale = _scalar(scale, "scale", device, full)
        bias = _scalar(0.0 if bias is None else bias, "bias", device, full)
        image, text = image_features.to(rounded), text_features.to(rounded)
        own, first, weights, text, text_ids, ranks = _world(
            own, targets is None, text, ids[1], full, process_group
        )
        if backend != "triton":
            image, text = image.to(full), text.to(full)
        problem = Problem(
            own, weights, ids[0], text_ids, positives, label_smoothing, len(image), first, products
        )
        if ranks is not None:
            total = int(weights.sum())
            problem = replace(problem, total=total, factor=float(ranks.size), reduce=ranks.reduce)
        return backends[f"{backend}:{kind}"](image, text, scale, bias, problem)


def _scalar(value: Tensor | float, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    # a plain number goes to the features' precision at once, not by way of float32
    value = value.to(device) if isinstance(value, Tensor) else torch.tensor(value, dtype=dtype, device=device)
    if value.numel() != 1:
        raise UserError(f"{name} has shape {tuple(value.shape)}: expected one number")
    return value.reshape(()).to(dtype)


def _world(
    own: Tensor,
    in_order: bool,
    text: Tensor,
    text_ids: Tensor | None,
    dtype: torch.dtype,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, int | None, Tensor, Tensor, Tensor | None, Ranks | None]:
    """Columns are the world's texts, in rank order: own, first, weights, texts, their ids, and the ranks."""
    ranks = None if group is None else Ranks(group, len(text), text.device)
    start, total = (0, len(text)) if ranks is None else (ranks.start, ranks.total)
    weights = torch.zeros(total, dtype=dtype, device=text.device)
    if in_order:
        weights[start : start + len(own)] = 1
    else:  # counted without asking the GPU for the largest, as bincount does
        weights.index_put_((own + start,), torch.ones_like(weights[:1]), accumulate=True)
    if ranks is None:
        return own, start if in_order else None, weights, text, text_ids, None
    weights, text = ranks.sum(weights), ranks.gather(text)
    text_ids = None if text_ids is None else ranks.gather(text_ids)
    return own + start, start if in_order else None, weights, text, text_ids, ranks


def _check_choices(
    kind: str, positives: str | None, label_smoothing: float, backend: str, precision: str
) -> None:
    for name, value, known in (
        ("kind", kind, ("infonce", "siglip")),
        ("positives", positives, (None, "diagonal", "masked", "shared")),
        ("backend", backend, ("auto", "reference", "chunked", "triton")),
        ("precision", precision, ("auto", "bf16", "tf32", "ieee")),
    ):
        if value not in known:
            raise UserError(
                f"{name} is {value!r}, expected one of {', '.join(map(str, filter(None, known)))}"
            )
    if not 0 <= label_smoothing < 1:
        raise UserError(f"label_smoothing is {label_smoothing}, expected 0 <= label_smoothing < 1")
    if kind == "siglip" and label_smoothing:
        raise UserError("label_smoothing belongs to kind 'infonce'; set it to 0 for 'siglip'")


def _check_features(image: Tensor, text: Tensor) -> None:
    if image.ndim != 2 or text.ndim != 2 or image.shape[1] != text.shape[1]:
        raise UserError(
            f"image_features are {tuple(image.shape)}, text_features {tuple(text.shape)}: "
            "expected (B, D) and (M, D) with one D"
        )
    if len(image) == 0 or len(text) == 0:
        raise UserError("contrastive_loss needs at least one image and one text")
    if image.dtype != text.dtype or not image.is_floating_point():
        raise UserError(f"features are {image.dtype} and {text.dtype}: expected one floating-point dtype")
    if image.device != text.device:
        raise UserError(f"image_features are on {image.device}, text_features on {text.device}")


def _checked_ids(ids: Tensor, features: Tensor, name: str) -> Tensor:
    count = len(features)
    if ids.dtype != torch.int64 or ids.ndim not in (1, 2) or len(ids) != count or ids.numel() == 0:
        raise UserError(
            f"{name} are {ids.dtype} {tuple(ids.shape)}: expected int64 ({count},) or ({count}, K)"
        )
    _check_device(ids, features.device, name)
    return ids.reshape(count, -1).contiguous()


def _check_device(value: Tensor, device: torch.device, name: str) -> None:
    if value.device != device:
        raise UserError(f"{name} are on {value.device}, the features on {device}: move them there")


def _checked_targets(targets: Tensor | None, rows: int, columns: int, device: torch.device) -> Tensor:
    if targets is None:
        if rows > columns:
            raise UserError(f"{rows} images but {columns} texts: give targets, the column each image owns")
        return torch.arange(rows, device=device)
    if targets.dtype != torch.int64 or targets.shape != (rows,):
        raise UserError(f"targets are {targets.dtype} {tuple(targets.shape)}: expected int64 ({rows},)")
    _check_device(targets, device, "targets")
    if int(targets.min()) < 0 or int(targets.max()) >= columns:
        raise UserError(
            f"targets reach from {int(targets.min())} to {int(targets.max())}: 0 to {columns - 1}"
        )
    return targets
