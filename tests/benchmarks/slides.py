"""Tiles of a slide to features: ours, and OpenSlide in a DataLoader as CLAM and TRIDENT read, in turn.

    python tests/benchmarks/slides.py [--slide SLIDE.svs] [--lazyslide VENV/bin/python]

Without ``--slide`` a 40x Aperio slide of 16,384 x 12,288 px is painted once into ``--work``. Both sides get
the same coordinates of 256 px tiles at 0.5 um/px, the same encoder input of 224 px, the same batch, and as
many threads or processes to read. ``read`` ends at tiles ready for the encoder (bytes here, to be normalised
where the model is; normalised float32 there), ``mock`` at the features of an encoder that costs nearly
nothing, ``small`` at those of a small vision transformer. Prints medians, ratios and the cosine between
our features and those through OpenSlide; writes results/slides-<device>.csv. ``--memory`` shows instead the
peak of a whole ``slide embed`` for slides of 10,000 and of 200,000 tiles.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np
from machine import device_name, slug, write_rows

HERE = Path(__file__).resolve().parent
FIELDS = ["device", "what", "side", "slide", "tiles", "threads", "workers", "batch"]
FIELDS += ["tiles_per_s", "cpu_ms_per_tile", "peak_mib", "ratio_wall", "ratio_cpu", "cosine_min", "turns"]
TILE_PX, SIZE_PX, MPP = 256, 224, 0.5


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measures, prints, writes; returns the rows of the CSV."""
    options = _parse(arguments)
    work = options.work or Path(tempfile.mkdtemp(prefix="pathclip-bench-"))
    work.mkdir(parents=True, exist_ok=True)
    rows = _memory(options, work) if options.memory else _speed(options, work)
    name = f"slides{'_memory' if options.memory else ''}-{slug(device_name())}.csv"
    write_rows(options.out / name, FIELDS, rows)
    if options.work is None:
        shutil.rmtree(work)
    return rows


