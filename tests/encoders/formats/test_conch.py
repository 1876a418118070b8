"""CONCH's layout, against features that its authors' code made from the same weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torchvision import transforms

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, load
from pathclip.heads import classify

# conch/open_clip_custom of github.com/mahmoodlab/CONCH at 141cc09, torch 2.14, float32, weights and pixels of
# `hashed_weights` and `hashed((2, 3, 32, 32), 5)`, two heads in the pooler: the first numbers of
# encode_image, of encode_image(proj_contrast=False, normalize=False) and of encode_text
IMAGES = [
    [-0.0510297, -0.1045780, 0.0003588, -0.0647787, -0.0160309],
    [-0.0038952, -0.1257133, -0.0021436, 0.0002514, 0.0756011],
]
POOLED = [[1.9776065, -0.3617522, -1.2794014], [-0.1213842, 0.4537296, -0.7555232]]
TOKENS = [
    [1, 5, 6, 2, 0, 0, 0, 0, 0, 0, 0],
    [1, 9, 8, 7, 30, 31, 32, 33, 34, 35, 2],
    [1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0],
]
TEXTS = [
    [0.0042389, 0.1795341, -0.0740434, -0.1152731, 0.0737145],
    [0.0280431, 0.0774035, -0.0015248, -0.1929721, 0.1181169],
    [0.0065578, 0.1749466, -0.0578207, -0.1776406, 0.0674422],
]


def layer_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def pooler(name: str, queries: int, width: int, context: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.query": (queries, width),
        f"{name}.attn.q_proj_weight": (width, width),
        f"{name}.attn.k_proj_weight": (width, context),
        f"{name}.attn.v_proj_weight": (width, context),
        f"{name}.attn.in_proj_bias": (3 * width,),
        **linear(f"{name}.attn.out_proj", width, width),
        **layer_norm(f"{name}.ln_q", width),
        **layer_norm(f"{name}.ln_k", context),
    }


def vit(name: str, width: int = 192) -> dict[str, tuple[int, ...]]:
    shapes = {
        f"{name}.cls_token": (1, 1, width),
        f"{name}.pos_embed": (1, 5, width),
        f"{name}.patch_embed.proj.weight": (width, 3, 16, 16),
        f"{name}.patch_embed.proj.bias": (width,),
        **layer_norm(f"{name}.norm", width),
    }
    for block in (f"{name}.blocks.0", f"{name}.blocks.1"):
        shapes |= {
            **layer_norm(f"{block}.norm1", width),
            **linear(f"{block}.attn.qkv", 3 * width, width),
            **linear(f"{block}.attn.proj", width, width),
            **layer_norm(f"{block}.norm2", width),
            **linear(f"{block}.mlp.fc1", 4 * width, width),
            **linear(f"{block}.mlp.fc2", width, 4 * width),
        }
    return shapes


def text_tower(vocabulary: int, width: int = 128) -> dict[str, tuple[int, ...]]:
    shapes = {
        "text.text_projection": (width, 128),
        "text.cls_emb": (width,),
        "text.positional_embedding": (12, width),
        "text.token_embedding.weight": (vocabulary, width),
        **layer_norm("text.ln_final", width),
    }
    for block in ("text.transformer.resblocks.0", "text.transformer.resblocks.1"):
        shapes |= {
            **layer_norm(f"{block}.ln_1", width),
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.in_proj_bias": (3 * width,),
            **linear(f"{block}.attn.out_proj", width, width),
            **layer_norm(f"{block}.ln_2", width),
            **linear(f"{block}.mlp.c_fc", 4 * width, width),
            **linear(f"{block}.mlp.c_proj", width, 4 * width),
        }
    return shapes


def layout(vocabulary: int = 40) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small CONCH: 2 x 192 at 32 px, 2 x 128 with 11 tokens."""
    return {
        "logit_scale": (),
        **text_tower(vocabulary),
        **vit("visual.trunk"),
        "visual.proj_contrast": (128, 128),
        **pooler("visual.attn_pool_contrast", 1, 128, 192),
        **layer_norm("visual.ln_contrast", 128),
        **pooler("visual.attn_pool_caption", 3, 64, 192),
        **layer_norm("visual.ln_caption", 64),
    }


Weights = Callable[[dict[str, tuple[int, ...]]], dict[str, Tensor]]


@pytest.fixture
def folder(tmp_path: Path, hashed_weights: Weights) -> Path:
    folder = tmp_path / "conch"
    folder.mkdir()
    torch.save(hashed_weights(layout()), folder / "pytorch_model.bin")
    return folder


def check(model: DualEncoder, hashed: Callable[[tuple[int, ...], int], Tensor]) -> None:
    pixels = hashed((2, 3, 32, 32), 5)
    assert (model.encode_pixels(pixels)[:, :5] - torch.tensor(IMAGES)).abs().max() <= 1e-5
    pooled = model.encode_pixels(pixels, normalize=False, features="pooled")
    assert (pooled[:, :3] - torch.tensor(POOLED)).abs().max() <= 1e-5
    assert (model.encode_tokens(torch.tensor(TOKENS))[:, :5] - torch.tensor(TEXTS)).abs().max() <= 1e-5


