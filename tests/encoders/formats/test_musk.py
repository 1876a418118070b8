"""MUSK's layout, against features that its authors' code made from the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision import transforms

from pathclip.core.errors import UserError
from pathclip.encoders import load
from pathclip.encoders.formats.musk import from_file, to_file

# musk/ of github.com/lilab-stanford/MUSK at 714b666, torch 2.14, float32, weights and pixels of
# `hashed_weights` and `hashed((2, 3, 32, 32), 5)`: the first numbers of forward(image), of forward(image,
# with_head=False, out_norm=False) and of forward(text_description, padding_mask)
IMAGES = [
    [0.0044280, 0.0031028, 0.0220992, -0.1215464, -0.1183284],
    [-0.1668705, -0.0144696, 0.0447384, 0.0231995, -0.0435742],
]
POOLED = [[-0.4492624, 0.1067878, 1.6486616], [1.2557002, 0.2233783, 1.1669214]]
TOKENS = [
    [0, 5, 6, 2, 1, 1, 1, 1, 1, 1, 1, 1],
    [0, 9, 8, 7, 30, 31, 32, 33, 34, 35, 36, 2],
    [0, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
]
TEXTS = [
    [0.0041179, 0.1667432, 0.0938090, 0.1260605, -0.0480674],
    [-0.0610711, -0.0933818, 0.0948802, 0.1040230, 0.0340521],
    [-0.0866141, 0.0437566, 0.0491814, 0.0294630, 0.0246760],
]
Weights = Callable[[dict[str, tuple[int, ...]]], dict[str, Tensor]]


def layout(vocabulary: int = 40, width: int = 128, hidden: int = 192) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small MUSK: 2 layers, 32 px, 12 tokens."""
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "beit3.text_embed.weight": (vocabulary, width),
        "beit3.vision_embed.mask_token": (1, 1, width),
        "beit3.vision_embed.cls_token": (1, 1, width),
        "beit3.vision_embed.proj.weight": (width, 3, 16, 16),
        "beit3.vision_embed.proj.bias": (width,),
        "beit3.encoder.embed_positions.A.weight": (7, width),
        "beit3.encoder.embed_positions.B.weight": (14, width),
        "language_head.weight": (width, width),
        "vision_head.weight": (width, width),
    }
    for half in "AB":
        shapes |= {f"beit3.encoder.layer_norm.{half}.{kind}": (width,) for kind in ("weight", "bias")}
        for block in ("beit3.encoder.layers.0", "beit3.encoder.layers.1"):
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                shapes[f"{block}.self_attn.{name}.{half}.weight"] = (width, width)
                shapes[f"{block}.self_attn.{name}.{half}.bias"] = (width,)
            for name in ("self_attn.inner_attn_ln", "self_attn_layer_norm", "final_layer_norm"):
                shapes |= {f"{block}.{name}.{half}.{kind}": (width,) for kind in ("weight", "bias")}
            shapes |= {
                f"{block}.ffn.{half}.fc1.weight": (hidden, width),
                f"{block}.ffn.{half}.fc1.bias": (hidden,),
                f"{block}.ffn.{half}.ffn_layernorm.weight": (hidden,),
                f"{block}.ffn.{half}.ffn_layernorm.bias": (hidden,),
                f"{block}.ffn.{half}.fc2.weight": (width, hidden),
                f"{block}.ffn.{half}.fc2.bias": (width,),
            }
    return shapes


@pytest.fixture
def folder(tmp_path: Path, hashed_weights: Weights) -> Path:
    folder = tmp_path / "musk"
    folder.mkdir()
    save_file(hashed_weights(layout()), folder / "model.safetensors")
    return folder


def test_features_equal_those_of_its_authors_code(
    folder: Path, hashed: Callable[[tuple[int, ...], int], Tensor]
) -> None:
    model = load(folder)
    assert (model.image_size, model.context_length, model.embed_dim) == (32, 12, 128)
    pixels = hashed((2, 3, 32, 32), 5)
    assert (model.encode_pixels(pixels)[:, :5] - torch.tensor(IMAGES)).abs().max() <= 1e-5
    pooled = model.encode_pixels(pixels, normalize=False, features="pooled")
    assert (pooled[:, :3] - torch.tensor(POOLED)).abs().max() <= 1e-5
    assert (model.encode_tokens(torch.tensor(TOKENS))[:, :5] - torch.tensor(TEXTS)).abs().max() <= 1e-5


