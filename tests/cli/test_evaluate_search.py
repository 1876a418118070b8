from __future__ import annotations

import json
from pathlib import Path

import pytest
from colour_model import TINY, paint
from typer.testing import CliRunner, Result

from pathclip.cli.__main__ import app
from pathclip.encoders import create


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    create("tiny-vit-112", **TINY).save(home / "model")
    for colour in ("red", "green"):
        for seed in range(2):
            paint(home / "tiles/test" / colour / f"{seed}.jpg", colour, seed=seed)
    return home


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def last_object(result: Result) -> dict:
    return json.loads(result.stdout.splitlines()[-1])


def evaluate(home: Path, out: Path, *more: object, data: object = None) -> Result:
    return run("evaluate", "--model", home / "model", "--data", data or home / "tiles", "--out", out, *more)


def test_evaluate_prints_one_object_and_writes_what_it_names(home: Path, tmp_path: Path) -> None:
    result = evaluate(home, tmp_path / "out", "--split", "test", "--json")
    assert result.exit_code == 0, result.output
    data = last_object(result)
    assert data["dataset"] == "tiles/test"
    assert data["counts"]["scored"] == 4
    assert all(Path(path).is_file() for path in data["files"].values())
    assert data["metrics"] == json.loads((tmp_path / "out/result.json").read_text())["metrics"]


def test_evaluate_shows_values_beside_chance(home: Path, tmp_path: Path) -> None:
    result = evaluate(home, tmp_path / "out", data=home / "tiles/test")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("balanced_accuracy"))
    assert line.rstrip().endswith("0.500")
    assert str(tmp_path / "out/report.html") in result.stdout


def test_evaluate_exits_with_1_and_names_pictures_left_out(home: Path, tmp_path: Path) -> None:
    for colour in ("red", "green"):
        paint(tmp_path / "t" / colour / "good.jpg", colour)
    (tmp_path / "t/red/bad.jpg").write_bytes(b"x")
    result = evaluate(home, tmp_path / "out", data=tmp_path / "t")
    assert result.exit_code == 1
    assert "left out: red/bad.jpg: not a picture" in result.stdout
    assert (tmp_path / "out/result.json").is_file()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--benchmark", "foldr"], "did you mean 'folder'"),
        (["--split", "val"], "has no split 'val'"),
        (["--classes", "absent.json"], "no class file or shipped prompt set 'absent.json'"),
        (["--set", "batch_sise=2"], "did you mean batch_size?"),
    ],
)
def test_evaluate_names_the_users_mistake_in_a_line(
    home: Path, tmp_path: Path, more: list[str], text: str
) -> None:
    result = evaluate(home, tmp_path / "out", *more)
    assert result.exit_code == 2
    assert text in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def embedded(home: Path) -> Path:
    result = run("index", "build", home / "tiles", "--model", home / "model", "--out", home / "emb", "--json")
    assert result.exit_code == 0, result.output
    data = last_object(result)
    assert (data["count"], data["bad"], data["has_texts"]) == (4, [], False)
    return home / "emb"


def test_search_by_words_prints_hits_and_writes_the_sheet(embedded: Path, tmp_path: Path) -> None:
    page = tmp_path / "hits.html"
    result = run("search", embedded, "glands", "-k", 2, "--html", page, "--json")
    assert result.exit_code == 0, result.output
    data = last_object(result)
    assert (data["count"], data["note"], data["html"]) == (2, None, str(page))
    assert [hit["rank"] for hit in data["hits"]] == [1, 2]
    assert Path(data["hits"][0]["location"]).is_file()
    assert page.read_text().count("data:image/jpeg") == 2


def test_search_by_picture_finds_it_and_notes_a_k_too_large(home: Path, embedded: Path) -> None:
    result = run("search", embedded, "--image", home / "tiles/test/red/1.jpg", "-k", 9)
    assert result.exit_code == 0
    assert "9 asked for, 4 there" in result.stdout
    first = result.stdout.splitlines()[1]
    assert first.startswith("1")
    assert first.endswith("test/red/1.jpg")


def test_search_where_nothing_is_says_so(embedded: Path) -> None:
    result = run("search", embedded, "glands", "--where", "label = 'absent'")
    assert result.exit_code == 0
    assert "nothing found" in result.stdout


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ([], "expected one query: words, or --image FILE"),
        (["x", "--image", "y.jpg"], "expected one query"),
        (["--image", "absent.jpg"], "query picture absent.jpg: no such file"),
        (["x", "--where", "nope = 1"], "expected SQL over key"),
        (["x", "--model", "absent-model"], "absent-model"),
    ],
)
def test_search_names_the_users_mistake_in_a_line(embedded: Path, more: list[str], text: str) -> None:
    result = run("search", embedded, *more)
    assert result.exit_code == 2, result.output
    assert text in result.stderr


def test_search_in_a_folder_that_is_no_index_says_what_writes_one(home: Path) -> None:
    result = run("search", home / "tiles", "x")
    assert result.exit_code == 2
    assert "`pathclip index build` writes it last" in result.stderr


def test_index_build_exits_with_1_where_pictures_are_left_out(home: Path, tmp_path: Path) -> None:
    paint(tmp_path / "p/a.jpg", "red")
    (tmp_path / "p/b.jpg").write_bytes(b"x")
    result = run("index", "build", tmp_path / "p", "--model", home / "model", "--out", tmp_path / "emb")
    assert result.exit_code == 1
    assert "1 left out" in result.stdout
    missing = run("index", "build", tmp_path / "absent", "--model", "no-model", "--out", tmp_path / "emb2")
    assert missing.exit_code == 2
    assert "absent does not exist" in missing.stderr
