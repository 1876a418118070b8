"""The Triton kernels through triton's interpreter, on the CPU; run by test_triton.py in a process of its own.

The interpreter must be chosen before triton is imported, and multiplies bfloat16 wrongly: float32 and float16
here, bfloat16 on a GPU (test_triton_gpu.py). Tiles are 16 x 16 here, so small matrices have many.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from loss_cases import MODES, assert_gradients_near, assert_same, make_case, solve, sure_case

from pathclip.core.errors import UserError
from pathclip.loss import backend, contrastive_loss, infonce, kernels
from pathclip.loss import triton as fused

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning:triton")
SINGLE, HALF = torch.float32, torch.float16


@pytest.fixture(params=["products", "strips"])
def backward(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either path of the backward pass, over several blocks; and sums in several launches."""
    monkeypatch.setattr(fused, "PARTIAL_BYTES", 4 * 5 * 40)
    monkeypatch.setattr(fused, "BLOCK_ROWS", 32)
    monkeypatch.setattr(fused, "MIN_BLOCK", 8 if request.param == "products" else 1 << 20)
    monkeypatch.setattr(fused, "WORKSPACE_BYTES", 32 * 24 * 4)


def test_the_interpreter_runs_the_kernels() -> None:
    assert kernels.INTERPRETED
    assert kernels.probe(torch.device("cpu"))


@pytest.mark.parametrize(("kind", "positives", "smoothing"), MODES)
@pytest.mark.parametrize("columns", [None, 29])
@pytest.mark.usefixtures("backward")
def test_every_objective_agrees_with_the_reference(
    kind: str, positives: str, smoothing: float, columns: int | None
) -> None:
    case = make_case(37, columns, width=24, kind=kind, positives=positives, smoothing=smoothing)
    assert_same(solve(case, "triton", SINGLE), solve(case.cast(SINGLE), "reference"), 2e-5)


@pytest.mark.parametrize(("kind", "positives", "smoothing"), [MODES[0], MODES[5], MODES[7]])
@pytest.mark.parametrize("columns", [None, 29, 48])
@pytest.mark.usefixtures("backward")
def test_features_read_by_descriptors_give_the_same_bits(
    kind: str, positives: str, smoothing: float, columns: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton.tools.tensor_descriptor")
    case = make_case(
        48 if columns == 48 else 37, columns, 24, kind=kind, positives=positives, smoothing=smoothing
    )
    plain = solve(case, "triton", SINGLE)
    tile = fused.interpreted_tile
    monkeypatch.setattr(
        fused,
        "interpreted_tile",
        lambda kernel: replace(tile(kernel), tma=kernel != "strips", flat=kernel == "sums"),
    )
    assert_same(solve(case, "triton", SINGLE), plain, 0)


@pytest.mark.parametrize(("kind", "positives", "smoothing"), [MODES[2], MODES[5], MODES[7]])
@pytest.mark.usefixtures("backward")
def test_float16_operands_add_up_in_float32(kind: str, positives: str, smoothing: float) -> None:
    case = make_case(37, width=24, kind=kind, positives=positives, smoothing=smoothing)
    found, truth = solve(case, "triton", HALF), solve(case.cast(HALF), "reference")
    assert float(found["loss"] - truth["loss"]) == pytest.approx(0, abs=1e-5)
    assert_same(found, truth, 4e-3)


@pytest.mark.parametrize("size", [1, 7, 31, 33])
@pytest.mark.parametrize("width", [1, 100])
def test_any_size_and_width_agrees(size: int, width: int) -> None:
    case = make_case(size, width=width, positives="masked")
    assert_same(solve(case, "triton", SINGLE), solve(case.cast(SINGLE), "reference"), 2e-5)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_equal_features_cost_log_n(size: int) -> None:
    features = torch.nn.functional.normalize(torch.ones(size, 8), dim=1)
    loss = contrastive_loss(features, features, 14.3, backend="triton")
    assert loss.item() == pytest.approx(math.log(size), abs=2e-6)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_perfect_alignment_costs_what_orthogonal_negatives_weigh(scale: float) -> None:
    loss = contrastive_loss(torch.eye(16), torch.eye(16), scale, backend="triton")
    assert loss.item() == pytest.approx(math.log1p(15 * math.exp(-scale)), rel=1e-5, abs=2e-5)


@pytest.mark.parametrize("stretch", [1.0, 30.0, -1.0])
@pytest.mark.parametrize("positives", ["masked", "shared"])
@pytest.mark.usefixtures("backward")
def test_hostile_features_give_what_float64_gives(stretch: float, positives: str) -> None:
    """Scale 100: unit features, long ones, and ones whose cosines are all negative."""
    case = make_case(37, width=24, positives=positives, scale=100.0, smoothing=0.1)
    if stretch < 0:  # every cosine about -1
        case = replace(case, image=0.1 * case.image + 1, text=0.1 * case.text - 1)
        case = replace(case, image=case.image / 24**0.5, text=case.text / 24**0.5)
    case = replace(case, image=abs(stretch) * case.image).cast(SINGLE)
    truth = solve(case, "reference")
    assert_same(solve(case, "triton", SINGLE), truth, 2e-4 if stretch > 1 else 5e-5)


def test_the_own_maxima_give_what_the_common_shift_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(37, 29, width=24, positives="shared", smoothing=0.1)
    truth = solve(case, "triton", SINGLE)
    monkeypatch.setattr(infonce, "_sound", lambda *_: False)  # no sum is trusted
    assert_same(solve(case, "triton", SINGLE), truth, 1e-5)


@pytest.mark.parametrize(("kind", "positives", "smoothing"), [MODES[0], MODES[2], MODES[4]])
def test_a_sure_model_s_gradient_keeps_its_digits(kind: str, positives: str, smoothing: float) -> None:
    assert_gradients_near(sure_case(kind, positives, smoothing, 37), "triton", 1e-4)


def test_the_same_input_gives_the_same_bits() -> None:
    case = make_case(37, width=24, positives="masked")
    assert_same(solve(case, "triton", SINGLE), solve(case, "triton", SINGLE), 0)


def test_a_gradient_in_a_precision_that_torch_is_not_set_to_takes_strips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = make_case(37, width=24)
    asked = replace(case, options={**(case.options or {}), "precision": "tf32"})
    monkeypatch.setattr(fused._Tiles, "_by_products", None)
    assert_same(solve(asked, "triton", SINGLE), solve(case.cast(SINGLE), "reference"), 2e-3)


def test_auto_leaves_the_interpreter_to_those_who_ask() -> None:
    assert backend.choose("auto", torch.device("cpu"), SINGLE) == "chunked"
    assert backend.choose("triton", torch.device("cpu"), SINGLE) == "triton"


def test_float64_is_refused() -> None:
    with pytest.raises(UserError, match="features are float64; 'chunked' runs on any device"):
        contrastive_loss(torch.eye(2).double(), torch.eye(2).double(), 1.0, backend="triton")
