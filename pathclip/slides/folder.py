"""The output folder: names of slides, one record per slide, and the tables made from the records.

``OUT/.pathclip/NAME.json`` is a slide's record, written after its files: a slide without one is not done. The
tables ``results.csv`` and ``status.jsonl`` are made anew from the records, so a kill loses nothing and runs
into one folder agree.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.core.files import atomic_write, claim, read_json, strict_json, write_json

__all__ = ["RECORD_SCHEMA", "STATUS_SCHEMA", "OutputFolder", "SlideRecord"]

STALE_S = 60.0
log = logging.getLogger("pathclip")
RECORD_SCHEMA = "pathclip.slide-record/1"
STATUS_SCHEMA = "pathclip.slide-status/1"
MAX_NAME_BYTES = 150


@dataclass(frozen=True, slots=True)
class SlideRecord:
    """How one slide ended.

    Attributes:
        name: Stem of its files.
        slide: As the user named it.
        place: Hash of where the file lies, so that two slides of one name are told apart.
        file: [name, bytes, modification time in ns], or None for a file that could not be looked at.
        key: Hash of all that decides the result; equal keys are never worked on twice.
        run: Hash of what slides of one run share: settings, model, prompts.
        state: ``done``, ``failed`` or ``empty``.
        reason: Why it failed or is empty, in a line.
        mistake: Whether the user can mend the failure.
        seconds: Time spent on it.
        tiles: Tiles scored.
        unreadable: Tiles left out because they could not be decoded.
        label: The class found.
        agreement: Share of the K that give this label.
        mpp: Scale of level 0, µm/px.
        mpp_source: Where it comes from.
        patient: From the slide table.
        truth: Known label, from the slide table.
        scores: K to class to score.
        means: Class to mean cosine over all tiles.
        class_tiles: Class to number of tiles of which it is the most probable.
        tile_mm2: Area of a tile; None where the scale is unknown.
        best: For slides of a patient, each class's best cosines: base64 of (n, C) float32.
        segment: Class, threshold and area of the segment, and how it fits the drawing; None if not asked for.
        draws: Way of pooling to the column of the best class under each draw of prompts.
        files: Names of the files written.
    """

    name: str
    slide: str
    place: str
    file: tuple[str, int, int] | None
    key: str
    run: str
    state: str
    reason: str | None = None
    mistake: bool = False
    seconds: float = 0.0
    tiles: int = 0
    unreadable: int = 0
    label: str | None = None
    agreement: float | None = None
    mpp: float | None = None
    mpp_source: str | None = None
    patient: str | None = None
    truth: str | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    class_tiles: dict[str, int] = field(default_factory=dict)
    tile_mm2: float | None = None
    best: str | None = None
    draws: dict[str, list[int]] = field(default_factory=dict)
    segment: dict[str, Any] | None = None
    files: tuple[str, ...] = ()

    def status(self) -> dict[str, Any]:
        """The row of ``status.jsonl``."""
        keys = ("slide", "name", "state", "reason", "seconds", "tiles", "unreadable", "mpp", "mpp_source")
        return {"schema": STATUS_SCHEMA, **{key: getattr(self, key) for key in keys}}


class OutputFolder:
    """The folder that slide results go to.

    Raises:
        UserError: If it cannot be made or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.records_path = self.path / ".pathclip"
        try:
            self.records_path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.records_path).close()  # nameless: others may be at it too
        except OSError as error:
            raise UserError(
                f"cannot write into {self.path}: {error.strerror}; choose another --out"
            ) from None

    def record_path(self, name: str) -> Path:
        """Where a slide's record lies."""
        return self.records_path / f"{name}.json"

    def thumbnail_path(self, name: str) -> Path:
        """A slide's small picture for the page of all slides."""
        return self.records_path / f"{name}.jpg"

    def claim_path(self, name: str) -> Path:
        """The lock of the process that works on a slide."""
        return self.records_path / f"{name}.claim"

    def record(self, name: str) -> SlideRecord | None:
        """A slide's record; None where there is none that can be read."""
        return _read_record(self.record_path(name))

    def records(self) -> dict[str, SlideRecord]:
        """All records, by name."""
        found = (_read_record(path) for path in sorted(self.records_path.glob("*.json")))
        return {record.name: record for record in found if record is not None}

    def write_record(self, record: SlideRecord) -> None:
        """Commit a slide: to be called when its files lie."""
        write_json(self.record_path(record.name), {"schema": RECORD_SCHEMA, **asdict(record)})

    def is_whole(self, record: SlideRecord) -> bool:
        """Whether the files of a record still lie there."""
        return all((self.path / name).is_file() for name in record.files)

    def sweep(self, names: Sequence[str]) -> None:
        """Remove what killed processes left half written of these slides; not what others are writing."""
        for part in (*self.path.glob(".*.part"), *self.records_path.glob(".*.part")):
            target = part.name[1:].rsplit(".", 2)[0]  # of .TARGET.HEX.part
            owner = max((name for name in names if target.startswith(f"{name}.")), key=len, default=None)
            if owner is not None:
                with claim(self.claim_path(owner)) as owned:
                    if owned:
                        part.unlink(missing_ok=True)
            elif time.time() - _written(part) > STALE_S:  # of a table, which takes no second to write
                part.unlink(missing_ok=True)

    def names(self, paths: Sequence[Path]) -> list[str]:
        """A name for every slide, decided before work starts.

        The file's stem; where two slides share it, ``stem.ext``; where they share that too, ``stem-<hash>``.
        A slide of an earlier run into this folder keeps its name, and keeps others from it; case does not
        tell names apart, as on some file systems.
        """
        owners = {record.name.casefold(): record for record in self.records().values()}
        kept = {record.place: record.name for record in owners.values()}
        names = [kept.get(place_of(path)) or _short(_stem(path), path) for path in paths]
        for other in (lambda p: _short(p.name, p), lambda p: f"{p.stem[:80]}-{place_of(p)[:8]}"):
            count = Counter(name.casefold() for name in names)
            names = [
                other(path)
                if count[name.casefold()] > 1 or _foreign(owners.get(name.casefold()), path)
                else name
                for name, path in zip(names, paths, strict=True)
            ]
        return names

    def write_tables(self, order: Iterable[str], run: str, header: Sequence[str]) -> list[SlideRecord]:
        """Write ``status.jsonl`` and ``results.csv`` from the records of one run's settings.

        Args:
            order: Names in the order of the user's list; further slides follow by name.
            run: The `SlideRecord.run` whose slides are shown.
            header: The score columns, ``K{k}_{class}``; none, and there are no results to write.

        Returns:
            The records shown, those of other processes and earlier runs included.
        """
        records = self.records()
        shown = [records[name] for name in order if name in records]
        rest = [r for name, r in records.items() if name not in {s.name for s in shown}]
        shown += [record for record in rest if record.run == run]
        if left := sum(record.run != run for record in rest):
            log.info(
                "%d slides in %s were made with other settings and are left out of its tables",
                left,
                self.path,
            )
        with atomic_write(self.path / "status.jsonl", "w") as handle:
            handle.writelines(strict_json(record.status()) + "\n" for record in shown)
        if header:
            with atomic_write(self.path / "results.csv", "w") as handle:
                handle.write(_results(shown, header))
        return shown


