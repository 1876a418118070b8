from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pathclip.core.errors import UserError
from pathclip.encoders import create, load
from pathclip.encoders.convert import architecture_from_hf, from_hf, to_custom_text, to_hf

VISION = {"hidden_size": 64, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {"hidden_size": 32, "intermediate_size": 43, "num_hidden_layers": 3, "num_attention_heads": 2}
CONFIG = {
    "model_type": "clip",
    "projection_dim": 24,
    "vision_config": {**VISION, "image_size": 48, "patch_size": 16},
    "text_config": {**TEXT, "max_position_embeddings": 20},
}
PREPROCESSOR = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
TEXTS = ["adipose tissue", "an H&E image of mucin."]


def write_hf(folder: Path, weights: dict[str, torch.Tensor], config: dict[str, object] = CONFIG) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def hf_weights() -> dict[str, torch.Tensor]:
    """Random weights under Hugging Face's names and shapes, every matrix different."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.05

    weights = {
        "logit_scale": torch.tensor(2.6592),
        "text_model.embeddings.token_embedding.weight": draw(49408, 32),
        "text_model.embeddings.position_embedding.weight": draw(20, 32),
        "vision_model.embeddings.class_embedding": draw(64),
        "vision_model.embeddings.position_embedding.weight": draw(10, 64),
        "vision_model.embeddings.patch_embedding.weight": draw(64, 3, 16, 16),
        "text_projection.weight": draw(24, 32),
        "visual_projection.weight": draw(24, 64),
    }
    norms = [
        ("text_model.final_layer_norm", 32),
        ("vision_model.pre_layrnorm", 64),
        ("vision_model.post_layernorm", 64),
    ]
    for tower, (width, hidden, layers) in {"text": (32, 43, 3), "vision": (64, 100, 2)}.items():
        for layer in range(layers):
            block = f"{tower}_model.encoder.layers.{layer}"
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                weights[f"{block}.self_attn.{part}.weight"] = draw(width, width)
                weights[f"{block}.self_attn.{part}.bias"] = draw(width)
            weights |= {f"{block}.mlp.fc1.weight": draw(hidden, width), f"{block}.mlp.fc1.bias": draw(hidden)}
            weights |= {f"{block}.mlp.fc2.weight": draw(width, hidden), f"{block}.mlp.fc2.bias": draw(width)}
            norms += [(f"{block}.layer_norm1", width), (f"{block}.layer_norm2", width)]
    for name, width in norms:
        weights |= {f"{name}.weight": 1 + draw(width), f"{name}.bias": draw(width)}
    return weights


def test_a_plip_like_folder_gives_the_features_of_transformers(
    hf_weights: dict[str, torch.Tensor], tmp_path: Path, picture: Image.Image
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPModel(
        transformers.CLIPConfig(**{k: v for k, v in CONFIG.items() if k != "model_type"})
    )
    theirs.load_state_dict(hf_weights)
    theirs.eval()
    model = load(write_hf(tmp_path / "plip", hf_weights))
    assert model.architecture.model_cfg["quick_gelu"] is True
    pixels = model.normalize_pixels(model.preprocess(picture)[None])
    tokens = model.tokenize(TEXTS)
    with torch.no_grad():
        image, text = (
            theirs.get_image_features(pixels),
            theirs.get_text_features(tokens, torch.ones_like(tokens)),
        )
    image = getattr(image, "pooler_output", image)  # an object since transformers 5
    text = getattr(text, "pooler_output", text)
    assert image.abs().mean() > 1e-2
    assert (model.encode_pixels(pixels, normalize=False) - image).abs().max() < 1e-5
    assert (model.encode_tokens(tokens, normalize=False) - text).abs().max() < 1e-5


def test_without_quick_gelu_the_features_would_be_wrong(
    hf_weights: dict[str, torch.Tensor], tmp_path: Path, picture: Image.Image
) -> None:
    folder = write_hf(tmp_path / "plip", hf_weights)
    right = load(folder).encode_images(picture, normalize=False)
    wrong = load(folder, quick_gelu=False).encode_images(picture, normalize=False)
    assert (right - wrong).abs().max() > 1e-3


def test_hf_names_there_and_back_are_bit_exact(hf_weights: dict[str, torch.Tensor]) -> None:
    ours = from_hf(hf_weights, place="x")
    back = to_hf(ours)
    assert back.keys() == hf_weights.keys()
    assert all(torch.equal(back[key], hf_weights[key]) for key in back)
    again = from_hf(back, place="x")
    assert all(torch.equal(again[key], ours[key]) for key in ours)


def test_a_converted_folder_saved_for_open_clip_gives_the_same_features(
    hf_weights: dict[str, torch.Tensor], tmp_path: Path, picture: Image.Image
) -> None:
    model = load(write_hf(tmp_path / "plip", hf_weights))
    model.save(tmp_path / "ours")
    again = load(tmp_path / "ours")
    assert again.name == "plip"
    assert torch.equal(again.encode_images(picture), model.encode_images(picture))
    assert torch.equal(again.encode_text(TEXTS), model.encode_text(TEXTS))


def test_old_position_buffers_are_ignored(hf_weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    extra = {"vision_model.embeddings.position_ids": torch.arange(10), **hf_weights}
    folder = write_hf(tmp_path / "plip", extra)
    (folder / "preprocessor_config.json").unlink()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert load(folder).mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


def test_a_config_without_details_is_clip_vit_b_32() -> None:
    architecture = architecture_from_hf({"model_type": "clip"}, {}, name="x")
    expected = create("ViT-B-32-quickgelu").architecture.model_cfg
    assert architecture.model_cfg["embed_dim"] == expected["embed_dim"]
    assert architecture.model_cfg["quick_gelu"] is expected["quick_gelu"]
    assert architecture.model_cfg["vision_cfg"] == {**expected["vision_cfg"], "head_width": 64}
    assert architecture.model_cfg["text_cfg"] == expected["text_cfg"]


def test_towers_of_different_activation_are_refused() -> None:
    config = {"text_config": {"hidden_act": "gelu"}}
    with pytest.raises(
        UserError, match="hidden_act is gelu, quick_gelu; expected quick_gelu or gelu in both"
    ):
        architecture_from_hf(config, {}, name="x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"text_model.encoder.layers.0.self_attn.q_proj.bias": None},
            "in_proj_bias needs q, k and v; the file has k, v",
        ),
        ({"vision_model.head.weight": torch.zeros(1)}, "unknown key vision_model.head.weight"),
        (
            {"text_model.encoder.layers.0.gate.weight": torch.zeros(1)},
            "unknown key text_model.encoder.layers.0.gate",
        ),
        ({"logit_scale": None}, r"does not fit plip: 1 missing \(logit_scale\)"),
        (
            {"text_projection.weight": torch.zeros(23, 32)},
            r"1 of another shape \(text_projection \(32, 23\) instead of \(32, 24\)\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_difference(
    hf_weights: dict[str, torch.Tensor], tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    changed = {key: value for key, value in {**hf_weights, **change}.items() if value is not None}
    with pytest.raises(UserError, match=message) as caught:
        load(write_hf(tmp_path / "plip", changed))
    assert "\n" not in str(caught.value)


def test_a_model_that_is_no_clip_vit_cannot_become_an_hf_clipmodel() -> None:
    weights = create("tiny-conv-112").clip.state_dict()
    with pytest.raises(UserError, match="has no place in a Hugging Face CLIPModel"):
        to_hf(weights)


def test_the_text_tower_moves_under_text_for_custom_models() -> None:
    value = torch.zeros(1)
    renamed = to_custom_text(
        {"visual.proj": value, "text_projection": value, "transformer.x": value, "logit_scale": value}
    )
    assert list(renamed) == ["visual.proj", "text.text_projection", "text.transformer.x", "logit_scale"]
