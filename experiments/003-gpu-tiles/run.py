"""Time the kernels of the loss over tile shapes, and its matrix products over block shapes, on a GPU.

python run.py            the experiment, two minutes of an H100
python run.py --smoke    a tiny batch and one tile, in triton's interpreter where there is no GPU
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported

from pathclip.core.files import write_json
from pathclip.loss import triton as fused
from pathclip.loss.infonce import LOG2E, Coefficients, Shifts
from pathclip.loss.problem import Problem
from pathclip.loss.tiles import Tile

HERE = Path(__file__).parent
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def tile(row: list[Any]) -> Tile:
    m, n, k, warps, stages, span, group, tma, flat, registers = row
    return Tile(m, n, k, warps, stages, span, 0, group, tma, flat, registers)


def problem(config: dict[str, Any], objective: str, size: int) -> fused._Tiles:
    """A problem as the kernels see it, with unit features, two ids per sample and made-up sums."""
    torch.manual_seed(0)
    unit = torch.nn.functional.normalize
    image, text = (unit(torch.randn(size, config["width"], device=DEVICE), dim=1) for _ in "it")
    dtype = getattr(torch, config["dtype"])
    ids = torch.stack([torch.arange(size, device=DEVICE) // 2, torch.arange(size, device=DEVICE)], 1)
    given = None if objective == "plain" else ids
    own, weights = torch.arange(size, device=DEVICE), torch.ones(size, device=DEVICE)
    positives: Any = "diagonal" if objective == "plain" else objective
    asked = fused._small_ids(Problem(own, weights, given, given, positives, 0.0, size))
    one = torch.ones(3, size, device=DEVICE) / size
    return fused._Tiles(
        image.to(dtype),
        text.to(dtype),
        torch.tensor(100.0 * LOG2E, device=DEVICE),
        asked,
        shifts=Shifts(*(torch.tensor(40.0, device=DEVICE),) * 2),
        coefficients=Coefficients(one, one, one[0]),
    )


def candidates(config: dict[str, Any]) -> Iterator[tuple[str, str, Tile]]:
    for kernel, by_objective in config["tiles"].items():
        for objective, rows in by_objective.items():
            yield from ((kernel, objective, tile(row)) for row in rows)


def work(tiles: fused._Tiles, kernel: str, shape: Tile) -> tuple[Callable[[], Any], float]:
    """What one kernel does over the whole matrix or a block of it, and how many blocks there are."""
    size = len(tiles.image)
    fused.choose_tile = fused.interpreted_tile = lambda *_: shape
    if kernel == "sums":
        slots = 3 if tiles.flags["SHARED"] else 1
        return lambda: tiles.sums(slots), 1.0
    rows, columns = (min(size, n) for n in fused._block(tiles.image, tiles.text))
    out = tiles.image.new_empty(rows, columns)
    return lambda: tiles._coefficients(out, slice(0, rows), slice(0, columns)), size**2 / (rows * columns)


def seconds(act: Callable[[], Any], rounds: int) -> float:
    """Median of some runs, the device's work included."""
    wait = torch.cuda.synchronize if DEVICE == "cuda" else lambda: None
    act()
    times = []
    for _ in range(rounds):
        wait()
        started = time.perf_counter()
        act()
        wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def compile_ahead(job: tuple[dict[str, Any], str, str, Tile]) -> tuple[str, str, Tile] | None:
    """Fill triton's cache from a process of its own, so that the timing process compiles nothing."""
    config, kernel, objective, shape = job
    try:
        work(problem(config, objective, 4096), kernel, shape)[0]()
        torch.cuda.synchronize()
    except Exception as error:  # too much shared memory, say: left out, by name
        print(f"left out: {kernel}, {objective}, {astuple(shape)}: {str(error).strip()[:100]!r}", flush=True)
        return kernel, objective, shape
    return None


def products(config: dict[str, Any], rounds: int) -> dict[str, float]:
    """Milliseconds of both gradient products over the whole matrix, by the shape of a block."""
    size, width, dtype = config["size"], config["width"], getattr(torch, config["dtype"])
    unit = torch.nn.functional.normalize
    image, text = (unit(torch.randn(size, width, device=DEVICE), dim=1).to(dtype) for _ in "it")
    found = {}
    for rows, columns in ((4096, 32768), (8192, 16384), (16384, 8192), (32768, 4096), (16384, 16384)):
        rows, columns = min(rows, size), min(columns, size)
        g = torch.randn(rows, columns, device=DEVICE).to(dtype)
        d_rows, d_text = torch.zeros(rows, width, device=DEVICE), torch.zeros(columns, width, device=DEVICE)
        times = size**2 / (rows * columns)
        down = seconds(lambda g=g, d=d_rows, c=columns: fused._add_product(d, g, text[:c]), rounds)
        across = seconds(lambda g=g, d=d_text, r=rows: fused._add_product(d, g.T, image[:r]), rounds)
        found[f"{rows} x {columns}, G T"] = down * times * 1e3
        found[f"{rows} x {columns}, G^T I"] = across * times * 1e3
    return found


def run(config: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds over the whole matrix per kernel, objective and tile; and the ceiling of this device."""
    size, width, rounds = config["size"], config["width"], config["rounds"]
    jobs = [(config, *candidate) for candidate in candidates(config)]
    impossible: set[Any] = set()
    if DEVICE == "cuda":
        with multiprocessing.get_context("spawn").Pool(min(14, os.cpu_count() or 1)) as pool:
            impossible = set(pool.imap_unordered(compile_ahead, jobs))
    figures: dict[str, Any] = {}
    built = {objective: problem(config, objective, size) for objective in config["objectives"]}
    for _, kernel, objective, shape in jobs:
        if (kernel, objective, shape) in impossible:
            continue
        act, times = work(built[objective], kernel, shape)
        spent = seconds(act, rounds) * times
        rate = 2 * size**2 * width / spent / 1e12
        name = f"{kernel}, {objective}: {' '.join(map(str, astuple(shape)))}"
        figures[name] = {"ms": round(spent * 1e3, 3), "tflops": round(rate, 1)}
        print(f"{spent * 1e3:9.3f} ms {rate:7.1f} TFLOP/s  {name}", flush=True)
    product = {name: round(ms, 3) for name, ms in products(config, rounds).items()}
    print(product)
    a = torch.randn(min(size, 8192), min(size, 8192), device=DEVICE).to(getattr(torch, config["dtype"]))
    ceiling = 2 * len(a) ** 3 / seconds(lambda: a @ a, rounds) / 1e12
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    return {
        "experiment": HERE.name,
        "device": device,
        "torch": torch.__version__,
        "size": size,
        "width": width,
        "ceiling_tflops": round(ceiling, 1),
        "figures": figures,
        "products_ms": product,
    }


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny batch and one tile")
    parser.add_argument("--out", type=Path, default=HERE / "result.json")
    options = parser.parse_args()
    config = tomllib.loads((HERE / "config.toml").read_text(encoding="utf-8"))
    if options.smoke:
        one = [[16, 16, 16, 4, 1, 32, 2, False, False, 0]]
        config |= {"size": 64, "width": 32, "rounds": 1, "dtype": "float32"}
        config["tiles"] = {kernel: dict.fromkeys(config["objectives"], one) for kernel in config["tiles"]}
        print(run(config))
        return
    result = run(config)
    write_json(options.out, result)
    print(result["device"], result["ceiling_tflops"])


if __name__ == "__main__":
    main()
