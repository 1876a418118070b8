"""Pairs per CPU-second and peak memory of the ingest, in turn with img2dataset on the same local pictures.

    python3 -m venv peer && peer/bin/pip install img2dataset
    python tests/benchmarks/ingest.py --peer peer/bin/python --pictures 2400

Prints a table with ratios and writes results/ingest-<machine>.csv beside this file. Modes:

- ``curated``: ours with all that it does by default, at img2dataset's output size: short side 512 px, quality
  95, colour at half resolution (4:2:0: what OpenCV writes unless told, and img2dataset does not tell it);
- ``curated 4:4:4``: the same with colour at full resolution, our default: a quarter more bytes;
- ``same work``: as ``curated`` without hashes, scores, and the search for duplicates;
- ``passthrough``: both keep the original bytes of every picture, checked by decoding them.

One process each, whole programs from start to end. CPU seconds are user + system of all processes; ``net`` is
without what the same command takes for one picture. Peak memory is the sum over the processes (resident,
sampled every 20 ms). Runs alternate, so that a busy machine slows both alike; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ingest_pictures
from machine import device_name, slug, write_rows

HERE = Path(__file__).resolve().parent
FIELDS = [
    "machine",
    "mode",
    "program",
    "version",
    "pictures",
    "mean_megapixels",
    "mean_kb",
    "alternations",
    "pairs",
    "out_mb",
    "cpu_s",
    "wall_s",
    "pairs_per_cpu_s",
    "ratio",
    "net_pairs_per_cpu_s",
    "net_ratio",
    "peak_mib",
]
SIDE_PX, QUALITY = 512, 95
OFF = [
    "collect.phash=false",
    "collect.scores=false",
    "filter.pictures=keep",
    "dedup.exact=false",
    "dedup.drop_radius=-1",
    "dedup.tie_radius=-1",
]
KEEP = [
    "pack.passthrough_long_side_px=100000",
    "pack.short_side_px=100000",
    "pack.passthrough_bytes=100000000",
]
RECODED = ["pack.passthrough=false", "pack.chroma=half"]
OURS = {
    "curated": RECODED,
    "curated 4:4:4": ["pack.passthrough=false"],
    "same work": [*OFF, *RECODED],
    "passthrough": [*OFF, *KEEP],
}
RESIZED = {"resize_mode": "keep_ratio", "resize_only_if_bigger": True, "image_size": SIDE_PX}
PEERS = {
    **dict.fromkeys(("curated", "curated 4:4:4", "same work"), RESIZED),
    "passthrough": {"resize_mode": "no", "skip_reencode": True},
}
PEER_CODE = """import json, sys
from img2dataset import download
if __name__ == "__main__":
    download(**json.loads(sys.argv[1]))
"""
THREADS = 16  # of img2dataset's reader: the fewest CPU seconds of 1, 4, 16 and 256


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measures, prints, writes; returns the rows of the CSV."""
    options = _parse(arguments)
    programs = {"pathclip": sys.executable, **({"img2dataset": options.peer} if options.peer else {})}
    if not options.peer:
        print("left out: img2dataset; give --peer PATH of a Python that has it")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="pathclip-benchmark-") as scratch:
        folder = options.input or Path(scratch) / "input"
        given = sorted(options.given.iterdir()) if options.given else []
        paths = ingest_pictures.write_input(folder, options.pictures, given[: options.pictures])
        one = Path(scratch) / "one"
        ingest_pictures.write_input(one, 1, paths[:1])
        for mode in options.modes:
            rows += _compared(mode, programs, folder, one, paths, options)
            _show(rows[-len(programs) :])
    write_rows(options.out / f"ingest-{slug(device_name())}.csv", FIELDS, rows)
    return rows


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", default=None, type=_program, help="a Python with img2dataset")
    parser.add_argument("--pictures", default=2400, type=int)
    parser.add_argument("--given", default=None, type=Path, help="a folder of JPEGs to take before painting")
    parser.add_argument("--input", default=None, type=Path, help="where the input stays for the next time")
    parser.add_argument("--modes", default=list(OURS), type=lambda s: s.split(","))
    parser.add_argument("--alternations", default=3, type=int)
    parser.add_argument("--out", default=HERE / "results", type=Path)
    return parser.parse_args(arguments)


def _program(name: str) -> str:
    """Absolute, without following the link that makes a virtual environment."""
    return os.path.abspath(shutil.which(name) or name)


