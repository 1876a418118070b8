"""Triton kernels of the loss: sums, maxima, coefficients and gradients over tiles of the logits.

Letters: B images, M texts, D width, K ids per sample. Features are contiguous (B, D) and (M, D) in the dtype
the tiles are multiplied in; products add up in float32. Index tensors are two-dimensional, one axis of
length 1, so that a tile may lie either way round: images down (sums, coefficients, d_image) or texts down
(d_text). Every kernel only writes what it owns: results do not depend on the order of the programs.

Importing this module imports triton; `pathclip.loss` does so only when the backend is chosen.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

__all__ = [
    "INTERPRETED",
    "coefficient_kernel",
    "gradient_kernel",
    "probe",
    "sums_kernel",
]


@triton.jit
def _products(
    a_in,
    b_in,
    a_first,
    b_first,
    a_rows,
    b_rows,
    D: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    TMA: tl.constexpr,
):
    """(BLOCK_A, BLOCK_B) products <a, b> in float32, of rows that follow each other.

    With TMA the features are descriptors, read from ``a_first`` and ``b_first`` on: what lies outside counts
    as 0. Else they are pointers, and rows are int32 and within bounds.
    """
    if not TMA:  # a feature's place may pass 2^31
        a_rows, b_rows = a_rows.to(tl.int64), b_rows.to(tl.int64)
    acc = tl.zeros((BLOCK_A, BLOCK_B), dtype=tl.float32)
    for start in range(0, D, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        if TMA:
            a = a_in.load([a_first, start])
            b = b_in.load([b_first, start]).T
        elif D % BLOCK_K == 0:
            a = tl.load(a_in + a_rows[:, None] * D + k[None, :])
            b = tl.load(b_in + b_rows[None, :] * D + k[:, None])
        else:
            a = tl.load(a_in + a_rows[:, None] * D + k[None, :], mask=k[None, :] < D, other=0.0)
            b = tl.load(b_in + b_rows[None, :] * D + k[:, None], mask=k[:, None] < D, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def _agree(image_ids_ptr, text_ids_ptr, i, j, num_rows, num_columns, K: tl.constexpr):
    """Which pairs agree in any of their K ids, int32 (K, B) and (K, M)."""
    agree = tl.load(image_ids_ptr + i) == tl.load(text_ids_ptr + j)
    for k in tl.static_range(1, K):
        agree |= tl.load(image_ids_ptr + k * num_rows + i) == tl.load(text_ids_ptr + k * num_columns + j)
    return agree


@triton.jit
def _sigmoid_terms(acc, scale_ptr, bias_ptr, positive):
    """-y z, the exponent of a pair's softplus."""
    z = acc * tl.load(scale_ptr) + tl.load(bias_ptr)
    return tl.where(positive, -z, z)


@triton.jit
def _coefficients(
    acc,
    i,
    j,
    inside,
    num_rows,
    num_columns,
    scale_ptr,
    bias_ptr,
    row_shift_ptr,
    column_shift_ptr,
    row_ptr,
    column_ptr,
    own_value_ptr,
    own_ptr,
    image_ids_ptr,
    text_ids_ptr,
    K: tl.constexpr,
    SIGLIP: tl.constexpr,
    MASKED: tl.constexpr,
    SHARED: tl.constexpr,
    SMOOTH: tl.constexpr,
    OWN_SHIFTS: tl.constexpr,
):
    """G of `pathclip.loss.infonce` (or of siglip) for a tile of products; 0 outside the matrix."""
    own = tl.load(own_ptr + i) == j
    match = own
    if MASKED or SHARED:
        match = own | _agree(image_ids_ptr, text_ids_ptr, i, j, num_rows, num_columns, K)
    if SIGLIP:
        positive = match if SHARED else own
        terms = _sigmoid_terms(acc, scale_ptr, bias_ptr, positive)
        g = 1.0 / (1.0 + tl.exp(-terms))
        g = tl.where(positive, -g, g)
    else:
        z = acc * tl.load(scale_ptr)
        by_row, by_column = tl.load(row_ptr + i), tl.load(column_ptr + j)
        if OWN_SHIFTS:
            g = tl.exp2(z - tl.load(row_shift_ptr + i)) * by_row
            g += tl.exp2(z - tl.load(column_shift_ptr + j)) * by_column
        else:
            g = tl.exp2(z - tl.load(row_shift_ptr)) * (by_row + by_column)
        if SHARED:
            share = tl.load(row_ptr + num_rows + i) + tl.load(column_ptr + num_columns + j)
            g -= tl.where(match, share, 0.0)
        if SMOOTH:
            last: tl.constexpr = 2 if SHARED else 1
            g -= tl.load(row_ptr + last * num_rows + i) + tl.load(column_ptr + last * num_columns + j)
    if MASKED:
        g = tl.where(match & (own == 0) if SIGLIP else match, 0.0, g)
    if not SIGLIP:
        g = tl.where(own, tl.load(own_value_ptr + i), g)
    return tl.where(inside, g, 0.0)


