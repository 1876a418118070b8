"""The Triton backend where there is no GPU: through the interpreter, compiled ahead of time, or refused."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pathclip.core.errors import UserError
from pathclip.loss import LossConfig, backend, contrastive_loss, tiles

HERE = Path(__file__).resolve().parent
GPU = torch.device("cuda", 0)


def test_the_kernels_through_the_interpreter() -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "interpreted.py"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=HERE)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


def test_importing_the_loss_imports_no_triton() -> None:
    code = "import sys, pathclip.loss; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_config_may_ask_for_triton() -> None:
    assert LossConfig(backend="triton", precision="bf16").backend == "triton"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A machine that says it has a GPU of the capability and with the triton that a test sets."""
    machine: dict[str, Any] = {"capability": (9, 0), "probe": lambda device: True}
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: machine["capability"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Test GPU")
    pytest.importorskip("triton", minversion="3.3")  # 3.2 cannot tune, hence not load, without a GPU
    from pathclip.loss import kernels

    monkeypatch.setattr(kernels, "probe", lambda device: machine["probe"](device))
    backend._probe.cache_clear()
    yield machine
    backend._probe.cache_clear()


@pytest.mark.usefixtures("gpu")
def test_auto_is_triton_on_a_gpu_that_runs_a_small_kernel() -> None:
    assert backend.choose("auto", GPU, torch.bfloat16) == "triton"
    assert backend.choose("auto", GPU, torch.float64) == "chunked"
    assert backend.choose("auto", torch.device("cpu"), torch.float32) == "chunked"


def test_auto_is_chunked_where_the_gpu_is_too_old(gpu: dict[str, Any]) -> None:
    gpu["capability"] = (7, 5)
    assert backend.choose("auto", GPU, torch.float32) == "chunked"
    with pytest.raises(UserError, match=r"Test GPU has compute capability 7\.5, and 8\.0 is the least"):
        backend.choose("triton", GPU, torch.float32)


def test_auto_is_chunked_where_triton_is_broken(gpu: dict[str, Any]) -> None:
    def fail(device: torch.device) -> bool:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")

    gpu["probe"] = fail
    assert backend.choose("auto", GPU, torch.float32) == "chunked"
    with pytest.raises(
        UserError, match=r"small kernel \(RuntimeError: Failed to find C compiler\.\); 'chunked'"
    ):
        backend.choose("triton", GPU, torch.float32)


def test_auto_is_chunked_where_triton_computes_nonsense(gpu: dict[str, Any]) -> None:
    gpu["probe"] = lambda device: False
    assert backend.choose("auto", GPU, torch.float32) == "chunked"


def test_triton_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else find(name))
    with pytest.raises(UserError, match="triton is not installed; 'chunked' runs on any device"):
        contrastive_loss(torch.eye(2), torch.eye(2), 1.0, backend="triton")
    assert contrastive_loss(torch.eye(2), torch.eye(2), 1.0, backend="auto").isfinite()


def test_triton_on_a_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="needs an NVIDIA GPU, and the features are on cpu; 'chunked' runs"):
        contrastive_loss(torch.eye(2), torch.eye(2), 1.0, backend="triton")


@pytest.mark.parametrize(
    ("dtype", "precision", "expected"),
    [
        (torch.float32, "bf16", (torch.bfloat16, "bf16")),
        (torch.float32, "tf32", (torch.float32, "tf32")),
        (torch.float32, "auto", (torch.float32, "ieee")),
        (torch.bfloat16, "auto", (torch.bfloat16, "ieee")),
        (torch.bfloat16, "ieee", (torch.float32, "ieee")),
        (torch.float64, "tf32", (torch.float64, "tf32")),
    ],
)
def test_precision_decides_what_is_multiplied(
    dtype: torch.dtype, precision: Any, expected: tuple[torch.dtype, str]
) -> None:
    assert backend.operands(dtype, precision) == expected


