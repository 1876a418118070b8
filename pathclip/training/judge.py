"""Zero-shot, retrieval and probe figures during training, on sets that the user names."""

from __future__ import annotations

import io
import logging
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from pathclip.batches import caption_id
from pathclip.core.errors import UserError
from pathclip.encoders import PICTURE_SUFFIXES, DualEncoder
from pathclip.shards import Dataset
from pathclip.training.config import ProbeSet, RetrievalSet, TrainConfig, ZeroShotSet

__all__ = ["check_sets", "judge"]

log = logging.getLogger("pathclip")
CHUNK = 256  # pictures in memory at once


def check_sets(config: TrainConfig) -> None:
    """Meet every mistake in the named sets before training starts.

    Raises:
        UserError: If a folder, split or prompt file is missing.
    """
    for zeroshot in config.eval.zeroshot.values():
        unknown = set(_folder_of_classes(zeroshot)) - set(_classes(zeroshot, config).labels)
        if unknown:
            raise UserError(
                f"eval.zeroshot: {zeroshot.data} has folders that the prompts do not name: "
                f"{', '.join(sorted(unknown))}; name the folders like the prompts' labels"
            )
    for retrieval in config.eval.retrieval.values():
        Dataset.open(_dataset(retrieval, config)).shards(retrieval.split)
    for probe in config.eval.probe.values():
        unknown = set(_class_folders(probe.test, "probe", probe.limit)) - set(
            _class_folders(probe.train, "probe", probe.limit)
        )
        if unknown:
            raise UserError(
                f"eval.probe: {probe.test} has classes that {probe.train} lacks: {', '.join(sorted(unknown))}"
            )


def judge(model: DualEncoder, config: TrainConfig) -> dict[str, dict[str, float]]:
    """Measure every named set.

    Returns:
        Set -> metric -> value, for example ``{"val": {"balanced_accuracy": 0.8, "n": 480}}``.
    """
    results: dict[str, dict[str, float]] = {}
    for name, zeroshot in config.eval.zeroshot.items():
        results[name] = _zeroshot(model, zeroshot, config)
    for name, retrieval in config.eval.retrieval.items():
        results[name] = _retrieval(model, retrieval, config)
    for name, probe in config.eval.probe.items():
        results[name] = _probe(model, probe, config.seed)
    return results


def _zeroshot(model: DualEncoder, chosen: ZeroShotSet, config: TrainConfig) -> dict[str, float]:
    from pathclip.heads import balanced_accuracy, classify

    folders = _folder_of_classes(chosen)
    paths = [path for files in folders.values() for path in files]
    truth = [name for name, files in folders.items() for _ in files]
    result = classify(model, paths, _classes(chosen, config))
    seen = [(t, p) for t, p in zip(truth, result.labels, strict=True) if p is not None]
    value = balanced_accuracy([t for t, _ in seen], [p for _, p in seen])
    return {"balanced_accuracy": float(value), "chance": 1 / len(folders), "n": len(seen)}


def _probe(model: DualEncoder, chosen: ProbeSet, seed: int) -> dict[str, float]:
    from pathclip.heads import balanced_accuracy, fit_probe

    def labelled(folder: Path) -> tuple[Any, list[str]]:
        folders = _class_folders(folder, "probe", chosen.limit)
        features = model.encode_images([path for files in folders.values() for path in files])
        labels = [name for name, files in folders.items() for _ in files]
        good = (~features.isnan().any(1)).tolist()
        return features[good].numpy(), [name for name, is_good in zip(labels, good, strict=True) if is_good]

    fitted = fit_probe(*labelled(chosen.train), seed=seed)
    features, truth = labelled(chosen.test)
    value = balanced_accuracy(truth, fitted.predict(features))
    return {"balanced_accuracy": float(value), "chance": 1 / len(set(truth)), "n": len(truth)}


def _retrieval(model: DualEncoder, chosen: RetrievalSet, config: TrainConfig) -> dict[str, float]:
    import torch

    from pathclip.heads import retrieval_metrics

    images, captions, parts = [], [], []
    dataset = Dataset.open(_dataset(chosen, config))
    for jpg, record in islice(dataset.samples(chosen.split), chosen.limit):
        try:
            images.append(Image.open(io.BytesIO(jpg)))
        except OSError as error:
            log.warning("%s, sample %s left out: %s", chosen.split, record.get("sample_id"), error)
            continue
        captions.append(record["captions"][0]["text"])
        if len(images) == CHUNK:
            parts.append(model.encode_images(images))
            images = []
    if images:
        parts.append(model.encode_images(images))
    features = torch.cat(parts)
    good = ~features.isnan().any(1)
    ids = torch.tensor([caption_id(text) for text in captions])[good].tolist()
    texts = model.encode_text(captions)[good]
    found = retrieval_metrics(features[good], texts, ids, ids)
    flat = {
        f"{direction}_{key}": float(value)
        for direction, values in found.items()
        for key, value in values.items()
        if key.startswith("R@")
    }
    return {**flat, "n": int(good.sum())}


def _folder_of_classes(chosen: ZeroShotSet) -> dict[str, list[Path]]:
    return _class_folders(chosen.data, "zeroshot", chosen.limit)


def _class_folders(data: Path, kind: str, limit: int | None) -> dict[str, list[Path]]:
    if not data.is_dir():
        raise UserError(f"eval.{kind}: {data} is no folder; expected one subfolder per class in it")
    folders = {
        folder.name: sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)[:limit]
        for folder in sorted(data.iterdir())
        if folder.is_dir()
    }
    folders = {name: files for name, files in folders.items() if files}
    if len(folders) < 2:
        raise UserError(f"eval.{kind}: {data} holds {len(folders)} class folders with pictures, not 2")
    return folders


def _classes(chosen: ZeroShotSet, config: TrainConfig) -> Any:
    from pathclip.heads import load_prompts

    return load_prompts(chosen.classes or config.prompts or list(_folder_of_classes(chosen)))


def _dataset(chosen: RetrievalSet, config: TrainConfig) -> Path | str:
    return chosen.dataset or config.data.dataset[0]
