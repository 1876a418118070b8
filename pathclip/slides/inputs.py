"""What a person names as slides: files, patterns, or a table with columns slide, mpp, patient, label."""

from __future__ import annotations

import csv
import glob
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathclip.core.errors import UserError
from pathclip.slides.config import MAX_MPP, MIN_MPP

__all__ = ["SlideInput", "read_inputs"]

log = logging.getLogger("pathclip")
COLUMNS = ("slide", "mpp", "patient", "label")


@dataclass(frozen=True, slots=True)
class SlideInput:
    """One slide to work on.

    Attributes:
        given: As the user wrote it; what the tables show.
        path: Where it lies.
        mpp: Scale from the table, µm/px.
        patient: From the table.
        truth: The slide's known label, from the table's column ``label``.
    """

    given: str
    path: Path
    mpp: float | None = None
    patient: str | None = None
    truth: str | None = None


def read_inputs(slides: str | Path | Iterable[str | Path | SlideInput]) -> list[SlideInput]:
    """Slides, patterns and tables as a list of slides, each file once.

    Args:
        slides: One or many of: a slide; a pattern such as ``"slides/*.svs"``; a ``.csv`` table.

    Raises:
        UserError: If nothing is named, a pattern finds nothing, or a table cannot be read.
    """
    items: Sequence[str | Path | SlideInput]
    items = [slides] if isinstance(slides, str | Path) else list(slides)
    found: list[SlideInput] = []
    for item in items:
        if isinstance(item, SlideInput):
            found.append(item)
        elif Path(item).suffix.lower() == ".csv":
            found += _read_table(Path(item))
        elif not Path(item).exists() and glob.has_magic(str(item)):
            matches = sorted(glob.glob(str(item), recursive=True))
            if not matches:
                raise UserError(f"no slide matches {item}")
            found += [SlideInput(match, Path(match)) for match in matches]
        else:
            found.append(SlideInput(str(item), Path(item)))
    if not found:
        raise UserError(
            "no slides given; name slide files, a pattern in quotes, or a CSV with a column slide"
        )
    return _each_once(found)


def _read_table(path: Path) -> list[SlideInput]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle, restkey="", restval=""))
    except FileNotFoundError:
        raise UserError(f"slide table {path} does not exist") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"slide table {path} cannot be read: {error}") from None
    if not rows:
        raise UserError(f"slide table {path} has no rows")
    names = {name.strip().lower(): name for name in rows[0] if name}
    if "slide" not in names:
        raise UserError(f"slide table {path} has no column slide; its columns: {', '.join(names)}")
    if ignored := [name for name in names if name not in COLUMNS]:
        log.info("slide table %s: columns not used: %s", path.name, ", ".join(ignored))
    return [_row(path, number, row, names) for number, row in enumerate(rows, start=2)]


def _row(table: Path, number: int, row: dict[str, str], names: dict[str, str]) -> SlideInput:
    values = {column: (row.get(names[column]) or "").strip() for column in COLUMNS if column in names}
    if not values["slide"]:
        raise UserError(f"{table}, line {number}: column slide is empty")
    given = Path(values["slide"])
    beside = given if given.is_absolute() else table.parent / given
    path = (
        given if not beside.exists() and given.exists() else beside
    )  # beside the table first, as users expect
    return SlideInput(
        given=values["slide"],
        path=path,
        mpp=_mpp(values.get("mpp", ""), f"{table}, line {number}"),
        patient=values.get("patient") or None,
        truth=values.get("label") or None,
    )


def _mpp(text: str, place: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not MIN_MPP <= value <= MAX_MPP:
        raise UserError(
            f"{place}: mpp {text!r}; expected µm/px between {MIN_MPP:g} and {MAX_MPP:g}, or nothing"
        )
    return value


def _each_once(inputs: list[SlideInput]) -> list[SlideInput]:
    seen: dict[Path, SlideInput] = {}
    for item in inputs:
        place = item.path.resolve()
        if place not in seen:
            seen[place] = item
        elif seen[place] != item:
            log.warning("slide %s is named twice; the first mention counts", item.given)
    return list(seen.values())
