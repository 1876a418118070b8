"""Features of a slide on their way to its file: on disk as they come, so that memory stays flat."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path

import numpy as np

from pathclip.core.errors import FaultError

__all__ = ["FeatureSpool"]


class FeatureSpool:
    """(N, D) float16 that grows by rows, in a temporary file without a name; gone with the last reference.

    Args:
        dim: D.
        folder: Where there is room, such as the folder of the output; None keeps to the system's.
    """

    def __init__(self, dim: int, folder: Path | None = None) -> None:
        self._row = 2 * dim
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as this does)
        weakref.finalize(self, self._file.close)
        self.shape = (0, dim)

    def add(self, rows: np.ndarray) -> None:
        """Append (n, D) rows.

        Raises:
            FaultError: If the disk is full or fails.
        """
        assert rows.shape[1:] == self.shape[1:]
        try:
            self._file.seek(self.shape[0] * self._row)
            self._file.write(np.ascontiguousarray(rows, np.float16).tobytes())
            self._file.flush()
        except OSError as error:
            raise FaultError(f"features cannot be kept on disk: {error.strerror}") from error
        self.shape = (self.shape[0] + len(rows), self.shape[1])

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """The rows of a slice with step 1."""
        start, stop, step = rows.indices(len(self))
        assert step == 1
        self._file.seek(start * self._row)
        data = self._file.read(max(0, stop - start) * self._row)
        return np.frombuffer(data, np.float16).reshape(-1, self.shape[1])

    def __array__(self, dtype: np.typing.DTypeLike = None, copy: bool | None = None) -> np.ndarray:
        """All rows, in memory."""
        return np.asarray(self[:], dtype)
