"""How much memory this process has taken, and how much it could still get (Linux)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["available_bytes", "resident_bytes"]

UNLIMITED = 1 << 60  # cgroup v1 writes nearly 2^63 where there is no limit


def resident_bytes(root: Path = Path("/")) -> int:
    """Bytes of this process in memory, shared libraries included; 0 where the system does not tell."""
    return _fields(root / "proc/self/status").get("VmRSS", 0) * 1024


def available_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that processes could still take without swapping: the machine's, or a cgroup's where less.

    What only caches files counts as available. None where the system does not tell.

    Args:
        root: Where ``proc`` and ``sys`` lie.
    """
    machine = _fields(root / "proc/meminfo").get("MemAvailable")
    rooms = [] if machine is None else [machine * 1024]
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            rooms += _rooms(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            rooms += _rooms(
                base, path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            )
    return max(0, min(rooms)) if rooms else None


def _rooms(base: Path, path: str, limit: str, used: str, cache: str) -> list[int]:
    """What is left in a cgroup and in each of those around it that has a limit."""
    rooms = []
    names = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(names) + 1):  # a container sees its own group as the root
        group = base.joinpath(*names[:depth])
        try:
            most, taken = int((group / limit).read_text()), int((group / used).read_text())
        except (OSError, ValueError):  # not there, or "max"
            continue
        if most < UNLIMITED:
            rooms.append(most - taken + _fields(group / "memory.stat").get(cache, 0))
    return rooms


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        pairs = [line.split()[:2] for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {p[0].rstrip(":"): int(p[1]) for p in pairs if len(p) == 2 and p[1].isdigit()}