@triton.jit
def _inside(inside_rows, inside_columns, EVEN: tl.constexpr):
    """Which pairs of a tile lie in the matrix; EVEN: all of them, and the compiler drops the question."""
    if EVEN:
        return tl.full((inside_rows.shape[0], inside_columns.shape[0]), True, dtype=tl.int1)
    return inside_rows[:, None] & inside_columns[None, :]


@triton.jit
def _grouped(pid, num_down, num_across, GROUP: tl.constexpr):
    """Place of a program: groups of GROUP tiles down share what lies across while it is in the L2 cache."""
    group = pid // (GROUP * num_across)
    first = group * GROUP
    height = tl.minimum(num_down - first, GROUP)
    within = pid % (GROUP * num_across)
    return first + within % height, within // height


INTERPRETED = isinstance(_products, InterpretedFunction)  # TRITON_INTERPRET=1: kernels run on the CPU


@triton.jit(do_not_specialize=["first_row", "num_rows", "num_columns", "num_blocks", "num_spans"])
def sums_kernel(
    image_in,
    text_in,
    scale_ptr,
    bias_ptr,
    row_shift_ptr,
    column_shift_ptr,
    own_ptr,
    image_ids_ptr,
    text_ids_ptr,
    row_out_ptr,
    column_out_ptr,
    first_row,
    num_rows,
    num_columns,
    num_blocks,
    num_spans,
    D: tl.constexpr,
    K: tl.constexpr,
    SIGLIP: tl.constexpr,
    MASKED: tl.constexpr,
    SHARED: tl.constexpr,
    SMOOTH: tl.constexpr,
    OWN_SHIFTS: tl.constexpr,
    MAXIMA: tl.constexpr,
    PRECISION: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    TMA: tl.constexpr,
    FLATTEN: tl.constexpr,
):
    """Partial sums (or maxima) of rows over SPAN columns, and of columns over BLOCK_M rows.

    row_out is (slots, num_spans, num_blocks * BLOCK_M), column_out (slots, num_blocks, num_columns), both
    float32. Slots: exponentials of all but own pairs; under SHARED sum and count of matching logits; under
    SMOOTH of visible ones. Logits count in units of ln 2. SIGLIP fills rows only: sums of softplus and of
    coefficients.
    """
    block, span = _grouped(tl.program_id(0), num_blocks, num_spans, GROUP)
    first = first_row + block * BLOCK_M
    local = block * BLOCK_M + tl.arange(0, BLOCK_M)
    rows = first_row + local
    inside_rows = rows < num_rows
    i = tl.minimum(rows, num_rows - 1)
    own_column = tl.load(own_ptr + i)[:, None]
    factor = tl.load(scale_ptr)
    width = num_blocks * BLOCK_M
    row_sum = tl.zeros((BLOCK_M,), dtype=tl.float32)
    if MAXIMA:
        row_sum += -float("inf")
    row_hit = tl.zeros((BLOCK_M,), dtype=tl.float32)
    row_hits = tl.zeros((BLOCK_M,), dtype=tl.float32)
    row_seen = tl.zeros((BLOCK_M,), dtype=tl.float32)
    row_visible = tl.zeros((BLOCK_M,), dtype=tl.float32)
    stop = tl.minimum(span * SPAN + SPAN, num_columns)
    for start in tl.range(span * SPAN, stop, BLOCK_N, flatten=FLATTEN):
        columns = start + tl.arange(0, BLOCK_N)
        inside_columns = columns < num_columns
        j = tl.minimum(columns, num_columns - 1)
        inside = _inside(inside_rows, inside_columns, EVEN)
        acc = _products(image_in, text_in, first, start, i, j, D, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION, TMA)
        own = own_column == j[None, :]
        match = own
        visible, counted = inside, inside & (own == 0)
        if MASKED or SHARED:
            match = own | _agree(
                image_ids_ptr, text_ids_ptr, i[:, None], j[None, :], num_rows, num_columns, K
            )
        if MASKED:
            visible, counted = inside & (own | (match == 0)), inside & (match == 0)
        z = acc * factor
        column_at = column_out_ptr + block.to(tl.int64) * num_columns + columns
        slot = num_blocks.to(tl.int64) * num_columns
        if SIGLIP:
            positive = match if SHARED else own
            terms = _sigmoid_terms(acc, scale_ptr, bias_ptr, positive)
            small = tl.exp(-tl.abs(terms))
            more = 1.0 + small  # log1p as Kahan wrote it: log(1 + small) alone loses a small term's digits
            rest = tl.where(more == 1.0, 1.0, more - 1.0)
            softplus = tl.maximum(terms, 0.0) + tl.where(more == 1.0, small, tl.log(more) * (small / rest))
            sigmoid = tl.where(terms >= 0, 1.0, small) / (1.0 + small)
            row_sum += tl.sum(tl.where(visible, softplus, 0.0), 1)
            row_hit += tl.sum(tl.where(visible, tl.where(positive, -sigmoid, sigmoid), 0.0), 1)
        elif MAXIMA:
            z = tl.where(visible, z, -float("inf"))
            row_sum = tl.maximum(row_sum, tl.max(z, 1))
            tl.store(column_at, tl.max(z, 0), mask=inside_columns)
        else:
            if OWN_SHIFTS:
                e = tl.exp2(z - tl.load(row_shift_ptr + i)[:, None])
                row_sum += tl.sum(tl.where(counted, e, 0.0), 1)
                e = tl.exp2(z - tl.load(column_shift_ptr + j)[None, :])
                e = tl.where(counted, e, 0.0)
            else:
                e = tl.where(counted, tl.exp2(z - tl.load(row_shift_ptr)), 0.0)
                row_sum += tl.sum(e, 1)
            tl.store(column_at, tl.sum(e, 0), mask=inside_columns)
            if SHARED:
                hit = tl.where(match & inside, z, 0.0)
                hits = tl.where(match & inside, 1.0, 0.0)
                row_hit += tl.sum(hit, 1)
                row_hits += tl.sum(hits, 1)
                tl.store(column_at + slot, tl.sum(hit, 0), mask=inside_columns)
                tl.store(column_at + 2 * slot, tl.sum(hits, 0), mask=inside_columns)
            if SMOOTH:
                seen = tl.where(visible, z, 0.0)
                count = tl.where(visible, 1.0, 0.0)
                row_seen += tl.sum(seen, 1)
                row_visible += tl.sum(count, 1)
                last: tl.constexpr = 3 if SHARED else 1
                tl.store(column_at + last * slot, tl.sum(seen, 0), mask=inside_columns)
                tl.store(column_at + (last + 1) * slot, tl.sum(count, 0), mask=inside_columns)
    row_at = row_out_ptr + span.to(tl.int64) * width + local
    row_slot = num_spans.to(tl.int64) * width
    tl.store(row_at, row_sum)
    if SIGLIP or SHARED:
        tl.store(row_at + row_slot, row_hit)
    if SHARED and not SIGLIP:
        tl.store(row_at + 2 * row_slot, row_hits)
    if SMOOTH:
        first_even: tl.constexpr = 3 if SHARED else 1
        tl.store(row_at + first_even * row_slot, row_seen)
        tl.store(row_at + (first_even + 1) * row_slot, row_visible)


