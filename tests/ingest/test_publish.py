from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from looking import kept, needles_of, posts_of
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.config import load_config
from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import read_json
from pathclip.core.remote import MANIFEST
from pathclip.ingest import IngestConfig, Requests, check, export_ids, ingest, publish, takedown

SCHEMAS = Path(__file__).parents[2] / "docs" / "reference" / "schemas"
OURS = re.compile(
    r"shards/(train|val|test)-\d{6}\.(tar|idx|stats\.json)|(report|croissant|index)\.json|README\.md"
)


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def made(synthetic_dump, tmp_path_factory):
    """A dataset of many small shards, made once; with ids beside it, which are not for the public."""
    out = tmp_path_factory.mktemp("made") / "d"
    (out / "private").mkdir(parents=True)
    (out / "private" / "key").write_bytes(bytes(range(32)))
    config = IngestConfig(
        sources=(synthetic_dump.tweets,),
        media=synthetic_dump.media,
        out=out,
        pack={"shard_samples": 4},
        card={"legal_basis": "painted pictures"},
    )
    ingest(config)
    export_ids(out)
    return config


@pytest.fixture
def config(made, tmp_path):
    shutil.copytree(made.out, tmp_path / "d")
    return made.replace(out=tmp_path / "d")


def public(out: Path) -> dict[str, bytes]:
    """What may be shared, told by its name."""
    names = [p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()]
    return {name: (out / name).read_bytes() for name in names if OURS.fullmatch(name)}


def is_copy(store, out: Path) -> bool:
    there = store.objects()
    Draft202012Validator(read_json(SCHEMAS / "published.schema.json")).validate(json.loads(there[MANIFEST]))
    del there[MANIFEST]
    return there == public(out) and len(there) > 10


def words(store) -> set[bytes]:
    return {word for data in store.objects().values() for word in re.findall(rb"\w+", data)}


def arguments(config: IngestConfig, *more: str) -> tuple:
    settings = ("--set", "pack.shard_samples=4", "--set", "card.legal_basis=painted pictures", "--workers", 1)
    return ("ingest", config.sources[0], "--media", config.media, "--out", config.out, *settings, *more)


def test_an_ingest_publishes_all_that_is_public_and_nothing_private(
    store, config, synthetic_dump, monkeypatch
):
    sent = store.sent(monkeypatch)
    code, text, err = call(*arguments(config, "--set", f"publish={store.url}", "--json"))
    assert code == 0, err
    done = json.loads(text)
    assert done["state"] == "unchanged"
    data = public(config.out)
    assert done["published"] == {
        "url": store.url,
        "uploaded": len(data),
        "kept": 0,
        "removed": 0,
        "bytes": sum(map(len, data.values())),
    }
    assert is_copy(store, config.out)
    assert sent[-1] == "index.json"
    for tar in (name for name in data if name.endswith(".tar")):
        stem = tar.removesuffix(".tar")
        assert sent.index(tar) < sent.index(f"{stem}.idx") < sent.index(f"{stem}.stats.json")
    posts, users, media = posts_of(synthetic_dump.tweets)
    secrets = {p["id"] for p in posts} | users.keys() | media.keys()
    secrets |= {u["username"] for u in users.values()} | {p["conversation_id"] for p in posts}
    assert len(secrets) > 100
    assert not words(store) & {secret.encode() for secret in secrets}
    key = (config.out / "private" / "key").read_bytes()
    assert not any(key in data or b"\x89PAR1" in data[:4] for data in store.objects().values())


def test_a_downloaded_copy_is_a_sound_dataset(s3, config, tmp_path):
    publish(config.out, s3.url)
    for name, data in s3.objects().items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(data)
    found = check(tmp_path / "copy")
    assert found.ok, found.problems
    assert found.samples == read_json(config.out / "report.json")["samples"]


