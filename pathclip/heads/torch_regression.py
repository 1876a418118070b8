"""scikit-learn's multinomial logistic regression on a device of torch: the same loss, the same optimum.

Legend: N samples, D features, C classes.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["TorchRegression"]


class TorchRegression:
    """``LogisticRegression(C=c, class_weight="balanced")`` by L-BFGS over all samples at once, in float64.

    Minimises ``c * sum of weighted cross-entropies + half the squared weights``; the bias is free. Of two
    classes one column is fitted, as scikit-learn does, for the penalty of two would be half as strong.

    Args:
        c: Inverse strength of the penalty.
        iterations: At most so many steps.
        tolerance: On the gradient of the mean loss.
        device: Where it runs.

    Attributes:
        classes_: (C,) sorted.
        coef_: (C, D), or (1, D) of two classes.
        intercept_: (C,), or (1,).
    """

    def __init__(self, c: float, iterations: int, tolerance: float, device: str) -> None:
        self.c, self.iterations, self.tolerance, self.device = c, iterations, tolerance, device
        self.classes_: NDArray[Any]
        self.coef_: NDArray[np.float64]
        self.intercept_: NDArray[np.float64]

    def fit(self, rows: NDArray[np.float64], truth: NDArray[Any]) -> Self:
        """Fit; returns itself."""
        self.classes_, codes, counts = np.unique(truth, return_inverse=True, return_counts=True)
        x = torch.from_numpy(np.ascontiguousarray(rows)).to(self.device)
        y = torch.from_numpy(codes.astype(np.int64)).to(self.device)
        balanced = torch.from_numpy(len(truth) / (len(counts) * counts)).to(self.device)
        columns = len(counts) if len(counts) > 2 else 1
        weight = torch.zeros(columns, x.shape[1], dtype=torch.float64, device=self.device, requires_grad=True)
        bias = torch.zeros(columns, dtype=torch.float64, device=self.device, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=self.iterations,
            tolerance_grad=self.tolerance,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            each = torch.nn.functional.cross_entropy(_logits(x, weight, bias), y, reduction="none")
            value = (balanced[y] * each).mean() + (weight**2).sum() / (2 * self.c * len(x))
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[arg-type]
        self.coef_, self.intercept_ = weight.detach().cpu().numpy(), bias.detach().cpu().numpy()
        return self

    def predict(self, rows: NDArray[np.float64]) -> NDArray[Any]:
        """The likeliest class of each row."""
        scores = rows @ self.coef_.T + self.intercept_
        best = scores.argmax(axis=1) if len(self.classes_) > 2 else (scores[:, 0] > 0).astype(int)
        chosen: NDArray[Any] = self.classes_[best]
        return chosen


def _logits(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    scores = x @ weight.T + bias
    return scores if len(bias) > 1 else torch.cat([torch.zeros_like(scores), scores], dim=1)
