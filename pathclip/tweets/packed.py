"""The bytes of a source: plain, gzip, zstd, or a file in a zip, unpacked as a stream and never without bound.

A file in a zip is named by a path that goes on behind the zip's own: ``archive.zip/data/tweets.js``.
"""

from __future__ import annotations

import functools
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from pathclip.core.errors import UserError

__all__ = [
    "DamagedError",
    "ZippedFile",
    "is_packed",
    "is_packed_folder",
    "is_zip",
    "open_seekable",
    "open_source",
    "zipped_file",
    "zipped_names",
    "zipped_sizes",
]

GZIP, ZSTD, ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
PIECE_BYTES = 1 << 16
FREE_BYTES = 256 << 20
MAX_RATIO = 200
"""Posts shrink 5 to 30 times; what unpacks to more than this beyond `FREE_BYTES` is made to do harm."""


class DamagedError(Exception):
    """The rest of a packed file cannot be had: damaged, encrypted, or unpacking without end."""


@contextmanager
def open_source(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked where they are packed; reading may raise `DamagedError`.

    Raises:
        UserError: If the file is missing or cannot be opened, or a damage was dealt with nowhere.
    """
    if path.exists() and not path.is_file() and not path.is_dir():  # opening a pipe would wait for ever
        raise UserError(f"source {path} is no regular file; write it to one first")
    with ExitStack() as stack:
        try:
            handle, size = _opened(path, stack)
        except FileNotFoundError:
            raise UserError(f"source {path} does not exist") from None
        except (OSError, DamagedError) as error:
            raise UserError(f"source {path} cannot be read: {_said(error)}") from None
        try:
            yield _unpacked(handle, size, stack)
        except DamagedError as error:
            raise UserError(f"source {path} is damaged: {error}") from None


@contextmanager
def open_seekable(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes where one may jump; a file in a zip is held in memory.

    Raises:
        UserError: If it is missing, damaged, or a file in a zip of over 256 MiB.
    """
    if _zip_of(path) is None:
        with open(path, "rb") as handle:
            yield handle
        return
    with open_source(path) as handle:
        data = handle.read(FREE_BYTES + 1)
    if len(data) > FREE_BYTES:
        raise UserError(f"source {path} is too large to be read within the zip; unpack it first")
    yield io.BytesIO(data)


def is_packed(path: Path) -> bool:
    """True where bytes cannot be counted without unpacking: such a source is not cut into chunks."""
    if _zip_of(path) is not None:
        return True
    with open(path, "rb") as handle:
        return handle.read(4).startswith((GZIP, ZSTD))


def is_zip(path: Path) -> bool:
    """True for a zip file."""
    if not path.is_file():
        return False
    with open(path, "rb") as handle:
        return handle.read(4) == ZIP


def zipped_names(path: Path) -> list[str]:
    """Names of the files in a zip, in its order, without folders and what systems leave behind.

    Raises:
        UserError: If the zip is damaged or a name leads out of it.
    """
    try:
        infos = _zip(path).infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"source {path} is a damaged zip: {error}") from None
    names = [i.filename for i in infos if not i.is_dir() and not i.filename.startswith("__MACOSX/")]
    for name in names:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or pure.as_posix() != name:
            raise UserError(f"source {path} is refused: the name {name[:80]!r} leads out of the zip")
    return names


def zipped_sizes(folder: Path) -> dict[str, int]:
    """Names below a folder within a zip, to what the zip says of their bytes; hidden files left out."""
    archive = _zip_of(folder)
    assert archive is not None
    prefix = f"{folder.relative_to(archive).as_posix()}/"
    return {
        name.removeprefix(prefix): _zip(archive).getinfo(name).file_size
        for name in zipped_names(archive)
        if name.startswith(prefix) and not name.rpartition("/")[2].startswith(".")
    }


def is_packed_folder(path: Path) -> bool:
    """True where a path leads into a zip, whether or not something is there."""
    return _zip_of(path) is not None


