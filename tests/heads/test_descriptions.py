"""Pictures in words: every one has a row, bad ones are named, and the text says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from PIL import Image
from shard_factory import COLOURS, picture
from train_cases import TINY_COCA
from typer.testing import CliRunner

import pathclip
from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, GenerateConfig, create
from pathclip.heads import describe

SCHEMAS = Path(__file__).parents[2] / "docs" / "reference" / "schemas"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder ``m`` and pictures in ``tiles``, one of them no picture."""
    folder = tmp_path_factory.mktemp("describe")
    (folder / "coca.json").write_text(json.dumps(TINY_COCA))
    create(folder / "coca.json", seed=3).save(folder / "m")
    (folder / "tiles").mkdir()
    for number, name in enumerate(COLOURS):
        Image.fromarray(picture(name, number)).save(folder / "tiles" / f"{name}.png")
    (folder / "tiles" / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture
def model(folder: Path) -> DualEncoder:
    return pathclip.load(folder / "m")


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["describe", *map(str, arguments)])
    return result.exit_code, result.stdout


@pytest.mark.parametrize("options", [{}, {"top_k": 4, "seed": 1}])
def test_every_picture_has_its_text_whatever_the_batches_and_what_is_bad(
    model: DualEncoder, folder: Path, options: dict[str, Any]
) -> None:
    paths, chosen = sorted((folder / "tiles").iterdir()), GenerateConfig(max_tokens=5, **options)
    whole = describe(model, paths, chosen)
    assert whole.names == tuple(map(str, paths))
    assert [(b.index, b.name) for b in whole.bad] == [(0, str(folder / "tiles" / "cut.jpg"))]
    assert whole.texts[0] is None
    pictures = torch.stack([model.preprocess(Image.open(path).convert("RGB")) for path in paths[1:]])
    if not options:
        assert whole.texts[1:] == tuple(said.text for said in model.generate(pictures, chosen))
    assert describe(model, paths, chosen, batch_size=2).texts == whole.texts
    assert describe(model, []).texts == ()


def test_the_saved_rows_say_that_they_are_no_diagnosis(
    model: DualEncoder, folder: Path, tmp_path: Path
) -> None:
    paths = sorted((folder / "tiles").iterdir())
    pathclip.describe(model, paths, pathclip.GenerateConfig(beams=2, max_tokens=3)).save(tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "descriptions.jsonl").read_text().splitlines()]
    schema = json.loads((SCHEMAS / "description.schema.json").read_text())
    for row in rows:
        jsonschema.validate(row, schema)
    assert [row["image"] for row in rows] == list(map(str, paths))
    assert [row["text"] is None for row in rows] == [True, False, False, False, False]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    jsonschema.validate(result, json.loads((SCHEMAS / "result.schema.json").read_text()))
    assert result["counts"] == {"total": 5, "scored": 4, "bad": 1}
    assert result["provenance"]["generate"]["beams"] == 2
    assert result["note"] == "generated text, no diagnosis"


def test_the_verb_shows_texts_counts_and_what_they_are_worth(folder: Path, tmp_path: Path) -> None:
    code, text = invoke(folder / "tiles", "--model", folder / "m", "--out", tmp_path / "out")
    assert code == 1  # one picture could not be read
    assert "4 pictures put into words; made up by a model: no diagnosis" in text
    assert "1 could not be read:" in text
    assert str(folder / "tiles" / "cut.jpg") in text
    code, text = invoke(folder / "tiles/fat.png", "--model", folder / "m", "--set", "max_tokens=2", "--json")
    report = json.loads(text)
    assert (code, report["pictures"], report["bad"]) == (0, 1, [])
    assert report["images"][0].keys() == {"image", "text", "logprob", "complete"}
    assert report["note"] == "generated text, no diagnosis"
    assert report["generate"]["max_tokens"] == 2


def test_zero_shot_and_recall_take_the_model_like_any_other(model: DualEncoder, folder: Path) -> None:
    result = pathclip.classify(model, sorted((folder / "tiles").glob("*.png")), list(COLOURS))
    assert result.features is not None
    expected = result.features @ model.encode_text("fat").T
    assert torch.isfinite(expected).all()
    assert set(result.labels) <= set(COLOURS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "beam=2"), "unknown key beam; did you mean beams?"),
        (
            ("--set", "beams=2", "--set", "top_k=3"),
            "beams follow the likeliest, top_k draws: set one of them",
        ),
        (("--set", "max_tokens=99"), "max_tokens is 99; coca reads 15 after the start mark"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    code, text = invoke(folder / "tiles", "--model", folder / "m", *arguments, "--json")
    assert code == 2
    assert message in json.loads(text)["error"]


def test_no_decoder_no_words_and_no_pictures_no_work(
    folder: Path, tmp_path: Path, model: DualEncoder
) -> None:
    create(Path(__file__).with_name("small.json")).save(tmp_path / "two")
    code, text = invoke(folder / "tiles", "--model", tmp_path / "two", "--json")
    assert code == 2
    assert "small has no decoder, so it cannot put pictures into words" in json.loads(text)["error"]
    assert invoke(tmp_path / "absent", "--model", folder / "m")[0] == 2
    with pytest.raises(UserError, match="batch_size is 0; expected at least 1"):
        describe(model, [], batch_size=0)
