"""The rules of the house: floors, a silent import, documented names and verbs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import pathclip
from pathclip.cli.__main__ import app

REPO = Path(__file__).resolve().parent.parent
TORCH_FREE = ("core", "synthetic", "tweets", "pairs", "shards", "ingest")
ROOMS = sorted(m.name for m in pkgutil.iter_modules(pathclip.__path__) if m.ispkg)

BLOCK_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "open_clip", "timm", "webdataset"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
"""


def verbs() -> dict[str, object]:
    """Every command of the command line by its full name."""

    def walk(command: object, prefix: str) -> dict[str, object]:
        children = getattr(command, "commands", None)
        if children is None:
            return {prefix: command}
        return {
            name: leaf
            for key in children
            for name, leaf in walk(children[key], f"{prefix} {key}".strip()).items()
        }

    return walk(get_command(app), "")


VERBS = sorted(verbs())


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


def test_importing_pathclip_is_silent_and_loads_no_torch() -> None:
    code = (
        "import sys, pathclip; assert 'torch' not in sys.modules; assert pathclip.__version__; dir(pathclip)"
    )
    result = run_python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_command_line_shows_its_help_without_torch() -> None:
    result = run_python(BLOCK_TORCH + "from pathclip.cli.__main__ import app; app(['slide', '--help'])")
    assert result.returncode == 0, result.stderr
    assert "classify" in result.stdout


def test_the_lower_rooms_ingest_a_dump_with_torch_blocked(tmp_path: Path) -> None:
    code = (
        BLOCK_TORCH
        + f"""
from pathlib import Path
import pathclip
from pathclip.synthetic import write_dump
out = Path({str(tmp_path)!r})
write_dump(out / "dump", seed=0)
source = (out / "dump/tweets.jsonl",)
report = pathclip.ingest(pathclip.IngestConfig(sources=source, media=out / "dump/media", out=out / "data"))
assert report.kept > 0 and report.candidates == report.kept + report.rejected
assert "torch" not in sys.modules
"""
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_exists_and_says_what_it_is(room: str) -> None:
    module = importlib.import_module(f"pathclip.{room}")
    assert module.__doc__
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"pathclip.{room}.{name} has no docstring"


def test_the_public_face_leads_somewhere() -> None:
    for name in pathclip.__all__:
        assert getattr(pathclip, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'clasify'"):
        pathclip.clasify  # noqa: B018


def test_nothing_imports_upward() -> None:
    script = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([script, "--no-cache"], cwd=REPO, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_explains_itself_and_offers_json(name: str) -> None:
    result = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    assert "--json" in result.stdout
    command = verbs()[name]
    for parameter in command.params:  # type: ignore[attr-defined]
        assert parameter.name == "help" or getattr(parameter, "help", None), (
            f"{name}: {parameter.name} has no help"
        )


def test_the_verbs_are_those_of_the_design() -> None:
    expected = "demo,ingest,data report,data verify,data explain,train,classify,slide classify,slide embed"
    expected += ",slide info,index build,search,evaluate,models,doctor"
    assert set(expected.split(",")) <= set(VERBS)


def test_the_command_reference_is_what_the_help_says() -> None:
    page = (REPO / "docs/reference/cli.md").read_text(encoding="utf-8")
    spec = importlib.util.spec_from_file_location("generate", REPO / "docs/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert page == generate.cli_reference(), "run `make generated`"


def test_every_json_schema_is_named_after_what_it_describes() -> None:
    for path in sorted((REPO / "docs/reference/schemas").glob("*.json")):
        name = path.name.removesuffix(".schema.json")
        assert f"pathclip.{name}/" in path.read_text(encoding="utf-8"), path.name


def test_the_repository_names_no_absolute_home() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in tracked.stdout.splitlines():
        path = REPO / name
        if path.suffix in {".py", ".md", ".toml", ".cfg", ".json", ".yml", ".ipynb"} and path.is_file():
            found = re.search(r"(?<![\w.])/(work|home|root)/\w+", path.read_text(encoding="utf-8"))
            assert found is None, f"{name}: {found}"