def test_auto_precision_follows_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert backend.operands(torch.float32, "auto") == (torch.float32, "tf32")


HOPPER = [
    (kernel, 90, tile, work) for kernel, by_work in tiles.HOPPER.items() for work, tile in by_work.items()
]
LADDER = [
    (kernel, capability, steps[-1], "plain")
    for kernel, steps in tiles.LADDER.items()
    for capability in (80, 90)
]


@pytest.mark.parametrize(("kernel", "capability", "tile", "work"), [*HOPPER, *LADDER])
def test_kernels_compile_for_gpus_that_are_not_here(
    kernel: tiles.Kernel,
    capability: int,
    tile: tiles.Tile,
    work: tiles.Work,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    triton = pytest.importorskip("triton", minversion="3.4")  # the compiler's interface changed then
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pathclip.loss import kernels

    if kernels.INTERPRETED:
        pytest.skip("kernels are interpreted in this process")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = {
        "sums": kernels.sums_kernel,
        "coefficients": kernels.coefficient_kernel,
        "strips": kernels.gradient_kernel,
    }[kernel]
    options = tile.options(kernel)
    names = ("num_warps", "num_stages", "maxnreg")
    launch = {name: options.pop(name) for name in names if name in options}
    constants = {"D": 512, "K": 2, "SIGLIP": False, "MASKED": work == "compare", "SMOOTH": False}
    constants |= {"SHARED": work == "count"}
    constants |= {"OWN_SHIFTS": False, "PRECISION": "ieee", "EVEN": False, "MAXIMA": False, "TEXT": True}
    constants |= options
    constants |= {"TMA_OUT": tile.tma}
    arguments = function.arg_names
    constants = {key: value for key, value in constants.items() if key in arguments}
    kinds = dict.fromkeys(("own_ptr", "image_ids_ptr", "text_ids_ptr"), "*i32") | {"target": "fp32"}
    shapes = {"image_in": (tile.m, tile.k), "text_in": (tile.n, tile.k), "out": (tile.m, tile.n)}
    for name, (rows, columns) in shapes.items():
        kinds[name] = f"tensordesc<bf16[{rows}, {columns}]>" if tile.tma else "*bf16"
    signature = {
        key: "constexpr" if key in constants else kinds.get(key, "*fp32" if key.endswith("_ptr") else "i32")
        for key in arguments
    }
    source = ASTSource(function, signature, {(arguments.index(key),): v for key, v in constants.items()})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch)
    assert len(compiled.asm["cubin"]) > 1000
    assert compiled.metadata.shared <= (227 if tile.tma else 48) << 10  # the last step fits any device
    assert ("wgmma" if capability == 90 else "mma.sync") in compiled.asm["ptx"]
    if tile.tma:
        assert "cp.async.bulk.tensor" in compiled.asm["ptx"]


@pytest.mark.parametrize(
    ("capability", "shared", "dtype", "width", "expected"),
    [
        (9, 227 << 10, torch.bfloat16, 512, tiles.HOPPER["sums"]["plain"]),
        (9, 227 << 10, torch.bfloat16, 100, tiles.LADDER["sums"][0]),  # descriptors want rows of 16 bytes
        (9, 227 << 10, torch.float32, 512, tiles.LADDER["sums"][0]),
        (8, 163 << 10, torch.bfloat16, 512, tiles.LADDER["sums"][0]),
        (8, 99 << 10, torch.float32, 512, tiles.LADDER["sums"][1]),
        (8, 48 << 10, torch.float32, 512, tiles.LADDER["sums"][2]),
    ],
)
def test_the_tile_follows_from_the_gpu_and_the_features(
    capability: int,
    shared: int,
    dtype: torch.dtype,
    width: int,
    expected: tiles.Tile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiles, "_device", lambda index: (capability, shared))
    monkeypatch.setattr(tiles, "_descriptors", lambda: True)
    assert tiles.choose_tile("sums", torch.empty(4, width, dtype=dtype), "plain") == expected
