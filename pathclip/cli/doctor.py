"""``pathclip doctor``: does this installation work, and what does it run on?"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pathclip.cli.app import JsonOption, Outcome, app, verb

MIN_PYTHON = (3, 11)
LOW_DISK_BYTES = 2 * 1024**3
PACKAGES = {
    "open_clip": "open_clip_torch",
    "timm": "timm",
    "PIL": "pillow",
    "simplejpeg": "simplejpeg",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "faiss": "faiss-cpu",
    "sklearn": "scikit-learn",
    "webdataset": "webdataset",
    "h5py": "h5py",
}
EXTRAS = {
    "ray": "ray",
    "download": "httpx",
    "language": "py3langid",
    "hf": "transformers",
    "tracking": "wandb",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was looked at.
        state: ``"ok"``, ``"note"`` (works without it), or ``"fault"``.
        detail: What was found and, for a fault, what mends it.
    """

    name: str
    state: str
    detail: str


@verb(app, "doctor")
def doctor(json: JsonOption = False) -> Outcome:
    """Check the installation: versions, GPU, slides, optional extras, disk. Exit code 1 on a fault."""
    from rich.text import Text

    findings = [finding for check in CHECKS for finding in guarded(check)]
    faults = [finding for finding in findings if finding.state == "fault"]
    marks = {"ok": ("ok   ", "green"), "note": ("note ", "yellow"), "fault": ("FAULT", "red")}
    lines = [Text.assemble(marks[f.state], f" {f.name:<22} {f.detail}") for f in findings]
    data = {"ok": not faults, "findings": [asdict(finding) for finding in findings]}
    summary = f"{len(faults)} faults" if faults else "all well"
    return Outcome(data, [*lines, summary], exit_code=1 if faults else 0)


def guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of a check; a check that fails is itself a fault."""
    try:
        return check()
    except Exception as error:  # a broken package may raise anything when imported
        reason = str(error).strip().partition("\n")[0]
        return [Finding(check.__name__, "fault", f"{type(error).__name__}: {reason}")]


def python() -> list[Finding]:
    """Version and machine."""
    from pathclip import __version__

    state = "ok" if sys.version_info[:2] >= MIN_PYTHON else "fault"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return [
        Finding("pathclip", "ok", __version__),
        Finding("python", state, f"{platform.python_version()} on {machine}"),
    ]


def torch() -> list[Finding]:
    """Torch and torchvision fit each other; a wrong pair fails in torchvision's operators."""
    import torch
    import torchvision

    pair = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    try:
        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        return [Finding("torch", "fault", f"{pair} do not fit ({reason}); reinstall both from one index")]
    return [Finding("torch", "ok", pair)]


def gpu() -> list[Finding]:
    """CUDA devices, or the lack of them."""
    import torch

    if not torch.cuda.is_available():
        return [Finding("gpu", "note", "none found; everything runs on the CPU, slowly")]
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        memory = f"{properties.total_memory / 1024**3:.0f} GiB"
        found.append(Finding(f"gpu {index}", "ok", f"{properties.name}, {memory}, {bf16}"))
    return found


def packages() -> list[Finding]:
    """What must import."""
    found = []
    for module, package in PACKAGES.items():
        try:
            importlib.import_module(module)
            found.append(Finding(package, "ok", importlib.metadata.version(package)))
        except Exception as error:  # a broken package may raise anything when imported
            reason = str(error).partition("\n")[0]
            remedy = f"pip install --force-reinstall {package}"
            found.append(Finding(package, "fault", f"{type(error).__name__}: {reason}; try: {remedy}"))
    return found


def openslide() -> list[Finding]:
    """The slide reader and the C library under it."""
    import openslide

    version = (
        f"python {importlib.metadata.version('openslide-python')}, library {openslide.__library_version__}"
    )
    return [Finding("openslide", "ok", version)]


def extras() -> list[Finding]:
    """Optional packages."""
    found = []
    for extra, module in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            found.append(Finding(f"[{extra}]", "note", f"absent; pip install 'pathclip[{extra}]'"))
        else:
            found.append(Finding(f"[{extra}]", "ok", f"{module} {importlib.metadata.version(module)}"))
    return found


def disk() -> list[Finding]:
    """Free space here and where temporary files go."""
    found = []
    for name, folder in (("disk here", Path.cwd()), ("disk for temporaries", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        state = "ok" if free > LOW_DISK_BYTES else "note"
        found.append(Finding(name, state, f"{free / 1024**3:.0f} GiB free in {folder}"))
    return found


def model() -> list[Finding]:
    """A tiny model encodes a picture and a text."""
    import numpy as np

    from pathclip.encoders import create

    tiny = create("tiny-vit-112")
    image = tiny.encode_images(np.full((150, 120, 3), 200, dtype=np.uint8))
    similarity = (image @ tiny.encode_text("an H&E image").T).item()
    return [Finding("model", "ok", f"{tiny.name} encodes a picture and a text (similarity {similarity:.3f})")]


CHECKS = (python, torch, gpu, packages, openslide, extras, disk, model)
