from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field

from pathclip.core import engine, files, progress
from pathclip.core.config import Config, load_config, to_toml
from pathclip.core.errors import FaultError, PathclipError, UserError
from pathclip.core.extras import require
from pathclip.core.registry import Registry


class OptimConfig(Config):
    lr: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    name: str | None = None


class RunConfig(Config):
    optim: OptimConfig = OptimConfig()
    steps: int = 10
    tags: dict[str, str] = {}


def test_a_config_reads_toml_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("steps = 3\n[optim]\nlr = 0.5\n")
    overrides = ["optim.lr=1e-3", "optim.name=adam w", "tags.a-b=x"]
    config = load_config(RunConfig, path, overrides)
    assert (config.steps, config.optim.lr, config.optim.name) == (3, 1e-3, "adam w")
    assert config.tags == {"a-b": "x"}


def test_a_config_written_is_read_back_equal(tmp_path: Path) -> None:
    config = RunConfig(optim=OptimConfig(lr=3e-7, name='quote " and \\ é\n'), tags={"a b": "c"})
    (tmp_path / "c.toml").write_text(to_toml(config), encoding="utf-8")
    assert load_config(RunConfig, tmp_path / "c.toml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", "unknown key optim.lrr; did you mean optim.lr?"),
        ("zzz=1", "unknown key zzz; valid keys: optim, steps, tags"),
        ("optim.lr=-1", "optim.lr = -1: Input should be greater than 0"),
        ("steps=many", "steps = 'many': Input should be a valid integer"),
        ("steps", "expected a.b=value"),
        ("steps.x=1", "steps is a value, not a table"),
    ],
)
def test_a_wrong_setting_names_its_path_and_the_remedy(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text("steps = 3\n")
    with pytest.raises(UserError) as error:
        load_config(RunConfig, path, [override])
    assert message in str(error.value)


def test_missing_and_broken_config_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing.toml does not exist"):
        load_config(RunConfig, tmp_path / "nothing.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(UserError, match="is not valid TOML"):
        load_config(RunConfig, tmp_path / "bad.toml")


def test_user_errors_exit_with_2_and_faults_with_1() -> None:
    assert (UserError.exit_code, FaultError.exit_code) == (2, 1)
    assert issubclass(UserError, ValueError)
    assert issubclass(FaultError, PathclipError)


def test_the_registry_knows_duplicates_and_near_matches() -> None:
    registry: Registry[object] = Registry("loss")
    registry.register("infonce")(int)
    registry.register_lazy("path", "pathlib:Path")
    assert (registry["infonce"], registry["path"], list(registry)) == (int, Path, ["infonce", "path"])
    with pytest.raises(KeyError, match="registered twice"):
        registry.register_lazy("infonce", "x:y")
    with pytest.raises(
        UserError, match=r"unknown loss 'infonc'; did you mean 'infonce'\? known: infonce, path"
    ):
        registry["infonc"]


def test_an_atomic_write_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "sub/a.txt"
    with files.atomic_write(path, "w") as handle:
        handle.write("one")
        assert not path.exists()
    with pytest.raises(AttributeError), files.atomic_write(path, "w") as handle:
        handle.write("two").fails()
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_an_unwritable_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot write .*file/a.txt"),
        files.atomic_write(tmp_path / "file/a.txt"),
    ):
        pass


def test_a_full_disk_is_a_fault_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(files.errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FaultError, match=r"cannot write .*a.txt: No space left"):
        files.write_json(tmp_path / "a.txt", {})
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_an_error_about_another_file_keeps_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"other.txt"), files.atomic_write(tmp_path / "a.txt"):
        (tmp_path / "other.txt").read_bytes()


def test_json_is_strict(tmp_path: Path) -> None:
    files.write_json(
        tmp_path / "a.json", {"nan": float("nan"), "inf": [float("inf")], "p": Path("x"), "µ": 1}
    )
    assert files.read_json(tmp_path / "a.json") == {"nan": None, "inf": [None], "p": "x", "µ": 1}
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        files.read_json(tmp_path / "bad.json")


def test_a_claim_has_one_owner_and_outlives_no_dead_process(tmp_path: Path) -> None:
    path = tmp_path / "slide.claim"
    with files.claim(path) as first, files.claim(path) as second:
        assert (first, second) == (True, False)
    assert not path.exists()
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    host = files.socket.gethostname()
    path.write_text(f"{dead.stdout.strip()} {host}\n")
    with files.claim(path) as owned:
        assert owned
    path.write_text("1 another-host\n")
    with files.claim(path) as owned:
        assert not owned
    assert path.exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="zombies are told by /proc")
def test_the_claim_of_a_killed_process_that_nobody_reaped_is_stale(tmp_path: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    path = tmp_path / "lock"
    path.write_text(f"{sleeper.pid} {files.socket.gethostname()}\n")
    with files.claim(path) as owned:
        assert not owned
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # dead, and left unreaped
    with files.claim(path) as owned:
        assert owned
    sleeper.wait()


def double(x: int) -> int:
    return 2 * x


def die_on_three(task: tuple[int, str]) -> int:
    number, marker = task
    if number == 3 and not Path(marker).exists():
        Path(marker).write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def always_die(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return x


def fail(x: int) -> int:
    raise UserError(f"task {x}")


@pytest.mark.parametrize("name", ["serial", "processes"])
def test_map_gives_every_task_its_result(name: engine.EngineName) -> None:
    assert sorted(engine.map(double, range(9), engine=name, workers=2)) == [(i, 2 * i) for i in range(9)]


def test_a_lost_worker_is_replaced_and_its_task_repeated(tmp_path: Path) -> None:
    tasks = [(i, str(tmp_path / "marker")) for i in range(12)]
    results = dict(engine.map(die_on_three, tasks, engine="processes", workers=2))
    assert sorted(results.values()) == list(range(12))


def test_a_task_that_always_kills_its_worker_is_named() -> None:
    with pytest.raises(FaultError, match="died 3 times on the same task: 7"):
        list(engine.map(always_die, [7], engine="processes", workers=1))


@pytest.mark.parametrize("name", ["serial", "processes"])
def test_an_exception_of_the_function_is_raised_here(name: engine.EngineName) -> None:
    with pytest.raises(UserError, match="task 0"):
        list(engine.map(fail, range(3), engine=name, workers=1))


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(UserError, match="unknown engine 'spark'"):
        list(engine.map(double, [1], engine="spark"))  # type: ignore[arg-type]


def test_a_missing_extra_names_its_install_line() -> None:
    with pytest.raises(
        UserError, match=r"towers needs nopackage; install it with: pip install 'pathclip\[hf\]'"
    ):
        require("nopackage.models", extra="hf", why="towers")
    assert require("json", extra="hf", why="x") is json


def test_progress_yields_everything_and_logs_off_a_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, "pathclip"):
        assert list(progress.track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert "letters 3 of 3" in caplog.text
