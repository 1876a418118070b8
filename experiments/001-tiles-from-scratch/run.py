"""Train from random weights on captioned tiles, classify tiles held out by prompts, write result.json.

python run.py --data DATA/tiles --out OUT             the experiment: ingest, train, evaluate on tiles/test
python run.py --data DATA/tiles --out OUT --choose    the same on training tiles whose stains are held out
    --set optim.lr=1e-3 --seeds 0                     with another config, other seeds
python run.py --smoke                                 two steps on painted tiles, to show that it runs
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from stains import hold_out_stains

import pathclip
from pathclip.core.config import load_config
from pathclip.core.files import write_json
from pathclip.evaluation import EvaluateConfig, evaluate

HERE = Path(__file__).parent
SMOKE = ["schedule.epochs=0.5", "batch.size=8", "batch.workers=0", "threads=1"]


def run(
    pairs: Path,
    media: Path,
    judged: dict[str, Any],
    out: Path,
    overrides: list[str],
    seeds: tuple[int, ...] = (0,),
) -> dict[str, Any]:
    """Ingest once; train and evaluate with each seed; the figures.

    Args:
        pairs: Table of captioned tiles.
        media: Where its pictures lie.
        judged: What `EvaluateConfig` has to know of the tiles to classify.
        out: Gets dataset, runs and scores.
        overrides: Of the config, ``key=value``.
        seeds: Of weights, order and augmentation.
    """
    pathclip.ingest(pathclip.IngestConfig(sources=[pairs], media=media, out=out / "dataset"))
    runs = [_one(judged, out, [*overrides, f"seed={seed}"], seed) for seed in seeds]
    scores = [one["metrics"]["balanced_accuracy"] for one in runs]
    spread = {"mean": statistics.mean(scores), "lowest": min(scores), "highest": max(scores)}
    return {"experiment": HERE.name, "balanced_accuracy": spread, "runs": runs}


def _one(judged: dict[str, Any], out: Path, overrides: list[str], seed: int) -> dict[str, Any]:
    data = [f"data.dataset={out / 'dataset'}", f"out={out / f'run-{seed}'}"]
    config = load_config(pathclip.TrainConfig, HERE / "config.toml", [*data, *overrides])
    before, started = _cpu_seconds(), time.monotonic()
    trained = pathclip.train(config)
    cost = {"wall_seconds": time.monotonic() - started, "cpu_seconds": _cpu_seconds() - before}
    scores = evaluate(EvaluateConfig(model=str(trained.run), out=out / f"scores-{seed}", **judged)).to_dict()
    figures = {"metrics": scores["metrics"], "intervals": scores["intervals"]}
    losses = {"first": trained.loss_first, "last": trained.loss_last}
    return {"seed": seed, "steps": trained.steps, "loss": losses, "train": cost, **figures}


def paint(folder: Path) -> Path:
    """Painted tiles in train and test folders, their captions and their labels; the table of captions."""
    from pathclip.synthetic import write_tile_folder

    pairs, labels = ["image,caption,group,split"], ["path,split,label,source,group"]
    for number, (split, count) in enumerate((("train", 4), ("test", 1))):
        write_tile_folder(folder / split, per_class=count, seed=number, size_px=128)
        for path in sorted((folder / split).rglob("*.jpg")):
            label, image = path.parent.name, path.relative_to(folder)
            group = f"{split}-{path.stem}-{label}"
            pairs.append(f"{image},An H&E image of {label.replace('_', ' ')},{group},{split}")
            labels.append(f"{image},{split},{label},painted,{group}")
    (folder / "labels.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")
    table = folder / "pairs.csv"
    table.write_text("\n".join(pairs) + "\n", encoding="utf-8")
    return table


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder that holds pairs.csv, labels.csv and test/")
    parser.add_argument("--out", type=Path, help="where dataset, runs and scores go")
    parser.add_argument("--seeds", default="0,1,2", help="with commas")
    parser.add_argument("--set", action="append", default=[], help="key=value of config.toml")
    parser.add_argument(
        "--choose", action="store_true", help="judge by stains held out of the training tiles"
    )
    parser.add_argument("--smoke", action="store_true", help="two steps on painted tiles")
    chosen = parser.parse_args()
    if chosen.smoke:
        with tempfile.TemporaryDirectory() as folder:
            tiles = Path(folder, "tiles")
            judged = {"benchmark": "folder", "data": tiles, "split": "test"}
            pairs = paint(tiles)
            hold_out_stains(tiles, Path(folder, "stains"))
            print(run(pairs, tiles, judged, Path(folder), SMOKE))
        return
    if chosen.data is None or chosen.out is None:
        parser.error("give --data and --out, or --smoke")
    pairs = chosen.data / "pairs.csv"
    judged = {"benchmark": "folder", "data": chosen.data, "split": "test"}
    if chosen.choose:
        pairs, held_out = hold_out_stains(chosen.data, chosen.out / "stains")
        judged = {"benchmark": "csv", "data": held_out, "split": "val"}
    judged["classes"] = str(HERE / "classes.json")
    seeds = tuple(int(seed) for seed in chosen.seeds.split(","))
    result = run(pairs, chosen.data, judged, chosen.out, chosen.set, seeds)
    write_json(chosen.out / "result.json" if chosen.choose or chosen.set else HERE / "result.json", result)
    print(result)


if __name__ == "__main__":
    main()
