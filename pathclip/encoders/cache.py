"""Features kept on disk, found again by what made them: the weights, the transform and the content."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import atomic_write, strict_json, write_json
from pathclip.encoders.folder import versions
from pathclip.encoders.pictures import as_rgb

if TYPE_CHECKING:
    from pathclip.encoders.encoder import DualEncoder

__all__ = ["FeatureCache", "content_key", "describe_model", "text_key"]

SCHEMA = "pathclip.features/1"
log = logging.getLogger("pathclip")


class FeatureCache:
    """The features of one model and transform, by content.

    A folder ``DIR/KEY`` holds ``about.json``, what KEY is the hash of, and safetensors files that are never
    changed: ``keys`` uint8 (N, 32), ``rows`` float32 (N, D) before normalisation, and a hash of both. Each
    writer adds a file of its own, so any number of processes may share a folder. A file that is damaged is
    removed, counted and warned of; what it held is computed again.

    Args:
        folder: Shared by all models.
        about: All that the features depend on except the content; JSON-like.

    Raises:
        UserError: If the folder cannot be made.
    """

    def __init__(self, folder: str | Path, about: dict[str, Any]) -> None:
        text = strict_json({"schema": SCHEMA, **about})
        self.folder = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:32]
        if Path(folder).exists() and not Path(folder).is_dir():
            raise UserError(f"cache {folder} is a file; expected a folder")
        if not (self.folder / "about.json").is_file():
            write_json(self.folder / "about.json", json.loads(text))
        self._rows: dict[bytes, Tensor] = {}
        self.damaged = sum(not self._read(path) for path in sorted(self.folder.glob("*.safetensors")))
        if self.damaged:
            log.warning("%s: %d damaged files removed; what they held is encoded again", folder, self.damaged)

    def get(self, key: bytes | None) -> Tensor | None:
        """The feature (D,) float32 of a content, before normalisation."""
        return None if key is None else self._rows.get(key)

    def add(self, keys: Sequence[bytes], rows: Sequence[Tensor]) -> None:
        """Keep features and write them, all of them or none."""
        from safetensors.torch import save

        if not keys:
            return
        self._rows.update(zip(keys, rows, strict=True))
        tensors = {
            "keys": torch.from_numpy(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32).copy()),
            "rows": torch.stack(list(rows)).float().contiguous(),
        }
        with atomic_write(self.folder / f"{uuid.uuid4().hex}.safetensors") as handle:
            handle.write(save(tensors, {"schema": SCHEMA, "sha256": _digest(tensors)}))

    def _read(self, path: Path) -> bool:
        """Take in one file; False, and the file is gone, if it is damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:  # removed by another process just now
            return True
        except (OSError, ValueError, SafetensorError):
            about, tensors = {}, {}
        if tensors.keys() != {"keys", "rows"} or about.get("sha256") != _digest(tensors):
            path.unlink(missing_ok=True)
            return False
        data = tensors["keys"].numpy().tobytes()
        self._rows.update({data[32 * i : 32 * i + 32]: row for i, row in enumerate(tensors["rows"])})
        return True


def describe_model(
    model: DualEncoder, what: str, features: str = "projected", *, weights: nn.Module | None = None
) -> dict[str, Any]:
    """What features depend on: the weights as they are now, config, transform, precision, versions.

    ``weights`` is the part of the model whose weights count; all of it unless given.
    """
    return {
        "weights_sha256": _digest(dict((weights or model.clip).state_dict())),
        "model_cfg": model.architecture.model_cfg,
        "transform": {"size": model.image_size, **model.architecture.preprocess_cfg},
        "what": what,
        "features": features,
        "precision": model.precision,
        "versions": versions(),
    }


def content_key(item: Any) -> bytes | None:
    """SHA-256 of the bytes of a file, or of pixels with their type and shape; PIL pictures upright and RGB.

    Returns:
        None for what cannot be read.
    """
    if isinstance(item, str | Path):
        try:
            return hashlib.sha256(Path(item).read_bytes()).digest()
        except OSError:
            return None
    if isinstance(item, bytes | memoryview):
        return hashlib.sha256(item).digest()
    if isinstance(item, np.ndarray | Tensor):
        pixels = torch.as_tensor(item).detach().cpu().contiguous() if isinstance(item, Tensor) else item
        kind = f"{type(item).__name__} {pixels.dtype} {tuple(pixels.shape)} "
        return hashlib.sha256(kind.encode() + np.ascontiguousarray(pixels).tobytes()).digest()
    try:
        if isinstance(item, Image.Image):
            picture = as_rgb(item)
            return hashlib.sha256(f"PIL {picture.size} ".encode() + picture.tobytes()).digest()
        return content_key(item()) if callable(item) else None  # opened when its turn comes
    except FaultError:
        return None


def text_key(text: str) -> bytes:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()
