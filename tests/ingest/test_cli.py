from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.cli.ingest import Engine, Preset
from pathclip.core.engine import EngineName
from pathclip.ingest import PRESETS, IngestConfig, ingest


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def pair(dump):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma of the skin #dermpath", "a", entities={"hashtags": [{"tag": "dermpath"}]})
    dump.post("2", "What is it?", "b")
    return dump


def test_ingest_prints_the_funnel_and_json_prints_the_report(pair, tmp_path):
    base = ("ingest", pair.tweets, "--media", pair.media, "--workers", 1)
    code, text, _ = call(*base, "--out", tmp_path / "a")
    assert code == 0
    for part in ("kept", "question", "dermpath", "samples: 1 (train 1)", "new:"):
        assert part in text
    code, text, _ = call(*base, "--out", tmp_path / "b", "--json")
    data = json.loads(text)
    assert code == 0
    assert (data["in"], data["kept"], data["by_code"], data["out"]) == (
        2,
        1,
        {"question": 1},
        str(tmp_path / "b"),
    )
    assert json.loads((tmp_path / "b" / "report.json").read_text()).items() <= data.items()


def test_options_reach_the_config(pair, tmp_path):
    settings = tmp_path / "c.toml"
    settings.write_text("[image]\nmin_side_px = 64\n[split]\nval = 0.3\n")
    (tmp_path / "key").write_bytes(b"k" * 32)
    code, _, _ = call(
        "ingest", pair.tweets, "--media", pair.media, "--out", tmp_path / "out", "--preset", "strict",
        "--config", settings, "--set", "split.val=0.25", "--engine", "serial", "--key-file", tmp_path / "key",
    )  # fmt: skip
    assert code == 0
    config = json.loads((tmp_path / "out" / "private" / "run.json").read_text())["config"]
    assert config["image"] == {"min_side_px": 64, "max_aspect": 4.0, "panels": "off"}
    assert config["split"]["val"] == 0.25
    assert config["caption"]["min_words"] == 3
    assert not (tmp_path / "out" / "private" / "key").exists()


def test_report_verify_and_explain_tell_of_a_dataset(pair, tmp_path):
    call("ingest", pair.tweets, "--media", pair.media, "--out", tmp_path / "d", "--workers", 1)
    code, text, _ = call("data", "report", tmp_path / "d", "--json")
    assert (code, json.loads(text)["kept"]) == (0, 1)
    assert "question" in call("data", "report", tmp_path / "d")[1]
    code, text, _ = call("data", "verify", tmp_path / "d", "--json")
    found = json.loads(text)
    assert "no legal basis is stated" in found.pop("notes")[0]
    assert (code, found) == (0, {"ok": True, "shards": 1, "samples": 1, "problems": []})
    code, text, _ = call("data", "explain", tmp_path / "d", "1", "--json")
    found = json.loads(text)
    (decision,) = found["decisions"]
    assert (code, decision["decision"], decision["split"], decision["media_key"]) == (
        0,
        "kept",
        "train",
        "3_1a",
    )
    assert found["captions"][0]["text"] == "Melanoma of the skin"
    assert found["posts"][0]["source"] == "tweets.jsonl:1#0"
    by_sample = json.loads(call("data", "explain", tmp_path / "d", decision["sample_id"], "--json")[1])
    assert by_sample["decisions"] == found["decisions"]
    assert "rejected at caption: question" in call("data", "explain", tmp_path / "d", "2")[1]
    for name in ("3_2b", "x:2:3_2b", "tweets.jsonl:2#0"):
        assert (
            json.loads(call("data", "explain", tmp_path / "d", name, "--json")[1])["decisions"][0]["code"]
            == "question"
        )


