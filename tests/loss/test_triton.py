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
from pathclip.loss import LossConfig, backend, contrastive_loss

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


@pytest.mark.parametrize("name", ["sums_kernel", "coefficient_kernel", "gradient_kernel"])
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_gpus_that_are_not_here(
    name: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = pytest.importorskip("triton", minversion="3.3")  # the compiler's interface changed then
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pathclip.loss import kernels

    if kernels.INTERPRETED:
        pytest.skip("kernels are interpreted in this process")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tuned = getattr(kernels, name)
    config = tuned.configs[-1]
    constants = {"D": 512, "K": 2, "SIGLIP": False, "MASKED": True, "SHARED": False, "SMOOTH": False}
    constants |= {"OWN_SHIFTS": False, "PRECISION": "ieee", **config.kwargs}
    constants |= {"MAXIMA": False, "TEXT": True, "SPAN": kernels.SPAN}
    constants.setdefault("BLOCK_M", kernels.BLOCK_ROWS)
    kinds = {"image_ptr": "*bf16", "text_ptr": "*bf16", "own_ptr": "*i64", "image_ids_ptr": "*i64"}
    kinds |= {"text_ids_ptr": "*i64", "target": "fp32"}
    arguments = tuned.fn.arg_names
    constants = {key: value for key, value in constants.items() if key in arguments}
    signature = {
        key: "constexpr" if key in constants else kinds.get(key, "*fp32" if key.endswith("_ptr") else "i32")
        for key in arguments
    }
    source = ASTSource(tuned.fn, signature, {(arguments.index(key),): v for key, v in constants.items()})
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert len(compiled.asm["cubin"]) > 1000
    assert compiled.metadata.shared <= 48 << 10  # the last configuration fits any device
    assert ("wgmma" if capability == 90 else "mma.sync") in compiled.asm["ptx"]
