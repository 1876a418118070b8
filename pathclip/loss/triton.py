"""The loss on a GPU with fused kernels: the logits live in a tile's registers and are never stored whole.

Forward: one pass of tiles gives row and column sums in two stages (partial sums, then a plain sum), which is
deterministic and needs no atomics. Backward: for each block of the logits a kernel writes the coefficients G
in the dtype of the operands, and two plain matrix products turn them into both gradients (4 N^2 D flop each
way in all); or two kernels compute G again on the fly and store nothing of size N^2 (5 products instead of
4). `_stores_coefficients` chooses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pathclip.loss import kernels
from pathclip.loss.infonce import LOG2E, Coefficients, Shifts
from pathclip.loss.infonce import infonce as _infonce
from pathclip.loss.problem import Problem
from pathclip.loss.tiles import Kernel, Tile, Work, choose_tile, descriptor, interpreted_tile

__all__ = ["infonce", "siglip"]

PARTIAL_BYTES = 64 << 20  # partial sums of columns held at once; more rows go in several launches
WORKSPACE_BYTES = 256 << 20  # coefficients held at once
BLOCK_ROWS = 16384  # of a block of coefficients: enough for its products to run at full speed
MIN_BLOCK = 1024  # rows and columns below which a block's products would run at the speed of memory


def infonce(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem) -> Tensor:
    """Same value and gradients as `pathclip.loss.reference.infonce`; the bias's gradient is zero."""
    return _infonce(image, text, scale, bias, _small_ids(problem), Fused())


def siglip(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem) -> Tensor:
    """Same value and gradients as `pathclip.loss.reference.siglip`."""
    return _Siglip.apply(image, text, scale, bias, _small_ids(problem))


def _small_ids(problem: Problem) -> Problem:
    """The same problem with int32 numbers for its ids: half the registers of a tile that compares them."""
    if problem.image_ids is None or problem.text_ids is None:
        return problem
    count = len(problem.image_ids)
    numbers = [
        torch.cat(both).unique(return_inverse=True)[1].int()
        for both in zip(problem.image_ids.T, problem.text_ids.T, strict=True)
    ]
    image_ids, text_ids = (torch.stack([n[part] for n in numbers], 1) for part in _halves(count))
    return replace(problem, image_ids=image_ids, text_ids=text_ids)


def _halves(count: int) -> tuple[slice, slice]:
    return slice(count), slice(count, None)


