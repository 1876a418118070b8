"""BiomedCLIP's format: open_clip's CustomTextCLIP with a BERT, loaded beside open_clip itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from pathclip.core.errors import UserError
from pathclip.encoders import create, load
from pathclip.encoders.formats.bert import BASE_UNCASED, BUNDLED, bert_folder
from pathclip.encoders.tokens import tokenizer_of
from pathclip.heads import classify

transformers = pytest.importorskip("transformers")

NEW = {"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler"}
OLD = {"proj": "mlp", "pooler_type": "cls_last_hidden_state_pooler"}
TEXTS = [
    "an image of tumor lymphocytes",
    "Mucin,   TUMOR &amp; unknown words é.",
    "",
    "[CLS] tumor [SEP]",
    "tumor " * 50,
]


def config_of(folder: Path, **text: Any) -> dict[str, Any]:
    return {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {
                "timm_model_name": "test_vit",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": 160,
            },
            "text_cfg": {
                "hf_model_name": str(folder),
                "hf_tokenizer_name": str(folder),
                "context_length": 24,
                **text,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.6], "std": [0.2, 0.3, 0.25]},
    }


def untrained(folder: Path) -> nn.Module:
    return open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)


@pytest.fixture
def folder(
    tmp_path: Path, write_bert: Callable[[Path], Path], drawn: Callable[[nn.Module, int], nn.Module]
) -> Path:
    """A BiomedCLIP of 0.3 million random weights, as open_clip writes it."""
    folder = write_bert(tmp_path / "biomed")
    (folder / "open_clip_config.json").write_text(json.dumps(config_of(folder, **NEW)))
    clip = drawn(untrained(folder), 7)
    torch.save(clip.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def rewrite(folder: Path, **text: Any) -> None:
    (folder / "open_clip_config.json").write_text(json.dumps(config_of(folder, **text)))


@pytest.mark.parametrize("spelling", [NEW, OLD], ids=["hf_proj_type", "proj"])
def test_features_equal_open_clips(folder: Path, spelling: dict[str, str], picture: Image.Image) -> None:
    clip, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    rewrite(folder, **spelling)
    model = load(folder)
    assert torch.equal(model.tokenize(TEXTS), tokens)
    assert tokens.shape == (len(TEXTS), model.context_length) == (5, 24)
    with torch.no_grad():
        images = clip.eval().encode_image(transform(picture)[None], normalize=True)
        texts = clip.encode_text(tokens, normalize=True)
    assert (model.encode_images(picture) - images).abs().max() <= 1e-5
    assert (model.encode_text(TEXTS) - texts).abs().max() <= 1e-5
    assert (texts - texts.mean(0)).abs().max() > 0.05  # texts are told apart at all


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ({"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"}, (16, 32)),
        ({"hf_pooler_type": "cls_pooler", "hf_proj_type": "mlp"}, (16, 24)),
    ],
)
def test_other_poolers_and_projections_equal_open_clips(
    folder: Path,
    drawn: Callable[[nn.Module, int], nn.Module],
    text: dict[str, str],
    shape: tuple[int, int],
) -> None:
    rewrite(folder, **text)
    clip = drawn(untrained(folder), 3)
    assert (
        tuple([p for name, p in clip.named_parameters() if name.startswith("text.proj")][-1].shape) == shape
    )
    torch.save(clip.state_dict(), folder / "open_clip_pytorch_model.bin")
    model = load(folder)
    with torch.no_grad():
        expected = clip.encode_text(model.tokenize(TEXTS), normalize=True)
    assert (model.encode_text(TEXTS) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("lower", [True, False])
def test_tokenizer_json_and_its_options_are_read_as_transformers_reads_them(
    folder: Path, write_bert: Callable[[Path], Path], lower: bool
) -> None:
    from tokenizers.implementations import BertWordPieceTokenizer

    vocabulary = {piece: index for index, piece in enumerate((folder / "vocab.txt").read_text().split())}
    BertWordPieceTokenizer(vocabulary, lowercase=not lower).save(str(folder / "tokenizer.json"))
    options = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    (folder / "vocab.txt").unlink()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    expected = tokenizer(
        [" ".join(text.split()) for text in ("T t", "tumorS É", "tumor " * 50)],
        max_length=24,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    ).input_ids
    assert torch.equal(load(folder).tokenize(["T t", "tumorS É", "tumor " * 50]), expected)


def test_the_end_mark_can_be_blanked_as_in_open_clip(folder: Path) -> None:
    rewrite(folder, **NEW, tokenizer_kwargs={"strip_sep_token": True, "clean": "canonicalize"})
    expected = open_clip.get_tokenizer(f"local-dir:{folder}")(["Tumor, mucin.", "tumor " * 50])
    assert torch.equal(load(folder).tokenize(["Tumor, mucin.", "tumor " * 50]), expected)
    rewrite(folder, **NEW, tokenizer_kwargs={"language": "la"})
    with pytest.raises(UserError, match="option language of its tokenizer is unknown"):
        load(folder)
    rewrite(folder, **NEW, tokenizer_kwargs={"clean": "all"})
    with pytest.raises(UserError, match=r"clean = 'all' of its tokenizer is unknown; known: .* whitespace"):
        load(folder)


def test_the_bundled_sizes_are_those_of_berts_base() -> None:
    stated = json.loads((BUNDLED / "config.json").read_text())
    default = transformers.BertConfig().to_dict()
    assert stated == {key: default[key] for key in stated} | {"architectures": ["BertModel"]}


def test_published_text_towers_need_no_file_of_sizes(tmp_path: Path) -> None:
    for name in BASE_UNCASED:
        assert bert_folder(name, tmp_path) == BUNDLED


def test_it_loads_without_a_word_and_saves_what_loads_again_elsewhere(
    folder: Path, tmp_path: Path, picture: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    model = load(folder)
    assert not caplog.records
    model.save(tmp_path / "new")
    weights = torch.load(folder / "open_clip_pytorch_model.bin")
    texts, images = model.encode_text(TEXTS), model.encode_images(picture)
    folder.rename(tmp_path / "gone")
    again = load(tmp_path / "new")
    assert torch.equal(again.encode_text(TEXTS), texts)
    assert torch.equal(again.encode_images(picture), images)
    assert all(torch.equal(again.clip.state_dict()[key], value) for key, value in weights.items())
    again.save(tmp_path / "new")
    assert torch.equal(load(tmp_path / "new").encode_text(TEXTS), texts)


def test_classes_are_named_from_prompts(folder: Path, picture: Image.Image) -> None:
    result = classify(load(folder), [picture], {"tumor": ["tumor"], "mucin": ["mucin"]})
    assert result.labels[0] in ("tumor", "mucin")


def test_one_can_be_built_from_scratch(folder: Path) -> None:
    one, same, other = (create(folder / "open_clip_config.json", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.eval().encode_text("tumor"), same.eval().encode_text("tumor"))
    assert not torch.equal(one.encode_text("tumor"), other.eval().encode_text("tumor"))


def test_a_missing_or_foreign_tokenizer_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    vocabulary = (folder / "vocab.txt").read_text()
    (folder / "vocab.txt").write_text(vocabulary + "more\n")
    with pytest.raises(UserError, match="tokenizer of biomed makes 20 ids, the model has embeddings for 19"):
        load(folder)
    (folder / "vocab.txt").write_text(vocabulary.replace("[PAD]\n[UNK]", "[UNK]\n[PAD]"))
    with pytest.raises(UserError, match=r"does not use \[PAD\] as its BERT does"):
        load(folder)
    (folder / "vocab.txt").write_text(vocabulary.replace("[UNK]", "[unk]"))
    with pytest.raises(UserError, match=r"does not use \[UNK\] as its BERT does"):
        load(folder)
    (folder / "vocab.txt").write_text(vocabulary.removesuffix("T\n"))
    with caplog.at_level(logging.WARNING, logger="pathclip"):
        load(folder)
    assert "makes 18 ids, the model has embeddings for 19; is it this model's own?" in caplog.text
    (folder / "vocab.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"vocab\.txt is no tokenizer file that can be read"):
        load(folder)
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer file that can be read"):
        load(folder)
    (folder / "tokenizer.json").unlink()
    model = load(folder)
    with pytest.raises(
        UserError, match=r"has no tokenizer: expected tokenizer\.json or vocab\.txt in .*biomed"
    ):
        model.encode_text("tumor")


def test_a_text_tower_of_unknown_size_is_refused_without_asking_the_hub(folder: Path) -> None:
    config = config_of(folder, **NEW)
    config["model_cfg"]["text_cfg"]["hf_model_name"] = "someone/OtherBERT"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert load(folder).clip.text.transformer.config.hidden_size == 32  # its own folder says
    (folder / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(
        UserError,
        match=r"sizes of text tower someone/OtherBERT are not known here; if it is a BERT, put its config",
    ):
        load(folder)


def test_weights_that_do_not_fit_are_named(folder: Path) -> None:
    weights = torch.load(folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_pytorch_model.bin").unlink()
    key = "text.transformer.encoder.layer.1.output.dense.bias"
    less = {name: value for name, value in weights.items() if name != key}
    save_file({**less, "text.more": torch.zeros(32)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"1 missing \({key}\); 1 unexpected \(text.more\)"):
        load(folder)


def test_old_files_with_a_pooler_that_is_not_used_are_the_same_model(folder: Path) -> None:
    expected = load(folder).encode_text(TEXTS)
    weights = torch.load(folder / "open_clip_pytorch_model.bin")
    weights |= {
        "text.transformer.pooler.dense.bias": torch.ones(32),
        "text.transformer.pooler.dense.weight": torch.ones(32, 32),
        "text.transformer.embeddings.position_ids": torch.arange(40)[None],
    }
    torch.save(weights, folder / "open_clip_pytorch_model.bin")
    assert torch.equal(load(folder).encode_text(TEXTS), expected)
    used = {"hf_pooler_type": "cls_pooler", "hf_proj_type": "mlp"}
    torch.save({k: v for k, v in weights.items() if "pooler.dense.bias" not in k}, folder / "a.pt")
    rewrite(folder, **used)
    with pytest.raises(UserError, match=r"1 missing \(text\.transformer\.pooler\.dense\.bias\)"):
        load(folder / "a.pt")


def test_more_tokens_than_positions_are_refused(folder: Path) -> None:
    rewrite(folder, **NEW, context_length=41)
    with pytest.raises(UserError, match="context_length is 41, its text tower has 40 positions"):
        load(folder)


def test_a_hub_tokenizer_without_a_bert_is_refused() -> None:
    architecture = create("tiny-vit-112").architecture.overridden(text_cfg={"hf_tokenizer_name": "a/b"})
    with pytest.raises(UserError, match="wants the tokenizer a/b for a text tower that is no BERT"):
        tokenizer_of(architecture)


def test_without_transformers_the_line_that_installs_it_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "transformers" else find(name, *a)
    )
    with pytest.raises(UserError, match=r"needs transformers; install it with: pip install 'pathclip\[hf\]'"):
        load(folder)
