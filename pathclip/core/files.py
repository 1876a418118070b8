"""Files that are whole or absent: written beside their place, flushed, then moved in."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pathclip.core.errors import FaultError, UserError

__all__ = [
    "atomic_path",
    "atomic_write",
    "claim",
    "read_json",
    "sha256_file",
    "size_text",
    "strict_json",
    "write_json",
]

NO_ENTRY = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is fsynced and replaces ``path``.

    For writers that want a name (parquet, h5, tar). On any exception the temporary file is removed and
    ``path`` keeps what it had.

    Raises:
        FaultError: If the disk is full or fails.
        UserError: If the place cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        own = error.filename is None or str(error.filename) in (str(temporary), *map(str, path.parents))
        if error.errno is None or not own:
            raise  # another file's trouble, or a library's own error that happens to be an OSError
        kind = UserError if error.errno in NO_ENTRY else FaultError
        raise kind(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under ``path`` only when the block ends without an exception."""
    encoding = None if "b" in mode else "utf-8"
    with atomic_path(path) as temporary, open(temporary, mode, encoding=encoding) as handle:
        yield handle


def write_json(path: str | Path, data: Any) -> None:
    """Write strict JSON (NaN and infinities become null), sorted as given, atomically."""
    with atomic_write(path, "w") as handle:
        handle.write(strict_json(data, indent=2) + "\n")


def strict_json(data: Any, *, indent: int | None = None) -> str:
    """JSON text that any reader takes: no NaN, non-ASCII kept, paths and numpy scalars as plain values."""
    return json.dumps(_plain(data), indent=indent, ensure_ascii=False, allow_nan=False)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: If the file is missing or is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def size_text(num_bytes: int) -> str:
    """For people: gigabytes, below one megabytes."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


@contextlib.contextmanager
def claim(path: str | Path) -> Iterator[bool]:
    """Try to own ``path`` as a lock file; yields whether this process owns it.

    Created with O_EXCL and holding pid and host, so two processes never both own it. A claim whose process
    is dead on this host is stale and taken over. Removed at the end of the block.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    owned = _try_claim(path) or (_is_stale(path) and _try_claim(path))
    try:
        yield owned
    finally:
        if owned:
            path.unlink(missing_ok=True)


def _try_claim(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as handle:
        handle.write(f"{os.getpid()} {socket.gethostname()}\n")
    return True


def _is_stale(path: Path) -> bool:
    """True if the claiming process is dead on this host; exactly one taker moves the stale file away."""
    try:
        pid, host = path.read_text().split()
    except (OSError, ValueError):
        return False
    if host != socket.gethostname():
        return False
    if _lives(int(pid)):
        return False
    taken = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.stale")
    try:
        os.rename(path, taken)
    except FileNotFoundError:
        return False
    taken.unlink(missing_ok=True)
    return True


def _lives(pid: int) -> bool:
    """False for a process that is gone, or dead and only not yet reaped by its parent (a zombie)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:  # no /proc on this system, or it went just now
        return True
    return stat.rpartition(")")[2].split()[0] not in "ZX"  # the name in brackets may hold any character


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # numpy and torch scalars and arrays
        return _plain(value.tolist())
    return str(value)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems refuse to sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
