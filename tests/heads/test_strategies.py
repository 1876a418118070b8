"""Which prompts speak: each strategy against its slow spelling, and usable from `classify` and `evaluate`."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, create
from pathclip.evaluation import EvaluateConfig, evaluate
from pathclip.heads import (
    balanced_accuracy,
    build_classifier,
    classify,
    draw_prompts,
    drawn_classifiers,
    load_prompts,
    screened_classifier,
    single_prompts,
    strategies,
)

SCHEMAS = Path(__file__).resolve().parents[2] / "docs/reference/schemas"
CLASSES = {"TUM": ["adenocarcinoma", "cancer"], "ADI": ["fat"], "MUC": ["mucin", "mucus", "slime"]}
TEMPLATES = ["CLASSNAME.", "an image of CLASSNAME.", "CLASSNAME, H&E stain."]


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return create(Path(__file__).with_name("small.json"), seed=1).eval()


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def screening_spelled_out(images: torch.Tensor, classifiers: list[torch.Tensor], keep: int) -> torch.Tensor:
    """KEEP's prompt_screening, a tile and a classifier at a time; for tests."""
    worth = []
    for weights in classifiers:  # (D, C)
        total = 0.0
        for image in images:
            *_, second, first = sorted(float(image @ weights[:, c]) for c in range(weights.shape[1]))
            total += (first - second) - abs(first + second - 1)
        worth.append(total / len(images))
    best = sorted(range(len(worth)), key=lambda i: -worth[i])[:keep]
    added = sum((classifiers[i] for i in best), torch.zeros_like(classifiers[0]))
    return added / added.norm(dim=0)


def all_single_classifiers(model: DualEncoder) -> list[torch.Tensor]:
    return [
        torch.stack(
            [model.encode_text(template.replace("CLASSNAME", n))[0] for n in (tumour, fat, mucin)], dim=1
        )
        for template in TEMPLATES
        for tumour, fat, mucin in itertools.product(*CLASSES.values())
    ]


@pytest.mark.parametrize("keep", [1, 4, 50])
def test_screening_is_keeps_spelled_out(
    model: DualEncoder, keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "SCORES_AT_ONCE", 100)  # blocks of a few classifiers
    images = unit(7, model.embed_dim, 0)
    prompts = load_prompts(CLASSES, templates=TEMPLATES)
    found, record = screened_classifier(model, prompts, images, keep=keep)
    expected = screening_spelled_out(images, all_single_classifiers(model), keep)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (record["combinations"], record["screened"], record["kept"]) == (18, 18, min(keep, 18))


def test_screening_keeps_the_prompts_that_tell_the_pictures_apart(model: DualEncoder) -> None:
    """Pictures that lie on two texts at a cosine near 1 and 0 are what the worth rewards."""
    texts = [["a sure one"], ["another sure one"]]
    good = model.encode_text([t[0] for t in texts])
    half = F.normalize(good[0] - (good[0] @ good[1]) * good[1], dim=0)  # at a right angle to the second text
    prompts = load_prompts({"a": ["a sure one", "x y z"], "b": ["another sure one", "q"]}, templates="{}")
    _, record = screened_classifier(model, prompts, half[None], keep=1)
    scores = {
        (a, b): screening_worth(half, model.encode_text([a, b]))
        for a in ("a sure one", "x y z")
        for b in ("another sure one", "q")
    }
    assert tuple(record["best"].values()) == max(scores, key=lambda pair: scores[pair])


def screening_worth(image: torch.Tensor, texts: torch.Tensor) -> float:
    low, high = sorted((texts @ image).tolist())
    return (high - low) - abs(high + low - 1)


def test_of_too_many_combinations_some_are_drawn_and_rows_agree_with_the_full_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts = load_prompts(CLASSES, templates=TEMPLATES)
    total, everything = strategies._combinations(prompts, 0)
    assert total == 18
    assert [strategies._row(prompts.sets[0], prompts.labels, i) for i in range(18)] == everything
    monkeypatch.setattr(strategies, "MOST", 7)
    total, some = strategies._combinations(prompts, 0)
    assert (total, len(set(some))) == (18, 7)
    assert set(some) < set(everything)
    assert some == strategies._combinations(prompts, 0)[1]
    assert some != strategies._combinations(prompts, 1)[1]
    beyond = load_prompts({str(c): [f"{c} {i}" for i in range(20)] for c in range(16)})  # 6 * 20**16
    assert strategies._combinations(beyond, 0)[0] == 6 * 20**16


