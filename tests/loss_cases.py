"""What the tests of the loss share: the formula spelled out, cases, and the comparison of two backends."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pathclip.loss import contrastive_loss

MODES = [
    *[
        ("infonce", positives, smoothing)
        for positives in ("diagonal", "masked", "shared")
        for smoothing in (0, 0.1)
    ],
    *[("siglip", positives, 0) for positives in ("diagonal", "masked", "shared")],
]


@dataclass(frozen=True)
class Case:
    """Inputs and choices of one call of the loss, in float64."""

    image: Tensor
    text: Tensor
    scale: float = 14.3
    bias: float = -1.5
    options: dict[str, Any] | None = None

    def cast(self, dtype: torch.dtype) -> Case:
        """The same numbers as ``dtype`` holds them, in float64: what is left is a backend's own error."""
        return replace(self, image=self.image.to(dtype).double(), text=self.text.to(dtype).double())


def make_case(
    rows: int,
    columns: int | None = None,
    width: int = 16,
    *,
    kind: str = "infonce",
    positives: str = "diagonal",
    smoothing: float = 0.0,
    scale: float = 14.3,
    seed: int = 0,
) -> Case:
    """Unit features; a text leans towards the image that owns it; ids of which about a third agree.

    With ``columns`` the matrix is rectangular, and rows own columns drawn at random, some of them twice.
    """
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    text = torch.randn(columns or rows, width, generator=generator, dtype=torch.float64)
    options: dict[str, Any] = {"kind": kind, "label_smoothing": smoothing}
    if columns is None:
        text += 0.5 * image
    else:
        options["targets"] = torch.randint(columns, (rows,), generator=generator)
    if positives != "diagonal":
        most = max(2, rows // 3)
        options |= {
            "positives": positives,
            "image_ids": torch.randint(most, (rows, 2), generator=generator),
            "text_ids": torch.randint(most, (columns or rows, 2), generator=generator),
        }
    unit = torch.nn.functional.normalize
    return Case(unit(image, dim=1), unit(text, dim=1), scale, options=options)


def solve(
    case: Case, backend: str, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> dict[str, Tensor]:
    """Loss and gradients, in float64 on the CPU."""
    leaves = {
        "d_image": case.image.to(device, dtype).detach().requires_grad_(),
        "d_text": case.text.to(device, dtype).detach().requires_grad_(),
        "d_scale": torch.tensor(case.scale, dtype=torch.float64, device=device).requires_grad_(),
        "d_bias": torch.tensor(case.bias, dtype=torch.float64, device=device).requires_grad_(),
    }
    image, text, scale, bias = leaves.values()
    options = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in (case.options or {}).items()}
    loss = contrastive_loss(image, text, scale, bias=bias, backend=backend, **options)
    loss.backward()
    return {"loss": loss.detach().double().cpu()} | {k: v.grad.double().cpu() for k, v in leaves.items()}


def assert_same(found: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float) -> None:
    """Every entry within ``tolerance`` of the largest one, or of a usual one where all are tiny."""
    usual = {"loss": 1.0, "d_scale": 1e-2, "d_bias": 1e-2}
    for name, value in truth.items():
        assert torch.isfinite(found[name]).all(), f"{name} is not finite"
        size = max(float(value.abs().max()), usual.get(name, 0.1 / len(truth["d_image"])))
        error = float((found[name] - value).abs().max()) / size
        assert error <= tolerance, f"{name} is off by {error:.2e} of its largest entry"


def sure_case(kind: str, positives: str, smoothing: float, size: int) -> Case:
    """Scale 100 and wide features: softmax minus target is about 1e-10, which float64 still resolves."""
    case = make_case(size, width=256, kind=kind, positives=positives, smoothing=smoothing, scale=100.0)
    options = dict(case.options or {})
    if positives != "diagonal":  # every id once: with duplicates nothing is sure
        options |= {"image_ids": torch.arange(size), "text_ids": torch.arange(size)}
    return replace(case, options=options).cast(torch.float32)


def assert_gradients_near(case: Case, backend: str, tolerance: float) -> None:
    """Float32 gradients, relative to their own length however small that is."""
    found, truth = solve(case, backend, torch.float32), solve(case, "reference")
    for name in ("d_image", "d_text"):
        error = float((found[name] - truth[name]).norm() / truth[name].norm())
        assert error <= tolerance, f"{name} is off by {error:.2e} of its length"


def formula(case: Case) -> float:
    """The loss as `pathclip.loss.problem` and its sources spell it, in plain Python, sum by sum."""
    options = case.options or {}
    positives, even = options.get("positives", "diagonal"), options["label_smoothing"]
    rows, columns = range(len(case.image)), range(len(case.text))
    z = [[case.scale * float(case.image[i] @ case.text[j]) + case.bias for j in columns] for i in rows]
    own = options["targets"].tolist() if "targets" in options else list(rows)

    def match(i: int, j: int) -> bool:
        if j == own[i]:
            return True
        if positives == "diagonal":
            return False
        return any(
            int(a) == int(b) for a, b in zip(options["image_ids"][i], options["text_ids"][j], strict=True)
        )

    def visible(i: int, j: int) -> bool:
        return positives != "masked" or j == own[i] or not match(i, j)

    def positive(i: int, j: int) -> bool:
        return match(i, j) if positives == "shared" else j == own[i]

    if options["kind"] == "siglip":
        signs = [(z[i][j] if positive(i, j) else -z[i][j]) for i in rows for j in columns if visible(i, j)]
        return sum(math.log1p(math.exp(-x)) for x in signs) / len(rows)

    def cross_entropy(line: list[float], hits: list[float]) -> float:
        """Line: the visible logits; hits: those that share the target."""
        lse = math.log(sum(math.exp(x) for x in line))
        return lse - (1 - even) * sum(hits) / len(hits) - even * sum(line) / len(line)

    total = 0.0
    for i in rows:
        seen = [z[i][j] for j in columns if visible(i, j)]
        total += cross_entropy(seen, [z[i][j] for j in columns if positive(i, j)])
        j = own[i]  # the column that this row owns counts once for it, aimed at this row or shared
        hits = [z[k][j] for k in rows if match(k, j)] if positives == "shared" else [z[i][j]]
        total += cross_entropy([z[k][j] for k in rows if visible(k, j)], hits)
    return total / (2 * len(rows))