class ZippedFile:
    """A file in a zip, with as much of a path as reading a picture takes.

    Args:
        path: Of the zip, then within it.

    Raises:
        FileNotFoundError: If there is none.
    """

    def __init__(self, path: Path) -> None:
        archive = _zip_of(path)
        if archive is None:
            raise FileNotFoundError(path)
        self._zip = _zip(archive)
        try:
            self._info = self._zip.getinfo(path.relative_to(archive).as_posix())
        except KeyError:
            raise FileNotFoundError(path) from None

    def stat(self) -> os.stat_result:
        """Only the size is known; it is what the zip says, and `read_bytes` holds it to that."""
        return os.stat_result((0o100400, 0, 0, 1, 0, 0, self._info.file_size, 0, 0, 0))

    def read_bytes(self) -> bytes:
        """The whole file; its size is judged before.

        Raises:
            OSError: If it is damaged, encrypted, or larger than it says.
        """
        try:
            with self._zip.open(self._info) as handle:
                return handle.read(self._info.file_size)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
            raise OSError(f"damaged in the zip: {error}") from None

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The bytes, as a file in memory."""
        return io.BytesIO(self.read_bytes())


def zipped_file(path: Path) -> ZippedFile | None:
    """The file if the path leads into a zip and it is there."""
    try:
        return ZippedFile(path)
    except FileNotFoundError:
        return None


class _Unpacked(io.RawIOBase):
    """A stream that unpacks: every fault of a codec is a `DamagedError`, and its length has a bound."""

    def __init__(self, inner: IO[bytes], packed_bytes: int, codec: str) -> None:
        self._read = getattr(inner, "read1", inner.read)  # what came before a damage is not lost with it
        self._codec = codec
        self._piece_bytes = (
            1 << 13 if codec == "zstd" else PIECE_BYTES
        )  # it gives all that was asked or nothing
        self._packed, self._left = packed_bytes, max(FREE_BYTES, MAX_RATIO * packed_bytes)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._read(min(len(buffer), self._piece_bytes))
        except (
            OSError,
            EOFError,
            zlib.error,
            zipfile.BadZipFile,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise DamagedError(f"{self._codec} stream damaged: {_said(error)}") from None
        self._left -= len(data)
        if self._left < 0:
            raise DamagedError(
                f"{self._packed} bytes of {self._codec} unpack to more than {MAX_RATIO} times that; "
                "unpack it yourself if you trust it"
            )
        buffer[: len(data)] = data
        return len(data)


def _opened(path: Path, stack: ExitStack) -> tuple[IO[bytes], int]:
    archive = _zip_of(path)
    if archive is None:
        return stack.enter_context(open(path, "rb")), path.stat().st_size
    try:
        info = _zip(archive).getinfo(path.relative_to(archive).as_posix())
        member = stack.enter_context(_zip(archive).open(info))
    except KeyError:
        raise FileNotFoundError(path) from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise DamagedError(str(error)) from None
    return _buffered(member, info.compress_size, "zip"), info.compress_size


def _unpacked(handle: IO[bytes], size: int, stack: ExitStack) -> IO[bytes]:
    """Unpack by the first bytes, once: what is packed twice is no dump of posts."""
    reader = handle if isinstance(handle, io.BufferedReader) else io.BufferedReader(handle)  # type: ignore[type-var]
    head = reader.peek(4)[:4]
    if head.startswith(GZIP):
        return _buffered(stack.enter_context(gzip.open(reader)), size, "gzip")  # type: ignore[arg-type]
    if head.startswith(ZSTD):
        import pyarrow as pa

        stream = pa.CompressedInputStream(pa.PythonFile(reader, "r"), "zstd")
        return _buffered(stack.enter_context(stream), size, "zstd")
    return reader


def _buffered(inner: IO[bytes], size: int, codec: str) -> IO[bytes]:
    return io.BufferedReader(_Unpacked(inner, size, codec), PIECE_BYTES)


def _zip_of(path: Path) -> Path | None:
    """The zip that a path leads into, or None."""
    if path.exists():
        return None
    return next((parent for parent in path.parents if parent.is_file() and is_zip(parent)), None)


def _zip(path: Path) -> zipfile.ZipFile:
    """Opened once per process and content: the list of a large zip takes long to read."""
    state = path.stat()
    return _open_zip(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4)
def _open_zip(path: Path, mtime_ns: int, size: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _said(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
