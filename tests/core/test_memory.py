"""What the system says of memory: the machine alone, and inside cgroups of both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathclip.core.memory import available_bytes, resident_bytes

MEMINFO = "MemTotal:       16000000 kB\nMemFree:         2000000 kB\nMemAvailable:    8000000 kB\n"
MACHINE = 8_000_000 * 1024


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_cgroups_the_machine_counts_and_its_cache_is_available(tmp_path: Path) -> None:
    assert available_bytes(system(tmp_path, {})) == MACHINE


def test_where_nothing_is_told_nothing_is_known(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    assert resident_bytes(tmp_path) == 0


V2 = {
    "proc/self/cgroup": "0::/user/job\n",
    "sys/fs/cgroup/user/job/memory.max": "5000000000\n",
    "sys/fs/cgroup/user/job/memory.current": "2000000000\n",
    "sys/fs/cgroup/user/job/memory.stat": "anon 1500000000\ninactive_file 400000000\n",
}
V1 = {
    "proc/self/cgroup": "5:cpu,cpuacct:/elsewhere\n4:memory:/job\n0::/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "7000000000\n",
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "4000000000\n",
    "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "1000000000\n",
    "sys/fs/cgroup/memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 600000000\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(V2, 3_400_000_000, id="v2"),
        pytest.param({**V2, "sys/fs/cgroup/user/job/memory.max": "max\n"}, MACHINE, id="v2 without a limit"),
        pytest.param(
            {
                **V2,
                "sys/fs/cgroup/user/memory.max": "3000000000",
                "sys/fs/cgroup/user/memory.current": "2500000000",
            },
            500_000_000,
            id="v2, a smaller group around it",
        ),
        pytest.param({**V2, "sys/fs/cgroup/user/job/memory.max": "99000000000"}, MACHINE, id="v2, large"),
        pytest.param({**V2, "sys/fs/cgroup/user/job/memory.current": "6000000000"}, 0, id="v2, overdrawn"),
        pytest.param(V1, 3_600_000_000, id="v1"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/../..\n",
                "sys/fs/cgroup/memory.max": "4000000000",
                "sys/fs/cgroup/memory.current": "1000000000",
            },
            3_000_000_000,
            id="v2, a container that sees its group as the root",
        ),
    ],
)
def test_a_cgroup_bounds_what_can_be_had(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert available_bytes(system(tmp_path, files)) == expected


def test_a_process_counts_what_it_has_in_memory(tmp_path: Path) -> None:
    told = system(tmp_path, {"proc/self/status": "Name:\tpython\nVmRSS:\t  123 kB\n"})
    assert resident_bytes(told) == 123 * 1024
    before = resident_bytes()
    if before:
        block = bytearray(b"x") * (64 << 20)
        assert resident_bytes() - before > 32 << 20
        del block
