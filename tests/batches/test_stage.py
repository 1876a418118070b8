from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from pathclip.batches import Batch, staged
from pathclip.batches.stage import ahead


def numbered(count: int, closed: list[bool] | None = None) -> Iterator[Batch]:
    try:
        for number in range(count):
            one = torch.tensor([number])
            yield Batch(one, one, one, one, [str(number)])
    finally:
        if closed is not None:
            closed.append(True)


def test_order_is_kept_and_the_change_is_made_in_another_thread() -> None:
    seen = list(ahead(numbered(5), lambda b: (b.keys[0], threading.current_thread().name)))
    assert seen == [(str(n), "stage") for n in range(5)]


def test_an_error_of_the_source_reaches_the_consumer_after_what_came_before() -> None:
    def broken() -> Iterator[Batch]:
        yield from numbered(2)
        raise OSError("gone")

    stream = ahead(broken(), lambda b: b.keys[0])
    assert [next(stream), next(stream)] == ["0", "1"]
    with pytest.raises(OSError, match="gone"):
        next(stream)


def test_a_consumer_that_leaves_ends_the_thread_and_closes_the_source() -> None:
    closed: list[bool] = []
    stream = ahead(numbered(100, closed), lambda b: b)
    next(stream)
    stream.close()
    assert closed == [True]
    assert not any(thread.name == "stage" for thread in threading.enumerate())


def test_on_the_cpu_batches_pass_as_they_are() -> None:
    batches = list(numbered(3))
    assert all(a is b for a, b in zip(staged(batches, torch.device("cpu")), batches, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_batches_arrive_whole() -> None:
    device = torch.device("cuda")
    got = [(b.images.item(), b.images.device.type) for b in staged(numbered(20), device)]
    assert got == [(n, "cuda") for n in range(20)]
