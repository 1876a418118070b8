"""The only thing of a post that may be given away freely: its id. Lists of ids and the recipe around them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pathclip._version import __version__
from pathclip.core.config import to_toml
from pathclip.core.errors import UserError
from pathclip.core.files import atomic_write, read_json
from pathclip.ingest.config import IngestConfig

__all__ = ["FOLDER", "MAX_IDS", "IdExport", "export_ids", "export_to", "post_ids"]

FOLDER = "ids"
MAX_IDS = 1_500_000
OWN_FILE = re.compile(r"ids-\d{5}\.(?:txt|csv)|SHA256SUMS|recipe\.toml|README\.md")
Format = Literal["txt", "csv"]


@dataclass(frozen=True, slots=True)
class IdExport:
    """What was written.

    Attributes:
        folder: Where.
        ids: How many different post ids.
        parts: The files that hold them.
    """

    folder: Path
    ids: int
    parts: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"folder": self.folder, "ids": self.ids, "parts": list(self.parts)}


def export_ids(
    out: str | Path,
    target: str | Path | None = None,
    *,
    format: Format = "txt",
    part_ids: int = MAX_IDS,
) -> IdExport:
    """Write the ids of all posts that gave a picture or a caption, for others to hydrate.

    Beside the parts: their checksums, the settings as ``recipe.toml``, and a page that says how the dataset
    is made again. Nothing else of the private part leaves it; no ids of authors.

    Args:
        out: The dataset folder with its private part.
        target: A new or earlier export's folder; ``OUT/ids`` by default, where takedowns keep it in step.
        format: txt (one id a line) or csv (with the header ``id``).
        part_ids: Ids per part, at most 1.5 million: what X allows a recipient in 30 days.

    Raises:
        UserError: If the private part is missing, no sample comes from a post, or other files are in the way.
    """
    out = Path(out)
    target = out / FOLDER if target is None else Path(target)
    if not 1 <= part_ids <= MAX_IDS:
        raise UserError(f"part_ids is {part_ids}; expected 1 to {MAX_IDS}")
    provenance = out / "private" / "provenance.parquet"
    if not provenance.is_file():
        raise UserError(f"{out} has no private/provenance.parquet; the ids stand there alone")
    ids = post_ids(provenance)
    if not ids:
        raise UserError(f"{out} holds no posts: samples of tables have no ids")
    _check(target)
    for path in target.iterdir() if target.is_dir() else ():
        path.unlink()
    return export_to(target, ids, read_json(out / "private" / "run.json"), format, part_ids)


def post_ids(provenance: Path) -> list[str]:
    """Different post ids, in numerical order."""
    column = pq.read_table(provenance, columns=["tweet_id"])["tweet_id"]
    found = pc.unique(column).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
    return sorted((i for i in found if i is not None), key=lambda i: (len(i), i))


def export_to(target: Path, ids: list[str], run: dict[str, Any], format: Format, part_ids: int) -> IdExport:
    """Write the parts and what goes with them."""
    parts = []
    sums = []
    for number, start in enumerate(range(0, len(ids), part_ids)):
        name = f"ids-{number:05d}.{format}"
        data = "".join(_lines(ids[start : start + part_ids], format)).encode()
        _write(target / name, data)
        sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
        parts.append(name)
    _write(target / "SHA256SUMS", "".join(sums).encode())
    _write(target / "recipe.toml", _recipe(run).encode())
    _write(target / "README.md", _readme(len(ids), parts).encode())
    return IdExport(target, len(ids), tuple(parts))


def _lines(ids: Iterable[str], format: Format) -> Iterator[str]:
    if format == "csv":
        yield "id\n"
    yield from (f"{i}\n" for i in ids)


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path) as handle:
        handle.write(data)


def _check(target: Path) -> None:
    """Refuse a folder that holds anything but an export."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; name a folder for the ids")
    for path in target.iterdir() if target.is_dir() else ():
        if not OWN_FILE.fullmatch(path.name):
            raise UserError(f"{target} holds {path.name}, which is no part of an export; name another folder")


def _recipe(run: dict[str, Any]) -> str:
    """The settings as `pathclip ingest --config` reads them, and what they were used with."""
    config = IngestConfig.model_validate({**run["config"], "card": {}, "publish": ""})
    return (
        f"# pathclip {run['code_version']} (this list: {__version__}); key fingerprint {run['key']}\n"
        f"# hashes of the phases: {json.dumps(run['hashes'])}\n" + to_toml(config)
    )


def _readme(count: int, parts: list[str]) -> str:
    return f"""# Ids of {count} posts

{len(parts)} files of at most {MAX_IDS} ids: X lets one give a recipient that many in 30 days. Nothing else
of the posts is here. Posts that were deleted since cannot be had any more, which is as it should be.

1. `sha256sum -c SHA256SUMS`
2. Hydrate: `twarc2 hydrate {parts[0]} tweets.jsonl`, with your own access to the API, and get the pictures.
3. `pathclip ingest tweets.jsonl --media media --out dataset --config recipe.toml`

With the key of the original dataset (`--key-file`) the ids of the samples are the same too; without it they
are others.
"""
