"""Kill `pathclip ingest` with SIGKILL at random moments, start it again, and compare the shards to the byte.

    python tests/benchmarks/kill_ingest.py DUMP/tweets.jsonl --media DUMP/media --kills 20

Each round shuffles the input's lines, takes an engine and a number of workers in turn, kills the run (its
whole process group) at random moments, and lets it finish at last. Prints one line per round and exits
with 1 where a round's shards or index.json differ from those of an undisturbed serial run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = [("serial", 1), ("processes", 2), ("processes", 4), ("ray", 2)]


def main() -> int:
    """Rounds until enough kills were survived; the exit code."""
    options = _parse()
    ways = [way for way in WAYS if way[0] != "ray" or importlib.util.find_spec("ray")]
    rng = random.Random(options.seed)
    lines = options.source.read_bytes().splitlines(keepends=True)
    if not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    with tempfile.TemporaryDirectory(prefix="pathclip-kill-") as folder:
        work = Path(folder)
        key = work / "key"
        key.write_bytes(b"0123456789abcdef0123456789abcdef")
        started = time.monotonic()
        _start(options, options.source, work / "whole", key, *WAYS[0]).wait()
        seconds, whole = time.monotonic() - started, _digest(work / "whole")
        print(f"undisturbed: {seconds:.1f} s, {len(whole)} files", flush=True)
        kills, different, number = 0, 0, 0
        while kills < options.kills:
            engine, workers = ways[number % len(ways)]
            source, out = work / "shuffled.jsonl", work / "out"
            source.write_bytes(b"".join(rng.sample(lines, len(lines))))
            shutil.rmtree(out, ignore_errors=True)
            survived = 0
            for _ in range(options.per_round):
                process = _start(options, source, out, key, engine, workers)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(rng.uniform(0.3, 1.0 if engine != "ray" else 2.5) * seconds)
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    survived += 1
            code = _start(options, source, out, key, engine, workers).wait()
            same = code == 0 and _digest(out) == whole
            kills, different, number = kills + survived, different + (not same), number + 1
            print(
                f"{engine} {workers}: {survived} kills, {'same bytes' if same else 'DIFFERENT'}", flush=True
            )
    print(f"{kills} kills in {number} rounds, {different} different")
    return 1 if different else 0


def _start(
    options: argparse.Namespace, source: Path, out: Path, key: Path, engine: str, workers: int
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pathclip.cli", "ingest", str(source), "--out", str(out)]
    command += ["--media", str(options.media), "--key-file", str(key), "--engine", engine]
    command += ["--workers", str(workers), "--set", "pack.shard_samples=64", "--json"]
    with open(out.with_name(f"{out.name}.log"), "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _digest(out: Path) -> dict[str, str]:
    files = [*(out / "shards").glob("*.tar"), *(out / "shards").glob("*.idx"), out / "index.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="a dump of one post or page per line")
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--per-round", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
