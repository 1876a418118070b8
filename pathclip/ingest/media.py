"""Find the file of an attachment in the media folders, without ever leaving them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from pathclip.core.errors import UserError
from pathclip.pairs import Drop
from pathclip.tweets import Media, basename
from pathclip.tweets.packed import ZippedFile, is_packed_folder, zipped_file, zipped_sizes

__all__ = ["MediaFolders", "Place", "names_of"]

Place = tuple[int, str]
"""Which folder, and the path in it with forward slashes."""


class MediaFolders:
    """The files of some folders, found by name.

    Args:
        roots: Searched in this order; a folder within a zip does as well (``archive.zip/data/tweets_media``).
        beside: Further folders that tables name files in; not searched, so they may hold anything.

    Attributes:
        fetched: URL to what became of its download; asked where no folder holds the picture.

    Raises:
        UserError: If a folder does not exist.
    """

    def __init__(self, roots: list[Path], beside: list[Path] | None = None) -> None:
        self.roots = [*roots, *(beside or [])]
        self._by_name: dict[str, Place] = {}
        self._by_stem: dict[str, Place] = {}
        self._files: dict[Place, int] = {}
        self.fetched: dict[str, Place | Drop] = {}
        for number, root in enumerate(roots):
            if not root.is_dir() and not is_packed_folder(root):
                raise UserError(
                    f"media folder {root} does not exist; name the folder of the pictures with --media"
                )
            for file, size in _files(root):
                self._add(number, file, size)

    def add_store(self, store: Path, fetched: Mapping[str, str | Drop]) -> None:
        """Take in what was downloaded: URL to a file in ``store``, or to the reason why there is none."""
        number = len(self.roots)
        self.roots.append(store)
        self.fetched = {
            url: found if isinstance(found, Drop) else (number, found) for url, found in fetched.items()
        }

    def fingerprint(self) -> dict[str, Any]:
        """Number of searched files and a hash of their names and sizes."""
        lines = sorted(f"{number}/{file} {size}" for (number, file), size in self._files.items())
        return {"files": len(lines), "sha256": hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()}

    def _add(self, number: int, file: str, size: int) -> None:
        self._files[number, file] = size
        name = file.rpartition("/")[2]
        self._by_name.setdefault(name, (number, file))
        self._by_stem.setdefault(name.partition(".")[0], (number, file))

    def of_post(self, tweet_id: str, media: Media) -> Place | Drop:
        """The file of an attachment: by the payload's own path, the name in its URL, or its media key."""
        if media.kind in ("video", "animated_gif"):
            return Drop("video", media.kind)
        if media.kind == "taken_down":
            return Drop("taken_down", "a copy of a picture that was taken down")
        name = basename(media.url)
        for wanted in names_of(tweet_id, media):
            if found := self._by_name.get(wanted) or self._by_stem.get(wanted):
                return found
        if media.url in self.fetched:
            return self.fetched[media.url]
        if media.kind == "unlisted":
            return Drop("media_unlisted", f"{media.key} is not described, and no file is named so")
        if not self.roots:
            return Drop("image_missing", "no media folder was given (--media)")
        return Drop("image_missing", f"no file {name or media.key} in the media folder")

    def of_row(self, image: str, number: int = 0) -> Place | Drop:
        """The file that a table names, relative to folder ``number``."""
        path = PurePosixPath(image.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            return Drop("image_outside", "the path is not inside the media folder")
        return number, path.as_posix()

    def open_path(self, place: Place) -> Path | ZippedFile | Drop:
        """The file to open, after links were followed."""
        root = self.roots[place[0]]
        return safe_path(root, place[1])


def names_of(tweet_id: str, media: Media) -> list[str]:
    """Names and stems that the file of an attachment may bear, the likeliest first."""
    name = basename(media.url)
    files = (media.path, name, f"{tweet_id}-{name}" if name else None)
    stems = (name.partition(".")[0] if name else None, media.key, media.key.partition("_")[2])
    return [wanted for wanted in (*files, *stems) if wanted]


def safe_path(root: Path, file: str) -> Path | ZippedFile | Drop:
    """``root/file`` if it is a file that lies, links followed, inside ``root``."""
    path = root / file
    if "/" not in file and _is_plain_file(path):
        return path
    if is_packed_folder(root):
        return zipped_file(path) or Drop(
            "image_missing", f"no file {PurePosixPath(file).name} in the archive"
        )
    try:
        real = os.path.realpath(path, strict=True)
        inside = real.startswith(_resolved(root))
    except (OSError, RuntimeError):
        return Drop("image_missing", f"no file {PurePosixPath(file).name} in the media folder")
    if not inside:
        return Drop("image_outside", "a link leads out of the media folder")
    return path if os.path.isfile(real) else Drop("image_unreadable", "not a regular file")


def _is_plain_file(path: Path) -> bool:
    """True if it is a file and no link: one question of the disk where all others take ten."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=64)
def _resolved(root: Path) -> str:
    """What the path of everything in the folder starts with, links followed."""
    return os.path.join(os.path.realpath(root), "")


def _files(root: Path) -> Iterator[tuple[str, int]]:
    """Files below a folder and their bytes, sorted; links to folders not followed, hidden files left out."""
    if is_packed_folder(root):
        yield from sorted(zipped_sizes(root).items())
        return
    for folder, folders, names in os.walk(root):
        folders.sort()
        prefix = Path(folder).relative_to(root).as_posix()
        for name in sorted(names):
            if not name.startswith("."):
                size = os.lstat(os.path.join(folder, name)).st_size
                yield (name if prefix == "." else f"{prefix}/{name}"), size
