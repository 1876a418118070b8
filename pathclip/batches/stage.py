"""The next batch is put onto the GPU while this one is worked on."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

import torch

from pathclip.batches.batch import Batch

__all__ = ["ahead", "staged"]

T = TypeVar("T")


def staged(batches: Iterable[Batch], device: torch.device) -> Generator[Batch, None, None]:
    """The same batches; for a GPU with pictures and tokens already there, copied beside the computation."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)

    def move(batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        images = batch.images if batch.images.is_cuda else batch.images.pin_memory()  # decoded there, or here
        tokens = batch.tokens.pin_memory()
        with torch.cuda.stream(stream):
            moved = dataclasses.replace(
                batch,
                images=images.to(device, non_blocking=True),
                tokens=tokens.to(device, non_blocking=True),
            )
        return moved, stream.record_event()

    for batch, copied in ahead(batches, move):
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for tensor in (batch.images, batch.tokens):
            tensor.record_stream(current)
        yield batch


def ahead(items: Iterable[Batch], change: Callable[[Batch], T]) -> Generator[T, None, None]:
    """``change`` applied to each item in a thread, one ahead of the consumer, who gets its errors too."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def put(result: T | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put((result, error), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        source = iter(items)
        try:
            while not stopped.is_set():
                put(change(next(source)), None)
        except BaseException as error:  # handed over, whatever it is
            put(None, error)
        finally:
            if isinstance(source, Generator):
                source.close()

    thread = threading.Thread(target=work, name="stage", daemon=True)
    thread.start()
    try:
        while True:
            result, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield result  # type: ignore[misc]  # a result is there where no error is
    finally:
        stopped.set()
        thread.join()