def test_verify_exits_with_one_on_a_cut_shard(pair, tmp_path):
    call("ingest", pair.tweets, "--media", pair.media, "--out", tmp_path / "d", "--workers", 1)
    tar = tmp_path / "d" / "shards" / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    code, text, _ = call("data", "verify", tmp_path / "d", "--json")
    assert code == 1
    assert json.loads(text)["problems"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["SOURCE", "gone.jsonl"], "does not exist"),
        (["--media", "gone"], "media folder"),
        (["--key-file", "gone"], "head -c 32 /dev/urandom"),
        (["--set", "image.min_side=3"], "did you mean image.min_side_px"),
        (["--set", "split.val=2"], "split.val = 2"),
        (["--config", "gone.toml"], "does not exist"),
        (["SOURCE", "empty.jsonl"], "is empty"),
        (["SOURCE", "tar.jsonl"], "is a tar archive"),
        (["SOURCE", "folder"], "without data/tweets.js"),
        (["--out", "file"], "is a file"),
        (["--out", "file/below"], "choose another --out"),
        (["--key-file", "blank"], "is empty"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(pair, tmp_path, monkeypatch, change, says):
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").write_text("")
    Path("tar.jsonl").write_bytes(b"a" * 257 + b"ustar" + b"\0" * 300)
    Path("folder").mkdir()
    Path("file").write_text("x")
    Path("blank").write_text("\n")
    source = pair.tweets
    if change[0] == "SOURCE":
        source, change = change[1], []
    options = ["--media", pair.media, "--out", "out", "--workers", 1]
    code, out, err = call("ingest", source, *options, *change)
    assert code == 2, err
    assert says in err
    assert err.count("\n") == 1
    assert out == ""
    assert not Path("out").exists() or not list(Path("out").iterdir())
    code, out, _ = call("ingest", source, *options, *change, "--json")
    assert (code, json.loads(out)["exit_code"]) == (2, 2)


def test_a_source_is_required():
    code, _, err = call("ingest", "--out", "x")
    assert code == 2
    assert "SOURCE" in err


@pytest.mark.parametrize("verb", ["report", "verify", "explain"])
def test_data_verbs_refuse_what_is_no_dataset(tmp_path, verb):
    more = ["1"] if verb == "explain" else []
    code, _, err = call("data", verb, tmp_path, *more)
    assert code == 2
    assert err.startswith("error: ")


def test_explain_refuses_an_unknown_id(pair, tmp_path):
    call("ingest", pair.tweets, "--media", pair.media, "--out", tmp_path / "d", "--workers", 1)
    code, _, err = call("data", "explain", tmp_path / "d", "nothing")
    assert code == 2
    assert "knows nothing of 'nothing'" in err


def test_names_on_the_command_line_equal_those_of_the_library():
    assert {p.value for p in Preset} == set(PRESETS)
    assert {e.value for e in Engine} == set(EngineName.__args__)


FULL_DISK = """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from pathclip.cli.__main__ import main
main()
"""


def test_a_full_disk_is_a_fault_and_leaves_nothing_that_looks_whole(pair, tmp_path):
    arguments = ["ingest", pair.tweets, "--media", pair.media, "--out", tmp_path / "d", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert done.returncode == 1, done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "d" / "index.json").exists()
    assert not (tmp_path / "d" / "report.json").exists()


def test_the_real_dump_is_decided_as_it_reads(data_dir, tmp_path):
    report = ingest(
        IngestConfig(
            sources=(data_dir / "dump" / "tweets.jsonl",),
            media=data_dir / "dump" / "media",
            out=tmp_path / "d",
        )
    )
    assert report.data["by_code"] == {
        "parse_error": 1,
        "error_page": 1,
        "retweet": 84,
        "sensitive": 18,
        "language": 21,
        "no_media": 69,
        "used_as_caption": 68,
        "question": 13,
        "video": 1,
        "media_unlisted": 1,
        "image_missing": 1,
        "not_an_image": 1,
        "image_truncated": 1,
        "image_oversized": 1,
        "image_tiny": 1,
        "not_micrograph": 24,
        "duplicate_near": 14,
    }
    assert (report.data["posts"], report.data["repeated"], report.kept) == (572, 1, 597)


def test_the_real_payloads_are_explained_line_by_line(data_dir, tmp_path):
    from looking import rejects

    sources = sorted((data_dir / "payloads").glob("*.jsonl"))
    report = ingest(IngestConfig(sources=tuple(sources), out=tmp_path / "p"))
    explained = {row["source"].partition("#")[0].partition(">")[0] for row in rejects(tmp_path / "p")}
    posts_read = report.data["posts"] + report.data["repeated"]
    assert report.kept == 0
    assert posts_read > 300
    assert len(explained) > 60


def test_the_real_tiles_keep_their_given_splits(data_dir, tmp_path):
    rows = (data_dir / "tiles" / "pairs.csv").read_text().splitlines(keepends=True)
    (tmp_path / "some.csv").write_text("".join([rows[0], *rows[1::8]]))
    report = ingest(
        IngestConfig(sources=(tmp_path / "some.csv",), media=data_dir / "tiles", out=tmp_path / "t")
    )
    given = [row.rstrip().rpartition(",")[2] for row in rows[1::8]]
    assert report.data["in"] == len(given) == 300
    assert report.data["splits"] == {split: given.count(split) for split in ("train", "test")}