def test_sets_of_one_prompt_each_are_the_combinations_themselves() -> None:
    sets = {
        str(i): {"classnames": {"a": f"fat {i}", "b": f"mucin {i}"}, "templates": "CLASSNAME."}
        for i in range(3)
    }
    assert strategies._combinations(load_prompts(sets), 0) == (
        3,
        [(f"fat {i}.", f"mucin {i}.") for i in range(3)],
    )


def test_single_is_the_first_name_in_the_first_template(model: DualEncoder) -> None:
    prompts = single_prompts(load_prompts(CLASSES, templates=TEMPLATES))
    assert [prompts.sets[0].texts(label) for label in prompts.labels] == [
        ["adenocarcinoma."],
        ["fat."],
        ["mucin."],
    ]
    pictures = np.random.default_rng(0).integers(0, 256, (3, 50, 60, 3), dtype=np.uint8)
    result = classify(model, pictures, CLASSES, templates=TEMPLATES, strategy="single")
    texts = model.encode_text(["adenocarcinoma.", "fat.", "mucin."])
    torch.testing.assert_close(result.scores, model.encode_images(pictures) @ texts.T)
    assert result.provenance["strategy"] == {"name": "single"}
    assert result.provenance["prompts"]["sets"][0]["templates"] == ["CLASSNAME."]


def test_draws_are_the_classifiers_of_the_drawn_prompts(model: DualEncoder) -> None:
    prompts = load_prompts(CLASSES, templates=TEMPLATES)
    found = drawn_classifiers(model, prompts, 5, seed=3)
    expected = torch.stack([build_classifier(model, draw_prompts(prompts, 3 + i)) for i in range(5)])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_classify_screens_by_the_pictures_that_can_be_read(model: DualEncoder, tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 50, 60, 3), dtype=np.uint8)
    prompts = load_prompts(CLASSES, templates=TEMPLATES)
    result = classify(model, [*pictures, tmp_path / "absent.jpg"], prompts, strategy="screening")
    classifier, record = screened_classifier(model, prompts, model.encode_images(pictures))
    torch.testing.assert_close(result.scores[:4], model.encode_images(pictures) @ classifier)
    assert result.labels[4] is None
    assert result.provenance["strategy"] == {"name": "screening", **record}
    with pytest.raises(UserError, match="there is none that could be read"):
        classify(model, [tmp_path / "absent.jpg"], prompts, strategy="screening")
    with pytest.raises(UserError, match="strategy 'best' is unknown; known: ensemble, single, screening"):
        classify(model, pictures, prompts, strategy="best")  # type: ignore[arg-type]


def test_evaluate_gives_the_median_over_draws_beside_the_ensemble(model: DualEncoder, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for label in CLASSES:
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (44, 44, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{i}.png")
    given = {"data": tmp_path / "data", "classes": CLASSES, "num_resamples": 10, "prompt_draws": 9}
    report = evaluate(EvaluateConfig(**given, out=tmp_path / "a", strategy="screening"), model=model)
    record = json.loads((tmp_path / "a" / "result.json").read_text())
    jsonschema.validate(record, json.loads((SCHEMAS / "result.schema.json").read_text()))
    assert record["provenance"]["strategy"]["name"] == "screening"
    truth = report.predictions["truth"].to_list()
    images = model.encode_images(sorted((tmp_path / "data").rglob("*.png")))
    prompts, values = load_prompts(CLASSES), []
    for seed in range(9):
        best = (images @ build_classifier(model, draw_prompts(prompts, seed))).argmax(dim=1)
        values.append(balanced_accuracy(truth, [prompts.labels[i] for i in best]))
    found = record["prompt_draws"]["balanced_accuracy"]
    assert found["median"] == pytest.approx(sorted(values)[4])
    assert (found["least"], found["most"]) == pytest.approx((min(values), max(values)))
    plain = evaluate(EvaluateConfig(**{**given, "prompt_draws": 0}, out=tmp_path / "b"), model=model)
    assert "prompt_draws" not in plain.to_dict()