def test_features_equal_those_of_its_authors_code(
    folder: Path, hashed: Callable[[tuple[int, ...], int], Tensor]
) -> None:
    model = load(folder)
    assert (model.image_size, model.context_length, model.embed_dim) == (32, 11, 128)
    check(model, hashed)


def test_a_training_checkpoint_with_the_decoder_for_captions_is_the_same_model(
    folder: Path, tmp_path: Path, hashed: Callable[[tuple[int, ...], int], Tensor]
) -> None:
    weights = torch.load(folder / "pytorch_model.bin") | {"text_decoder.ln_final.bias": torch.zeros(3)}
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, tmp_path / "a.pt")
    check(load(tmp_path / "a.pt"), hashed)


def test_it_is_saved_in_its_own_layout_without_what_makes_captions(
    folder: Path, tmp_path: Path, hashed: Callable[[tuple[int, ...], int], Tensor]
) -> None:
    model = load(folder)
    model.save(tmp_path / "new", prompts=["fat"])
    weights, before = load_file(tmp_path / "new/model.safetensors"), torch.load(folder / "pytorch_model.bin")
    assert weights.keys() == {k for k in before if "caption" not in k}
    assert all(torch.equal(value, before[key]) for key, value in weights.items())
    again = load(tmp_path / "new")
    check(again, hashed)
    assert again.source.prompts == ["fat"]
    assert again.provenance()["checkpoint_sha256"] == model.provenance()["checkpoint_sha256"]


def test_pictures_are_prepared_as_its_authors_prepare_them(folder: Path, picture: Image.Image) -> None:
    model = load(folder)
    steps = [
        transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(32),
        transforms.ToTensor(),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ]
    expected = model.encode_pixels(transforms.Compose(steps)(picture)[None])
    assert (model.encode_images(picture) - expected).abs().max() <= 1e-5


@pytest.fixture
def write_tokenizer() -> Callable[[Path], Path]:
    """A byte-level tokenizer of CONCH's kind, with 270 ids."""
    tokenizers = pytest.importorskip("tokenizers")

    def write(path: Path) -> Path:
        from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

        marks = ["<pad>", "<start_of_text>", "<end_of_text>"]
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=270, special_tokens=marks, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(["tumor tumour mucin fat"], trainer)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{marks[1]} $A {marks[2]}", special_tokens=[(marks[1], 1), (marks[2], 2)]
        )
        tokenizer.save(str(path))
        return path

    return write


def test_texts_are_split_as_its_authors_split_them(
    folder: Path, hashed_weights: Weights, write_tokenizer: Callable[[Path], Path]
) -> None:
    transformers = pytest.importorskip("transformers")
    torch.save(hashed_weights(layout(270)), folder / "pytorch_model.bin")
    path = write_tokenizer(folder / "conch_byte_level_bpe_uncased.json")
    texts = ["Tumor and MUCIN.", "é" * 30, "", "fat"]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(path), bos_token="<start_of_text>", eos_token="<end_of_text>", pad_token="<pad>"
    )
    expected = tokenizer(
        texts, max_length=11, truncation=True, padding="max_length", return_tensors="pt"
    ).input_ids
    model = load(folder)
    assert torch.equal(model.tokenize(texts), expected)
    picture = Image.new("RGB", (40, 40), "white")
    assert classify(model, [picture], {"tumor": ["tumor"], "fat": ["fat"]}).labels[0] in ("tumor", "fat")


def test_without_its_tokenizer_it_encodes_pictures_only(folder: Path, picture: Image.Image) -> None:
    model = load(folder)
    assert model.encode_images(picture).isfinite().all()
    with pytest.raises(UserError, match=r"encodes pictures only: put conch_byte_level_bpe_uncased\.json"):
        model.encode_text("fat")


def test_a_foreign_tokenizer_is_refused(
    folder: Path, hashed_weights: Weights, write_tokenizer: Callable[[Path], Path]
) -> None:
    path = write_tokenizer(folder / "tokenizer.json")
    with pytest.raises(UserError, match="tokenizer of CONCH makes 270 ids, the model has embeddings for 40"):
        load(folder)
    torch.save(hashed_weights(layout(270)), folder / "pytorch_model.bin")
    text = path.read_text()
    unmarked = json.dumps({**json.loads(text), "post_processor": None})
    for other in (text.replace('"<start_of_text>"', '"<bos>"'), unmarked):
        path.write_text(other)
        with pytest.raises(UserError, match=r"tokenizer\.json is not the tokenizer of CONCH: its marks are"):
            load(folder)


def test_another_size_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="pathclip"):
        load(folder)
    assert "is not of CONCH's published size: embed_dim 128 instead of 512" in caplog.text


def test_missing_and_foreign_weights_are_named_as_in_the_file(folder: Path) -> None:
    weights = torch.load(folder / "pytorch_model.bin")
    del weights["visual.trunk.blocks.0.attn.qkv.bias"]
    torch.save({**weights, "more": torch.zeros(1)}, folder / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"fit CONCH: 1 missing \(visual.trunk.blocks.0.attn.qkv.bias\); 1 un"
    ):
        load(folder)
    del weights["logit_scale"], weights["visual.trunk.pos_embed"]
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model.bin lacks visual.trunk.pos_embed; copy or download"):
        load(folder)
