"""The six faults of PLIP's published code, each a claim that it is not made here.

Source: PathologyFoundation/plip f010f3d: plip.py, zero_shot.py, metrics.py, retrieval.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_model import TINY, ColourModel, paint
from PIL import Image

import pathclip
from pathclip.encoders import create, load
from pathclip.evaluation import EvaluateConfig, ProbeConfig, evaluate, probe
from pathclip.heads import build_classifier, classify, retrieval_metrics


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("test", 2)):
        for colour in ("red", "green"):
            for seed in range(count):
                place = tmp_path / "tiles" / split / colour / f"{seed}.png"
                paint(place, colour, seed=seed + 7 * (split == "test"))
    return tmp_path / "tiles"


def test_fault_1_the_hash_of_a_model_is_that_of_its_weights_not_the_builtin_hash(tmp_path: Path) -> None:
    """`_load_model` returned the builtin function ``hash``."""
    hashes = []
    for shift in (0.0, 1.0):
        model = create("tiny-vit-112", **TINY)
        with torch.no_grad():
            model.clip.visual.proj.add_(shift)
        model.save(tmp_path / f"{shift}")
        hashes.append(load(tmp_path / f"{shift}").provenance()["checkpoint_sha256"])
    assert all(isinstance(found, str) and len(found) == 64 for found in hashes)
    assert hashes[0] != hashes[1]
    assert hashes[0] == load(tmp_path / "0.0").provenance()["checkpoint_sha256"]


def test_fault_2_lists_of_paths_and_pictures_mixed_and_single_ones_are_told_apart(
    model: ColourModel, tiles: Path
) -> None:
    """``type(x) == List`` was never true, and a list that mixed paths and pictures broke."""
    path = tiles / "test/red/0.png"
    with Image.open(path) as image:
        picture = image.convert("RGB")
    mixed = [str(path), path, picture, np.asarray(picture)]
    features = model.encode_images(mixed)
    assert features.shape == (4, model.embed_dim)
    for alone in (str(path), picture, tuple(mixed)):
        np.testing.assert_allclose(model.encode_images(alone)[0], features[0])
    assert torch.equal(model.encode_text("red"), model.encode_text(["red"]))


def test_fault_3_retrieval_answers_at_once_and_needs_no_vectors_set_before(
    model: ColourModel, tiles: Path
) -> None:
    """``retrieval`` read ``self.image_vectors``, which nothing ever set."""
    index = pathclip.Index.build(model, tiles / "test")
    assert [hit.location.split("/")[-2] for hit in index.search("a red one", k=2)] == ["red", "red"]


def test_fault_4_a_long_text_vector_wins_nothing(tiles: Path) -> None:
    """Zero-shot compared unit pictures with texts of any length, so that long texts won."""

    class Loud(ColourModel):
        def encode_text(self, texts, *, batch_size: int = 256, normalize: bool = True):  # type: ignore[no-untyped-def]
            unit = super().encode_text(texts, batch_size=batch_size)
            lengths = torch.tensor([50.0 if "green" in text else 1.0 for text in texts])
            return unit if normalize else unit * lengths[:, None]

    small = create("tiny-vit-112", **TINY)
    loud = Loud(small.clip, small.architecture)
    paths = [tiles / f"test/{colour}/{i}.png" for colour in ("red", "green") for i in range(2)]
    columns = build_classifier(loud, ["red", "green"])
    np.testing.assert_allclose(columns.norm(dim=0), 1, atol=1e-6)
    result = classify(loud, paths, ["red", "green"])
    assert result.labels == ("red", "red", "green", "green")
    assert result.scores.abs().max() <= 1 + 1e-6
    unnormalised = loud.encode_images(paths) @ loud.encode_text(["red", "green"], normalize=False).T
    assert unnormalised.abs().argmax(dim=1).tolist() == [1, 1, 1, 1]  # what length alone would do


def test_fault_5_an_evaluation_returns_and_leaves_its_result_and_no_pickle(
    model: ColourModel, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero-shot dumped ``pickle.pkl`` into the working folder and called ``exit()`` before its return."""
    monkeypatch.chdir(tmp_path)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    report = evaluate(EvaluateConfig(data=tiles, out=tmp_path / "out", num_resamples=5), model=model)
    assert report.metrics["accuracy"] == 1.0
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {path.parent for path in written} == {tmp_path / "out"}
    assert not [path for path in written if path.suffix in (".pkl", ".pickle")]
    assert json.loads((tmp_path / "out/result.json").read_text())["metrics"]["accuracy"] == 1.0


def test_fault_6_recall_is_called_recall_and_training_figures_are_no_copies_of_test_figures(
    model: ColourModel, tiles: Path, tmp_path: Path
) -> None:
    """``p@10`` was recall at 10 with one target, and the "train" figures were those of the test."""
    features = torch.eye(12)
    ids = [0, 0, *range(1, 11)]  # two pictures of one thing
    found = retrieval_metrics(features, features, ids, ids, ks=(1, 10))
    assert set(found["image_to_text"]) == {"R@1", "R@10", "random"}
    assert found["image_to_text"]["R@1"] == 1.0  # precision at 10 would be 1 / 10
    wrong = paint(tiles / "test/red/9.png", "green", seed=9)
    report = probe(ProbeConfig(train=tiles, test=tiles, out=tmp_path / "p", num_resamples=5), model=model)
    assert wrong.is_file()
    assert report.metrics["accuracy"] == pytest.approx(4 / 5)  # on its own training set it would be 1
    assert not [name for name in report.metrics if name.startswith(("p@", "train"))]
