"""What a process holds when blocks of memory are taken and given back in some order: glibc's malloc."""

from __future__ import annotations

from bisect import bisect_left, insort

__all__ = ["Heap"]

KIB, MIB = 1 << 10, 1 << 20
MAPPED_FROM, MAPPED_FROM_AT_MOST = 128 * KIB, 32 * MIB  # M_MMAP_THRESHOLD at the start, and its bound
ALIGNMENT = 64  # of torch's tensors
HEADER = 16  # bytes before a block, in which its size stands
SLACK = 96  # a hole must be larger by this: posix_memalign looks for one in which it can align, then cuts it


class Heap:
    """Counts bytes; touches none.

    Large blocks are mapped and returned one by one. Smaller ones come from one growing stretch, which shrinks
    from its end only: a hole in it stays with the process until a block fits in. The bound between the two
    rises to the size of the largest mapped block that was given back, up to 32 MiB.

    Attributes:
        held: Bytes the process has now.
        peak: The most it had.

    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD; best fit, as in glibc's ``_int_malloc``.
    """

    def __init__(self) -> None:
        self.held = self.peak = 0
        self._mapped_from = MAPPED_FROM
        self._end = self._reach = 0  # of the last block, and of what the process holds of the stretch
        self._holes: list[tuple[int, int]] = []  # (bytes, start), sorted
        self._starts: dict[int, int] = {}  # start -> bytes
        self._ends: dict[int, int] = {}  # end -> start
        self._mapped = 0

    def take(self, num_bytes: int) -> tuple[int | None, int]:
        """A block: where it starts in the stretch (None if mapped), and its size."""
        size = -(-(num_bytes + HEADER) // ALIGNMENT) * ALIGNMENT
        if size >= self._mapped_from:
            self._mapped += size
            return self._counted((None, size))
        index = bisect_left(self._holes, (size + SLACK, -1))
        if index < len(self._holes):
            hole, start = self._holes[index]
            self._remove(start)
            self._add(start + size, hole - size)
        else:
            start = self._end
            self._end += size
            self._reach = max(self._reach, self._end)
        return self._counted((start, size))

    def give(self, block: tuple[int | None, int]) -> None:
        """Take a block back."""
        start, size = block
        if start is None:
            self._mapped -= size
            if self._mapped_from < size <= MAPPED_FROM_AT_MOST:
                self._mapped_from = size
        else:
            if start in self._ends:  # a hole before it
                before = self._ends[start]
                size += start - before
                self._remove(before)
                start = before
            if start + size in self._starts:  # a hole after it
                size += self._remove(start + size)
            if start + size == self._end:
                self._end = start
                if self._reach - self._end >= 2 * self._mapped_from:  # M_TRIM_THRESHOLD
                    self._reach = self._end
            else:
                self._add(start, size)
        self._counted(block)

    def _counted(self, block: tuple[int | None, int]) -> tuple[int | None, int]:
        self.held = self._mapped + self._reach
        self.peak = max(self.peak, self.held)
        return block

    def _add(self, start: int, size: int) -> None:
        insort(self._holes, (size, start))
        self._starts[start], self._ends[start + size] = size, start

    def _remove(self, start: int) -> int:
        size = self._starts.pop(start)
        del self._ends[start + size]
        del self._holes[bisect_left(self._holes, (size, start))]
        return size
