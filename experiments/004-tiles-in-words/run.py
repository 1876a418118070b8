"""Train a tiny CoCa on captioned tiles, put held-out tiles into words, count the words that name the class.

python run.py --data DATA/tiles --out OUT     the experiment: ingest, train, describe tiles/test, count
python run.py --data DATA/tiles --out OUT --model RUN     the last two steps, with a run that is there
python run.py --smoke                         two steps on painted tiles, to show that it runs
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pathclip
from pathclip.core.config import load_config
from pathclip.core.files import write_json
from pathclip.heads import bootstrap_interval, confusion_matrix

HERE = Path(__file__).parent
SMOKE = ["schedule.steps=2", "batch.size=8", "batch.workers=0", "threads=1"]


def train(tiles: Path, out: Path, overrides: list[str]) -> Path:
    """Ingest and train; the run folder."""
    source = (tiles / "pairs.csv",)
    pathclip.ingest(pathclip.IngestConfig(sources=source, media=tiles, out=out / "dataset"))
    data = [f"data.dataset={out / 'dataset'}", f"out={out / 'run'}"]
    return pathclip.train(load_config(pathclip.TrainConfig, HERE / "config.toml", [*data, *overrides])).run


def judge(tiles: Path, run: Path, out: Path) -> dict[str, Any]:
    """Describe the test tiles; how many texts name one class, and how many the right one."""
    paths = sorted((tiles / "test").rglob("*.jpg"))
    truth = [path.parent.name for path in paths]
    model = pathclip.load(run)
    result = pathclip.describe(model, paths)
    result.save(out / "described")
    said = [named(text or "", sorted(set(truth))) for text in result.texts]
    right = [t == s for t, s in zip(truth, said, strict=True)]
    hits = Counter(t for t, r in zip(truth, right, strict=True) if r)
    return {
        "experiment": HERE.name,
        "steps": model.source.training["steps"],
        "tiles": len(paths),
        "names_one_class": sum(s != "none" for s in said) / len(said),
        "names_the_right_class": sum(right) / len(right),
        "interval": bootstrap_interval(
            lambda counts: counts.trace(axis1=1, axis2=2) / counts.sum(axis=(1, 2)),
            confusion_matrix(truth, said),
        ),
        "majority_class": max(Counter(truth).values()) / len(truth),
        "by_class": {c: hits[c] / truth.count(c) for c in sorted(set(truth))},
        "distinct_texts": len(set(result.texts)),
        "most_frequent": Counter(result.texts).most_common(8),
    }


def named(text: str, classes: list[str]) -> str:
    """The one class whose name stands in the text; "none" for several and for none at all."""
    found = [c for c in classes if c.replace("_", " ") in text]
    return found[0] if len(found) == 1 else "none"


def paint(folder: Path) -> Path:
    """Painted tiles in train and test folders, and their table of captions."""
    from pathclip.synthetic import write_tile_folder

    rows = ["image,caption,group,split"]
    for number, (split, count) in enumerate((("train", 4), ("test", 1))):
        write_tile_folder(folder / split, per_class=count, seed=number, size_px=128)
        for path in sorted((folder / split).rglob("*.jpg")):
            label = path.parent.name.replace("_", " ")
            rows.append(f"{path.relative_to(folder)},{label},{split}-{path.stem}-{label},{split}")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder that holds pairs.csv and test/")
    parser.add_argument("--out", type=Path, help="where dataset, run and texts go")
    parser.add_argument("--model", type=Path, help="a run that is there already")
    parser.add_argument("--smoke", action="store_true", help="two steps on painted tiles")
    chosen = parser.parse_args()
    if chosen.smoke:
        with tempfile.TemporaryDirectory() as folder:
            tiles = paint(Path(folder, "tiles"))
            print(judge(tiles, train(tiles, Path(folder), SMOKE), Path(folder)))
        return
    if chosen.data is None or chosen.out is None:
        parser.error("give --data and --out, or --smoke")
    run = chosen.model or train(chosen.data, chosen.out, [])
    result = judge(chosen.data, run, chosen.out)
    write_json(HERE / "result.json", result)
    print(result)


if __name__ == "__main__":
    main()
