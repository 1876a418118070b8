"""``map(function, tasks)`` on one machine or many, behind one call.

Tasks are whole units of work that are safe to repeat: one input chunk, one output shard, one slide.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Literal, NoReturn, TypeVar

from pathclip.core.errors import FaultError, UserError
from pathclip.core.ray_tasks import on_ray

__all__ = ["EngineName", "map"]

T = TypeVar("T")
R = TypeVar("R")
EngineName = Literal["serial", "processes", "ray"]
MAX_ATTEMPTS = 3


def map(
    function: Callable[[T], R],
    tasks: Iterable[T],
    *,
    engine: EngineName = "serial",
    workers: int | None = None,
    on_lost: Callable[[T], R] | None = None,
) -> Iterator[tuple[T, R]]:
    """Yield ``(task, function(task))`` for every task.

    ``serial`` keeps the order; the others yield as results come in, the earliest task first where several are
    in. An exception of ``function`` is raised here at once: functions that meet bad data return it as result.
    A worker that dies (killed, out of memory) is replaced and its task tried again, up to three times; with
    ``on_lost`` once, after which ``on_lost(task)`` is called here and gives the result.

    Args:
        function: Picklable for ``processes`` (a module-level function or a ``functools.partial`` of one).
        tasks: Picklable values; consumed lazily, so the queue stays short.
        engine: ``serial``, ``processes`` (spawned) or ``ray`` (at ``RAY_ADDRESS``, else a local cluster).
        workers: Processes to use; all cores by default.
        on_lost: What to do with a task that kills its workers, instead of raising.

    Raises:
        UserError: If the engine is unknown or not installed.
        FaultError: If a worker dies three times on one task.
    """
    if engine == "serial":
        for task in tasks:
            yield task, function(task)
    elif engine == "processes":
        yield from _processes(function, tasks, workers or os.cpu_count() or 1, on_lost)
    elif engine == "ray":
        attempts, lost = (2, on_lost) if on_lost else (MAX_ATTEMPTS, _give_up)
        yield from on_ray(function, tasks, workers=workers, attempts=attempts, lost=lost)
    else:
        raise UserError(f"unknown engine {engine!r}; known: serial, processes, ray")


def _processes(
    function: Callable[[T], R], tasks: Iterable[T], workers: int, on_lost: Callable[[T], R] | None
) -> Iterator[tuple[T, R]]:
    source = iter(tasks)
    while (suspects := (yield from _one_pool(function, source, workers))) is not None:
        # a worker died: tasks in flight are tried again, one to a pool, so that the guilty one is known
        for task in suspects:
            yield task, _alone(function, task, on_lost)


def _one_pool(
    function: Callable[[T], R], source: Iterator[T], workers: int
) -> Generator[tuple[T, R], None, list[T] | None]:
    """Work until the source ends (returns None) or a worker dies (returns the unfinished tasks)."""
    pending: dict[Future[R], T] = {}
    taken: list[T] = []
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        while True:
            taken = list(islice(source, 2 * workers - len(pending)))
            while taken:
                pending[pool.submit(function, taken[0])] = taken[0]
                taken.pop(0)
            if not pending:
                return None
            done = wait(pending, return_when=FIRST_COMPLETED).done
            for future in [f for f in pending if f in done]:  # in the order of the tasks: a set has none
                result = future.result()
                yield pending.pop(future), result
    except BrokenProcessPool:
        return [*pending.values(), *taken]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _alone(function: Callable[[T], R], task: T, on_lost: Callable[[T], R] | None) -> R:
    for _ in range(1 if on_lost else MAX_ATTEMPTS):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                return pool.submit(function, task).result()
            except BrokenProcessPool:
                continue
    return (on_lost or _give_up)(task)


def _give_up(task: object) -> NoReturn:
    raise FaultError(f"a worker process died {MAX_ATTEMPTS} times on the same task: {task!r:.200}")
