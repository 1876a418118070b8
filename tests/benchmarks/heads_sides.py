"""One side of tests/benchmarks/heads.py: ``PYTHON heads_sides.py '{"side": ..., "what": ..., ...}'``.

Prints one JSON object. Stands alone, so that clip_benchmark runs in a virtual environment of its own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Features = tuple[torch.Tensor, torch.Tensor]


def measured(action: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Wall and processor seconds, children's too, and how much memory rose above where it stood."""
    before, start, cpu = _peak_mib(), time.perf_counter(), _cpu_s()
    result = action()
    wall = time.perf_counter() - start
    found = {"wall_s": wall, "cpu_s": _cpu_s() - cpu, "extra_mib": _peak_mib() - before}
    return found, result


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def encode(spec: dict[str, Any]) -> dict[str, float]:
    """Files to unit features; one pass over a batch first, to warm up. Features go to ``out``."""
    from pathclip.encoders import create, load

    files = sorted(map(str, Path(spec["data"]).glob("*.jpg")))[: spec["pictures"]]
    given = Path(spec["model"])
    model = load(given) if given.exists() else create(spec["model"]).eval()
    model.precision = spec["precision"]
    sides = {"pathclip": _ours, "open_clip": _plain_loop, "open_clip+workers": _loader_loop}
    run = sides[spec["side"]]
    if spec["side"] != "pathclip":
        model.clip = _as_open_clip_has_it(model)
    run(model, files[: spec["batch"]], spec)
    found, features = measured(lambda: run(model, files, spec))
    np.save(spec["out"], features.float().numpy())
    return {**found, "rate": len(files) / found["wall_s"], "cpu_ms": 1e3 * found["cpu_s"] / len(files)}


def _as_open_clip_has_it(model: Any) -> torch.nn.Module:
    """The same weights in open_clip's layers: ours may multiply by another library (`encoders/onednn.py`)."""
    from pathclip.encoders.architecture import build_clip

    clip = build_clip(model.architecture, draw=False)
    clip.load_state_dict(model.clip.state_dict())
    return clip.eval()


def _ours(model: Any, files: list[str], spec: dict[str, Any]) -> torch.Tensor:
    features: torch.Tensor = model.encode_images(files, batch_size=spec["batch"])
    return features


class Pictures(torch.utils.data.Dataset):
    """What the README of open_clip does with one picture."""

    def __init__(self, model: Any, files: list[str]) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        config = PreprocessCfg(size=model.image_size, **model.architecture.preprocess_cfg)
        self.files, self.transform = files, image_transform_v2(config, is_train=False)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        from PIL import Image

        picture: torch.Tensor = self.transform(Image.open(self.files[index]))
        return picture


def _plain_loop(model: Any, files: list[str], spec: dict[str, Any], workers: int = 0) -> torch.Tensor:
    pictures = Pictures(model, files)
    loader = torch.utils.data.DataLoader(pictures, batch_size=spec["batch"], num_workers=workers)
    cast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=spec["precision"] == "bf16")
    with torch.no_grad(), cast:
        return torch.cat([model.clip.encode_image(batch, normalize=True) for batch in loader])


def _loader_loop(model: Any, files: list[str], spec: dict[str, Any]) -> torch.Tensor:
    return _plain_loop(model, files, spec, workers=2)