def _compared(
    mode: str,
    programs: dict[str, str],
    folder: Path,
    one: Path,
    paths: list[Path],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Rows of the CSV for one mode; ratios are to img2dataset's figures."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    starts: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.alternations):
        for name, python in programs.items():
            starts[name].append(_run(name, python, mode, one)["cpu_s"])
            runs[name].append(_run(name, python, mode, folder))
    common = {
        "machine": device_name(),
        "mode": mode,
        "pictures": len(paths),
        "alternations": options.alternations,
    }
    common["mean_kb"] = statistics.mean(p.stat().st_size for p in paths) / 1e3
    common["mean_megapixels"] = ingest_pictures.mean_pixels(paths) / 1e6
    rows = {}
    for name in programs:
        row = {key: statistics.median(run[key] for run in runs[name]) for key in runs[name][0]}
        net = row["cpu_s"] - statistics.median(starts[name])
        row["pairs_per_cpu_s"] = row["pairs"] / row["cpu_s"]
        row["net_pairs_per_cpu_s"] = row["pairs"] / net
        rows[name] = {**common, "program": name, "version": _version(programs[name], name), **row}
    base = rows.get("img2dataset", {})
    for row in rows.values():
        for ratio, key in (("ratio", "pairs_per_cpu_s"), ("net_ratio", "net_pairs_per_cpu_s")):
            if key in base:
                row[ratio] = row[key] / base[key]
    return [{key: _rounded(row.get(key, "")) for key in FIELDS} for row in rows.values()]


def _run(name: str, python: str, mode: str, folder: Path) -> dict[str, float]:
    """One program from start to end on the pictures of ``folder``."""
    with tempfile.TemporaryDirectory(prefix="pathclip-out-", dir=folder.parent) as scratch:
        out = Path(scratch) / "out"
        command = (
            _ours(python, mode, folder, out) if name == "pathclip" else _peers(python, mode, folder, out)
        )
        measured = _measured(command, Path(scratch))
        if name == "pathclip":
            splits = json.loads((out / "index.json").read_text(encoding="utf-8"))["splits"].values()
            pairs = sum(split["count"] for split in splits)
        else:
            stats = [json.loads(p.read_text(encoding="utf-8")) for p in out.glob("*_stats.json")]
            pairs = sum(s["successes"] for s in stats)
        assert pairs, f"{name} made no pair of {mode}"
        stored = sum(p.stat().st_size for p in out.rglob("*.tar"))
        return {**measured, "pairs": pairs, "out_mb": stored / 1e6}


def _ours(python: str, mode: str, folder: Path, out: Path) -> list[str]:
    settings = [word for setting in OURS[mode] for word in ("--set", setting)]
    command = [python, "-m", "pathclip.cli", "ingest", str(folder / "posts.jsonl"), "--media"]
    return [*command, str(folder / "media"), "--out", str(out), "--engine", "serial", *settings]


def _peers(python: str, mode: str, folder: Path, out: Path) -> list[str]:
    code = out.parent / "run.py"  # its workers are spawned, so it must be a file
    code.write_text(PEER_CODE, encoding="utf-8")
    settings = {"url_list": str(folder / "list.jsonl"), "input_format": "jsonl", "url_col": "url"}
    settings |= {"caption_col": "caption", "output_format": "webdataset", "output_folder": str(out)}
    settings |= {"processes_count": 1, "thread_count": THREADS, "number_sample_per_shard": 1000}
    return [python, str(code), json.dumps({**settings, **PEERS[mode], "encode_quality": QUALITY})]


def _measured(command: list[str], scratch: Path) -> dict[str, float]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    with (scratch / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=scratch, env=environment)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, sum(_resident(pid) for pid in _tree(process.pid)))
            time.sleep(0.02)
        log.seek(0)
        assert process.returncode == 0, log.read()[-2000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": cpu, "wall_s": time.perf_counter() - start, "peak_mib": peak / 2**20}


def _tree(pid: int) -> list[int]:
    """The process and all below it."""
    try:
        threads = [p.read_text().split() for p in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return [pid]
    return [pid, *(n for children in threads for child in children for n in _tree(int(child)))]


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0.0


def _version(python: str, name: str) -> str:
    if name == "pathclip":
        import pathclip

        return pathclip.__version__
    code = "import importlib.metadata as m; print(m.version('img2dataset'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _show(rows: list[dict[str, Any]]) -> None:
    shown = [*FIELDS[1:3], "pairs", "cpu_s", "pairs_per_cpu_s", "ratio", "net_ratio", "peak_mib", "out_mb"]
    print("".join(f"{name:>17}" for name in shown))
    for row in rows:
        print("".join(f"{row[name]!s:>17}" for name in shown), flush=True)


if __name__ == "__main__":
    main()
