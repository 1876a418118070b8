"""The loss against the formula, closed forms and itself, for every objective and backend of a CPU."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from loss_cases import MODES, Case, assert_gradients_near, assert_same, formula, make_case, solve, sure_case

from pathclip.core.errors import UserError
from pathclip.loss import ContrastiveLoss, LossConfig, chunked, contrastive_loss

BACKENDS = ("reference", "chunked")


@pytest.fixture(autouse=True)
def two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(params=["kept", "recomputed"])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that end within the smallest cases; the exponentials kept, or computed again."""
    monkeypatch.setitem(chunked.BLOCK, "cpu", (5, 7))
    monkeypatch.setattr(chunked, "KEPT_BYTES", 5 * 7 * 8 * 3 if request.param == "kept" else 0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "positives", "smoothing"), MODES)
@pytest.mark.parametrize("columns", [None, 11])
@pytest.mark.usefixtures("small_blocks")
def test_loss_is_the_formula(
    backend: str, kind: str, positives: str, smoothing: float, columns: int | None
) -> None:
    case = make_case(9, columns, kind=kind, positives=positives, smoothing=smoothing)
    assert solve(case, backend)["loss"].item() == pytest.approx(formula(case), rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "positives", "smoothing"), MODES)
@pytest.mark.usefixtures("small_blocks")
def test_gradients_are_the_slopes_of_the_formula(
    backend: str, kind: str, positives: str, smoothing: float
) -> None:
    case = make_case(6, 8, width=3, kind=kind, positives=positives, smoothing=smoothing)
    found, step = solve(case, backend), 1e-5

    def slope(plus: Case, minus: Case) -> float:
        return (formula(plus) - formula(minus)) / (2 * step)

    for name, side in (("d_image", "image"), ("d_text", "text")):
        features = getattr(case, side)
        for at in ((0, 0), (4, 2), (5, 1)):
            nudge = torch.zeros_like(features)
            nudge[at] = step
            truth = slope(
                replace(case, **{side: features + nudge}), replace(case, **{side: features - nudge})
            )
            assert found[name][at].item() == pytest.approx(truth, abs=1e-7)
    for name in ("scale", "bias"):
        value = getattr(case, name)
        truth = slope(replace(case, **{name: value + step}), replace(case, **{name: value - step}))
        assert found[f"d_{name}"].item() == pytest.approx(truth, abs=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_equal_features_cost_log_n(backend: str, size: int) -> None:
    features = torch.nn.functional.normalize(torch.ones(size, 8), dim=1)
    loss = contrastive_loss(features, features, 14.3, backend=backend)
    assert loss.item() == pytest.approx(math.log(size), abs=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_perfect_alignment_costs_what_orthogonal_negatives_weigh(backend: str, scale: float) -> None:
    features = torch.eye(16, dtype=torch.float64)
    loss = contrastive_loss(features, features, scale, backend=backend)
    assert loss.item() == pytest.approx(math.log1p(15 * math.exp(-scale)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_siglip_of_orthogonal_features_is_the_bias_alone(backend: str) -> None:
    image, text = torch.eye(8, dtype=torch.float64)[:4], torch.eye(8, dtype=torch.float64)[4:]
    loss = contrastive_loss(image, text, 10.0, bias=-2.0, kind="siglip", backend=backend)
    assert loss.item() == pytest.approx(math.log1p(math.exp(2)) + 3 * math.log1p(math.exp(-2)), rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_of_one_thing_has_nothing_to_learn_once_it_is_masked(backend: str) -> None:
    case = make_case(12, positives="masked")
    ids = torch.full((12,), 3)
    case = replace(case, options={**(case.options or {}), "image_ids": ids, "text_ids": ids})
    assert all(float(value.abs().max()) < 1e-12 for value in solve(case, backend).values())


# Small sizes meet every objective at two widths, in both dtypes; large ones, which cost seconds, float32
F32, F64 = torch.float32, torch.float64
PARITY = [
    *[
        (n, d, mode, dtype)
        for n in (1, 7, 63, 65)
        for d in (64, 100)
        for mode in MODES
        for dtype in (F32, F64)
    ],
    *[(n, 768, MODES[2], dtype) for n in (1, 63) for dtype in (F32, F64)],
    *[(1000, 512, mode, F32) for mode in MODES],
    (1000, 768, MODES[2], F32),
    *[pytest.param(4097, 64, mode, F32, marks=pytest.mark.slow) for mode in (MODES[2], MODES[4])],
]


@pytest.mark.parametrize(("size", "width", "mode", "dtype"), PARITY)
def test_chunked_agrees_with_the_reference(
    size: int, width: int, mode: tuple[str, str, float], dtype: torch.dtype
) -> None:
    kind, positives, smoothing = mode
    case = make_case(size, None, width, kind=kind, positives=positives, smoothing=smoothing)
    truth = solve(case.cast(dtype), "reference")
    assert_same(solve(case, "chunked", dtype), truth, 1e-10 if dtype == F64 else 2e-5)


@pytest.mark.parametrize(("rows", "columns"), [(1, 9), (30, 7), (65, 1000), (1000, 65)])
@pytest.mark.parametrize(("kind", "positives", "smoothing"), MODES)
def test_rectangles_with_targets_agree(
    rows: int, columns: int, kind: str, positives: str, smoothing: float
) -> None:
    case = make_case(rows, columns, kind=kind, positives=positives, smoothing=smoothing)
    assert_same(solve(case, "chunked"), solve(case, "reference"), 1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_features_are_multiplied_in_float32(backend: str, dtype: torch.dtype) -> None:
    case = make_case(65, width=64, positives="masked")
    found, truth = solve(case, backend, dtype), solve(case.cast(dtype), "reference")
    assert float(found["loss"] - truth["loss"]) == pytest.approx(0, abs=1e-5)
    assert_same(found, truth, 8e-3 if dtype == torch.bfloat16 else 1e-3)  # gradients rounded to the dtype


@pytest.mark.parametrize("backend", BACKENDS)
def test_precision_bf16_is_the_loss_of_rounded_features(backend: str) -> None:
    case = make_case(20)
    a = contrastive_loss(case.image.float(), case.text.float(), 14.3, backend=backend, precision="bf16")
    rounded = case.cast(torch.bfloat16)
    b = contrastive_loss(rounded.image, rounded.text, 14.3, backend="reference")
    assert a.item() == pytest.approx(b.item(), abs=1e-5)


@pytest.mark.parametrize(("kind", "positives", "smoothing"), MODES)
def test_memory_layout_does_not_matter(kind: str, positives: str, smoothing: float) -> None:
    case = make_case(33, kind=kind, positives=positives, smoothing=smoothing)
    strided = replace(
        case, image=case.image.T.contiguous().T, text=torch.stack([case.text, case.text], 2)[:, :, 0]
    )
    assert not strided.image.is_contiguous()
    assert not strided.text.is_contiguous()
    assert_same(solve(strided, "chunked"), solve(case, "chunked"), 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "positives", "smoothing"), MODES)
def test_order_does_not_matter_and_gradients_follow_their_samples(
    backend: str, kind: str, positives: str, smoothing: float
) -> None:
    case = make_case(21, kind=kind, positives=positives, smoothing=smoothing)
    order = torch.randperm(21, generator=torch.Generator().manual_seed(1))
    options = {k: v[order] if isinstance(v, torch.Tensor) else v for k, v in (case.options or {}).items()}
    moved = replace(case, image=case.image[order], text=case.text[order], options=options)
    truth = solve(case, backend)
    truth |= {name: truth[name][order] for name in ("d_image", "d_text")}
    assert_same(solve(moved, backend), truth, 1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "positives", "smoothing"), MODES)
def test_images_and_texts_play_the_same_part(
    backend: str, kind: str, positives: str, smoothing: float
) -> None:
    case = make_case(21, kind=kind, positives=positives, smoothing=smoothing)
    options = dict(case.options or {})
    if "image_ids" in options:
        options |= {"image_ids": options["text_ids"], "text_ids": options["image_ids"]}
    swapped = solve(replace(case, image=case.text, text=case.image, options=options), backend)
    swapped |= {"d_image": swapped["d_text"], "d_text": swapped["d_image"]}
    assert_same(swapped, solve(case, backend), 1e-10)


HOSTILE = ("negative", "identical", "unnormalised", "outlier", "zero")


def hostile(name: str, scale: float) -> Case:
    """Features that break a careless softmax."""
    case = make_case(40, width=16, positives="masked", scale=scale)
    if name == "negative":  # every cosine about -1: a shift by the bound flushes every sum to zero
        direction = torch.nn.functional.normalize(torch.randn(16, dtype=torch.float64), dim=0)
        noise = 1e-3 * case.image
        return replace(case, image=direction + noise, text=-direction - 1e-3 * case.text)
    if name == "identical":
        return replace(case, image=case.image[:1].repeat(40, 1), text=case.image[:1].repeat(40, 1))
    if name == "unnormalised":
        return replace(case, image=30 * case.image, text=30 * case.text)
    if name == "outlier":  # one long row drives the bound far above all other rows
        image = case.image.clone()
        image[3] *= 1000
        return replace(case, image=image)
    return replace(case, image=torch.zeros_like(case.image))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize("kind", ["infonce", "siglip"])
def test_hostile_features_give_what_float64_gives(name: str, scale: float, kind: str) -> None:
    case = hostile(name, scale).cast(torch.float32)
    case = replace(case, options={**(case.options or {}), "kind": kind})
    tolerance = (
        1e-4 if name not in ("unnormalised", "outlier") else 2e-2
    )  # logits near 1e5: eps is 1e-2 of them
    assert_same(solve(case, "chunked", torch.float32), solve(case, "reference"), tolerance)


def test_the_own_maxima_give_what_the_common_shift_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathclip.loss import infonce

    case = make_case(40, 50, positives="shared", smoothing=0.1)
    truth = solve(case, "chunked")
    monkeypatch.setattr(infonce, "_sound", lambda *_: False)  # no sum is trusted
    assert_same(solve(case, "chunked"), truth, 1e-10)


@pytest.mark.parametrize(("kind", "positives", "smoothing"), [MODES[0], MODES[2], MODES[4]])
def test_a_sure_model_s_gradient_keeps_its_digits(kind: str, positives: str, smoothing: float) -> None:
    """Softmax minus target is about 1e-10 here: taken as a difference, nothing of it would be left."""
    assert_gradients_near(sure_case(kind, positives, smoothing, 65), "chunked", 1e-4)


def test_nan_features_give_a_nan_loss_and_no_error() -> None:
    case = make_case(8)
    case.image[2, 3] = torch.nan
    assert contrastive_loss(case.image, case.text, 14.3, backend="chunked").isnan()


def test_a_second_backward_gives_the_same_gradients() -> None:
    image, text = make_case(9).image.requires_grad_(), make_case(9).text
    loss = contrastive_loss(image, text, 14.3, backend="chunked")
    first, second = (torch.autograd.grad(loss, image, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_the_gradient_of_a_weighted_loss_is_weighted() -> None:
    for kind in ("infonce", "siglip"):
        image, text = make_case(9).image.requires_grad_(), make_case(9).text
        loss = contrastive_loss(image, text, 14.3, kind=kind, backend="chunked")
        plain, tripled = (torch.autograd.grad(x, image, retain_graph=True)[0] for x in (loss, 3 * loss))
        torch.testing.assert_close(tripled, 3 * plain)


def test_no_buffer_outgrows_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chunked.BLOCK, "cpu", (64, 128))
    held: list[int] = []
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(
        torch.Tensor, "new_empty", lambda self, n, **k: held.append(n) or new_empty(self, n, **k)
    )
    features = torch.nn.functional.normalize(torch.randn(1000, 4), dim=1).requires_grad_()
    contrastive_loss(features, features, 14.3, backend="chunked").backward()
    assert set(held) == {64 * 128}


def test_auto_is_chunked_on_a_cpu() -> None:
    case = make_case(9)
    assert_same(solve(case, "auto"), solve(case, "chunked"), 0)


def test_autocast_does_not_reach_into_the_loss() -> None:
    case = make_case(33)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = solve(case, "chunked", torch.float32)
    assert_same(found, solve(case, "chunked", torch.float32), 0)


def test_the_module_makes_its_choices_once() -> None:
    case = make_case(12, positives="shared", smoothing=0.1)
    module = ContrastiveLoss(LossConfig(positives="shared", label_smoothing=0.1, backend="reference"))
    ids = {name: (case.options or {})[name] for name in ("image_ids", "text_ids")}
    found = module(case.image, case.text, torch.tensor(case.scale, dtype=torch.float64), **ids)
    assert found.item() == pytest.approx(formula(replace(case, bias=0.0)), rel=1e-10)
    without = module(case.image, case.text, torch.tensor(case.scale, dtype=torch.float64))
    plain = contrastive_loss(case.image, case.text, case.scale, label_smoothing=0.1)
    assert without.item() == pytest.approx(plain.item())


X = torch.eye(4)
IDS = torch.arange(4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_features": X[:, :3]}, r"image_features are \(4, 3\), text_features \(4, 4\)"),
        (
            {"image_features": X.double()},
            "torch.float64 and torch.float32: expected one floating-point dtype",
        ),
        ({"image_features": X.long(), "text_features": X.long()}, "expected one floating-point dtype"),
        ({"image_features": X[:0], "text_features": X[:0]}, "at least one image"),
        ({"image_features": X.to("meta")}, "image_features are on meta, text_features on cpu"),
        ({"text_features": X[:3]}, "4 images but 3 texts: give targets"),
        ({"targets": IDS.int()}, r"targets are torch.int32 \(4,\): expected int64 \(4,\)"),
        ({"targets": IDS + 1}, "targets reach from 1 to 4: 0 to 3"),
        ({"targets": IDS.to("meta")}, "targets are on meta, the features on cpu"),
        ({"image_ids": IDS}, "come together"),
        ({"image_ids": IDS, "text_ids": IDS[:3]}, r"text_ids are torch.int64 \(3,\): expected int64 \(4,\)"),
        ({"image_ids": IDS, "text_ids": IDS.float()}, "text_ids are torch.float32"),
        ({"image_ids": IDS, "text_ids": IDS.to("meta")}, "text_ids are on meta"),
        ({"image_ids": torch.stack([IDS, IDS], 1), "text_ids": IDS}, "2 ids per sample, text_ids 1"),
        ({"positives": "shared"}, "positives='shared' needs image_ids"),
        ({"positives": "all"}, "positives is 'all', expected one of diagonal, masked, shared"),
        ({"kind": "clip"}, "kind is 'clip', expected one of infonce, siglip"),
        ({"backend": "cuda"}, "backend is 'cuda', expected one of auto, reference, chunked, triton"),
        ({"precision": "fp8"}, "precision is 'fp8', expected one of auto, bf16, tf32, ieee"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"kind": "siglip", "label_smoothing": 0.1}, "belongs to kind 'infonce'"),
        ({"scale": torch.ones(2)}, r"scale has shape \(2,\): expected one number"),
        ({"bias": torch.ones(2)}, r"bias has shape \(2,\): expected one number"),
        ({"process_group": object()}, "torch.distributed is not initialised"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(options: dict[str, Any], message: str) -> None:
    arguments = {"image_features": X, "text_features": X, "scale": 1.0} | options
    with pytest.raises(UserError, match=message):
        contrastive_loss(**arguments)
