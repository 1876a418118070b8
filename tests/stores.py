"""Object stores for the tests: fsspec's memory, and an S3 server (moto) on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem


class Store:
    """An empty place in a store, looked at past the code that is tested."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.protocol, _, self.root = url.partition("://")

    def fs(self) -> Any:
        return fsspec.filesystem(self.protocol, skip_instance_cache=True)

    def objects(self) -> dict[str, bytes]:
        """Everything there is below the place: name to bytes."""
        fs = self.fs()
        return {p.lstrip("/").removeprefix(self.root + "/"): fs.cat_file(p) for p in fs.find(self.root)}

    def write(self, name: str, data: bytes) -> None:
        self.fs().pipe_file(f"{self.root}/{name}", data)

    def remove(self, name: str) -> None:
        self.fs().rm_file(f"{self.root}/{name}")

    def sent(self, patch: pytest.MonkeyPatch, dies_at: int | None = None) -> list[str]:
        """Names of the files that are sent from now on, in order; the store is away from one of them on."""
        names: list[str] = []

        def note(path: str) -> None:
            if dies_at is not None and len(names) >= dies_at:
                raise ConnectionError("the store\nwent away")
            names.append(str(path).lstrip("/").removeprefix(self.root + "/"))

        _watch(patch, self.protocol, note)
        return names


def _watch(patch: pytest.MonkeyPatch, protocol: str, note: Callable[[str], None]) -> None:
    if protocol == "memory":
        put = MemoryFileSystem.put_file

        def put_file(self, lpath, rpath, **options):
            note(rpath)
            return put(self, lpath, rpath, **options)

        patch.setattr(MemoryFileSystem, "put_file", put_file)
    else:
        from s3fs import S3FileSystem

        put_async = S3FileSystem._put_file

        async def _put_file(self, lpath, rpath, **options):
            note(rpath)
            return await put_async(self, lpath, rpath, **options)

        patch.setattr(S3FileSystem, "_put_file", _put_file)
