"""What was fetched: files named by the SHA-256 of their bytes, and a ledger of what became of every URL."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from pathclip.core.files import atomic_write

__all__ = ["LEDGER", "Fetched", "Ledger", "copy_store"]

LEDGER = "ledger.jsonl"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one URL.

    Attributes:
        state: ``ok``, ``gone``, ``blocked`` (by our guard), ``refused`` (by the server), ``oversized``,
            ``no_picture``, or ``slow`` and ``failed`` (that may pass).
        sha256: Of the bytes, where they came.
        detail: The reason, otherwise.
    """

    state: str
    sha256: str | None = None
    detail: str = ""


class Ledger:
    """What became of every URL, across runs; the last line of a URL counts.

    URLs stand in it as hashes, so that nothing of a post that was taken down is left in it.

    Args:
        store: The folder of the files.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self._rows: dict[str, Fetched] = {}
        self._lock = threading.Lock()
        for line in self._lines():
            try:
                row = json.loads(line)
                url = row.pop("url")
                self._rows[url] = Fetched(**row)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # a line torn by a kill: the URL is asked again

    def get(self, url: str) -> Fetched | None:
        """What is known of a URL; a file that is no longer there is not."""
        found = self._rows.get(_name(url))
        if found is not None and found.state == "ok" and not (self.store / self.file(found)).is_file():
            return None
        return found

    @staticmethod
    def file(fetched: Fetched) -> str:
        """The file's path in the store."""
        assert fetched.sha256 is not None
        return f"{fetched.sha256[:2]}/{fetched.sha256}"

    def add(self, url: str, fetched: Fetched, data: bytes | None = None) -> None:
        """Keep the bytes, then the line that vouches for them."""
        if data is not None:
            path = self.store / self.file(fetched)
            if not path.is_file():
                with atomic_write(path) as handle:
                    handle.write(data)
        with self._lock:
            self._rows[_name(url)] = fetched
            self.store.mkdir(parents=True, exist_ok=True)
            with open(self.store / LEDGER, "a", encoding="utf-8") as handle:
                handle.write(json.dumps({"url": _name(url), **asdict(fetched)}) + "\n")
                handle.flush()
                os.fsync(handle.fileno())

    def _lines(self) -> list[str]:
        path = self.store / LEDGER
        return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def copy_store(store: Path, to: Path) -> None:
    """The same store again: a ledger of its own, the pictures as links to the same bytes."""

    def copy(source: str, target: str) -> None:
        if Path(source).name == LEDGER:
            shutil.copy2(source, target)
        else:
            os.link(source, target)

    shutil.copytree(store, to, copy_function=copy)


def _name(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:32]
