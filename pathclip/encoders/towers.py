"""What a tower gives before its projection into the shared space."""

from __future__ import annotations

from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from pathclip.core.errors import UserError
from pathclip.encoders.formats.layout import ImageTower

__all__ = ["pooled_features"]


def pooled_features(visual: nn.Module, pixels: Tensor) -> Tensor:
    """Pooled output of an open_clip image tower before its projection.

    Args:
        visual: ``clip.visual``.
        pixels: Normalised float (B, 3, S, S).

    Returns:
        (B, width of the tower).

    Raises:
        UserError: If the tower pools and projects in one step.
    """
    if isinstance(visual, ImageTower):
        return visual.pooled(pixels)
    if isinstance(visual, VisionTransformer):
        return visual._pool(visual.transformer(visual._embeds(pixels)))[0]
    if isinstance(visual, TimmModel) and "pool" not in visual.head._modules:
        return visual.trunk(pixels)
    raise UserError(f'{type(visual).__name__} pools and projects in one step; use features="projected"')