def test_names_and_weights_survive_the_way_there_and_back(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    assert to_file(from_file(weights)).keys() == weights.keys()
    assert not any("beit3" in key for key in from_file(weights))
    load(folder).save(tmp_path / "new")
    saved = load_file(tmp_path / "new/model.safetensors")
    assert saved.keys() == weights.keys()
    assert all(torch.equal(saved[key], value) for key, value in weights.items())


def test_a_run_that_was_started_from_it_loads_before_and_after_its_end(folder: Path, tmp_path: Path) -> None:
    run, model = tmp_path / "run", load(folder)
    step = run / "checkpoints/step-00000002"
    step.mkdir(parents=True)
    with torch.no_grad():
        model.clip.visual.head.weight.add_(1)
    save_file(model.clip.state_dict(), step / "model.safetensors")
    (step / "meta.json").write_text('{"schema": "pathclip.checkpoint/1", "step": 2, "model": "MUSK"}')
    (run / "config.toml").write_text(f"[model]\ninit = {json.dumps(str(folder))}\n")
    tokens = torch.tensor(TOKENS)
    expected, pixels = model.encode_tokens(tokens), torch.ones(1, 3, 32, 32)
    assert torch.equal(load(step).encode_pixels(pixels), model.encode_pixels(pixels))
    model.save(run / "model", training={"steps": 2})
    folder.rename(tmp_path / "gone")
    for place in (step, run, run / "model", run / "model/model.safetensors"):
        assert torch.equal(load(place).encode_tokens(tokens), expected)
    assert load(run).source.training == {"steps": 2}


def test_activations_can_be_computed_again_instead_of_kept(folder: Path) -> None:
    gradients = []
    for again in (False, True):
        model = load(folder).train()
        model.clip.set_grad_checkpointing(again)
        images = model.encode_pixels(torch.ones(1, 3, 32, 32))
        (images @ model.encode_tokens(torch.tensor(TOKENS)).T)[0, 1].backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    assert gradients[0]["clip.text.encoder.layers.0.ffn.fc1.weight"].abs().max() > 0
    assert all(
        (value is None) == (gradients[1][name] is None)
        and (value is None or torch.allclose(value, gradients[1][name], atol=1e-7))
        for name, value in gradients[0].items()
    )


def test_pictures_are_prepared_as_its_authors_prepare_them(folder: Path, picture: Image.Image) -> None:
    model = load(folder)
    steps = [
        transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC, antialias=True),
        transforms.CenterCrop(32),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ]
    expected = model.encode_pixels(transforms.Compose(steps)(picture)[None])
    assert (model.encode_images(picture) - expected).abs().max() <= 1e-5


@pytest.fixture
def write_pieces(tmp_path: Path) -> Callable[[Path], Path]:
    """A sentencepiece model with 16 pieces."""
    sentencepiece = pytest.importorskip("sentencepiece")

    def write(path: Path) -> Path:
        corpus = tmp_path / "corpus.txt"
        corpus.write_text("tumor mucin fat\nmucin of tumor\nfat tumor\n" * 5)
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=str(tmp_path / "pieces"), vocab_size=16, minloglevel=2
        )
        (tmp_path / "pieces.model").rename(path)
        return path

    return write


def test_texts_get_the_ids_of_xlm_roberta(
    folder: Path, hashed_weights: Weights, write_pieces: Callable[[Path], Path]
) -> None:
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(write_pieces(folder / "tokenizer.spm")))
    model = load(folder)
    fairseq = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}  # Conneau et al. 2020: its ids come first
    texts = ["mucin of tumor", "Q tumor", "", "tumor " * 20]
    rows = model.tokenize(texts).tolist()
    for text, row in zip(texts, rows, strict=True):
        found = [pieces.id_to_piece(index) for index in pieces.encode(text)]
        ids = [fairseq.get(piece, pieces.piece_to_id(piece) + 1) for piece in found][:10]
        assert row == [0, *ids, 2, *[1] * (10 - len(ids))]
    assert 3 in rows[1]
    assert model.encode_text(texts).isfinite().all()


def test_a_missing_broken_or_foreign_tokenizer_is_told(
    folder: Path, hashed_weights: Weights, write_pieces: Callable[[Path], Path]
) -> None:
    with pytest.raises(UserError, match=r"encodes pictures only: put tokenizer\.spm \(from musk/models of"):
        load(folder).encode_text("fat")
    path = write_pieces(folder / "tokenizer.spm")
    save_file(hashed_weights(layout(10)), folder / "model.safetensors")
    with pytest.raises(UserError, match="tokenizer of MUSK makes 18 ids, the model has embeddings for 10"):
        load(folder)
    path.write_bytes(b"no pieces")
    with pytest.raises(UserError, match=r"tokenizer\.spm is no sentencepiece model"):
        load(folder)
