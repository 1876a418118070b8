"""Which windows of shards are here for the batches under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pathclip.batches.windowed import WindowedOrder
from pathclip.shards import ShardWindow

__all__ = ["Held"]

MOST = 2  # windows of a dataset at a time: the one read from and the next; more where one batch spans more


class Held:
    """Wants windows as batches begin and drops them as batches end, the next one always on its way.

    Args:
        order: Says which windows a batch reads from.
        shards: Fetches and removes.
    """

    def __init__(self, order: WindowedOrder, shards: ShardWindow) -> None:
        self.order, self.shards = order, shards
        self._spans: deque[dict[int, tuple[int, int]]] = deque()  # of batches under way
        self._here: dict[int, range] = {}  # of each dataset

    def enter(self, start: int, stop: int) -> Callable[[], None]:
        """A batch of these positions begins; returns what waits until its shards are here."""
        span = self.order.needed(start, stop)
        self._spans.append(span)
        self._let_go()
        needed = []
        for dataset, (first, last) in span.items():
            here = self._here.setdefault(dataset, range(first, first))
            for window in range(here.stop, last + 1):
                self.shards.want(self.order.shards(dataset, window))
            self._here[dataset] = range(here.start, max(here.stop, last + 1))
            needed += [s for window in range(first, last + 1) for s in self.order.shards(dataset, window)]
        self._look_ahead()
        return lambda: self.shards.wait(needed)

    def leave(self) -> None:
        """The oldest batch under way has ended."""
        self._spans.popleft()
        self._let_go()
        self._look_ahead()

    def _let_go(self) -> None:
        for dataset, here in self._here.items():
            oldest = next((span[dataset][0] for span in self._spans if dataset in span), here.start)
            for window in range(here.start, min(oldest, here.stop)):
                self.shards.drop(self.order.shards(dataset, window))
            self._here[dataset] = range(max(here.start, oldest), max(here.stop, oldest))

    def _look_ahead(self) -> None:
        for dataset, here in self._here.items():
            if len(here) < MOST:
                self.shards.want(self.order.shards(dataset, here.stop))
                self._here[dataset] = range(here.start, here.stop + 1)