class Fused:
    """The three walks of `pathclip.loss.infonce`."""

    def sums(
        self, image: Tensor, text: Tensor, scale: Tensor, problem: Problem, shifts: Shifts, keep: bool
    ) -> tuple[Tensor, Tensor, None]:
        tiles = _Tiles(image, text, scale * LOG2E, problem, shifts=shifts)
        rows, columns = tiles.sums(1 + 2 * problem.shared + 2 * bool(problem.smoothing))
        for part in (rows, columns):
            part[1::2] /= LOG2E  # sums of logits, which the kernel counts in units of ln 2
        return rows, columns, None

    def maxima(self, image: Tensor, text: Tensor, scale: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        rows, columns = _Tiles(image, text, scale * LOG2E, problem).sums(1, maxima=True)
        return rows[0] / LOG2E, columns[0] / LOG2E

    def gradients(
        self,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        problem: Problem,
        shifts: Shifts,
        coefficients: Coefficients,
        kept: None,
        factor: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        tiles = _Tiles(image, text, scale * LOG2E, problem, shifts=shifts, coefficients=coefficients)
        return tiles.gradients(scale, factor)


class _Siglip(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, problem: Problem
    ) -> Tensor:
        image, text = image.contiguous(), text.contiguous()
        rows, _ = _Tiles(image, text, scale, problem, bias=bias).sums(2)
        ctx.save_for_backward(image, text, scale, bias, rows[1].sum())
        ctx.problem = problem
        return rows[0].sum() * (problem.factor / problem.total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, text, scale, bias, d_bias = ctx.saved_tensors
        factor = grad * (ctx.problem.factor / ctx.problem.total)
        with torch.autocast(image.device.type, enabled=False):
            gradients = _Tiles(image, text, scale, ctx.problem, bias=bias).gradients(scale, factor)
        return *gradients, d_bias * factor, None


class _Tiles:
    """One problem as the kernels want it.

    Args:
        image: (B, D), contiguous, in the dtype of the operands.
        text: (M, D), likewise.
        factor: Scalar float32 that products are multiplied with.
        problem: Who matches whom.
        bias: Given for siglip only.
        shifts: What is taken off the logits; absent for maxima and siglip.
        coefficients: What G is made of; needed for gradients of infonce.
    """

    def __init__(
        self,
        image: Tensor,
        text: Tensor,
        factor: Tensor,
        problem: Problem,
        *,
        bias: Tensor | None = None,
        shifts: Shifts | None = None,
        coefficients: Coefficients | None = None,
    ) -> None:
        self.image, self.text, self.problem = image, text, problem
        self._descriptors: dict[Tile, tuple[Any, Any]] = {}
        nothing = factor  # stands where a kernel takes a pointer that it will not read
        ids = problem.image_ids
        self.shifts = Shifts(nothing, nothing) if shifts is None else Shifts(*(x * LOG2E for x in shifts))
        self.inputs = (factor, nothing if bias is None else bias, *self.shifts)
        self.coefficients = (nothing, nothing, nothing) if coefficients is None else coefficients
        own = problem.own.int()
        self.pairs = (own, *(own if x is None else x.T.contiguous() for x in (ids, problem.text_ids)))
        self.flags = {
            "D": image.shape[1],
            "K": 1 if ids is None else ids.shape[1],
            "SIGLIP": bias is not None,
            "MASKED": problem.masked,
            "SHARED": problem.shared,
            "SMOOTH": bool(problem.smoothing),
            "OWN_SHIFTS": not self.shifts.common,
            "PRECISION": problem.precision if image.dtype == torch.float32 else "ieee",
        }

    def tile(self, kernel: Kernel) -> Tile:
        """The shape a kernel takes for this problem."""
        if kernels.INTERPRETED:
            return interpreted_tile(kernel)
        more = {
            "count": self.flags["SMOOTH"] or (self.flags["SHARED"] and not self.flags["SIGLIP"]),
            "compare": any(self.flags[name] for name in ("SIGLIP", "MASKED", "SHARED", "OWN_SHIFTS")),
        }
        work: Work = "count" if more["count"] else "compare" if more["compare"] else "plain"
        return choose_tile(kernel, self.image, work)

    def _features(self, tile: Tile) -> tuple[Any, Any]:
        """Images and texts as a kernel takes them: pointers, or descriptors of a tile's reads."""
        if not tile.tma:
            return self.image, self.text
        if tile not in self._descriptors:
            both = descriptor(self.image, tile.m, tile.k), descriptor(self.text, tile.n, tile.k)
            self._descriptors[tile] = both
        return self._descriptors[tile]

    def sums(self, slots: int, *, maxima: bool = False) -> tuple[Tensor, Tensor]:
        """(slots, B) and (slots, M) sums, or maxima; the columns are empty for siglip."""
        num_rows, num_columns = len(self.image), len(self.text)
        tile = self.tile("sums")
        block = tile.m
        num_spans = -(-num_columns // tile.span)
        even = num_rows % block == 0 and num_columns % tile.n == 0
        per_launch = max(1, PARTIAL_BYTES // (4 * slots * num_columns))
        siglip = self.flags["SIGLIP"]
        flags = self.flags | ({"SHARED": False, "SMOOTH": False} if maxima else {})  # they change sums only
        new = {"dtype": torch.float32, "device": self.image.device}
        all_rows, columns = [], None
        for first in range(0, num_rows, per_launch * block):
            num_blocks = min(per_launch, -(-(num_rows - first) // block))
            row_out = torch.empty(slots, num_spans, num_blocks * block, **new)
            column_out = torch.empty((1, 1, 1) if siglip else (slots, num_blocks, num_columns), **new)
            with torch.cuda.device_of(self.image):
                kernels.sums_kernel[(num_blocks * num_spans,)](
                    *self._features(tile),
                    *self.inputs,
                    *self.pairs,
                    row_out,
                    column_out,
                    first,
                    num_rows,
                    num_columns,
                    num_blocks,
                    num_spans,
                    **flags,
                    MAXIMA=maxima,
                    EVEN=even,
                    **tile.options("sums"),
                )
            all_rows.append(row_out.amax(1) if maxima else row_out.sum(1))
            part = column_out.amax(1) if maxima else column_out.sum(1)
            columns = part if columns is None else torch.maximum(columns, part) if maxima else columns + part
        return torch.cat(all_rows, 1)[:, :num_rows].contiguous(), columns

    def gradients(self, scale: Tensor, factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both gradients, s factor G T and s factor G^T I, in the operands' dtype; and factor <G T, I>."""
        store = _stores_coefficients(self.image, self.text, self.problem)
        d_text = torch.zeros_like(self.text, dtype=torch.float32)
        d_image, d_scale = torch.empty_like(self.image), torch.zeros_like(factor)
        for rows, part in self._by_products(d_text) if store else self._by_strips(d_text):
            d_scale += (part * self.image[rows]).sum()
            d_image[rows] = part.mul_(factor * scale)
        return d_image, d_text.mul_(factor * scale).to(self.text.dtype), factor * d_scale

    def _by_products(self, d_text: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their part of G T, a block of coefficients at a time; fills d_text with G^T I."""
        num_rows, num_columns = len(self.image), len(self.text)
        height, width = _block(self.image, self.text)
        workspace = self.image.new_empty(height * width)
        for rows in _cut(num_rows, height):
            d_rows = torch.zeros_like(self.image[rows], dtype=torch.float32)
            for columns in _cut(num_columns, width):
                shape = (rows.stop - rows.start, columns.stop - columns.start)
                g = workspace[: shape[0] * shape[1]].view(shape)
                self._coefficients(g, rows, columns)
                _add_product(d_rows, g, self.text[columns])
                _add_product(d_text[columns], g.T, self.image[rows])
            yield rows, d_rows

    def _coefficients(self, out: Tensor, rows: slice, columns: slice) -> None:
        height, width = out.shape
        tile = self.tile("coefficients")
        by_descriptor = tile.tma and width * out.element_size() % 16 == 0
        with torch.cuda.device_of(self.image):
            kernels.coefficient_kernel[(-(-height // tile.m) * -(-width // tile.n),)](
                *self._features(tile),
                *self.inputs,
                *self.coefficients,
                *self.pairs,
                descriptor(out, tile.m, tile.n) if by_descriptor else out,
                rows.start,
                rows.stop,
                columns.start,
                columns.stop,
                len(self.image),
                len(self.text),
                width,
                **self.flags,
                EVEN=by_descriptor or (height % tile.m == 0 and width % tile.n == 0),
                TMA_OUT=by_descriptor,
                **tile.options("coefficients"),
            )

    def _by_strips(self, d_text: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """As `_by_products`, with kernels that compute G again and store none of it."""
        d_image = torch.empty_like(self.image, dtype=torch.float32)
        tile = self.tile("strips")
        for out, is_text in ((d_image, False), (d_text, True)):
            with torch.cuda.device_of(self.image):
                kernels.gradient_kernel[(-(-len(out) // tile.m), -(-out.shape[1] // tile.d))](
                    self.image,
                    self.text,
                    *self.inputs,
                    *self.coefficients,
                    *self.pairs,
                    out,
                    len(self.image),
                    len(self.text),
                    **self.flags,
                    TEXT=is_text,
                    **tile.options("strips"),
                )
        for rows in _cut(len(d_image), BLOCK_ROWS):
            yield rows, d_image[rows]


def _cut(count: int, step: int) -> list[slice]:
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]


def _block(image: Tensor, text: Tensor) -> tuple[int, int]:
    """Rows and columns of a block of coefficients."""
    height = min(BLOCK_ROWS, len(image))
    return height, min(len(text), WORKSPACE_BYTES // (height * image.element_size()))


def _stores_coefficients(image: Tensor, text: Tensor, problem: Problem) -> bool:
    """Whether blocks are large enough, and torch's products as precise as asked."""
    torch_precision = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    faithful = image.dtype != torch.float32 or problem.precision == torch_precision
    return faithful and _block(image, text)[1] >= min(MIN_BLOCK, len(text))


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a @ b to float32 ``total``, added up in float32 whatever the operands' dtype."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    elif a.is_cuda and "dtype_out" in torch.ops.aten.addmm.overloads():  # torch >= 2.8
        torch.ops.aten.addmm.dtype_out(total, a, b, torch.float32, out=total)
    elif a.is_cuda:
        total += a @ b
    else:
        total.addmm_(a.float(), b.float())
