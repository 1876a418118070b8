"""Ranks of a gloo group together equal one process with the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor

from pathclip.core.errors import UserError
from pathclip.loss import contrastive_loss

BACKENDS = ("reference", "chunked")
SHARES = {2: (5, 3), 3: (4, 1, 6), 4: (2, 5, 1, 3)}
CASES: list[dict[str, Any]] = [
    {"positives": "masked"},
    {"positives": "shared", "label_smoothing": 0.1},
    {"positives": "diagonal"},
    {"positives": "masked", "kind": "siglip"},
    {"positives": "masked", "scale": 100.0, "stretch": 50.0},  # the shift's guarantee fails
]


def whole_batch(count: int, stretch: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image, text = (
        F.normalize(torch.randn(count, 8, generator=generator, dtype=torch.float64), dim=1) for _ in "it"
    )
    return stretch * image, text, torch.randint(0, 5, (count, 2), generator=generator)


def solve(image: Tensor, text: Tensor, same: Tensor, case: dict[str, Any], group: Any = None) -> list[Tensor]:
    """Loss, dI, dT, dscale, dbias."""
    image, text = image.clone().requires_grad_(), text.clone().requires_grad_()
    choices = {k: v for k, v in case.items() if k not in ("scale", "stretch")}
    scale = torch.tensor(case.get("scale", 7.0), dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    loss = contrastive_loss(
        image, text, scale, bias=bias, image_ids=same, text_ids=same, process_group=group, **choices
    )
    return [loss.detach(), *torch.autograd.grad(loss, (image, text, scale, bias))]


def one_rank(rank: int, folder: str) -> None:
    """Solves every case in the groups of the first 2, 3 and 4 ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=max(SHARES))
    for world, shares in SHARES.items():
        group = dist.new_group(list(range(world)))
        if rank >= world:
            continue
        start = sum(shares[:rank])
        share = slice(start, start + shares[rank])
        results = []
        for case in CASES:
            image, text, same = whole_batch(sum(shares), case.get("stretch", 1.0))
            mine = (image[share], text[share], same[share])
            results += [solve(*mine, {**case, "backend": backend}, group) for backend in BACKENDS]
        torch.save(results, f"{folder}/{world}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(one_rank, (str(folder),), nprocs=max(SHARES))
    return folder


@pytest.mark.parametrize("world", SHARES)
def test_ranks_with_unequal_shares_equal_one_rank(world: int, results: Path) -> None:
    ranks = [torch.load(results / f"{world}-{r}.pt", weights_only=True) for r in range(world)]
    number = 0
    for case in CASES:
        image, text, same = whole_batch(sum(SHARES[world]), case.get("stretch", 1.0))
        loss, d_image, d_text, d_scale, d_bias = solve(image, text, same, case)
        for _ in BACKENDS:
            parts = [rank[number] for rank in ranks]
            number += 1
            # what DDP does: the mean over ranks. A rank's features reach only its own encoder's output.
            close = {"rtol": 1e-9, "atol": 1e-12}
            assert torch.allclose(torch.stack([p[0] for p in parts]).mean(), loss, **close)
            assert torch.allclose(torch.cat([p[1] for p in parts]) / world, d_image, **close)
            assert torch.allclose(torch.cat([p[2] for p in parts]) / world, d_text, **close)
            assert torch.allclose(torch.stack([p[3] for p in parts]).mean(), d_scale, **close)
            assert torch.allclose(torch.stack([p[4] for p in parts]).mean(), d_bias, **close)


def test_a_group_without_torch_distributed_is_named() -> None:
    x = torch.eye(2)
    with pytest.raises(UserError, match=r"torch\.distributed is not initialised"):
        contrastive_loss(x, x, 1.0, process_group=object())  # type: ignore[arg-type]
