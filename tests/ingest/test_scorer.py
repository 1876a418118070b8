"""A checkpoint's word on every picture: recorded while looking, judged in the plan."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from looking import rejects
from PIL import Image
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.encoders import create, load
from pathclip.heads import PictureScorer, classify
from pathclip.heads.picture_scorer import MICROGRAPH_PROMPTS, TEMPLATES
from pathclip.ingest import IngestConfig, ingest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    create("tiny-vit-112", vision_cfg={"layers": 1, "width": 64}).eval().save(folder)
    return folder


@pytest.fixture
def two(dump):
    for number, name in enumerate("ab", 1):
        dump.picture(f"{name}.jpg", number)
        dump.post(str(number), f"Melanoma {name} of the skin", name)
    return dump


def config(dump, out, **more):
    return IngestConfig(sources=(dump.tweets,), media=dump.media, out=out, **more)


def red(image: Image.Image) -> float:
    """A stand-in that spawned workers can import."""
    return image.resize((1, 1)).getpixel((0, 0))[0] / 255


def test_the_score_is_a_column_and_its_threshold_belongs_to_the_plan(two, tmp_path):
    first = ingest(config(two, tmp_path / "d", collect={"scorer": "red"}), scorer=red)
    assert first.kept == 2
    parts = pq.read_table(tmp_path / "d" / "private" / "parts" / "pictures-00000.parquet").to_pylist()
    found = {row["file"]: json.loads(row["scores"])["scorer"] for row in parts}
    assert found == {
        f"{n}.jpg": pytest.approx(red(Image.open(two.media / f"{n}.jpg")), abs=0.01) for n in "ab"
    }
    between = sum(found.values()) / 2
    chosen = config(two, tmp_path / "d", collect={"scorer": "red"}, filter={"scorer_min": between})
    again = ingest(chosen, scorer=red)
    assert (again.state, again.kept) == ("rebuilt", 1)
    (reject,) = rejects(tmp_path / "d")
    assert reject["code"] == "filter_scorer"
    assert json.loads(reject["scores"])["scorer"] == min(found.values())


def test_processes_give_the_bytes_of_serial(two, tmp_path, key_file):
    outs = []
    for engine in ("serial", "processes"):
        out = tmp_path / engine
        chosen = config(two, out, collect={"scorer": "red"}, engine=engine, workers=2, key_file=key_file)
        ingest(chosen, scorer=red)
        outs.append((out / "index.json").read_bytes())
    assert outs[0] == outs[1]


def test_one_without_the_other_is_refused(two, tmp_path):
    with pytest.raises(UserError, match="give both or none"):
        ingest(config(two, tmp_path / "d", collect={"scorer": "red"}))
    with pytest.raises(UserError, match="give both or none"):
        ingest(config(two, tmp_path / "d"), scorer=red)
    with pytest.raises(ValueError, match=r"filter\.scorer_min needs a checkpoint"):
        config(two, tmp_path / "d", filter={"scorer_min": 0.5})


def test_the_scorer_is_the_zero_shot_probability_and_survives_pickling(checkpoint):
    image = Image.effect_noise((140, 120), 60).convert("RGB")
    model = load(checkpoint)
    expected = classify(model, [image], MICROGRAPH_PROMPTS, templates=TEMPLATES).probabilities[0, 0].item()
    scorer = PictureScorer(str(checkpoint))
    assert scorer(image) == pytest.approx(expected, abs=1e-6)
    again = pickle.loads(pickle.dumps(scorer))
    assert again._ready is None
    assert again(image) == scorer(image)
    assert torch.is_grad_enabled()


def test_the_command_line_puts_the_checkpoint_in(two, checkpoint, tmp_path):
    arguments = ["ingest", str(two.tweets), "--media", str(two.media), "--out", str(tmp_path / "d"), "--json"]
    arguments += ["--workers", "1", "--set", "filter.scorer_min=0"]
    done = CliRunner().invoke(app, [*arguments, "--set", f"collect.scorer={checkpoint}"])
    assert done.exit_code == 0, done.output
    parts = pq.read_table(tmp_path / "d" / "private" / "parts" / "pictures-00000.parquet").to_pylist()
    assert all(0 <= json.loads(row["scores"])["scorer"] <= 1 for row in parts)
    wrong = CliRunner().invoke(app, [*arguments, "--set", "collect.scorer=nowhere", "--force-new"])
    assert wrong.exit_code == 2
    assert "nowhere does not exist" in wrong.output
