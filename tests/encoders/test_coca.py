"""A model with a decoder: open_clip's own, its loss in blocks, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.coca_model import CoCa
from open_clip.loss import CoCaLoss
from train_cases import TINY_COCA, changed_model

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, coca, create, export, find_architecture, load
from pathclip.encoders.coca import count_targets
from pathclip.encoders.onednn import pays, use_onednn

TEXTS = ["mucin", "", "an H&E image of adipose tissue, low power " * 3, "a b c d e"]


@pytest.fixture
def model(tmp_path: Path) -> DualEncoder:
    path = tmp_path / "coca.json"
    path.write_text(json.dumps(TINY_COCA))
    return create(path)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def gradients(model: DualEncoder) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def test_equal_seeds_give_equal_weights_and_none_is_left_as_the_memory_was(
    model: DualEncoder, tmp_path: Path
) -> None:
    again = create(tmp_path / "coca.json").clip.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.clip.state_dict().items())
    projection = model.clip.text_decoder.text_projection
    assert projection.std().item() == pytest.approx(16**-0.5, rel=0.01)


@pytest.mark.parametrize("words_at_once", [3, 10**6])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_caption_loss_is_open_clips_forward_and_backward(
    model: DualEncoder,
    images: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    words_at_once: int,
    checkpointing: bool,
) -> None:
    tokens = model.tokenize(TEXTS)
    out = model.clip(model.normalize_pixels(images), tokens)
    _, expected = CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=0.0)(
        *(out[key] for key in ("image_features", "text_features", "logits", "labels", "logit_scale"))
    )
    expected.backward()
    theirs = gradients(model)

    monkeypatch.setattr(coca, "LOGITS_AT_ONCE", words_at_once * 49408)
    model.clip.set_grad_checkpointing(checkpointing)
    image, text, scale, nats = model(images, tokens, captions=True)
    assert torch.equal(image, out["image_features"])
    assert torch.equal(text, out["text_features"])
    assert torch.equal(scale, out["logit_scale"])
    loss = 2 * nats / count_targets(model.clip, tokens)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    ours = gradients(model)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).abs().max() <= 1e-5 * max(gradient.abs().max(), 1e-3), name


def test_a_decoder_that_knows_nothing_pays_log_of_the_vocabulary_for_each_word(
    model: DualEncoder, images: torch.Tensor
) -> None:
    torch.nn.init.zeros_(model.clip.text_decoder.text_projection)
    tokens = model.tokenize(TEXTS)
    words = [3, 1, 15, 6]  # with the end mark, without the start mark; the third is cut
    assert count_targets(model.clip, tokens).item() == sum(words)
    *_, nats = model(images, tokens, captions=True)
    assert nats.item() == pytest.approx(sum(words) * math.log(49408), rel=1e-6)


def test_a_folder_goes_to_open_clip_and_back_with_equal_features(
    model: DualEncoder, images: torch.Tensor, tmp_path: Path
) -> None:
    folder = export(model.eval(), tmp_path / "out")
    theirs, *_ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    assert isinstance(theirs.eval(), CoCa)
    theirs = use_onednn(theirs) if pays() else theirs  # to the bit only where both multiply alike
    assert all(torch.equal(v, theirs.state_dict()[n]) for n, v in model.clip.state_dict().items())
    again, pixels, tokens = load(folder), model.normalize_pixels(images), model.tokenize(TEXTS)
    with torch.no_grad():
        assert torch.equal(again.encode_pixels(images), theirs.encode_image(pixels))
        assert torch.equal(again.encode_tokens(tokens), theirs.encode_text(tokens))
        raw = again.encode_pixels(images, normalize=False)
        assert torch.equal(raw, theirs.encode_image(pixels, normalize=False))
        assert again.encode_tokens(tokens, normalize=False).norm(dim=1).sub(1).abs().max() > 0.01
        pooled = again.encode_pixels(images, features="pooled", normalize=False)
        assert torch.allclose(pooled @ again.clip.visual.proj, raw, atol=1e-5)
    assert torch.equal(again.encode_text(TEXTS), again.encode_tokens(tokens).detach())
    with pytest.raises(UserError, match=r"no Hugging Face CLIPModel form because of .*multimodal_cfg"):
        export(again, tmp_path / "hf", format="hf")


@pytest.mark.parametrize("name", ["coca_ViT-B-32", "coca_ViT-L-14", "coca_base", "tiny-coca-112"])
def test_open_clips_configs_are_taken(name: str) -> None:
    assert "multimodal_cfg" in find_architecture(name).model_cfg


def test_a_context_length_is_of_the_text_tower_and_of_the_decoder(model: DualEncoder, tmp_path: Path) -> None:
    shorter = create(tmp_path / "coca.json", context_length=9)
    assert shorter.tokenize("mucin").shape == (1, 9)
    assert shorter.clip.text_decoder.attn_mask.shape == (9, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_cfg": {"timm_model_name": "resnet10t"}}, "only open_clip's own ViT gives"),
        ({"text_cfg": {"no_causal_mask": True}}, "has seen the word that the decoder is to find"),
        ({"text_cfg": {"output_tokens": False}}, "text_cfg.output_tokens must be true"),
        ({"vision_cfg": {"output_tokens": False}}, "vision_cfg.output_tokens must be true"),
        ({"multimodal_cfg": {"width": 32}}, r"multimodal_cfg.width is 32; it must be text_cfg.width \(16\)"),
        ({"embed_dim": 32}, r"multimodal_cfg.width is 16; it must be embed_dim \(32\)"),
        ({"multimodal_cfg": {"context_length": 8}}, "must be text_cfg.context_length"),
        ({"multimodal_cfg": {"mlp_ratio": 2}}, "multimodal_cfg.mlp_ratio is 2; it must be 4"),
        ({"multimodal_cfg": {"layer": 2}}, "unknown key multimodal_cfg.layer; did you mean"),
        ({"multimodal_cfg": {"heads": 3}}, "cannot be built"),
    ],
)
def test_parts_that_do_not_fit_are_told_before_they_fail(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(changed_model(TINY_COCA, change)))
    with pytest.raises(UserError, match=message):
        create(path)


def test_a_model_without_a_decoder_says_so(images: torch.Tensor) -> None:
    plain = create("tiny-vit-112")
    with pytest.raises(UserError, match="tiny-vit-112 has no decoder, so it cannot put pictures into words"):
        plain.generate(images)
