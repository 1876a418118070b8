from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest

from pathclip.core import engine
from pathclip.core.errors import FaultError, UserError

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'pathclip[ray]'"
)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one CPU on this machine, gone with the module."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'pathclip[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def double(x: int) -> int:
    return 2 * x


def die_once(task: tuple[int, str]) -> int:
    number, marker = task
    if number == 3 and not Path(marker).exists():
        Path(marker).write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_on_seven(x: int) -> int:
    if x == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def fail(x: int) -> int:
    raise UserError(f"task {x}")


def test_ray_gives_every_task_its_result(cluster) -> None:
    assert sorted(engine.map(double, range(9), engine="ray")) == [(i, 2 * i) for i in range(9)]


def test_a_lost_ray_worker_is_replaced_and_its_task_repeated(cluster, tmp_path: Path) -> None:
    tasks = [(i, str(tmp_path / "marker")) for i in range(6)]
    assert sorted(dict(engine.map(die_once, tasks, engine="ray", workers=2)).values()) == list(range(6))
    assert (tmp_path / "marker").exists()


def test_a_task_that_kills_its_ray_workers_is_named_or_handed_over(cluster) -> None:
    with pytest.raises(FaultError, match="died 3 times on the same task: 7"):
        list(engine.map(die_on_seven, [7], engine="ray"))
    results = dict(engine.map(die_on_seven, range(6, 9), engine="ray", on_lost=lambda task: -task))
    assert results == {6: 6, 7: -7, 8: 8}


def test_an_exception_on_ray_is_raised_here_as_itself(cluster) -> None:
    with pytest.raises(UserError, match=r"^task 0$"):
        list(engine.map(fail, range(3), engine="ray", workers=1))


def test_without_ray_the_engine_names_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(UserError, match=r"engine 'ray' needs ray; .*pip install 'pathclip\[ray\]'"):
        list(engine.map(double, [1], engine="ray"))


@needs_ray
def test_a_cluster_that_is_not_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(FaultError, match=r"cannot reach .* cluster at 127\.0\.0\.1:1 \(RAY_ADDRESS\)"):
        list(engine.map(double, [1], engine="ray"))
