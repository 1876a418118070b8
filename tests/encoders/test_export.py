from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, create, export, load

TEXTS = ["adipose tissue", "An H&E image of mucin, 40x.", "Ki-67 >20 %; β-catenin"]


@pytest.fixture
def hf_folder(model: DualEncoder, tmp_path: Path) -> Path:
    return export(model, tmp_path / "hf", format="hf")


def test_weights_go_to_hugging_face_and_come_back_to_the_last_bit(
    model: DualEncoder, hf_folder: Path, picture: Image.Image
) -> None:
    again = load(hf_folder)
    ours, theirs = model.clip.state_dict(), again.clip.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(again.encode_images(picture), model.encode_images(picture))
    assert torch.equal(again.encode_text(TEXTS), model.encode_text(TEXTS))
    assert (again.mean, again.std) == (model.mean, model.std)


def test_transformers_reads_the_folder_and_gives_the_same_features(
    model: DualEncoder, hf_folder: Path, picture: Image.Image
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPModel.from_pretrained(hf_folder).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(hf_folder)
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    for row, expected in zip(tokens["input_ids"], model.tokenize(TEXTS), strict=True):
        end = int((expected == 49407).int().argmax())
        assert row[: end + 1].tolist() == expected[: end + 1].tolist()
    pixels = model.normalize_pixels(model.preprocess(picture)[None])
    with torch.no_grad():
        image, text = theirs.get_image_features(pixels), theirs.get_text_features(**tokens)
    image, text = (getattr(features, "pooler_output", features) for features in (image, text))
    assert (model.encode_pixels(pixels, normalize=False) - image).abs().max() < 1e-5
    assert (model.encode_tokens(model.tokenize(TEXTS), normalize=False) - text).abs().max() < 1e-5


def test_the_image_processor_states_the_models_transform(model: DualEncoder, hf_folder: Path) -> None:
    stated = json.loads((hf_folder / "preprocessor_config.json").read_text())
    assert stated["size"] == {"shortest_edge": model.image_size}
    assert stated["crop_size"] == {"height": model.image_size, "width": model.image_size}
    assert stated["resample"] == 3  # bicubic
    assert tuple(stated["image_mean"]) == model.mean


@pytest.mark.parametrize("name", ["tiny-conv-80", "tiny-resnet-96"])
def test_a_model_without_such_a_form_is_refused_by_the_key_at_fault(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no Hugging Face CLIPModel form because of .*vision_cfg.*open_clip"):
        export(create(name), tmp_path / "hf", format="hf")
    assert not (tmp_path / "hf").exists()


def test_an_unknown_format_is_named(model: DualEncoder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="format 'onnx' is unknown; known: open_clip, hf"):
        export(model, tmp_path, format="onnx")


def test_the_command_exports_a_folder_both_ways(model: DualEncoder, tmp_path: Path) -> None:
    export(model, tmp_path / "a")
    for form, out in (("hf", "b"), ("open_clip", "c")):
        result = CliRunner().invoke(
            app, ["export", str(tmp_path / "a"), "--format", form, "--out", str(tmp_path / out), "--json"]
        )
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout.splitlines()[-1])
        assert report["format"] == form
        assert sorted(p.name for p in (tmp_path / out).iterdir()) == report["files"]
    assert torch.equal(load(tmp_path / "b").encode_text(TEXTS), load(tmp_path / "c").encode_text(TEXTS))