def _speed(options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    slide = options.slide or painted(work / "painted.svs", options.size)
    xy, read_px = _tiles(slide, options.tiles)
    np.save(work / "xy.npy", xy)
    rows: list[dict[str, Any]] = []
    for what in options.what:
        spec = {"what": what, "slide": str(slide), "xy": str(work / "xy.npy"), "read_px": read_px}
        peers = ("openslide", "lazyslide") if options.lazyslide and what != "read" else ("openslide",)
        found = _measured(spec, (*peers, "pathclip"), options, work)
        rows += _rows(what, slide, found, options, _cosine(work, what))
    return rows


def painted(path: Path, size: tuple[int, int]) -> Path:
    """A 40x slide: one painted field repeated and mirrored, for painting it all takes minutes."""
    from pathclip.synthetic import write_slide
    from pathclip.synthetic.pyramid import write_aperio

    if path.is_file():
        return path
    from pathclip.slides import open_slide

    side = min(4096, *size)
    write_slide(path.with_name("field.svs"), 0, (side, side), 0.25, format="svs")
    field = open_slide(path.with_name("field.svs")).read(0, 0, 0, side, side)
    pair = np.concatenate([field, field[:, ::-1]], axis=1)
    four = np.concatenate([pair, pair[::-1]])
    times = -(-size[1] // four.shape[0]), -(-size[0] // four.shape[1]), 1
    write_aperio(path, np.ascontiguousarray(np.tile(four, times)[: size[1], : size[0]]), 0.25)
    return path


def _tiles(path: Path, most: int | None) -> tuple[np.ndarray, int]:
    """(N, 2) int32 of the tiles with tissue, and their side at level 0."""
    from pathclip.slides import find_tissue, open_slide, plan_tiles
    from pathclip.slides.mpp import resolve_mpp

    slide = open_slide(path)
    mpp = resolve_mpp(slide).value
    plan = plan_tiles(slide, mpp, find_tissue(slide, mpp), mpp=MPP, tile_px=TILE_PX)
    slide.close()
    return plan.xy[:most], round(plan.stride)


def _measured(
    spec: dict[str, Any], sides: tuple[str, ...], options: argparse.Namespace, work: Path
) -> dict[str, list[dict[str, float]]]:
    common = {"threads": options.threads, "workers": options.workers, "batch": options.batch}
    common |= {"tile_px": TILE_PX, "size_px": SIZE_PX}
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(options.turns):
        for side in sides:
            full = {**spec, **common, "side": side, "out": str(work / f"{spec['what']}-{side}.npy")}
            python = options.lazyslide if side == "lazyslide" else sys.executable
            command = [str(python), str(HERE / "slides_sides.py"), json.dumps(full)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SystemExit(f"{side}, {spec['what']}: {done.stderr[-3000:]}")
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def _cosine(work: Path, what: str) -> float | None:
    """The smallest cosine between the two sides' features of one tile."""
    if what == "read":
        return None
    ours, theirs = (
        np.load(work / f"{what}-{side}.npy").astype(np.float64) for side in ("pathclip", "openslide")
    )
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(1) / lengths).min())


def _rows(
    what: str,
    slide: Path,
    found: dict[str, list[dict[str, float]]],
    options: argparse.Namespace,
    cosine: float | None,
) -> list[dict[str, Any]]:
    def middle(side: str, key: str) -> float:
        """Per tile: LazySlide finds its own, and may find fewer."""
        return statistics.median(turn[key] / turn["tiles"] for turn in found[side])

    rows = []
    for side in found:
        peer = "openslide" if "openslide" in found else side
        rows.append(
            {
                "device": device_name(),
                "what": what,
                "side": side,
                "slide": slide.name,
                "tiles": int(found[side][0]["tiles"]),
                "threads": options.threads,
                "workers": options.workers,
                "batch": options.batch,
                "tiles_per_s": round(1 / middle(side, "wall_s"), 1),
                "cpu_ms_per_tile": round(1000 * middle(side, "cpu_s"), 3),
                "peak_mib": round(max(turn["peak_mib"] for turn in found[side])),
                "ratio_wall": round(middle(peer, "wall_s") / middle(side, "wall_s"), 2),
                "ratio_cpu": round(middle(peer, "cpu_s") / middle(side, "cpu_s"), 2),
                "cosine_min": "" if cosine is None else round(cosine, 5),
                "turns": options.turns,
            }
        )
        row = rows[-1]
        print(
            f"{what:6s} {side:10s} {row['tiles_per_s']:8.1f} tiles/s {row['cpu_ms_per_tile']:7.2f} CPU ms "
            f"per tile   {row['ratio_wall']:.2f} x wall, {row['ratio_cpu']:.2f} x CPU   peak "
            f"{row['peak_mib']} MiB   smallest cosine {row['cosine_min'] or '-'}",
            flush=True,
        )
    return rows


def _memory(options: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Ours alone, on slides whose tiles all lie at the same few bytes: many tiles, small files."""
    rows: list[dict[str, Any]] = []
    for count in options.memory:
        slide = repeated(work / f"{count}.tif", count)
        side = int(count**0.5)
        xy = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) * TILE_PX
        np.save(work / "xy.npy", xy.astype(np.int32))
        spec = {"what": "mock", "slide": str(slide), "xy": str(work / "xy.npy"), "read_px": TILE_PX}
        rows += _rows("mock", slide, _measured(spec, ("job",), options, work), options, None)
    return rows


def repeated(path: Path, count: int) -> Path:
    """A generic TIFF of about ``count`` tiles of 256 px that are all the same painted one."""
    import simplejpeg

    from pathclip.synthetic import CLASSES, paint_tile
    from pathclip.synthetic.tiff import TiffPage, TiffWriter

    side = int(count**0.5) * TILE_PX
    stream = simplejpeg.encode_jpeg(paint_tile(CLASSES[0], 0, TILE_PX), quality=80, colorsubsampling="420")
    with path.open("wb") as handle:
        page = TiffPage(side, side, tile_px=TILE_PX, pixels_per_cm=1e4 / MPP)
        once = _WrittenOnce(handle, stream)
        TiffWriter(once).add(page, once.streams((side // TILE_PX) ** 2))
    return path


class _WrittenOnce:
    """A file in which one stream is written the first time only: later ones are said to lie there too."""

    def __init__(self, handle: IO[bytes], stream: bytes) -> None:
        self.handle, self.stream = handle, stream
        self.seek = handle.seek
        self.place: int | None = None

    def streams(self, count: int) -> Iterator[bytes]:
        """The stream so many times."""
        yield from repeat(self.stream, count)
        self.place = None

    def tell(self) -> int:
        """Where the next bytes go, or the stream lies already."""
        return self.handle.tell() if self.place is None else self.place

    def write(self, data: bytes) -> int:
        """Write what is new."""
        if self.place is not None:
            return len(data)
        if data is self.stream:
            self.place = self.handle.tell()
        return self.handle.write(data)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide", type=Path, help="a slide of your own instead of the painted one")
    parser.add_argument("--size", type=int, nargs=2, default=(16384, 12288), help="of the painted slide")
    parser.add_argument("--tiles", type=int, help="at most so many tiles")
    parser.add_argument("--what", nargs="+", default=["read", "mock", "small"])
    parser.add_argument("--lazyslide", type=Path, help="a Python with lazyslide, measured as well")
    parser.add_argument("--memory", type=int, nargs="*", help="numbers of tiles; by default 10000 200000")
    parser.add_argument("--workers", type=int, default=2, help="reading threads here, processes there")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where slides are painted and kept")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args(arguments)
    if options.memory == []:
        options.memory = [10_000, 200_000]
    return options


if __name__ == "__main__":
    main()
