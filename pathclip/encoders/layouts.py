"""A weights file in the layout of KEEP, CONCH or MUSK -> a `DualEncoder`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pathclip.core.errors import UserError
from pathclip.core.files import read_json
from pathclip.encoders.architecture import Architecture, build_clip, whole_preprocess
from pathclip.encoders.encoder import DualEncoder
from pathclip.encoders.formats import LAYOUTS, layout_of
from pathclip.encoders.tokens import check_tokenizer
from pathclip.encoders.weights import refuse_misfit

__all__ = ["from_layout"]

log = logging.getLogger("pathclip")


def from_layout(path: Path, weights: Mapping[str, Tensor], quick_gelu: bool | None) -> DualEncoder | None:
    """Build the model that a weights file holds; its folder may hold ``config.json`` and a tokenizer.

    Args:
        path: The file.
        weights: Its content.
        quick_gelu: As in `load`; these models have one activation.

    Returns:
        None if the file is in another layout.

    Raises:
        UserError: If the weights are incomplete, or the tokenizer beside them is another model's.
    """
    if "trunk.pos_embed" in weights and "attn_pool_contrast.query" in weights:
        raise UserError(
            f"{path} holds an image tower alone (CONCH v1.5; its text side is part of TITAN), so there is "
            "nothing to compare texts with; pathclip loads models of two towers"
        )
    kind = layout_of(weights)
    if kind is None:
        return None
    layout, config = LAYOUTS[kind], _config(path.parent / "config.json")
    if quick_gelu is not None:
        raise UserError(f"{path} holds {layout.name}, whose activation is fixed; leave quick_gelu out")
    model_cfg = layout.sizes(weights, config, str(path))
    _tell_difference(path, layout.name, layout.published, model_cfg)
    architecture = Architecture(
        layout.name, model_cfg, whole_preprocess(layout.preprocess_cfg), path.parent, kind
    )
    clip = build_clip(architecture, draw=False)
    own, ours = clip.state_dict(), layout.from_file(weights)
    ours = {key: value for key, value in ours.items() if key in own or not key.endswith("position_ids")}
    if "logit_scale" in ours and ours["logit_scale"].numel() == 1:  # () in most files, (1,) in some
        ours["logit_scale"] = ours["logit_scale"].reshape(())
    refuse_misfit(layout.to_file(own), layout.to_file(ours), place=str(path), name=layout.name)
    clip.load_state_dict(ours)
    check_tokenizer(architecture)
    return DualEncoder(clip, architecture)


def _config(path: Path) -> dict[str, Any]:
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _tell_difference(path: Path, name: str, published: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    expected, sizes = _flat(published), _flat(found)
    odd = [
        f"{key} {sizes.get(key)} instead of {value}"
        for key, value in expected.items()
        if sizes.get(key) != value
    ]
    if odd:
        some = ", ".join(odd[:3]) + (", ..." if len(odd) > 3 else "")
        log.warning("%s is not of %s's published size: %s", path, name, some)


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in nested.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out
