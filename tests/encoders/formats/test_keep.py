"""KEEP's layout, against timm's and transformers' own modules put together as its authors do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision import transforms

from pathclip.core.errors import UserError
from pathclip.encoders import load
from pathclip.heads import classify

transformers = pytest.importorskip("transformers")

TEXTS = ["an image of tumor lymphocytes", "Mucin, TUMOR & unknown words.", "", "tumor " * 50]


class Reference(nn.Module):
    """quick_start/keep_inference.py of github.com/MAGIC-AI4Med/KEEP in our words, small."""

    def __init__(self, bert: dict[str, object]) -> None:
        super().__init__()
        self.visual = VisionTransformer(
            img_size=32,
            patch_size=16,
            embed_dim=128,
            depth=2,
            num_heads=2,
            init_values=1e-5,
            num_classes=0,
            dynamic_img_size=True,
        )
        self.visual_head = nn.Sequential(nn.Linear(128, 32), nn.GELU(), nn.Linear(32, 32))
        self.text = transformers.BertModel(transformers.BertConfig(**bert))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_image(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.visual_head(self.visual(pixels)), dim=-1)

    def encode_text(self, **tokens: Tensor) -> Tensor:
        return F.normalize(self.text(**tokens).pooler_output, dim=-1)


@pytest.fixture
def folder(tmp_path: Path, write_bert: Callable[[Path], Path]) -> Path:
    folder = write_bert(tmp_path / "keep")
    bert = json.loads((folder / "config.json").read_text())
    config = {"model_type": "keep", "projection_dim": 32, "vision_config": {}, "text_config": bert}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": true}'
    )
    return folder


@pytest.fixture
def reference(folder: Path, drawn: Callable[[nn.Module, int], nn.Module]) -> nn.Module:
    """Its weights lie in the folder."""
    module = drawn(Reference(json.loads((folder / "config.json").read_text())["text_config"]), 5)
    weights = {**module.state_dict(), "text.embeddings.position_ids": torch.arange(40)[None]}
    torch.save(weights, folder / "pytorch_model.bin")
    return module


def test_features_equal_those_of_timm_and_transformers(
    folder: Path, reference: nn.Module, picture: Image.Image
) -> None:
    model = load(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXTS, max_length=40, padding="max_length", truncation=True, return_tensors="pt")
    steps = [
        transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop((32, 32)),
        transforms.ToTensor(),
        transforms.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ]
    pixels = transforms.Compose(steps)(picture)[None]
    assert torch.equal(model.tokenize(TEXTS), tokens["input_ids"])
    with torch.no_grad():
        images, texts, pooled = (
            reference.encode_image(pixels),
            reference.encode_text(**tokens),
            reference.visual(pixels),
        )
    assert (model.encode_images(picture) - images).abs().max() <= 1e-5
    assert (model.encode_images(picture, features="pooled", normalize=False) - pooled).abs().max() <= 1e-5
    assert (model.encode_text(TEXTS) - texts).abs().max() <= 1e-5
    assert (texts - texts.mean(0)).abs().max() > 0.05  # texts are told apart at all


def test_it_is_saved_in_its_own_layout(folder: Path, reference: nn.Module, tmp_path: Path) -> None:
    model = load(folder)
    model.save(tmp_path / "new")
    weights, expected = load_file(tmp_path / "new/model.safetensors"), reference.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in weights.items())
    texts = model.encode_text(TEXTS)
    folder.rename(tmp_path / "gone")
    assert torch.equal(load(tmp_path / "new").encode_text(TEXTS), texts)


def test_the_file_alone_gives_the_model_of_its_folder(folder: Path, reference: nn.Module) -> None:
    assert torch.equal(load(folder / "pytorch_model.bin").encode_text(TEXTS), load(folder).encode_text(TEXTS))


def test_classes_are_named_from_prompts(folder: Path, reference: nn.Module, picture: Image.Image) -> None:
    result = classify(load(folder), [picture], {"tumor": ["tumor"], "mucin": ["mucin"]})
    assert result.labels[0] in ("tumor", "mucin")
    assert result.provenance["model"] == "KEEP"


def test_weights_of_another_bert_are_refused_with_the_difference(folder: Path, reference: nn.Module) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"does not fit KEEP: 16 missing \(text\.encoder\.layer\.2\."):
        load(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="expected one weights file such as"):
        load(folder)


def test_activations_can_be_computed_again_instead_of_kept(folder: Path, reference: nn.Module) -> None:
    gradients = []
    for again in (False, True):
        model = load(folder).eval()  # without dropout
        model.clip.set_grad_checkpointing(again)
        images = model.encode_pixels(torch.ones(1, 3, 32, 32))
        (images @ model.encode_tokens(model.tokenize(TEXTS)).T)[0, 1].backward()
        gradients.append(model.clip.text.bert.encoder.layer[0].output.dense.weight.grad)
    assert gradients[0].abs().max() > 0
    assert torch.allclose(*gradients, atol=1e-7)
    model.clip.set_grad_checkpointing(False)
