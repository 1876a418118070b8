from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.encoders import DualEncoder, create, encode_pictures, find_architecture, shipped_configs

SMALL = Path(__file__).with_name("small.json")

TEXTS = ["an H&E image of adipose tissue", "signet ring cells", "x " * 200]


def small(seed: int = 0) -> DualEncoder:
    """A ViT that runs in milliseconds."""
    return create(SMALL, seed=seed).eval()


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not() -> None:
    one, two, other = small(3).state_dict(), small(3).state_dict(), small(4).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["clip.visual.conv1.weight"], other["clip.visual.conv1.weight"])


def test_creating_a_model_leaves_the_random_state_as_it_was() -> None:
    before = torch.random.get_rng_state()
    small(5)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_encodes_pictures_and_texts(name: str) -> None:
    model = create(name).eval()
    pixels = torch.zeros(2, 3, model.image_size, model.image_size, dtype=torch.uint8)
    images, texts, scale = model(pixels, model.tokenize(TEXTS[:2]))
    assert images.shape == texts.shape == (2, model.embed_dim)
    assert scale.item() == pytest.approx(1 / 0.07, rel=1e-5)
    assert model.name == name
    assert sum(p.numel() for p in model.parameters()) < 12e6


def test_features_equal_those_of_plain_open_clip_calls(model: DualEncoder, picture: Image.Image) -> None:
    transform = image_transform_v2(PreprocessCfg(size=model.image_size), is_train=False)
    tokens = open_clip.SimpleTokenizer(context_length=model.context_length)(TEXTS)
    with torch.no_grad():
        image = model.clip.encode_image(transform(picture)[None], normalize=True)
        text = model.clip.encode_text(tokens, normalize=True)
    assert torch.equal(model.tokenize(TEXTS), tokens)
    torch.testing.assert_close(model.encode_images(picture), image, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.encode_text(TEXTS), text, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.encode_text(TEXTS[0]), text[:1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(130, 90), (42, 42), (43, 300), (41, 41), (60, 42)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_preprocess_gives_the_pixels_of_open_clips_transform(size: tuple[int, int], mode: str) -> None:
    model = create(SMALL, preprocess_cfg={"resize_mode": mode, "interpolation": "bilinear"})
    config = PreprocessCfg(size=42, resize_mode=mode, interpolation="bilinear")
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    mine = model.preprocess(image)
    assert mine.dtype == torch.uint8
    theirs = image_transform_v2(config, is_train=False)(image)
    assert torch.equal(model.normalize_pixels(mine[None])[0], theirs)


def test_pooled_features_times_the_projection_are_the_projected_ones(model: DualEncoder) -> None:
    pixels = torch.randint(0, 256, (3, 3, 42, 42), dtype=torch.uint8)
    pooled = model.encode_pixels(pixels, normalize=False, features="pooled")
    assert pooled.shape == (3, 32)
    projected = model.encode_pixels(pixels, normalize=False)
    torch.testing.assert_close(pooled @ model.clip.visual.proj, projected)


def test_pooled_features_of_a_timm_tower_times_its_head_are_the_projected_ones() -> None:
    model = create("tiny-conv-112", image_size=32).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    pooled = model.encode_pixels(pixels, normalize=False, features="pooled")
    torch.testing.assert_close(model.clip.visual.head(pooled), model.encode_pixels(pixels, normalize=False))


def test_a_tower_that_pools_and_projects_in_one_step_says_so() -> None:
    model = create("RN50", image_size=64, vision_cfg={"layers": [1, 1, 1, 1], "width": 16, "head_width": 32})
    with pytest.raises(UserError, match='pools and projects in one step; use features="projected"'):
        model.encode_pixels(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), features="pooled")


def test_features_have_unit_length_unless_told_otherwise(model: DualEncoder, picture: Image.Image) -> None:
    assert model.encode_images(picture).norm().item() == pytest.approx(1, abs=1e-6)
    raw = model.encode_images(picture, normalize=False)
    assert raw.norm().item() != pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(F.normalize(raw, dim=-1), model.encode_images(picture))
    raw = model.encode_text(TEXTS, normalize=False)
    torch.testing.assert_close(F.normalize(raw, dim=-1), model.encode_text(TEXTS))


def test_gradients_reach_both_towers_and_the_temperature() -> None:
    model = small().train()
    pixels = torch.randint(0, 256, (4, 3, 42, 42), dtype=torch.uint8)
    images, texts, scale = model(pixels, model.tokenize(["a", "b", "c", "d"]))
    F.cross_entropy(scale * images @ texts.T, torch.arange(4)).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.logit_scale.grad.abs() > 0
    assert model.clip.visual.conv1.weight.grad.abs().sum() > 0
    assert model.clip.token_embedding.weight.grad.abs().sum() > 0


def test_encoding_leaves_the_training_mode_as_it_was_and_needs_no_gradient(picture: Image.Image) -> None:
    model = create("tiny-resnet-96").train()
    model.clip.visual.eval()  # a frozen tower
    first = model.encode_images([picture])
    assert model.training
    assert model.clip.transformer.training
    assert not any(module.training for module in model.clip.visual.modules())
    assert not first.requires_grad
    assert torch.equal(first, model.eval().encode_images([picture]))  # batch norm used its running averages


def test_uint8_and_normalised_pixels_give_the_same_features(model: DualEncoder, picture: Image.Image) -> None:
    pixels = model.preprocess(picture)[None]
    assert torch.equal(model.encode_pixels(pixels), model.encode_pixels(model.normalize_pixels(pixels)))


def test_every_form_of_a_picture_gives_the_same_features(
    model: DualEncoder, picture: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    picture.save(path)
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    normalised = model.normalize_pixels(model.preprocess(picture)[None])[0]
    forms = [
        path,
        str(path),
        path.read_bytes(),
        picture,
        array,
        tensor,
        normalised,
        memoryview(path.read_bytes()),
    ]
    expected = model.encode_images(picture)
    torch.testing.assert_close(model.encode_images(forms), expected.expand(len(forms), -1), atol=1e-6, rtol=0)
    for one in forms:
        torch.testing.assert_close(model.encode_images(one), expected, atol=1e-6, rtol=0)
    batch = np.stack([array, array])
    torch.testing.assert_close(model.encode_images(batch), expected.expand(2, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_features_do_not_depend_on_the_batch_size(model: DualEncoder, batch_size: int) -> None:
    arrays = np.random.default_rng(2).integers(0, 256, (7, 50, 60, 3), dtype=np.uint8)
    expected = torch.cat([model.encode_images(array) for array in arrays])
    found = model.encode_images(arrays, batch_size=batch_size, progress=True)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    texts = [f"text {i}" for i in range(7)]
    torch.testing.assert_close(
        model.encode_text(texts, batch_size=batch_size), model.encode_text(texts), atol=1e-6, rtol=0
    )


def test_a_bad_picture_has_a_row_of_nan_and_is_named_once(
    model: DualEncoder, picture: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"nothing of the kind")
    items = [picture, tmp_path / "broken.jpg", tmp_path / "absent.jpg", picture]
    with caplog.at_level(logging.WARNING, logger="pathclip"):
        features = model.encode_images(items, batch_size=2)
    assert features.isnan().all(dim=1).tolist() == [False, True, True, False]
    assert torch.equal(features[0], features[3])
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith("2 of 4 pictures not encoded (rows of NaN): ")
    assert f"{tmp_path / 'absent.jpg'}: no such file" in message
    assert "broken.jpg: not a picture" in message


def test_many_bad_pictures_are_counted_and_the_first_named(
    model: DualEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    features = model.encode_images([f"{i}.jpg" for i in range(9)])
    assert features.isnan().all()
    assert features.shape == (9, model.embed_dim)
    assert "0.jpg: no such file; 1.jpg" in caplog.text
    assert "and 4 more" in caplog.text


def test_the_list_of_bad_pictures_tells_place_name_and_reason(model: DualEncoder) -> None:
    nan = torch.full((3, 42, 42), float("nan"))
    wrong = torch.zeros(3, 10, 10)
    _, bad = encode_pictures(
        model, [np.zeros((5, 5, 3)), nan, wrong, torch.zeros(4, 9, 9, dtype=torch.uint8)]
    )
    assert [(item.index, item.name) for item in bad] == [
        (0, "item 0 (ndarray)"),
        (1, "item 1 (Tensor)"),
        (2, "item 2 (Tensor)"),
        (3, "item 3 (Tensor)"),
    ]
    assert "array of float64; expected uint8" in bad[0].reason
    assert bad[1].reason == "holds NaN or infinity"
    assert bad[2].reason == "float tensor (3, 10, 10); a normalised picture is (3, 42, 42)"
    assert "expected uint8 (3, H, W)" in bad[3].reason


def test_nothing_to_encode_gives_no_rows(model: DualEncoder) -> None:
    assert model.encode_images([]).shape == (0, model.embed_dim)
    assert model.encode_text([]).shape == (0, model.embed_dim)


def test_bf16_features_are_close_to_fp32_and_still_float32(picture: Image.Image) -> None:
    model = small()
    expected = model.encode_images(picture)
    model.precision = "bf16"
    found = model.encode_images(picture)
    assert found.dtype == torch.float32
    assert F.cosine_similarity(found, expected).item() > 0.999
    assert not torch.equal(found, expected)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_long_texts_are_cut_and_end_with_the_end_mark(model: DualEncoder) -> None:
    tokens = model.tokenize("a " * 500)
    assert tokens.shape == (1, model.context_length)
    assert tokens.dtype == torch.int64
    assert tokens[0, -1] == 49407


def test_a_model_can_be_copied_and_pickled(picture: Image.Image) -> None:
    model = small()
    expected = model.encode_images(picture)
    model.tokenize("used before")
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin.encode_images(picture), expected)


def test_provenance_tells_how_features_are_made(model: DualEncoder) -> None:
    provenance = model.provenance()
    assert provenance["model"] == "small"
    assert provenance["pretrained"] is None
    assert provenance["checkpoint_sha256"] is None
    assert provenance["transform"]["size"] == 42
    assert provenance["transform"]["interpolation"] == "bicubic"
    assert {"pathclip", "torch", "open_clip_torch"} <= provenance["versions"].keys()


def test_overrides_change_the_config_and_the_copy_alone() -> None:
    plain = find_architecture("tiny-vit-112")
    changed = plain.overridden(image_size=84, context_length=16, vision_cfg={"layers": 1}, quick_gelu=True)
    assert changed.model_cfg["vision_cfg"] == {**plain.model_cfg["vision_cfg"], "image_size": 84, "layers": 1}
    assert changed.model_cfg["text_cfg"]["context_length"] == 16
    assert (changed.model_cfg["quick_gelu"], plain.model_cfg["quick_gelu"]) == (True, False)


def test_a_config_file_builds_a_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(
        '{"embed_dim": 8, "vision_cfg": {"image_size": 28, "patch_size": 14, "width": 64, "layers": 1},'
        ' "text_cfg": {"width": 16, "heads": 2, "layers": 1}}'
    )
    model = create(path)
    assert (model.name, model.image_size, model.embed_dim, model.context_length) == ("mine", 28, 8, 77)


def test_an_open_clip_name_is_known_with_dash_or_slash() -> None:
    assert find_architecture("ViT-B/32") == find_architecture("ViT-B-32")
    assert find_architecture("ViT-B-32").model_cfg["vision_cfg"]["patch_size"] == 32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create("tiny-vit-113"), "unknown model 'tiny-vit-113'; did you mean tiny-vit-112"),
        (lambda: create("absent.json"), "absent.json does not exist"),
        (
            lambda: create("tiny-vit-112", vision_cfg={"layer": 2}),
            r"unknown key vision_cfg.layer; did you mean",
        ),
        (lambda: create("tiny-vit-112", embed_dims=2), "unknown key embed_dims; did you mean embed_dim"),
        (lambda: create("tiny-vit-112", zzz=2), "unknown key zzz; known: custom_text, embed_dim"),
        (lambda: create("tiny-vit-112", text_cfg={"heads": 3}), "cannot be built"),
        (lambda: create("tiny-vit-112", image_size=(84, 112)), "wants pictures of 84 x 112 px"),
        (lambda: create("coca_roberta-ViT-B-32"), "a decoder needs open_clip's own causal text tower"),
        (
            lambda: create("roberta-ViT-B-32"),
            "sizes of text tower roberta-base are not known here; if it is a BERT, put its config.json into",
        ),
        (
            lambda: small().encode_pixels(torch.zeros(1, 3, 9, 9)),
            r"\(1, 3, 9, 9\) do not fit small; expected",
        ),
        (lambda: small().encode_pixels(torch.zeros(1, 3, 42, 42), features="x"), "features='x' is unknown"),
        (lambda: small().encode_images([], batch_size=0), "batch_size is 0; expected at least 1"),
        (lambda: small().encode_images(7), "int holds no pictures"),
        (lambda: small().encode_images([7]), "int is no picture; give a path"),
        (lambda: small().encode_images(np.zeros(3)), r"pictures of shape \(3,\)"),
        (lambda: small().encode_text(["a", 3]), "text 1 is int: 3; expected str"),
        (lambda: small().checked_precision("fp8"), "precision 'fp8' is unknown; known: fp32, bf16, fp16"),
        (
            lambda: create(SMALL, text_cfg={"vocab_size": 100}).encode_text("a"),
            "text_cfg.vocab_size is 100, but its tokenizer makes ids to 49407",
        ),
        (
            lambda: create(SMALL, text_cfg={"hf_tokenizer_name": "bert"}).tokenize("a"),
            "wants the tokenizer bert for a text tower that is no BERT",
        ),
    ],
)
def test_a_users_mistake_is_answered_in_one_line(call: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_a_config_without_towers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"embed_dim": 8}')
    with pytest.raises(
        UserError, match=r"c.json is no open_clip model config: expected embed_dim, vision_cfg"
    ):
        create(path)
    path.write_text('["a"]')
    with pytest.raises(UserError, match="is no open_clip model config"):
        create(path)