@triton.jit(
    do_not_specialize=["first_row", "last_row", "first_column", "last_column", "num_rows", "num_columns"]
)
def coefficient_kernel(
    image_in,
    text_in,
    scale_ptr,
    bias_ptr,
    row_shift_ptr,
    column_shift_ptr,
    row_ptr,
    column_ptr,
    own_value_ptr,
    own_ptr,
    image_ids_ptr,
    text_ids_ptr,
    out,
    first_row,
    last_row,
    first_column,
    last_column,
    num_rows,
    num_columns,
    out_stride,
    D: tl.constexpr,
    K: tl.constexpr,
    SIGLIP: tl.constexpr,
    MASKED: tl.constexpr,
    SHARED: tl.constexpr,
    SMOOTH: tl.constexpr,
    OWN_SHIFTS: tl.constexpr,
    PRECISION: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    TMA: tl.constexpr,
    TMA_OUT: tl.constexpr,
):
    """G of rows [first_row, last_row) and columns [first_column, last_column), in out's dtype."""
    num_down = tl.cdiv(last_row - first_row, BLOCK_M)
    num_across = tl.cdiv(last_column - first_column, BLOCK_N)
    down, across = _grouped(tl.program_id(0), num_down, num_across, GROUP)
    local_rows = down * BLOCK_M + tl.arange(0, BLOCK_M)
    local_columns = across * BLOCK_N + tl.arange(0, BLOCK_N)
    rows, columns = first_row + local_rows, first_column + local_columns
    inside = _inside(rows < last_row, columns < last_column, EVEN)
    i, j = tl.minimum(rows, last_row - 1), tl.minimum(columns, last_column - 1)
    row, column = first_row + down * BLOCK_M, first_column + across * BLOCK_N
    acc = _products(image_in, text_in, row, column, i, j, D, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION, TMA)
    g = _coefficients(
        acc,
        i[:, None],
        j[None, :],
        inside,
        num_rows,
        num_columns,
        scale_ptr,
        bias_ptr,
        row_shift_ptr,
        column_shift_ptr,
        row_ptr,
        column_ptr,
        own_value_ptr,
        own_ptr,
        image_ids_ptr,
        text_ids_ptr,
        K,
        SIGLIP,
        MASKED,
        SHARED,
        SMOOTH,
        OWN_SHIFTS,
    )
    if TMA_OUT:
        out.store([down * BLOCK_M, across * BLOCK_N], g.to(out.dtype))
    else:
        at = out + local_rows.to(tl.int64)[:, None] * out_stride + local_columns[None, :]
        tl.store(at, g.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["num_rows", "num_columns"])