def test_the_url_is_remembered_and_the_copy_follows_every_later_run(memory, config, monkeypatch):
    ingest(config.replace(publish=memory.url))
    assert read_json(config.out / "private" / "run.json")["config"]["publish"] == memory.url
    sent = memory.sent(monkeypatch)
    assert ingest(config).published.uploaded == 0
    assert sent == []
    again = ingest(config.replace(pack={"shard_samples": 6}))
    assert (again.state, again.published.url) == ("rebuilt", memory.url)
    assert again.published.removed > 0, "shards that are no more"
    assert is_copy(memory, config.out)
    again = ingest(config.replace(force_new=True, collect={"max_bytes": 24_000_000}))
    assert again.state == "new"
    assert is_copy(memory, config.out)
    card = call("data", "card", config.out, "--license", "cc0-1.0")
    assert card[0] == 0
    del sent[:]
    ingest(config.replace(collect={"max_bytes": 24_000_000}))
    assert sent == ["README.md", "croissant.json", "index.json"]
    assert is_copy(memory, config.out)


def test_another_url_or_off_says_that_the_old_copy_is_left_alone(memory, config):
    first = ingest(config.replace(publish=memory.url))
    assert not any("kept in step" in line for line in first.messages)
    other = ingest(config.replace(publish=f"{memory.url}2"))
    left = f"{memory.url} is not kept in step any more, takedowns do not reach it: remove it there"
    assert left in other.messages
    off = ingest(config.replace(publish="off"))
    assert off.published is None
    assert any(line.startswith(f"{memory.url}2 is not kept in step") for line in off.messages)
    assert read_json(config.out / "private" / "run.json")["config"]["publish"] == ""
    assert ingest(config).published is None
    assert is_copy(memory, config.out)


def test_a_card_without_a_legal_basis_is_noted_when_it_is_published(dump, tmp_path, memory):
    dump.picture("a.jpg", 1)
    dump.post("1", "Melanoma of the skin", "a")
    config = IngestConfig(sources=(dump.tweets,), media=dump.media, out=tmp_path / "d", publish=memory.url)
    report = ingest(config)
    assert report.state == "new"
    assert any("no legal basis is stated; before sharing" in line for line in report.messages)
    recipe = export_ids(config.out).folder / "recipe.toml"
    assert memory.url not in recipe.read_text(), "a recipe is for others, who have other stores"
    assert load_config(IngestConfig, recipe).publish == ""
    assert memory.url.encode() not in b"".join(public(config.out).values())


def test_a_takedown_leaves_no_trace_in_the_store_and_sends_no_untouched_shard(
    store, config, synthetic_dump, tmp_path, monkeypatch
):
    ingest(config.replace(publish=store.url))
    before = store.objects()
    tweet_id, key = sorted(kept(config.out))[0]
    gone = kept(config.out)[tweet_id, key]
    assert any(gone["sample_id"].encode() in data for data in before.values())
    (tmp_path / "ids.txt").write_text(tweet_id)
    sent = store.sent(monkeypatch)
    code, text, err = call("data", "takedown", config.out, "--ids", tmp_path / "ids.txt", "--json")
    assert code == 0, err
    done = json.loads(text)
    after = store.objects()
    assert is_copy(store, config.out)
    assert done["published"]["url"] == store.url
    assert done["published"]["uploaded"] == len(sent)
    needles = {n.encode() for n in needles_of(synthetic_dump.tweets, {tweet_id}, set())}
    assert not needles & words(store)
    assert not any(n in data for n in needles | {gone["sample_id"].encode()} for data in after.values())
    tars = {name for name in before if name.endswith(".tar")}
    touched = {name for name in tars if before[name] != after.get(name)}
    assert 0 < len(touched) == done["shards"] < len(tars)
    assert {name for name in sent if name.endswith(".tar")} == touched & after.keys()
    assert sent[-1] == "index.json"


def test_a_shard_that_a_takedown_empties_leaves_the_store(memory, config):
    ingest(config.replace(publish=memory.url))
    last = max(name for name in public(config.out) if name.endswith(".tar"))
    ids = [row["sample_id"] for row in kept(config.out).values()]
    there = memory.objects()[last]
    doomed = [i for i in ids if f"{i}.jpg".encode() in there]
    done = takedown(config.out, Requests(posts=dict.fromkeys(doomed, "request")))
    assert done.samples >= len(doomed) > 0, "a sample leaves with its post"
    assert done.published.removed in (3, 6)
    assert last not in memory.objects()
    assert is_copy(memory, config.out)


