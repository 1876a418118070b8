"""`engine.map` on Ray core tasks: a cluster named by ``RAY_ADDRESS``, or one on this machine.

The machines of a cluster must see the same files under the same paths, and hold the same pathclip.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import ModuleType
from typing import Any, TypeVar

from pathclip.core.errors import FaultError
from pathclip.core.extras import require

__all__ = ["on_ray"]

T = TypeVar("T")
R = TypeVar("R")
KNOCK_S = 20.0


def on_ray(
    function: Callable[[T], R],
    tasks: Iterable[T],
    *,
    workers: int | None,
    attempts: int,
    lost: Callable[[T], R],
) -> Iterator[tuple[T, R]]:
    """Yield results as they come in; at most ``workers`` tasks (default: twice the CPUs) are out at a time.

    Ray repeats a task whose worker or machine dies; after ``attempts`` deaths its result is ``lost(task)``.

    Raises:
        UserError: If Ray is not installed.
        FaultError: If the cluster cannot be reached or started.
    """
    ray = require("ray", extra="ray", why="engine 'ray'")
    _connect(ray)
    at_once = workers or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    call = ray.remote(num_cpus=1, max_retries=attempts - 1, retry_exceptions=False)(_call)
    source, pending = iter(tasks), {}
    try:
        while True:
            pending |= {call.remote(function, task): task for task in islice(source, at_once - len(pending))}
            if not pending:
                return
            for reference in ray.wait(list(pending), num_returns=1)[0]:
                task = pending[reference]
                result = _result(ray, reference, task, lost)
                del pending[reference]
                yield task, result
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)


def _call(function: Callable[[T], R], task: T) -> R:
    return function(task)


def _result(ray: ModuleType, reference: Any, task: T, lost: Callable[[T], R]) -> R:
    try:
        return ray.get(reference)  # type: ignore[no-any-return]
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # what the function raised
    except ray.exceptions.RayError:
        return lost(task)


def _connect(ray: ModuleType) -> None:
    """Join the cluster, or start one that ends with this process; nothing is reported to Ray's makers."""
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = {} if address else {"include_dashboard": False}
    try:
        _knock(address or "local")
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, RuntimeError, ValueError) as error:
        place = f"the Ray cluster at {address} (RAY_ADDRESS)" if address else "a Ray cluster on this machine"
        raise FaultError(f"cannot reach or start {place}: {str(error).partition(chr(10))[0]}") from None


def _knock(address: str) -> None:
    """Fail at once where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), KNOCK_S).close()
