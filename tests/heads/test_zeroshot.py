from __future__ import annotations

import csv
import json
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import pathclip
from pathclip.encoders import DualEncoder, create
from pathclip.heads import Prompts, build_classifier, classify, load_prompts

SCHEMAS = Path(__file__).resolve().parents[2] / "docs/reference/schemas"
SMALL = Path(__file__).with_name("small.json")
CLASSES = {
    "TUM": ["adenocarcinoma", "invasive cancer"],
    "ADI": ["adipose tissue"],
    "MUC": ["mucin", "mucus", "slime"],
}


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return create(SMALL, seed=1).eval()


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 50, 60, 3), dtype=np.uint8)


def classifier_spelled_out(model: DualEncoder, prompts: Prompts) -> torch.Tensor:
    """CLIP's prompt ensembling, a text at a time; for tests."""
    columns = []
    for label in prompts.labels:
        of_sets = []
        for prompt_set in prompts.sets:
            total = torch.zeros(model.embed_dim, dtype=torch.float64)
            for name in prompt_set.classnames[label]:
                for template in prompt_set.templates:
                    total += model.encode_text(template.replace("CLASSNAME", name))[0].double()
            of_sets.append(total / total.norm())
        mean = torch.stack(of_sets).sum(dim=0)
        columns.append(mean / mean.norm())
    return torch.stack(columns, dim=1).float()


def test_the_classifier_is_the_renormalised_mean_over_names_and_templates(model: DualEncoder) -> None:
    prompts = load_prompts(
        CLASSES, templates=["CLASSNAME.", "an H&E image of CLASSNAME.", "CLASSNAME is shown."]
    )
    found = build_classifier(model, prompts)
    assert found.shape == (model.embed_dim, 3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, classifier_spelled_out(model, prompts), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.norm(dim=0), torch.ones(3))


def test_over_several_sets_each_counts_equally(model: DualEncoder) -> None:
    sets = {
        "0": {"classnames": {"a": "fat", "b": "mucin"}, "templates": ["CLASSNAME."]},
        "1": {
            "classnames": {"b": ["mucus", "slime"], "a": "adipose"},
            "templates": ["a CLASSNAME.", "CLASSNAME!"],
        },
    }
    found = build_classifier(model, sets)
    torch.testing.assert_close(found, classifier_spelled_out(model, load_prompts(sets)), atol=1e-6, rtol=0)


def test_one_name_in_one_template_is_its_text_feature(model: DualEncoder) -> None:
    found = build_classifier(model, load_prompts(["fat", "mucin"], templates="{}"))
    torch.testing.assert_close(found, model.encode_text(["fat", "mucin"]).T)


def test_columns_follow_the_labels(model: DualEncoder) -> None:
    forward = build_classifier(model, CLASSES)
    backward = build_classifier(model, dict(reversed(CLASSES.items())))
    torch.testing.assert_close(forward, backward.flip(1))


def test_scores_are_cosines_and_probabilities_their_tempered_softmax(
    model: DualEncoder, pictures: np.ndarray
) -> None:
    result = classify(model, pictures, CLASSES, batch_size=4)
    images, classifier = model.encode_images(pictures), build_classifier(model, CLASSES)
    torch.testing.assert_close(result.scores, images @ classifier)
    expected = np.exp(result.scores.double().numpy() / 0.07)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.probabilities.numpy(), expected, rtol=1e-5)
    assert result.classnames == ("TUM", "ADI", "MUC")
    assert list(result.labels) == [result.classnames[i] for i in result.scores.argmax(dim=1)]
    assert result.provenance["temperature"] == pytest.approx(0.07, rel=1e-5)


def test_texts_are_normalised_too_so_that_a_long_vector_does_not_win(
    model: DualEncoder, pictures: np.ndarray
) -> None:
    """PLIP's zero-shot compares unit images with texts of any length; ours must not."""
    before = classify(model, pictures, CLASSES)
    louder = create(SMALL, seed=1).eval()
    with torch.no_grad():
        louder.clip.text_projection.mul_(100)
    torch.testing.assert_close(classify(louder, pictures, CLASSES).scores, before.scores, atol=1e-5, rtol=0)


def test_a_bad_picture_has_no_label_and_does_not_stop_the_others(
    model: DualEncoder, pictures: np.ndarray, tmp_path: Path
) -> None:
    result = classify(model, [pictures[0], tmp_path / "absent.jpg", pictures[1]], CLASSES)
    assert result.labels[1] is None
    assert None not in (result.labels[0], result.labels[2])
    assert result.scores[1].isnan().all()
    assert not result.scores[[0, 2]].isnan().any()
    assert [(item.index, item.reason) for item in result.bad] == [(1, "no such file")]


def test_one_picture_or_none_is_fine(model: DualEncoder, pictures: np.ndarray) -> None:
    assert len(classify(model, pictures[0], CLASSES).labels) == 1
    nothing = classify(model, [], CLASSES)
    assert nothing.labels == ()
    assert nothing.scores.shape == (0, 3)
    assert nothing.table().height == 0


def test_the_provenance_says_how_the_numbers_came_about(model: DualEncoder, pictures: np.ndarray) -> None:
    provenance = classify(model, pictures, "crc", templates="{}").provenance
    assert provenance["prompts"]["name"] == "crc"
    assert provenance["prompts"]["sha256"] == load_prompts("crc", templates="{}").sha256
    assert provenance["prompts"]["sets"][0]["templates"] == ["{}"]
    assert provenance["transform"]["size"] == 42
    assert provenance["model"] == "small"


def test_the_saved_files_fit_their_schemas_and_hold_the_result(
    model: DualEncoder, pictures: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(pictures[0]).save(tmp_path / "a.png")
    result = classify(model, [tmp_path / "a.png", tmp_path / "absent, really.jpg"], CLASSES)
    out = result.save(tmp_path / "out")
    record = json.loads((out / "result.json").read_text())
    jsonschema.validate(record, json.loads((SCHEMAS / "result.schema.json").read_text()))
    assert record["counts"] == {"total": 2, "scored": 1, "bad": 1}
    assert record["bad"] == [{"name": str(tmp_path / "absent, really.jpg"), "reason": "no such file"}]
    assert record["provenance"]["prompts"]["labels"] == ["TUM", "ADI", "MUC"]
    schema = json.loads((SCHEMAS / "predictions.schema.json").read_text())
    rows = pl.read_parquet(out / "predictions.parquet").to_dicts()
    for row in rows:
        jsonschema.validate(row, schema)
    assert pq.read_schema(out / "predictions.parquet").metadata[b"schema"] == b"pathclip.predictions/1"
    assert rows[0]["label"] == result.labels[0]
    assert rows[0]["probability"] == pytest.approx(result.probabilities[0].max().item())
    assert [rows[0][f"score_{label}"] for label in CLASSES] == pytest.approx(result.scores[0].tolist())
    assert (rows[1]["label"], rows[1]["score_TUM"], rows[1]["reason"]) == (None, None, "no such file")
    with open(out / "predictions.csv", newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert lines[1]["image"] == str(tmp_path / "absent, really.jpg")
    assert lines[0]["label"] == result.labels[0]


def test_the_public_face_classifies_with_a_saved_model(
    model: DualEncoder, pictures: np.ndarray, tmp_path: Path
) -> None:
    model.save(tmp_path / "m")
    loaded = pathclip.load(tmp_path / "m")
    result = pathclip.classify(loaded, pictures, CLASSES)
    assert isinstance(result, pathclip.ZeroShotResult)
    assert torch.equal(result.scores, classify(model, pictures, CLASSES).scores)