@pytest.mark.parametrize("dies_at", [0, 5])
def test_a_store_that_dies_leaves_the_dataset_complete_and_the_same_command_publishes(
    store, config, monkeypatch, dies_at
):
    command = arguments(config, "--set", f"publish={store.url}", "--json")
    before = public(config.out)
    with monkeypatch.context() as patch:
        store.sent(patch, dies_at)
        code, text, err = call(*command)
    assert code == 1
    error = next(line for line in err.splitlines() if line.startswith("error: "))
    assert err.count("error: ") == 1
    assert error.startswith(
        f"error: {config.out} is complete, but its copy is not in step: {store.url}: cannot"
    )
    assert error.endswith("the store went away; run the same command again to publish")
    assert json.loads(text) == {"error": error.removeprefix("error: "), "exit_code": 1}
    assert "index.json" not in store.objects()
    assert public(config.out) == before
    assert check(config.out).ok
    code, text, _ = call(*command)
    assert code == 0
    done = json.loads(text)
    assert done["state"] == "unchanged", "nothing is made again"
    assert is_copy(store, config.out)


def test_a_takedown_whose_store_is_away_is_done_here_and_repeated_there(memory, config, monkeypatch):
    ingest(config.replace(publish=memory.url))
    wanted = Requests(posts={sorted(kept(config.out))[0][0]: "request"})
    with monkeypatch.context() as patch:
        memory.sent(patch, 1)
        with pytest.raises(FaultError, match=r"is complete, but its copy is not in step"):
            takedown(config.out, wanted)
    assert check(config.out).ok
    assert "index.json" not in memory.objects(), "no reader is led to what was taken down"
    again = takedown(config.out, wanted)
    assert (again.samples, again.shards, again.published.uploaded > 0) == (0, 0, True)
    assert is_copy(memory, config.out)


def test_what_only_looks_changes_no_store(memory, config):
    told = ingest(config.replace(publish=memory.url, dry_run=True))
    assert told.published is None
    assert f"publish it to {memory.url}" in told.messages[0]
    assert memory.objects() == {}
    ingest(config.replace(publish=memory.url))
    before = memory.objects()
    wanted = Requests(posts={sorted(kept(config.out))[0][0]: "request"})
    assert takedown(config.out, wanted, dry_run=True).published is None
    assert memory.objects() == before


def test_a_url_for_a_folder_names_the_way_that_works(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["ingest", config.sources[0], "--media", config.media, "--out", "s3://bucket/ds"]
    code, _, err = call(*command)
    assert code == 2
    assert err == (
        "error: --out s3://bucket/ds is a url; a dataset is made in a local folder and copied from there: "
        "--out DIR --set publish=s3://bucket/ds\n"
    )
    assert not (tmp_path / "s3:").exists()
    with pytest.raises(UserError, match=r"--out memory://x is a url"):
        ingest(config.replace(out="memory://x"))


@pytest.mark.parametrize("value", ["bucket/ds", "s4://bucket/ds", "file://{out}/shards", "file://{out}"])
def test_places_that_cannot_be_meant_are_refused_before_any_work(config, value):
    before = public(config.out)
    value = value.format(out=config.out)
    code, _, err = call(*arguments(config, "--set", f"publish={value}"))
    assert (code, err.count("\n")) == (2, 1)
    assert "publish = " in err
    assert public(config.out) == before
    assert read_json(config.out / "private" / "run.json")["config"]["publish"] == ""


def test_a_shard_that_was_damaged_here_is_not_published(memory, config):
    tar = next((config.out / "shards").glob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(
        FaultError, match=rf"{tar.name} is not what index.json says; see `pathclip data verify"
    ):
        publish(config.out, memory.url)
    assert memory.objects() == {}
