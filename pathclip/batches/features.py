"""Features of a locked image tower, kept on disk and mapped into memory: batches hold them for pictures."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pathclip.batches.decode import BadImageError
from pathclip.core.errors import FaultError
from pathclip.core.files import atomic_write

__all__ = ["FeatureStore", "Part"]

SCHEMA = "pathclip.image-features/1"
PART = 1024  # samples of a file: what a kill while the store is filled can cost
log = logging.getLogger("pathclip")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a store.

    Attributes:
        view: Of the pictures.
        start: First sample.
        stop: One past the last.
    """

    view: int
    start: int
    stop: int


class FeatureStore:
    """One feature of every view of every sample. Can be pickled.

    A folder of safetensors files that are whole or absent and never change: ``rows`` float32 (n, D), and in
    their header why a picture has none and a hash of it all, the folder's name included. Files are mapped:
    they take no memory that the system could not have back.

    Args:
        folder: Of these features alone; its name says what they are of.
        count: Samples.
        dim: D.
        views: Of each sample.
    """

    def __init__(self, folder: Path, count: int, dim: int, views: int) -> None:
        self.folder, self.count, self.dim, self.views = folder, count, dim, views
        self.part_size = PART
        self._open: dict[tuple[int, int], tuple[np.ndarray, dict[str, str]]] = {}

    @property
    def parts(self) -> list[Part]:
        """All files that make it whole."""
        starts = range(0, self.count, self.part_size)
        return [Part(v, s, min(s + self.part_size, self.count)) for v in range(self.views) for s in starts]

    def path(self, part: Part) -> Path:
        """Where a part lies."""
        return self.folder / f"view-{part.view:04d}-{part.start // self.part_size:06d}.safetensors"

    def holds(self, part: Part) -> bool:
        """Whether a part is there and whole, to the last byte; a damaged one is removed."""
        path = self.path(part)
        if not path.is_file():
            return False
        try:
            rows, bad, digest = self._read(part)
            if digest == self._digest(part, rows, bad):
                return True
        except FaultError:
            pass
        log.warning("%s is damaged and removed; its features are computed again", path)
        path.unlink(missing_ok=True)
        return False

    def write(self, part: Part, rows: Tensor, bad: Mapping[int, str]) -> None:
        """Keep a part.

        Args:
            part: Which.
            rows: float32 (n, D) on the CPU.
            bad: Sample -> why its picture has no feature; its row counts for nothing.

        Raises:
            FaultError: If the disk is full.
            UserError: If the folder cannot be written to.
        """
        rows, reasons = rows.contiguous(), {str(index): reason for index, reason in bad.items()}
        about = {"schema": SCHEMA, "bad": reasons, "sha256": self._digest(part, rows.numpy(), reasons)}
        with atomic_write(self.path(part)) as handle:
            handle.write(save({"rows": rows}, {"about": json.dumps(about)}))  # one entry: their order varies

    def row(self, view: int, index: int) -> np.ndarray:
        """The feature of a sample, float32 (D,).

        Raises:
            BadImageError: If its picture has none.
            FaultError: If its part is missing.
        """
        start = index - index % self.part_size
        key = (view, start)
        if key not in self._open:
            self._open[key] = self._read(Part(view, start, min(start + self.part_size, self.count)))[:2]
        rows, bad = self._open[key]
        if str(index) in bad:
            raise BadImageError(bad[str(index)])
        row: np.ndarray = rows[index - start]
        return row

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}

    def _read(self, part: Part) -> tuple[np.ndarray, dict[str, str], str]:
        """Map a part: rows, reasons, hash.

        Raises:
            FaultError: If it is not there, or not what it should be.
        """
        path = self.path(part)
        try:
            with safe_open(str(path), "pt") as file:
                about = json.loads(file.metadata()["about"])
                rows = file.get_tensor("rows")
            bad, digest = about["bad"], about["sha256"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise FaultError(
                f"image features {path} cannot be read ({error}); --resume makes them anew"
            ) from None
        if rows.dtype != torch.float32 or rows.shape != (part.stop - part.start, self.dim):
            raise FaultError(f"image features {path} are of another shape; --resume makes them anew")
        return rows.numpy(), bad, digest

    def _digest(self, part: Part, rows: np.ndarray, bad: dict[str, str]) -> str:
        about = f"{SCHEMA} {self.folder.name} {part} {rows.shape} {json.dumps(bad)} "
        digest = hashlib.sha256(about.encode())
        digest.update(rows.data)
        return digest.hexdigest()
