"""Keep a copy of some files in step at an fsspec url: what is there already is not sent again.

The place itself says what was put there, in ``published.json`` (schema ``pathclip.published/1``): every name
with its size and SHA-256, null while it is being written. So any machine can go on with it, and nothing that
was put there by others is ever removed.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.callbacks import Callback
from fsspec.core import url_to_fs

from pathclip.core.errors import FaultError, PathclipError, UserError
from pathclip.core.extras import require
from pathclip.core.files import strict_json
from pathclip.core.progress import track

__all__ = [
    "MANIFEST",
    "LocalFile",
    "Place",
    "Synced",
    "check_url",
    "is_refusal",
    "local_place",
    "meant_url",
    "sync",
]

MANIFEST = "published.json"
SCHEMA = "pathclip.published/1"
SAVE_S = 60.0  # so much work is repeated at most after an interruption
URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.+)")
COLLAPSED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")
DRIVERS = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gs"),
    "gcs": ("gcsfs", "gs"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
}
SILENCE_S = 60.0  # of an http server, until it counts as gone; a transfer may take as long as it takes

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to copy: its name at the other place (with ``/``), where it lies, and what it holds."""

    name: str
    path: Path
    bytes: int
    sha256: str

    def entry(self) -> Entry:
        """Its line of the manifest."""
        return {"bytes": self.bytes, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Synced:
    """What `sync` did.

    Attributes:
        url: The place.
        uploaded: Files that were sent.
        kept: Files that were there already.
        removed: Files that were removed there.
        bytes: Bytes that were sent.
    """

    url: str
    uploaded: int
    kept: int
    removed: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def line(self) -> str:
        """What a person should know."""
        return (
            f"published to {self.url}: {self.uploaded} files sent ({self.bytes} bytes), {self.kept} were "
            f"there, {self.removed} removed"
        )


def meant_url(path: str | Path) -> str | None:
    """The url that was given where a folder is expected (a ``Path`` has lost one of its slashes), or None."""
    found = COLLAPSED.match(str(path))
    if found is None:
        return None
    slashes = ":///" if found[1] in ("file", "local") else "://"
    return found[1] + slashes + str(path)[found.end() :]


def check_url(url: str) -> str:
    """The url, if it is one that can be written down and that fsspec knows; asks nobody.

    Raises:
        UserError: If it has no scheme or an unknown one, or holds a password.
    """
    found = URL.fullmatch(url)
    if found is None:
        raise UserError(f"{url!r} is no url; expected one such as s3://bucket/folder")
    protocol = found["protocol"]
    if protocol not in fsspec.available_protocols() and protocol not in fsspec.registry:
        raise UserError(f"fsspec knows no {protocol}://; expected a url such as s3://bucket/folder")
    if re.match(r"[^/@]*:[^/@]*@", found["rest"]):
        raise UserError(
            f"the {protocol} url holds a password; leave it out, and name it in the environment or in "
            "fsspec's own settings"
        )
    return url


def is_refusal(error: Exception) -> bool:
    """Whether a store was reached and said no, as a `Place` reports it."""
    cause = error.__cause__
    return isinstance(cause, PermissionError) or getattr(cause, "status", None) in (401, 403, 410)


def local_place(url: str) -> Path | None:
    """The folder that a ``file://`` url names, or None."""
    protocol, _, rest = url.partition("://")
    return Path(rest).resolve() if protocol in ("file", "local") else None


class _Watcher(Callback):
    """Told of every piece of a transfer."""

    def __init__(self, stopped: threading.Event | None) -> None:
        super().__init__()
        self.stopped = stopped

    def relative_update(self, inc: int = 1) -> None:
        if self.stopped is not None and self.stopped.is_set():
            raise InterruptedError("stopped")


def _http_options(protocol: str) -> dict[str, Any]:
    """Left alone, aiohttp ends every transfer after five minutes, however large and however well it goes."""
    if protocol not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"timeout": timeout}}


