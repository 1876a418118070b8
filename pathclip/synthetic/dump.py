"""A tweet dump with the noise of real ones, and the truth about every post and picture in it."""

from __future__ import annotations

from pathlib import Path

from pathclip.core import engine
from pathclip.core.errors import UserError
from pathclip.synthetic.classes import CLASSES
from pathclip.synthetic.kinds import SHARES, plain
from pathclip.synthetic.maker import Maker
from pathclip.synthetic.pictures import Picture, write_picture
from pathclip.synthetic.truth import DumpTruth

__all__ = ["write_dump"]


def write_dump(
    out: str | Path,
    seed: int,
    *,
    pictures: int = 400,
    size_px: int = 192,
    mpp: float = 0.8,
    classes: tuple[str, ...] = CLASSES,
    workers: int = 1,
) -> DumpTruth:
    """Write ``out/tweets.jsonl`` (X API v2 pages, as twarc2 saves them) and ``out/media/``.

    Args:
        out: A folder; made when absent.
        seed: Not negative; equal arguments give equal bytes, whatever the number of workers.
        pictures: About how many painted pictures end as samples; noise comes on top, in proportion.
        size_px: Side of the painted pictures.
        mpp: Their scale in micrometres per pixel.
        classes: Tissues to paint, in equal numbers.
        workers: Processes that paint.

    Raises:
        UserError: If ``pictures`` is too small to hold every kind of post once.
    """
    if pictures < 40:
        raise UserError(f"pictures is {pictures}; below 40 a dump cannot hold every kind of post")
    folder = Path(out)
    (folder / "media").mkdir(parents=True, exist_ok=True)
    maker = Maker(folder, seed, size_px, mpp, classes)
    maker.fill(pictures, SHARES, plain)
    lines, extra = maker.lines()
    (folder / "tweets.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_pictures(maker.pictures, workers)
    for source, copy in maker.copies:
        copy.write_bytes(source.read_bytes())
    return DumpTruth(folder / "tweets.jsonl", folder / "media", tuple(maker.decisions), extra)


def _write_pictures(pictures: list[Picture], workers: int) -> None:
    if workers == 1:
        for picture in pictures:
            write_picture(picture)
        return
    chunks = [pictures[k :: 4 * workers] for k in range(4 * workers)]
    for _ in engine.map(_write_chunk, chunks, engine="processes", workers=workers):
        pass


def _write_chunk(chunk: list[Picture]) -> None:
    for picture in chunk:
        write_picture(picture)
