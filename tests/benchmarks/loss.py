"""Time, memory and error of the contrastive loss beside its peers', in turn on the same inputs.

    python tests/benchmarks/loss.py                          # CPU: ours and open_clip
    python tests/benchmarks/loss.py --device cuda --dtype bfloat16 --sizes 4096,32768,65536,262144 \\
        --python inf_cl=venv-inf-cl/bin/python --python cut_cross_entropy=venv-cce/bin/python

Prints a table with ratios and writes results/loss-<device>.csv beside this file. Losses of this process
alternate, so that a busy machine slows all of them alike; the ratio of medians is the figure to quote. Peak
memory is taken in a process per loss and size on a CPU, from the allocator on a GPU. A peer that is not
installed, or fails, is named and left out.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import loss_peers
import torch

HERE = Path(__file__).resolve().parent
FIELDS = [
    "device",
    "torch",
    "threads",
    "dtype",
    "width",
    "size",
    "loss",
    "alternations",
    "forward_s",
    "total_s",
]
FIELDS += ["ratio", "extra_mib", "memory_ratio", "gradient_error"]
ERROR_SIZE = 4096  # the largest for which the float64 reference is computed
LARGE, FEW = 8192, 3  # on a CPU a larger size takes a minute a round: no more rounds than this


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measures, prints, writes; returns the rows of the CSV."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    asked = options.alternations
    pythons = dict(pair.split("=", 1) for pair in options.python)
    names, absent = _losses(options.device, options.losses, pythons)
    for name in absent:
        print(f"left out: {name} is not installed; give --python {name}=PATH of a Python that has it")
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        slow = options.device == "cpu" and size > LARGE
        options.alternations = min(asked, FEW) if slow else asked
        measured = _times(names, size, options, pythons)
        if not options.no_memory:
            for name, row in measured.items():
                if "extra_mib" in row:
                    continue
                row |= _apart(name, size, options, pythons.get(name, sys.executable), "memory")
        rows += _compared(measured, size, options)
        _show(rows[-len(measured) :])
    path = options.out / f"loss-{_slug(_device_name(options.device))}.csv"
    options.out.mkdir(parents=True, exist_ok=True)
    more = options.append and path.exists()
    with path.open("a" if more else "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not more:
            writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}")
    if options.plot:
        _plot(rows, options.plot)
    return rows


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="bfloat16" if cuda else "float32")
    parser.add_argument("--sizes", default="1024,4096,8192", type=lambda s: [int(x) for x in s.split(",")])
    parser.add_argument("--width", default=512, type=int)
    parser.add_argument("--alternations", default=7, type=int)
    parser.add_argument("--threads", default=2, type=int, help="of torch on a CPU")
    parser.add_argument("--losses", default=None, type=lambda s: s.split(","), help="names; default: all")
    parser.add_argument("--python", default=[], action="append", metavar="PEER=PATH")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--out", default=HERE / "results", type=Path)
    parser.add_argument("--append", action="store_true", help="keep the rows that the CSV holds")
    parser.add_argument("--plot", default=None, type=Path, help="a PNG of time and memory against N")
    return parser.parse_args(arguments)


def _losses(device: str, wanted: list[str] | None, pythons: dict[str, str]) -> tuple[list[str], list[str]]:
    """What can be measured, ours first, and the peers that are absent."""
    names = ["pathclip:chunked", "pathclip:chunked:masked", "open_clip"]
    if device == "cuda":
        names = ["pathclip:triton", "pathclip:triton:masked", "pathclip:chunked", *loss_peers.PEERS]
    names = wanted or names
    absent = [n for n in names if ":" not in n and n not in pythons and not importlib.util.find_spec(n)]
    return [n for n in names if n not in absent], absent


def _times(
    names: list[str], size: int, options: argparse.Namespace, pythons: dict[str, str]
) -> dict[str, dict[str, Any]]:
    here = {name: loss_peers.build(name) for name in names if name not in pythons}
    inputs = loss_peers.features(size, options.width, options.dtype, options.device)
    rows: dict[str, dict[str, Any]] = {name: {} for name in names}
    for name, loss in list(here.items()):
        try:
            loss_peers.step(loss, inputs)  # warm-up: compiles, tunes, touches memory
        except Exception as error:  # out of memory, or a peer that this machine cannot run
            print(f"{name} at N={size}: {str(error).strip().splitlines()[0]:.120}")
            for x in inputs:
                x.grad = None
            del here[name], rows[name]
            continue
        if size <= ERROR_SIZE:
            rows[name]["gradient_error"] = loss_peers.gradient_error(inputs)
        if options.device == "cuda" and not options.no_memory:  # the allocator counts by itself
            rows[name]["extra_mib"] = loss_peers.extra_memory(loss, inputs)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in here}
    for _ in range(options.alternations):
        for name, loss in here.items():
            runs[name].append(loss_peers.step(loss, inputs))
    for name, steps in runs.items():
        rows[name] |= {key: statistics.median(s[key] for s in steps) for key in ("forward_s", "total_s")}
    for name in set(rows) & set(pythons):
        rows[name] |= _apart(name, size, options, pythons[name], "time")
    return rows


def _apart(name: str, size: int, options: argparse.Namespace, python: str, what: str) -> dict[str, float]:
    """A measurement in a process of its own."""
    task = {key: getattr(options, key) for key in ("width", "dtype", "device", "threads", "alternations")}
    task |= {"loss": name, "size": size, "what": what, "error_size": ERROR_SIZE}
    command = [python, str(HERE / "loss_peers.py"), json.dumps(task)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"{name} at N={size} ({what}): {last}")
        return {}
    return json.loads(result.stdout.splitlines()[-1])


def _compared(
    measured: dict[str, dict[str, Any]], size: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rows of the CSV; ratios are to open_clip's figures."""
    common = {"device": _device_name(options.device), "torch": torch.__version__, "threads": options.threads}
    common |= {"dtype": options.dtype, "width": options.width, "size": size}
    base = measured.get("open_clip", {})
    rows = []
    for name, row in measured.items():
        row = {**common, "loss": name, "alternations": options.alternations, **row}
        for ratio, key in (("ratio", "total_s"), ("memory_ratio", "extra_mib")):
            if key in row and key in base:
                row[ratio] = row[key] / base[key]
        rows.append({key: _rounded(row.get(key, "")) for key in FIELDS})
    return rows


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _show(rows: list[dict[str, Any]]) -> None:
    shown = ["size", "loss", "forward_s", "total_s", "ratio", "extra_mib", "memory_ratio", "gradient_error"]
    if rows:
        print("".join(f"{name:>24}" if name == "loss" else f"{name:>15}" for name in shown))
    for row in rows:
        print("".join(f"{row[n]!s:>24}" if n == "loss" else f"{row[n]!s:>15}" for n in shown), flush=True)


def _device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return models[0] if models else platform.processor() or platform.machine()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Time and memory against N, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    panels = [("total_s", "forward + backward, seconds"), ("extra_mib", "peak memory above the inputs, MiB")]
    panels = [panel for panel in panels if any(row[panel[0]] != "" for row in rows)]
    figure, grid = pyplot.subplots(
        1, len(panels), figsize=(4.75 * len(panels), 3.8), layout="constrained", squeeze=False
    )
    axes = grid[0]
    for axis, (key, label) in zip(axes, panels, strict=True):
        for name in dict.fromkeys(row["loss"] for row in rows):
            points = [(row["size"], row[key]) for row in rows if row["loss"] == name and row[key] != ""]
            axis.loglog(*zip(*points, strict=True), marker="o", label=name) if points else None
        sizes = sorted({row["size"] for row in rows})
        axis.set(xlabel="batch N", ylabel=label, xticks=sizes, xticklabels=sizes)
        axis.minorticks_off()
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    first = rows[0]
    figure.suptitle(f"{first['device']}, {first['threads']} threads, {first['dtype']}, D = {first['width']}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"drew {path}")


if __name__ == "__main__":
    main()
