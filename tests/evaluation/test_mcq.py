"""Multiple-choice questions: the published shapes, the slow spelling of the answer, and what may be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from colour_model import ColourModel, colour_model, paint

from pathclip.core.errors import UserError
from pathclip.evaluation import EvaluateConfig, evaluate
from pathclip.evaluation.mcq import read_mcq
from pathclip.heads import choose_answers

SCHEMAS = Path(__file__).resolve().parents[2] / "docs/reference/schemas"


def record(number: int, image: str, right: str, **changes: Any) -> dict[str, Any]:
    options = ["A) red tissue", "B) green tissue", "C) blue tissue"]
    answer = next(option for option in options if right in option)
    return {
        "No": number,
        "img": image,
        "question": "Which colour?",
        "options": options,
        "answer": answer,
    } | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for colour in ("red", "green", "blue"):
        paint(tmp_path / "images" / f"{colour}.png", colour)
    return tmp_path


def write(folder: Path, content: Any) -> Path:
    path = folder / "questions.json"
    path.write_text(json.dumps(content))
    return path


def config(data: Path, **changes: Any) -> EvaluateConfig:
    given = {"benchmark": "mcq", "data": data, "out": data.parent / "out", "num_resamples": 50}
    return EvaluateConfig(**(given | changes))


def test_the_answer_is_the_one_most_similar_to_the_picture_spelled_out() -> None:
    model = colour_model()
    images = torch.nn.functional.normalize(
        torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    options = [
        ["A) red", "B) green"],
        ["blue", "pink", "cyan"],
        ["(A) red", "(B) red"],
        ["x", "red"],
        ["red", "y"],
    ]
    found = choose_answers(model, images, ["q?"] * 5, options)
    for image, own, chosen, scores in zip(images, options, found.chosen, found.scores, strict=True):
        slow = [float(model.encode_text(f"q? {o.split(') ')[-1]}")[0] @ image) for o in own]
        np.testing.assert_allclose(scores, slow, atol=1e-6)
        assert chosen == max(range(len(own)), key=lambda i: slow[i])  # of equal ones the first
    images[1, 0] = float("nan")
    assert choose_answers(model, images, ["q?"] * 5, options).chosen[1] == -1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 8), ["a"], [["x", "y"]]), "2 pictures, 1 questions and 1 lists of answers"),
        ((torch.zeros(1, 8), ["a"], [["x"]]), "question 0 has 1 answers; a choice needs two"),
    ],
)
def test_a_question_needs_a_picture_and_two_answers(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_answers(colour_model(), *arguments)


def test_pathmmus_file_is_scored_by_subset_with_chance_beside(folder: Path) -> None:
    wrong = record(4, "red.png", "blue")  # the file says blue, the picture is red
    content = {
        "Atlas": {"test": [record(1, "red.png", "red"), wrong], "val": [record(9, "absent.png", "red")]},
        "PubMed": {"test": [record(2, "green.png", "green"), record(3, "blue.png", "blue")]},
    }
    report = evaluate(config(write(folder, content)), model=colour_model())
    assert report.dataset == "questions/test"
    assert report.metrics["accuracy"] == 0.75
    assert report.baselines["chance"]["accuracy"] == pytest.approx(1 / 3)
    assert report.baselines["constant_class"] == {"label": "answer 3", "accuracy": 0.5}
    low, high = report.intervals["accuracy"]
    assert low < 0.75 < high
    rows = {row["subset"]: row for row in report.extra["subsets"]}
    assert (rows["Atlas"]["accuracy"], rows["PubMed"]["accuracy"]) == (0.5, 1.0)
    assert report.predictions["label"].to_list() == [
        "red tissue",
        "red tissue",
        "green tissue",
        "blue tissue",
    ]
    saved = json.loads((folder / "out" / "result.json").read_text())
    jsonschema.validate(saved, json.loads((SCHEMAS / "result.schema.json").read_text()))
    assert saved["task"] == "multiple_choice"
    assert saved["provenance"]["benchmark_status"] == "layout-only"
    assert "Atlas" in (folder / "out" / "report.html").read_text()


def test_pathvqas_yes_and_no_are_a_choice_and_open_questions_are_counted_as_ignored(folder: Path) -> None:
    content = [
        {"image": "red.png", "question": "is it red tissue?", "answer": "yes"},
        {"image": "red.png", "question": "what is it?", "answer": "a lymph node"},
        {"image": "blue.png", "question": "is it red?", "answer": "No"},
    ]
    data = read_mcq(write(folder, content))
    assert [(q.options, q.answer) for q in data.questions] == [(("yes", "no"), 0), (("yes", "no"), 1)]
    assert (data.ignored, data.split) == (1, None)


@pytest.mark.parametrize("answer", ["B) green tissue", "B", "(b)", "green tissue", "Green tissue"])
def test_an_answer_may_be_given_in_full_without_its_letter_or_as_the_letter(
    folder: Path, answer: str
) -> None:
    (question,) = read_mcq(write(folder, [record(1, "red.png", "red", answer=answer)])).questions
    assert question.options[question.answer] == "green tissue"
    assert question.picture == folder / "images" / "red.png"


def test_a_letter_names_an_option_without_letters_too(folder: Path) -> None:
    given = record(1, "red.png", "red", options=["fat", "mucin"], answer="B")
    assert read_mcq(write(folder, [given])).questions[0].answer == 1


def test_a_picture_that_cannot_be_read_is_named_and_left_out(folder: Path) -> None:
    content = [record(7, "absent.png", "red"), record(8, "red.png", "red")]
    report = evaluate(config(write(folder, content)), model=colour_model())
    assert report.counts == {"total": 2, "scored": 1, "bad": 1, "ignored": 0}
    assert [(item.name, item.reason) for item in report.bad] == [("7", "no such file")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no question with answers"),
        ([3], "record 0 is int"),
        (
            [record(1, "red.png", "red", answer="violet")],
            "record 0: answer 'violet' is not among the options",
        ),
        ([record(1, "red.png", "red", options=["A) red"])], "record 0 has 1 options"),
        ([{"question": "a?", "answer": "yes"}], "record 0 has no img; it has question, answer"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_the_place(folder: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_mcq(write(folder, content))


def test_a_split_that_is_not_there_and_options_that_do_not_apply_are_mistakes(folder: Path) -> None:
    path = write(folder, {"val": [record(1, "red.png", "red")]})
    with pytest.raises(UserError, match="has no split 'test'; it has val"):
        read_mcq(path, "test")
    with pytest.raises(UserError, match="expects a JSON file"):
        read_mcq(folder)
    with pytest.raises(UserError, match="no use for classes"):
        evaluate(config(path, classes=["a", "b"]), model=ColourModel(*_parts()))


def _parts() -> Any:
    model = colour_model()
    return model.clip, model.architecture
