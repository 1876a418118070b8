"""What a run writes about itself while it goes: metrics.jsonl, keys/, tensorboard/, and curves.png."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from pathclip.batches import stable_id
from pathclip.core.extras import require
from pathclip.core.files import atomic_write, strict_json
from pathclip.training.config import WatchConfig

__all__ = ["KEY_BYTES", "Watch", "draw_curves", "read_metrics"]

KEY_BYTES = 16  # one row of keys/rank0.bin: a sample id in ASCII


class Watch:
    """Appends rows; first cuts back what lies beyond the checkpoint that a resumed run starts from.

    Args:
        run: The run folder.
        rank: This process. Rank 0 writes the metrics, every rank its own keys.
        ranks: Processes of the run; there may have been more of them before.
        step: The step resumed from; rows beyond it go.
        num_keys: Each rank's samples seen up to it, also of ranks that are gone; keys beyond them go.
        config: What else is written to.
    """

    def __init__(
        self, run: Path, rank: int, ranks: int, *, step: int, num_keys: Sequence[int], config: WatchConfig
    ) -> None:
        self.run, self.rank = run, rank
        board, remote = _trackers(config) if rank == 0 else (None, None)
        self.keys: IO[bytes] = _cut_keys(run, rank, num_keys)
        self.metrics: IO[str] | None = None
        self.board: Any = board and board(str(run / "tensorboard"), purge_step=step + 1)
        self.remote: Any = remote and remote.init(
            project=config.wandb,
            name=run.name,
            id=f"{stable_id(str(run)):x}",
            dir=run,
            resume="allow",
        )
        if rank == 0:
            for gone in (run / "keys").glob("rank*.bin"):
                if int(gone.stem[4:]) >= ranks:
                    _cut_keys(run, int(gone.stem[4:]), num_keys).close()
            _cut_metrics(run / "metrics.jsonl", step)
            self.metrics = open(run / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115

    def add_keys(self, keys: Sequence[str]) -> None:
        """The samples of this rank's share of a batch, in order."""
        self.keys.write(b"".join(map(key_row, keys)))
        self.keys.flush()

    def add_row(self, row: dict[str, Any]) -> None:
        """A line of metrics.jsonl; schema ``pathclip.metrics/1``."""
        if self.metrics is None:
            return
        self.metrics.write(strict_json(row) + "\n")
        self.metrics.flush()
        if self.board is not None:
            for name, value in _flat(row):
                self.board.add_scalar(name, value, row["step"])
        if self.remote is not None:
            self.remote.log(dict(_flat(row)), step=row["step"])

    def close(self) -> None:
        """Make what was written last."""
        for handle in filter(None, (self.keys, self.metrics)):
            handle.flush()
            os.fsync(handle.fileno())
            handle.close()
        if self.board is not None:
            self.board.close()
        if self.remote is not None:
            self.remote.finish()


def key_row(key: str) -> bytes:
    """A sample's 16 bytes: its id; a hash where the key of a foreign shard is not 16 ASCII characters."""
    raw = key.encode()
    return raw if len(raw) == KEY_BYTES and key.isascii() else f"{stable_id(key):016x}".encode()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line cut by a kill is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def draw_curves(run: Path) -> Path | None:
    """Draw ``curves.png``: loss, scale, learning rate, throughput, and every evaluation, against the step."""
    rows = read_metrics(run / "metrics.jsonl")
    if not rows:
        return None
    from pathclip.training.curves import draw

    return draw(rows, run / "curves.png", title=run.name)


def _cut_keys(run: Path, rank: int, num_keys: Sequence[int]) -> IO[bytes]:
    path, count = run / "keys" / f"rank{rank}.bin", num_keys[rank] if rank < len(num_keys) else 0
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open(path, "ab")  # noqa: SIM115
    handle.truncate(min(count * KEY_BYTES, path.stat().st_size))
    return handle


def _cut_metrics(path: Path, step: int) -> None:
    if path.is_file():
        rows = [row for row in read_metrics(path) if row["step"] <= step]
        with atomic_write(path, "w") as handle:
            handle.writelines(strict_json(row) + "\n" for row in rows)


def _flat(row: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in row.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            found.append((prefix + name, value))
    return found


def _trackers(config: WatchConfig) -> tuple[Any, Any]:
    """TensorBoard's writer class and the W&B module, as far as they are asked for."""
    board = remote = None
    if config.tensorboard:
        require("tensorboard", extra="tracking", why="watch.tensorboard")
        from torch.utils.tensorboard import SummaryWriter as board
    if config.wandb is not None:
        remote = require("wandb", extra="tracking", why="watch.wandb")
    return board, remote
