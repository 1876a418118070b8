"""Peak memory and time of `pathclip ingest` on posts without pictures, by the number of lines.

    python ingest_memory.py 100000 2000000 --csv results/ingest_memory.csv

Every line is a flat v2 post of about 600 bytes; one in ten answers another one. Each run is a process of its
own with the serial engine; its peak is the kernel's figure for it and its children.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = (
    "biopsy",
    "of",
    "the",
    "skin",
    "melanoma",
    "naevus",
    "with",
    "mitoses",
    "at",
    "base",
    "lesion",
    "adult",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=int, nargs="+")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    rows = [measure(lines) for lines in arguments.lines]
    if arguments.csv:
        with open(arguments.csv, "w", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def measure(lines: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="ingest-memory-") as name:
        folder = Path(name)
        (folder / "media").mkdir()
        write_posts(folder / "posts.jsonl", lines)
        size = (folder / "posts.jsonl").stat().st_size
        command = [sys.executable, __file__, "--child", folder]
        started = time.perf_counter()
        out = subprocess.run([str(x) for x in command], check=True, stdout=subprocess.PIPE, text=True).stdout
        seconds = time.perf_counter() - started
    peak_mib, candidates = json.loads(out.splitlines()[-1])
    row = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "lines": lines,
        "input_mib": round(size / 2**20),
        "peak_mib": round(peak_mib),
        "bytes_per_line": round(peak_mib * 2**20 / lines),
        "seconds": round(seconds, 1),
        "candidates": candidates,
    }
    print(row, flush=True)
    return row


def write_posts(path: Path, lines: int) -> None:
    draw = random.Random(1)
    with open(path, "w") as handle:
        for number in range(lines):
            handle.write(json.dumps(_post(draw, 10**18 + number)) + "\n")


def _post(draw: random.Random, number: int) -> dict[str, object]:
    answers = number - draw.randrange(1, 1000) if draw.random() < 0.1 else None
    post: dict[str, object] = {
        "id": str(number),
        "text": " ".join(draw.choices(WORDS, k=draw.randrange(5, 40))) + " #dermpath #pathology",
        "lang": "en",
        "author_id": str(10**9 + draw.randrange(50_000)),
        "conversation_id": str(answers or number),
        "created_at": f"2022-0{draw.randrange(1, 10)}-11T10:{draw.randrange(10, 60)}:00.000Z",
        "edit_history_tweet_ids": [str(number)],
        "public_metrics": {
            "retweet_count": 0,
            "reply_count": 0,
            "like_count": draw.randrange(50),
            "quote_count": 0,
        },
        "entities": {
            "hashtags": [
                {"start": 0, "end": 9, "tag": "dermpath"},
                {"start": 9, "end": 19, "tag": "pathology"},
            ]
        },
        "possibly_sensitive": False,
        "reply_settings": "everyone",
    }
    if answers:
        post["referenced_tweets"] = [{"type": "replied_to", "id": str(answers)}]
    return post


def child(folder: Path) -> None:
    from pathclip.ingest import IngestConfig, ingest

    report = ingest(
        IngestConfig(
            sources=(folder / "posts.jsonl",), media=folder / "media", out=folder / "out", engine="serial"
        )
    )
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps([peak / 1024, report.data["in"]]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]))
    else:
        main()