def gradient_kernel(
    image_in,
    text_in,
    scale_ptr,
    bias_ptr,
    row_shift_ptr,
    column_shift_ptr,
    row_ptr,
    column_ptr,
    own_value_ptr,
    own_ptr,
    image_ids_ptr,
    text_ids_ptr,
    out_ptr,
    num_rows,
    num_columns,
    D: tl.constexpr,
    K: tl.constexpr,
    SIGLIP: tl.constexpr,
    MASKED: tl.constexpr,
    SHARED: tl.constexpr,
    SMOOTH: tl.constexpr,
    OWN_SHIFTS: tl.constexpr,
    PRECISION: tl.constexpr,
    TEXT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """G T (for TEXT, G^T I) without ever storing G: (B or M, D) float32, a program per strip of rows."""
    num_a = num_columns if TEXT else num_rows
    num_b = num_rows if TEXT else num_columns
    a_ptr = text_in if TEXT else image_in
    b_ptr = image_in if TEXT else text_in
    a_all = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    a = tl.minimum(a_all, num_a - 1)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    for start in range(0, num_b, BLOCK_N):
        b_all = start + tl.arange(0, BLOCK_N)
        b = tl.minimum(b_all, num_b - 1)
        acc = _products(a_ptr, b_ptr, 0, 0, a, b, D, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION, False)
        i = b[None, :] if TEXT else a[:, None]
        j = a[:, None] if TEXT else b[None, :]
        g = _coefficients(
            acc,
            i,
            j,
            (b_all < num_b)[None, :] & (a_all < num_a)[:, None],
            num_rows,
            num_columns,
            scale_ptr,
            bias_ptr,
            row_shift_ptr,
            column_shift_ptr,
            row_ptr,
            column_ptr,
            own_value_ptr,
            own_ptr,
            image_ids_ptr,
            text_ids_ptr,
            K,
            SIGLIP,
            MASKED,
            SHARED,
            SMOOTH,
            OWN_SHIFTS,
        )
        features = tl.load(b_ptr + b[:, None].to(tl.int64) * D + d[None, :], mask=d[None, :] < D, other=0.0)
        total = tl.dot(g.to(features.dtype), features, total, input_precision=PRECISION)
    at = out_ptr + a[:, None].to(tl.int64) * D + d[None, :]
    tl.store(at, total, mask=(a_all < num_a)[:, None] & (d < D)[None, :])


@triton.jit
def _probe_kernel(out_ptr, BLOCK: tl.constexpr):
    a = tl.full((BLOCK, BLOCK), 1.0, dtype=tl.float32)
    at = tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.sum(tl.dot(a, a), 0))


def probe(device: torch.device) -> bool:
    """Whether triton compiles, launches and computes on a device."""
    out = torch.zeros(16, device=device)
    with torch.cuda.device_of(out):
        _probe_kernel[(1,)](out, BLOCK=16)
    return bool((out == 256).all())