def place_of(path: Path) -> str:
    """Hash of where a file lies; no local path leaves the machine with the results."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]


def _read_record(path: Path) -> SlideRecord | None:
    known = {f.name for f in fields(SlideRecord)}
    try:
        data = read_json(path)
        if data.get("schema") != RECORD_SCHEMA:
            return None
        data["file"] = None if data["file"] is None else tuple(data["file"])
        data["files"] = tuple(data["files"])
        return SlideRecord(**{key: value for key, value in data.items() if key in known})
    except (UserError, KeyError, TypeError, AttributeError):
        return None  # absent, or not ours: the slide is done again


def _foreign(owner: SlideRecord | None, path: Path) -> bool:
    """Whether a name belongs to another slide; one that was moved, with name, size and time, is the same."""
    if owner is None or owner.place == place_of(path):
        return False
    try:
        stat = path.stat()
    except OSError:
        return True
    return owner.file != (path.name, stat.st_size, stat.st_mtime_ns)


def _short(name: str, path: Path) -> str:
    return name if len(name.encode()) <= MAX_NAME_BYTES else f"{name[:40]}-{place_of(path)[:8]}"


def _stem(path: Path) -> str:
    """The stem, or the whole name where files of that stem would be others': ``index.html`` and the like."""
    taken = path.stem.casefold() == "index" or path.stem.casefold().endswith((".regions", ".segment"))
    return path.name if taken else path.stem


def _results(records: Iterable[SlideRecord], header: Sequence[str]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["slide", "patient", "label", "mpp", "mpp_source", "tiles", *header])
    for record in records:
        if record.state == "failed":
            continue  # a failed slide has no result; status.jsonl has its reason
        scores = {f"K{k}_{cls}": value for k, row in record.scores.items() for cls, value in row.items()}
        values = [record.slide, record.patient, record.label, record.mpp, record.mpp_source, record.tiles]
        writer.writerow([*values, *(scores.get(column) for column in header)])
    return buffer.getvalue()


def _written(path: Path) -> float:
    """When a file was last written; now, if somebody removed it meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
