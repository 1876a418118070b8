"""Change many files of a dataset as one: stage them beside, write down what is to happen, then do it.

Until the list is written nothing has happened; from then on it happens, however often it is interrupted:
every writer of the folder finishes what the list says first.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pathclip.core.files import read_json, write_json

__all__ = ["Journal", "finish"]

FOLDER = Path("private") / ".pending"
LIST = "todo.json"
INDEX = "index.json"


class Journal:
    """Files to put into, and to remove from, a dataset folder, all or none.

    Args:
        out: The dataset folder; the caller holds its lock.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._staged = out / FOLDER
        self._deletes: list[str] = []
        shutil.rmtree(self._staged, ignore_errors=True)

    @property
    def root(self) -> Path:
        """Where new files are written, under the names they shall have in the dataset folder."""
        return self._staged / "files"

    def staged(self, name: str) -> Path:
        """Where to write the new version of a file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def current(self, name: str) -> Path:
        """The file as it will be: the staged one, or else the one that stands."""
        staged = self.root / name
        return staged if staged.exists() else self.out / name

    def delete(self, name: str) -> None:
        """Remove a file that is there."""
        self._deletes.append(name)

    def commit(self) -> None:
        """Let it happen; a kill before this changes nothing, a kill after it nothing either."""
        names = sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())
        deletes = [name for name in self._deletes if name not in set(names)]  # what is put there stays
        todo = {"schema": "pathclip.journal/1", "replace": names, "delete": deletes}
        write_json(self._staged / LIST, todo)
        finish(self.out)

    def abandon(self) -> None:
        """Throw the staged files away."""
        shutil.rmtree(self._staged, ignore_errors=True)


def finish(out: Path) -> bool:
    """Complete a change that was written down, or clear one that was not; True if there was one to complete.

    The dataset's ``index.json`` leaves first and comes last, and a shard's index and stats leave before its
    tar changes: no reader takes a mixture for a dataset.
    """
    folder = out / FOLDER
    if not (folder / LIST).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        return False
    todo = read_json(folder / LIST)
    staged = [name for name in todo["replace"] if (folder / "files" / name).exists()]
    if INDEX in staged:
        (out / INDEX).unlink(missing_ok=True)
    for name in sorted((*staged, *todo["delete"])):
        if name.endswith((".stats.json", ".idx")):
            (out / name).unlink(missing_ok=True)
    for name in sorted(staged, key=_last_comes_the_index):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / "files" / name, out / name)
    for name in todo["delete"]:
        (out / name).unlink(missing_ok=True)
    (folder / LIST).unlink()
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _last_comes_the_index(name: str) -> tuple[bool, bool, bool, str]:
    """Takedowns are remembered first of all; a tar comes before its index and stats, ``index.json`` last."""
    return (
        name == INDEX,
        name.endswith((".idx", ".stats.json")),
        name != "private/tombstones.parquet",
        name,
    )
