"""Train from random weights on captioned tiles, classify held-out tiles by prompts, write result.json.

python run.py --data DATA/tiles --out OUT     the experiment: ingest, train, evaluate on tiles/test
python run.py --smoke                         two steps on painted tiles, to show that it runs
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import pathclip
from pathclip.core.config import load_config
from pathclip.core.files import write_json
from pathclip.evaluation import EvaluateConfig, evaluate

HERE = Path(__file__).parent
SMOKE = ["schedule.epochs=0.5", "batch.size=8", "batch.workers=0", "threads=1"]


def run(
    tiles: Path, pairs: Path, out: Path, overrides: list[str], classes: Path | None = None
) -> dict[str, Any]:
    """Ingest, train, evaluate; the figures."""
    pathclip.ingest(pathclip.IngestConfig(sources=[pairs], media=tiles, out=out / "dataset"))
    data = [f"data.dataset={out / 'dataset'}", f"out={out / 'run'}"]
    config = load_config(pathclip.TrainConfig, HERE / "config.toml", [*data, *overrides])
    before, started = _cpu_seconds(), time.monotonic()
    trained = pathclip.train(config)
    cost = {"wall_seconds": time.monotonic() - started, "cpu_seconds": _cpu_seconds() - before}
    scores = evaluate(
        EvaluateConfig(
            model=str(trained.run),
            benchmark="folder",
            data=tiles,
            split="test",
            classes=str(classes) if classes else None,
            out=out / "scores",
        )
    ).to_dict()
    figures = {"metrics": scores["metrics"], "intervals": scores["intervals"]}
    losses = {"first": trained.loss_first, "last": trained.loss_last}
    return {"experiment": HERE.name, "steps": trained.steps, "loss": losses, "train": cost, **figures}


def paint(folder: Path) -> Path:
    """Painted tiles in train and test folders, and their table of captions."""
    from pathclip.synthetic import write_tile_folder

    rows = ["image,caption,group,split"]
    for number, (split, count) in enumerate((("train", 4), ("test", 1))):
        write_tile_folder(folder / split, per_class=count, seed=number, size_px=128)
        for path in sorted((folder / split).rglob("*.jpg")):
            label = path.parent.name.replace("_", " ")
            rows.append(
                f"{path.relative_to(folder)},An H&E image of {label},{split}-{path.stem}-{label},{split}"
            )
    table = folder / "pairs.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder that holds pairs.csv and test/")
    parser.add_argument("--out", type=Path, help="where dataset, run and scores go")
    parser.add_argument("--smoke", action="store_true", help="two steps on painted tiles")
    chosen = parser.parse_args()
    if chosen.smoke:
        with tempfile.TemporaryDirectory() as folder:
            tiles = Path(folder, "tiles")
            print(run(tiles, paint(tiles), Path(folder), SMOKE))
        return
    if chosen.data is None or chosen.out is None:
        parser.error("give --data and --out, or --smoke")
    result = run(chosen.data, chosen.data / "pairs.csv", chosen.out, [], HERE / "classes.json")
    write_json(HERE / "result.json", result)
    print(result)


if __name__ == "__main__":
    main()
