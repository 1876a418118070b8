from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jsonschema
import open_clip
import pytest
import torch
from PIL import Image

from pathclip.core.errors import FaultError, UserError
from pathclip.encoders import DualEncoder, create, load

REPO = Path(__file__).resolve().parents[2]
SMALL = Path(__file__).with_name("small.json")
TEXTS = ["an H&E image of adipose tissue", "Signet-ring cells & mucin (x40)"]


@pytest.fixture(params=["small", "tiny-vit-112", "tiny-conv-112"])
def any_model(request: pytest.FixtureRequest) -> DualEncoder:
    return create(SMALL if request.param == "small" else request.param, seed=1).eval()


def test_weights_come_back_to_the_last_bit(any_model: DualEncoder, tmp_path: Path) -> None:
    any_model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    mine, theirs = any_model.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert again.name == any_model.name
    assert not again.training


def test_open_clip_loads_the_folder_and_gives_the_same_features(
    any_model: DualEncoder, picture: Image.Image, tmp_path: Path
) -> None:
    if any_model.name == "tiny-conv-112":  # running averages that differ from their start
        any_model.train()(
            torch.randint(0, 256, (4, 3, 112, 112), dtype=torch.uint8), any_model.tokenize(["a"])
        )
        any_model.eval()
    any_model.save(tmp_path)
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    theirs.eval()
    with torch.no_grad():
        image = theirs.encode_image(transform(picture)[None], normalize=True)
        text = theirs.encode_text(tokenizer(TEXTS), normalize=True)
    assert (any_model.encode_images(picture) - image).abs().max() < 1e-5
    assert (any_model.encode_text(TEXTS) - text).abs().max() < 1e-5


def test_a_preprocessing_of_its_own_survives_and_reaches_open_clip(
    picture: Image.Image, tmp_path: Path
) -> None:
    preprocess = {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.3],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    model = create(SMALL, preprocess_cfg=preprocess).eval()
    model.save(tmp_path)
    again = load(tmp_path)
    assert (again.mean, again.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.3))
    assert torch.equal(model.encode_images(picture), again.encode_images(picture))
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    assert torch.equal(transform(picture), model.normalize_pixels(model.preprocess(picture)[None])[0])


def test_the_record_holds_prompts_training_and_hash(tmp_path: Path) -> None:
    model = create(SMALL)
    model.save(tmp_path, prompts=["fat", "mucin"], training={"steps": 3, "loss": float("nan")})
    record = json.loads((tmp_path / "pathclip.json").read_text())
    schema = json.loads((REPO / "docs/reference/schemas/model.schema.json").read_text())
    jsonschema.validate(record, schema)
    digest = hashlib.sha256((tmp_path / "open_clip_model.safetensors").read_bytes()).hexdigest()
    assert record["weights_sha256"] == digest
    assert record["training"] == {"steps": 3, "loss": None}
    again = load(tmp_path)
    assert again.source.prompts == ["fat", "mucin"]
    assert again.source.training == {"steps": 3, "loss": None}
    for loaded in (model, again):
        assert loaded.provenance()["checkpoint_sha256"] == digest
        assert loaded.provenance()["pretrained"] == str(tmp_path)


def test_the_saved_config_always_states_the_activation(tmp_path: Path) -> None:
    create("ViT-B-32", vision_cfg={"layers": 1, "width": 64}, text_cfg={"layers": 1, "width": 64}).save(
        tmp_path
    )
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert config["model_cfg"]["quick_gelu"] is False
    assert "size" not in config["preprocess_cfg"]


def test_saving_twice_keeps_the_later_model(tmp_path: Path) -> None:
    create(SMALL, seed=1).save(tmp_path)
    later = create(SMALL, seed=2)
    later.save(tmp_path)
    assert torch.equal(load(tmp_path).clip.visual.conv1.weight, later.clip.visual.conv1.weight)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "pathclip.json",
    ]


def test_saving_onto_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file; give a folder"):
        create(SMALL).save(tmp_path / "file")


def test_a_disk_that_fills_up_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    create(SMALL).save(tmp_path)
    monkeypatch.setattr("pathclip.encoders.folder.save_file", full)
    with pytest.raises(FaultError, match=r"No space left|full"):
        create(SMALL, seed=1).save(tmp_path)
    assert not (tmp_path / "pathclip.json").exists()
    assert not list(tmp_path.glob(".*"))
