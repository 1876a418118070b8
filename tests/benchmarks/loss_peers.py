"""The losses that tests/benchmarks/loss.py compares, and how one of them is measured.

Stands alone (torch and one peer), so that a peer whose requirements conflict runs in a virtual environment of
its own: ``PYTHON loss_peers.py '{"loss": "inf_cl", "size": 4096, ...}'`` prints one JSON object.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(backend: str) -> Loss:
    """`pathclip.loss.contrastive_loss`; a name after a colon says what ids do, every id once."""
    from pathclip.loss import contrastive_loss

    name, _, positives = backend.partition(":")

    def loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        ids = torch.arange(len(image), device=image.device) if positives else None
        return contrastive_loss(
            image, text, scale, backend=name, image_ids=ids, text_ids=ids, positives=positives or None
        )

    return loss


def open_clip() -> Loss:
    """The plain loss of open_clip on one device."""
    from open_clip.loss import ClipLoss

    return ClipLoss()


def inf_cl() -> Loss:
    """One call per direction, as its own FlashClipLoss does; needs a width that 256 divides."""
    from inf_cl import cal_flash_loss

    def loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        own = torch.arange(len(image), device=image.device)
        both = [cal_flash_loss(a, b, own, scale).mean() for a, b in ((image, text), (text, image))]
        return (both[0] + both[1]) / 2

    return loss


def cut_cross_entropy() -> Loss:
    """One call per direction; its gradient filter is off, which would drop most of a diffuse softmax."""
    from cut_cross_entropy import linear_cross_entropy

    def loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        own = torch.arange(len(image), device=image.device)
        both = [
            linear_cross_entropy((scale * a).to(a.dtype), b, own, filter_eps=None)
            for a, b in ((image, text), (text, image))
        ]
        return (both[0] + both[1]) / 2

    return loss


PEERS: dict[str, Callable[[], Loss]] = {
    "open_clip": open_clip,
    "inf_cl": inf_cl,
    "cut_cross_entropy": cut_cross_entropy,
}


def build(name: str) -> Loss:
    """A peer, or ours by the name ``pathclip:BACKEND[:POSITIVES]``."""
    return ours(name.partition(":")[2]) if name.startswith("pathclip:") else PEERS[name]()


def features(size: int, width: int, dtype: str, device: str, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Unit features that lean towards their own pair as a trained model's do, and a scale of 100."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(size, width, generator=generator)
    text = torch.randn(size, width, generator=generator).add_(0.35 * image)
    unit = (torch.nn.functional.normalize(x, dim=1).to(device, getattr(torch, dtype)) for x in (image, text))
    image, text = (x.requires_grad_() for x in unit)
    return image, text, torch.tensor(100.0, device=device, requires_grad=True)


def step(loss: Loss, inputs: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    """Seconds of one forward and of forward + backward; gradients stay on the inputs."""
    for x in inputs:
        x.grad = None
    cuda = inputs[0].is_cuda
    wait = torch.cuda.synchronize if cuda else lambda: None
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=cuda and inputs[0].dtype == torch.bfloat16):
        wait()
        start = time.perf_counter()
        value = loss(*inputs)
        wait()
        middle = time.perf_counter()
    value.float().backward()
    wait()
    return {
        "loss": value.item(),
        "forward_s": middle - start,
        "total_s": time.perf_counter() - start,
    }


def extra_memory(loss: Loss, inputs: tuple[Tensor, Tensor, Tensor]) -> float:
    """MiB above the inputs at the peak of forward + backward, gradients included.

    On a CPU it asks Linux for the process's high-water mark; call it in a process that did nothing else.
    """
    if inputs[0].is_cuda:
        step(loss, inputs)  # compiles and tunes
        for x in inputs:
            x.grad = None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(loss, inputs)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    step(loss, features(64, inputs[0].shape[1], "float32", "cpu"))  # loads libraries, starts threads
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = _status("VmRSS")
    step(loss, inputs)
    return (_status("VmHWM") - before) / 2**10


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def gradient_error(inputs: tuple[Tensor, Tensor, Tensor]) -> float:
    """Relative distance of the gradient left on the images to float64's, from the formula."""
    image, text = (x.detach().double() for x in inputs[:2])
    scale = inputs[2].item()
    z = scale * (image @ text.T)
    g = z.softmax(1) + z.softmax(0)
    g.diagonal().sub_(2)
    truth = scale / (2 * len(z)) * (g @ text)
    return float((inputs[0].grad.double() - truth).norm() / truth.norm())


def main() -> None:
    """One measurement in a process of its own."""
    task: dict[str, Any] = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    loss = build(task["loss"])
    inputs = features(task["size"], task["width"], task["dtype"], task["device"])
    if task["what"] == "memory":
        result: dict[str, float] = {"extra_mib": extra_memory(loss, inputs)}
    else:
        step(loss, inputs)
        runs = [step(loss, inputs) for _ in range(task["alternations"])]
        result = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        if task["size"] <= task["error_size"]:
            result["gradient_error"] = gradient_error(inputs)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
