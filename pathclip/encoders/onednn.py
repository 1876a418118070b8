"""Matrix products by oneDNN where torch's own are slow: on AMD CPUs.

For float32 on x86 torch multiplies with MKL, which leaves AMD CPUs on a slow path: on two cores of a Zen 5 a
layer of ViT-B/32 runs at 215 GFLOP/s there and at 465 by oneDNN, which torch has in it too and takes for
convolutions and bfloat16. Both are float32 throughout; sums are ordered otherwise, so the last bits differ.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["OneDnnAttention", "OneDnnLinear", "linear", "pays", "use_onednn"]


@cache
def pays() -> bool:
    """Whether this machine multiplies faster by oneDNN: an AMD CPU under a torch that has MKL and oneDNN."""
    built = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return built and hasattr(torch.ops.mkldnn, "_linear_pointwise") and "AuthenticAMD" in _cpu()


def use_onednn(model: nn.Module) -> nn.Module:
    """Have the plain linear and attention layers of a model multiply by oneDNN; parameters stay as they are.

    Args:
        model: Changed in place: layers of exactly the classes ``nn.Linear`` and ``nn.MultiheadAttention``.

    Returns:
        The model.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear
        elif type(module) is nn.MultiheadAttention:
            module.__class__ = OneDnnAttention
    return model


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: by oneDNN for float32 on the CPU, by torch otherwise; differentiable.

    Args:
        x: (..., K).
        weight: (N, K).
        bias: (N,).

    Returns:
        (..., N).
    """
    if not _fits(x, weight, bias):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias)
    return _product(x, weight, bias)


class OneDnnLinear(nn.Linear):
    """``nn.Linear`` that multiplies by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        return linear(input, self.weight, self.bias)


class OneDnnAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` that multiplies by `linear` where a tower attends to itself; else torch's."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``nn.MultiheadAttention``."""
        if need_weights or key_padding_mask is not None or not self._attends_to_itself(query, key, value):
            return super().forward(
                query,
                key,
                value,
                key_padding_mask=key_padding_mask,
                need_weights=need_weights,
                attn_mask=attn_mask,
                average_attn_weights=average_attn_weights,
                is_causal=is_causal,
            )
        qkv = linear(query, self.in_proj_weight, self.in_proj_bias)  # (B, T, 3 D)
        heads = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(
            2, 0, 3, 1, 4
        )  # (3, B, heads, T, D / heads)
        if attn_mask is not None and attn_mask.ndim == 3:
            attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = ~attn_mask  # True forbids here, and allows in scaled_dot_product_attention
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=attn_mask, dropout_p=dropout)
        return linear(mixed.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias), None

    def _attends_to_itself(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        plain = (
            self.batch_first and self._qkv_same_embed_dim and self.bias_k is None and not self.add_zero_attn
        )
        alone = query is key and key is value and query.ndim == 3
        return plain and alone and _fits(query, self.in_proj_weight, self.in_proj_bias)


class _Linear(torch.autograd.Function):
    """The product and its gradients, all three by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])  # (M, N)
        grad_x = _product(grad, weight.t(), None) if need_x else None
        grad_weight = _product(rows.t(), x.reshape(-1, x.shape[-1]).t(), None) if need_weight else None
        return grad_x, grad_weight, rows.sum(0) if need_bias else None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _fits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN takes these: float32 with memory on the CPU, and nobody watches or recasts the call."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and (bias is None or bias.dtype == torch.float32)
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _cpu() -> str:
    """What names the CPU's maker: Linux keeps it in a file, Windows in the environment."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.is_file() else os.environ.get("PROCESSOR_IDENTIFIER", "")
