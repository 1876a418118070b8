"""What decides a slide's features: the file, the settings, the model; and hashes that tell them apart."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pathclip.core.errors import UserError
from pathclip.core.files import sha256_file, strict_json
from pathclip.slides.config import SlideConfig
from pathclip.slides.features import SlideFeatures
from pathclip.slides.mask import mask_for

if TYPE_CHECKING:
    from pathclip.encoders import DualEncoder

__all__ = ["FEATURE_SETTINGS", "check_model", "features_key", "model_sha256"]

FEATURE_SETTINGS = (
    "mpp",
    "slide_mpp",
    "tile_px",
    "overlap_px",
    "allow_upsample",
    "tissue",
    "min_tissue",
    "max_unreadable",
)


def features_key(slide_path: Path, model_id: str, config: SlideConfig, row_mpp: float | None = None) -> str:
    """Hash of what decides a slide's features: the file's size and time, the settings, the model."""
    stat = slide_path.stat()
    settings = {name: getattr(config, name) for name in FEATURE_SETTINGS}
    mask = sha256_file(mask_for(slide_path, config.mask)) if config.mask else None
    parts = [stat.st_size, stat.st_mtime_ns, settings, row_mpp, mask, model_id, 2]  # 2: raw JPEG tiles
    return hashlib.sha256(strict_json(parts).encode()).hexdigest()


def model_sha256(model: DualEncoder) -> str:
    """The checkpoint's hash, or one of the weights themselves for a model that was never saved."""
    stated = model.provenance().get("checkpoint_sha256")
    if stated:
        return str(stated)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_model(features: SlideFeatures, model: DualEncoder, sha: str) -> None:
    """Refuse features of another model.

    Raises:
        UserError: If the model recorded with the features, or their length, is not the model's.
    """
    made_by = features.provenance.get("model_sha256")
    if made_by and made_by != sha:
        raise UserError(
            f"{features.path}: features were made by {features.provenance.get('model')} "
            f"(sha256 {made_by[:12]}), not by {model.name} (sha256 {sha[:12]}); pass the model that made them"
        )
    if (dim := features.features.shape[1]) != model.embed_dim:
        raise UserError(
            f"{features.path}: features have {dim} numbers each, those of {model.name} have "
            f"{model.embed_dim}; pass the model that made them"
        )