def pairs(size: int, width: int) -> Features:
    """Unit features of pictures and texts, each leaning towards its own partner."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(size, width, generator=generator)
    text = torch.randn(size, width, generator=generator).add_(0.22 * image)
    return F.normalize(image, dim=1), F.normalize(text, dim=1)


def recall(spec: dict[str, Any]) -> dict[str, float]:
    """Recall at 1 and 10 both ways; row i belongs to row i."""
    image, text = pairs(spec["size"], spec["width"])
    sides = {"pathclip": _our_recall, "clip_benchmark": _their_recall}
    found, recalls = measured(lambda: sides[spec["side"]](image, text))
    return {**found, **recalls}


def _our_recall(image: torch.Tensor, text: torch.Tensor) -> dict[str, float]:
    from pathclip.heads import retrieval_metrics

    own = np.arange(len(image))
    found = retrieval_metrics(image, text, own, own, ks=(1, 10))
    return {f"{way}_{name}": found[way][name] for way in sorted(found) for name in ("R@1", "R@10")}


def _their_recall(image: torch.Tensor, text: torch.Tensor) -> dict[str, float]:
    """The lines of its ``evaluate`` after the encoding, with its batch of 64."""
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    scores = text @ image.T
    own = torch.zeros_like(scores, dtype=torch.bool)
    own[torch.arange(len(scores)), torch.arange(len(scores))] = True
    result = {}
    for k in (1, 10):
        for way, table, right in (("text_to_image", scores, own), ("image_to_text", scores.T, own.T)):
            hits = batchify(recall_at_k, table, right, 64, "cpu", k=k) > 0
            result[f"{way}_R@{k}"] = hits.float().mean().item()
    return result


def search(spec: dict[str, Any]) -> dict[str, float]:
    """Median milliseconds of one query for its ten nearest, one at a time."""
    gallery = torch.randn(spec["size"], spec["width"], generator=torch.Generator().manual_seed(0))
    gallery = F.normalize(gallery, dim=1)
    queries = F.normalize(gallery[:: spec["size"] // 20][:20] + 0.05, dim=1)
    sides = {"pathclip": _our_search, "torch": _plain_search}
    find = sides[spec["side"]](gallery)
    find(queries[0])
    times = []

    def all_queries() -> list[list[int]]:
        answers = []
        for query in queries:
            start = time.perf_counter()
            answers.append(find(query))
            times.append(time.perf_counter() - start)
        return answers

    found, answers = measured(all_queries)
    return {**found, "ms": 1e3 * float(np.median(times)), "checksum": float(np.sum(answers))}


def _our_search(gallery: torch.Tensor) -> Callable[[torch.Tensor], list[int]]:
    import polars as pl

    from pathclip.heads.index import Index
    from pathclip.heads.index.build import Embeddings
    from pathclip.heads.index.sources import COLUMNS

    rows = {name: [None] * len(gallery) for name in COLUMNS}
    rows["key"] = [str(i) for i in range(len(gallery))]  # type: ignore[list-item]
    record = {"dim": gallery.shape[1], "count": len(gallery), "source": {"path": None}, "bad": []}
    index = Index(Embeddings(gallery.numpy(), None, pl.DataFrame(rows, schema=COLUMNS), record))
    return lambda query: [hit.row for hit in index.search(query, k=10)]


def _plain_search(gallery: torch.Tensor) -> Callable[[torch.Tensor], list[int]]:
    return lambda query: (gallery @ query).topk(10).indices.tolist()


def probe(spec: dict[str, Any]) -> dict[str, float]:
    """Choose a penalty, fit, and score: accuracy on rows that were not seen."""
    classes, width, per_class = spec["classes"], spec["width"], spec["size"] // spec["classes"]
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, width))
    truth = np.repeat(np.arange(classes), per_class)
    noise = [rng.normal(size=(len(truth), width)) for _ in range(2)]
    train, test = (_unit(centres[truth] + 5.0 * n) for n in noise)
    sides = {"pathclip": _our_probe, "scikit-learn": _plain_probe, "clip_benchmark": _their_probe}
    found, predicted = measured(lambda: sides[spec["side"]](train, truth, test, classes))
    return {**found, "accuracy": float((predicted == truth).mean())}


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _our_probe(train: np.ndarray, truth: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    from pathclip.heads import fit_probe

    return np.array(fit_probe(train, [str(t) for t in truth]).predict(test), dtype=int)


def _plain_probe(train: np.ndarray, truth: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """The same eight penalties and five folds, as one writes it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    grid = {"C": 10.0 ** np.arange(-2, 6)}
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    plain = LogisticRegression(class_weight="balanced", max_iter=1000)
    return GridSearchCV(plain, grid, cv=folds, scoring="balanced_accuracy").fit(train, truth).predict(test)


def _their_probe(train: np.ndarray, truth: np.ndarray, test: np.ndarray, classes: int) -> np.ndarray:
    """Its sweep of weight decays, AdamW at its defaults; it asserts CUDA, so ``.cuda()`` is made to stay."""
    from clip_benchmark.metrics import linear_probe as lp

    torch.nn.Module.cuda = torch.Tensor.cuda = lambda self, *_: self  # type: ignore[method-assign,assignment]
    lp.tqdm = lambda items: items
    lp.print = lambda *_: None
    lp.accuracy = _top1  # its own fails on NumPy 2
    held = np.arange(len(truth)) % 5 == 0
    sets = [
        lp.FeatureDataset(torch.from_numpy(x), torch.from_numpy(y)) for x, y in _parts(train, truth, held)
    ]
    learn, judge, all_ = (torch.utils.data.DataLoader(s, batch_size=64, shuffle=True) for s in sets)
    decays = np.logspace(-6, 2, num=97).tolist()
    rest = (train.shape[1], classes, 0.1, 10, False, "cpu", False, 0)
    best, span = lp.find_peak(decays, list(range(0, 97, 16)), learn, judge, *rest), 8
    while span > 0:
        around = [max(best - span, 0), best, min(best + span, 96)]
        best, span = lp.find_peak(decays, around, learn, judge, *rest), span // 2
    model = lp.train(all_, train.shape[1], classes, decays[best], 0.1, 10, False, "cpu", 0)
    with torch.no_grad():
        return model(torch.from_numpy(test)).argmax(dim=1).numpy()


def _top1(output: torch.Tensor, target: torch.Tensor, topk: tuple[int, ...]) -> list[float]:
    return [float((output.argmax(dim=1) == target).float().mean())]


def _parts(train: np.ndarray, truth: np.ndarray, held: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(train[~held], truth[~held]), (train[held], truth[held]), (train, truth)]


if __name__ == "__main__":
    asked: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    print(
        json.dumps(
            {"encode": encode, "recall": recall, "search": search, "probe": probe}[asked["what"]](asked)
        )
    )
