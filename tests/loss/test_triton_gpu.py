"""The Triton kernels as they run on a GPU: bfloat16 on tensor cores, large sizes, several streams of blocks.

Run with ``pytest -m gpu tests/loss``. Gradients are compared with those of float64 on the same rounded
features; the yardstick is what bfloat16 operands with float32 sums give in plain torch.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from loss_cases import MODES, assert_same, make_case, solve

from pathclip.loss import backend, contrastive_loss

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from pathclip.loss import triton as fused  # imports triton, which may be absent elsewhere

pytestmark = pytest.mark.gpu
TOLERANCES = {torch.bfloat16: 1.5e-2, torch.float16: 2e-3, torch.float32: 5e-5}


@pytest.fixture(params=["products", "strips"])
def backward(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either path of the backward pass."""
    monkeypatch.setattr(fused, "BLOCK_ROWS", 512)
    monkeypatch.setattr(fused, "WORKSPACE_BYTES", 1 << 20)
    monkeypatch.setattr(fused, "MIN_BLOCK", 128 if request.param == "products" else 1 << 30)


def test_auto_is_triton_here() -> None:
    device = torch.device("cuda", 0)
    if torch.cuda.get_device_capability(device) < backend.MIN_CAPABILITY:
        pytest.skip("the GPU is older than the kernels need")
    assert backend.obstacle(device, torch.bfloat16) is None
    assert backend.choose("auto", device, torch.bfloat16) == "triton"


@pytest.mark.parametrize(("kind", "positives", "smoothing"), MODES)
@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize(("rows", "columns", "width"), [(1000, None, 512), (65, 1000, 100), (1000, 65, 768)])
@pytest.mark.usefixtures("backward")
def test_every_objective_agrees_with_float64(
    kind: str,
    positives: str,
    smoothing: float,
    dtype: torch.dtype,
    rows: int,
    columns: int | None,
    width: int,
) -> None:
    case = make_case(rows, columns, width, kind=kind, positives=positives, smoothing=smoothing)
    found, truth = solve(case, "triton", dtype, "cuda"), solve(case.cast(dtype), "reference", device="cuda")
    assert float(found["loss"] - truth["loss"]) == pytest.approx(0, abs=1e-4 * max(1, float(truth["loss"])))
    assert_same(found, truth, TOLERANCES[dtype])


@pytest.mark.parametrize("size", [1, 7, 63, 65, 4097])
@pytest.mark.parametrize("width", [64, 100, 512, 768])
def test_any_size_and_width_agrees(size: int, width: int) -> None:
    case = make_case(size, width=width, positives="masked")
    truth = solve(case.cast(torch.bfloat16), "reference", device="cuda")
    assert_same(solve(case, "triton", torch.bfloat16, "cuda"), truth, TOLERANCES[torch.bfloat16])


@pytest.mark.parametrize("scale", [14.3, 100.0])
@pytest.mark.parametrize("lean", [0.2, 0.35, 0.5])
def test_bfloat16_gradients_are_no_worse_than_float32_sums_of_bfloat16_operands(
    scale: float, lean: float
) -> None:
    """``lean`` takes the model from undecided to so sure that softmax minus target is 1e-14."""
    case = make_case(2048, width=512, scale=scale)
    text = torch.nn.functional.normalize(case.text + (lean - 0.5) * case.image, dim=1)
    case = replace(case, text=text).cast(torch.bfloat16)
    truth = solve(case, "reference", device="cuda")
    ours = solve(case, "triton", torch.bfloat16, "cuda")

    def plain() -> torch.Tensor:
        """Gradient of the images from coefficients rounded to bfloat16, as mixed precision has it."""
        image, text = case.image.cuda().float(), case.text.cuda().float()
        z = scale * image @ text.T
        g = z.softmax(1) + z.softmax(0) - 2 * torch.eye(len(z), device="cuda")
        return (scale / (2 * len(z)) * (g.bfloat16().float() @ text)).bfloat16().double().cpu()

    def error(d_image: torch.Tensor) -> float:
        return float((d_image - truth["d_image"]).norm() / truth["d_image"].norm())

    assert error(ours["d_image"]) <= 1.2 * error(plain())


def test_a_large_batch_stays_within_its_memory() -> None:
    size, width = 65536, 512
    image, text = (torch.randn(size, width, device="cuda", dtype=torch.bfloat16) for _ in "it")
    image, text = (torch.nn.functional.normalize(x, dim=1).requires_grad_() for x in (image, text))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    contrastive_loss(image, text, 14.3, backend="triton").backward()
    extra = torch.cuda.max_memory_allocated() - before
    assert extra < fused.WORKSPACE_BYTES + 3 * fused.PARTIAL_BYTES + 10 * size * width * 2
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_the_same_input_gives_the_same_bits() -> None:
    case = make_case(1000, width=512, positives="masked")
    first, second = (solve(case, "triton", torch.bfloat16, "cuda") for _ in range(2))
    assert_same(first, second, 0)