def sync(files: Sequence[LocalFile], url: str) -> Synced:
    """Make the place at ``url`` hold these files and, of what was put there before, no others.

    Files go in order. The last one is the seal, which readers open first: it leaves before anything else
    changes, and is put back when all others are known to be there whole.

    Args:
        files: At least one; names are unique.
        url: Any fsspec url that can be written to.

    Raises:
        FaultError: If the store is away, refuses, lacks its driver, or holds other sizes than were sent. Run
            again, it sends what is missing.
        UserError: If the place holds files of these names that were not put there by this function.
    """
    place = Place(url)
    there = place.sizes()
    known = place.manifest(there, {file.name for file in files})
    wanted = {file.name: file.entry() for file in files}
    fresh = [f for f in files if known.get(f.name) != wanted[f.name] or there.get(f.name) != f.bytes]
    if not fresh and known == wanted:
        return Synced(url, 0, len(files), 0, 0)
    seal = files[-1]
    fresh = [*(file for file in fresh if file is not seal), seal]
    stale = sorted(name for name in known if name in there and name not in wanted)
    if seal.name in there:
        place.remove(seal.name)
    entries = {name: known[name] for name in known if name in wanted or name in there}
    entries |= {file.name: {**file.entry(), "sha256": None} for file in fresh}
    place.save(entries)
    for name in stale:
        place.remove(name)
        del entries[name]
    _send(place, fresh[:-1], entries)
    _compare(place, files[:-1])
    place.save(wanted)
    place.put(seal)
    return Synced(url, len(fresh), len(files) - len(fresh), len(stale), sum(f.bytes for f in fresh))


def _send(place: Place, files: list[LocalFile], entries: dict[str, Entry]) -> None:
    saved = time.monotonic()
    for file in track(files, "files published"):
        place.put(file)
        entries[file.name] = file.entry()
        if time.monotonic() - saved >= SAVE_S:
            place.save(entries)
            saved = time.monotonic()


def _compare(place: Place, files: Sequence[LocalFile]) -> None:
    there = place.sizes()
    for file in files:
        if there.get(file.name) != file.bytes:
            raise FaultError(
                f"{place.url}: {file.name} has {there.get(file.name, 'no')} bytes there after {file.bytes} "
                "were sent"
            )


class Place:
    """A folder of a store. Whatever its driver raises becomes a `FaultError` of one line.

    Args:
        url: Any that fsspec knows.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        protocol = url.partition("://")[0]
        if protocol in DRIVERS:
            module, extra = DRIVERS[protocol]
            try:
                require(module, extra=extra, why=f"reaching {url}")
            except UserError as error:
                raise FaultError(str(error)) from None
        options = {"auto_mkdir": True} if local_place(url) else _http_options(protocol)
        with self._reaching("open it"):
            self._fs, root = url_to_fs(url, skip_instance_cache=True, **options)
        self._root = root.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Name to bytes of every file there is, whoever put it there."""
        with self._reaching("list it"):
            self._fs.invalidate_cache()
            found = self._fs.find(self._root, detail=True)
        prefix = self._root + "/"
        return {name.removeprefix(prefix): i["size"] for name, i in found.items() if name.startswith(prefix)}

    def manifest(self, there: dict[str, int], names: set[str]) -> dict[str, Entry]:
        """What the place says was put there."""
        if MANIFEST not in there:
            if foreign := sorted(names & there.keys()):
                raise UserError(
                    f"{self.url} holds {foreign[0]} but no {MANIFEST}, so something else put it there; "
                    "name an empty place"
                )
            return {}
        with self._reaching(f"read {MANIFEST}"):
            data = self._fs.cat_file(f"{self._root}/{MANIFEST}")
        try:
            said = json.loads(data)
            if said["schema"] == SCHEMA:
                return dict(said["files"])
        except (ValueError, TypeError, KeyError):
            pass
        raise UserError(f"{self.url}/{MANIFEST} is not of schema {SCHEMA}; name an empty place")

    def save(self, entries: dict[str, Entry]) -> None:
        """Write the manifest."""
        said = {"schema": SCHEMA, "files": {name: entries[name] for name in sorted(entries)}}
        with self._reaching(f"write {MANIFEST}"):
            self._fs.pipe_file(f"{self._root}/{MANIFEST}", (strict_json(said, indent=1) + "\n").encode())

    def read(self, name: str) -> bytes | None:
        """The bytes of a small file; None where it is not there."""
        with self._reaching(f"read {name}"):
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

    def get(self, name: str, path: Path, stopped: threading.Event | None = None) -> None:
        """Copy a file from there to here; ends early, with an error, when ``stopped`` is set."""
        with self._reaching(f"read {name}"):
            self._fs.get_file(f"{self._root}/{name}", str(path), callback=_Watcher(stopped))

    def put(self, file: LocalFile) -> None:
        """Copy a file from here to there."""
        with self._reaching(f"write {file.name}"):
            self._fs.put_file(str(file.path), f"{self._root}/{file.name}")

    def remove(self, name: str) -> None:
        """Remove a file there."""
        with self._reaching(f"remove {name}"):
            self._fs.rm_file(f"{self._root}/{name}")

    @contextlib.contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        try:
            yield
        except PathclipError:
            raise
        except Exception as error:  # drivers raise OSError, botocore's, aiohttp's, google's ...
            text = " ".join(str(error).split())
            reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
            raise FaultError(f"{self.url}: cannot {what}: {reason}") from error
