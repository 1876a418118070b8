"""A cohort of small slides, some damaged, done by two processes that are killed; compared with one clean run.

    python tests/benchmarks/kill_slides.py --model RUN --slides 100 --damaged 5 --kills 2

Both processes get SIGKILL at once, at random moments, and are started again; the last pair runs to its end.
Shows whether every good slide was done exactly once (what was finished before a kill is not touched after
it), whether the damaged ones are named, and whether every file of the result equals the clean run's. Exits
with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

CLASSES = {"tumour": ["adenocarcinoma"], "fat": ["adipose tissue"], "mucin": ["mucin"]}


def main(arguments: list[str] | None = None) -> int:
    """Run clean, run killed, compare; the exit code."""
    options = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="pathclip-kill-") as folder:
        work = Path(folder)
        (work / "classes.json").write_text(json.dumps(CLASSES))
        _paint(work / "slides", options.slides, options.damaged)
        started = time.monotonic()
        code = _start(options, work, work / "clean").wait()
        print(f"clean run: {time.monotonic() - started:.0f} s, exit code {code}", flush=True)
        faults = [] if code == 1 else [f"the clean run ended with {code}, not 1"]
        faults += _killed(options, work)
        faults += _differences(work / "clean", work / "killed", options)
    print("\n".join(faults) or "every good slide once, the damaged ones named, all files as of the clean run")
    return bool(faults)


def _killed(options: argparse.Namespace, work: Path) -> list[str]:
    """Two processes at a time, killed at random shares of the cohort; what was done again although done."""
    rng, out = random.Random(options.seed), work / "killed"
    finished: dict[str, int] = {}
    faults: list[str] = []
    for kill in range(options.kills + 1):
        pair = [_start(options, work, out) for _ in range(2)]
        share = (kill + rng.uniform(0.3, 0.9)) / (options.kills + 1)
        if kill < options.kills:
            while len(_records(out)) < share * options.slides and pair[0].poll() is None:
                time.sleep(0.02)
            for process in pair:
                os.killpg(process.pid, signal.SIGKILL)
        codes = [process.wait() for process in pair]
        now = _records(out)
        again = [name for name, when in finished.items() if now.get(name) != when]
        faults += [f"{name} was done again after it was finished" for name in again]
        print(f"pair {kill + 1}: exit codes {codes}, {len(now)} slides have ended", flush=True)
        finished = {name: when for name, when in now.items() if not name.startswith("damaged")}
    code = _start(options, work, out).wait()
    return [*faults, *([] if code == 1 else [f"a last look ended with {code}, not 1"])]


def _records(out: Path) -> dict[str, int]:
    """When each slide's record was written."""
    return {path.stem: path.stat().st_mtime_ns for path in (out / ".pathclip").glob("*.json")}


def _differences(clean: Path, killed: Path, options: argparse.Namespace) -> list[str]:
    faults = []
    rows = [json.loads(line) for line in (killed / "status.jsonl").read_text().splitlines()]
    states = {row["slide"]: row["state"] for row in rows}
    good = [name for name, state in states.items() if state == "done" and "damaged" not in name]
    failed = [row for row in rows if row["state"] == "failed" and row["reason"] and "damaged" in row["slide"]]
    if (len(rows), len(good), len(failed)) != (
        options.slides,
        options.slides - options.damaged,
        options.damaged,
    ):
        faults.append(f"{len(rows)} rows, {len(good)} good slides done, {len(failed)} damaged ones named")
    names = {path.name for path in clean.iterdir() if path.is_file()}
    if names != (found := {path.name for path in killed.iterdir() if path.is_file()}):
        faults.append(f"files differ: {sorted(names ^ found)[:5]}")
    both = sorted(names & found)
    return [*faults, *(f"{name} differs" for name in both if not _same(clean / name, killed / name))]


def _same(one: Path, other: Path) -> bool:
    if one.suffix == ".h5":  # holds the time it was written
        with h5py.File(one) as a, h5py.File(other) as b:
            return all(np.array_equal(a[key][:], b[key][:]) for key in ("features", "coords", "tissue"))
    if one.name in ("status.jsonl", "result.json", "index.html"):  # hold the seconds that it took
        return _timeless(one) == _timeless(other)
    return one.read_bytes() == other.read_bytes()


def _timeless(path: Path) -> object:
    if path.suffix == ".jsonl":
        return [
            {key: value for key, value in json.loads(line).items() if key != "seconds"}
            for line in path.read_text().splitlines()
        ]
    return json.loads(path.read_text()) if path.suffix == ".json" else path.stat().st_size > 0


def _start(options: argparse.Namespace, work: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pathclip", "slide", "classify", str(work / "slides.csv")]
    command += ["--model", str(options.model), "--classes", str(work / "classes.json"), "--out", str(out)]
    command += ["--tile-px", "128", "--set", "threads=2", "--set", "device=cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # both processes alike, whatever else runs
    with open(work / f"log-{out.name}", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)


def _paint(folder: Path, count: int, damaged: int) -> None:
    """Small slides in a table; the damaged ones are cut off, empty, noise, without a scale, or a folder."""
    from pathclip.synthetic import write_slide

    folder.mkdir()
    names = []
    for number in range(count - damaged):
        path = folder / f"slide-{number:03d}.svs"
        write_slide(path, number, (1024, 768), 0.5, format="svs")
        names.append(path)
    whole = names[0].read_bytes()
    for number in range(damaged):
        path = folder / f"damaged-{number:03d}.svs"
        kind = number % 5
        if kind == 4:
            path.mkdir()
        elif kind == 3:
            write_slide(path, number, (1024, 768), None, format="svs")
        else:
            path.write_bytes((whole[: len(whole) // 2], b"", random.Random(number).randbytes(5000))[kind])
        names.insert((number * 7 + 3) % len(names), path)
    with (folder.parent / "slides.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["slide"], *([f"slides/{path.name}"] for path in names)])


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a run or model folder")
    parser.add_argument("--slides", type=int, default=100)
    parser.add_argument("--damaged", type=int, default=5)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
