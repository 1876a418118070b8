from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from pathclip.core import remote
from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import read_json
from pathclip.core.remote import MANIFEST, LocalFile, check_url, meant_url, sync

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "schemas" / "published.schema.json"
NAMES = ("shards/train-000000.tar", "shards/train-000001.tar", "report.json", "index.json")


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(NAMES):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * (number + 1))
    return tmp_path / "data"


def files(folder: Path, names=NAMES) -> list[LocalFile]:
    found = [(name, folder / name, (folder / name).read_bytes()) for name in names]
    return [LocalFile(name, path, len(data), hashlib.sha256(data).hexdigest()) for name, path, data in found]


def manifest(store) -> dict:
    data = json.loads(store.objects()[MANIFEST])
    Draft202012Validator(read_json(SCHEMA)).validate(data)
    return data["files"]


def same(store, folder, names=NAMES) -> bool:
    there = store.objects()
    said = json.loads(there.pop(MANIFEST))["files"]
    here = files(folder, names)
    return there == {f.name: f.path.read_bytes() for f in here} and said == {f.name: f.entry() for f in here}


def test_a_copy_is_equal_and_a_second_one_sends_nothing(store, folder, monkeypatch):
    sent = store.sent(monkeypatch)
    done = sync(files(folder), store.url)
    assert sent == list(NAMES)
    assert (done.uploaded, done.kept, done.removed) == (4, 0, 0)
    assert done.bytes == sum(file.bytes for file in files(folder))
    assert same(store, folder)
    manifest(store)
    before = store.objects()
    done = sync(files(folder), store.url)
    assert (done.uploaded, done.kept, done.removed, done.bytes) == (0, 4, 0, 0)
    assert sent == list(NAMES)
    assert store.objects() == before


def test_only_what_changed_is_sent_and_what_left_is_removed(store, folder, monkeypatch):
    sync(files(folder), store.url)
    store.write("shards/notes.txt", b"somebody else's")
    (folder / "report.json").write_bytes(b"R" * (folder / "report.json").stat().st_size)
    sent = store.sent(monkeypatch)
    names = [name for name in NAMES if name != "shards/train-000001.tar"]
    done = sync(files(folder, names), store.url)
    assert sent == ["report.json", "index.json"]
    assert (done.uploaded, done.kept, done.removed) == (2, 1, 1)
    assert store.objects()["shards/notes.txt"] == b"somebody else's"
    store.remove("shards/notes.txt")
    assert same(store, folder, names)


def test_what_was_lost_or_cut_in_the_store_is_sent_again(store, folder, monkeypatch):
    sync(files(folder), store.url)
    store.remove("shards/train-000000.tar")
    store.write("report.json", b"cut")
    sent = store.sent(monkeypatch)
    assert sync(files(folder), store.url).uploaded == 3
    assert sent == ["shards/train-000000.tar", "report.json", "index.json"]
    assert same(store, folder)


@pytest.mark.parametrize("dies_at", range(4))
def test_a_store_that_dies_midway_holds_no_seal_and_is_completed_later(store, folder, monkeypatch, dies_at):
    monkeypatch.setattr(remote, "SAVE_S", 0)
    with monkeypatch.context() as patch:
        store.sent(patch, dies_at)
        with pytest.raises(
            FaultError, match=r"cannot write \S+: ConnectionError: the store went away$"
        ) as told:
            sync(files(folder), store.url)
    assert "\n" not in str(told.value)
    assert store.objects().keys() == {*NAMES[:dies_at], MANIFEST}
    if dies_at < 3:
        assert [n for n, entry in manifest(store).items() if entry["sha256"]] == sorted(NAMES[:dies_at])
    sent = store.sent(monkeypatch)
    sync(files(folder), store.url)
    assert sent == list(NAMES[dies_at:])
    assert same(store, folder)


def test_a_new_version_that_dies_midway_is_never_taken_for_the_old_one(memory, folder, monkeypatch):
    sync(files(folder), memory.url)
    old = (folder / NAMES[0]).read_bytes()
    (folder / NAMES[0]).write_bytes(old[::-1])  # the same size
    with monkeypatch.context() as patch:
        memory.sent(patch, 1)
        with pytest.raises(FaultError):
            sync(files(folder), memory.url)
    assert "index.json" not in memory.objects()
    (folder / NAMES[0]).write_bytes(old)  # and back: the store may hold either
    sync(files(folder), memory.url)
    assert same(memory, folder)


def test_what_was_being_sent_when_the_plan_changed_is_removed(memory, folder, monkeypatch):
    with monkeypatch.context() as patch:
        memory.sent(patch, 2)
        with pytest.raises(FaultError):
            sync(files(folder), memory.url)
    assert NAMES[1] in memory.objects()
    done = sync(files(folder, NAMES[2:]), memory.url)
    assert done.removed == 2
    assert same(memory, folder, NAMES[2:])


def test_a_file_that_arrives_short_keeps_the_seal_away(memory, folder, monkeypatch):
    put = remote.Place.put
    short = folder.parent / "short"
    short.write_bytes(b"short")

    def cut(self, file):
        put(self, LocalFile(file.name, short, 5, "") if file.name == NAMES[1] else file)

    with monkeypatch.context() as patch:
        patch.setattr(remote.Place, "put", cut)
        with pytest.raises(FaultError, match=r"train-000001.tar has 5 bytes there after 46 were sent"):
            sync(files(folder), memory.url)
    assert "index.json" not in memory.objects()
    sync(files(folder), memory.url)
    assert same(memory, folder)


def test_what_others_put_there_is_not_overwritten(store, folder):
    store.write("report.json", b"theirs")
    with pytest.raises(UserError, match=r"holds report.json but no published.json.*name an empty place"):
        sync(files(folder), store.url)
    assert store.objects() == {"report.json": b"theirs"}
    store.write(MANIFEST, b"[1]")
    with pytest.raises(UserError, match=r"published.json is not of schema pathclip.published/1"):
        sync(files(folder), store.url)
    assert store.objects()["report.json"] == b"theirs"


def test_a_folder_of_this_machine_is_a_store_too(folder, tmp_path):
    assert sync(files(folder), f"file://{tmp_path}/mirror/a").uploaded == 4
    assert (tmp_path / "mirror" / "a" / NAMES[1]).read_bytes() == (folder / NAMES[1]).read_bytes()
    assert sync(files(folder), f"file://{tmp_path}/mirror/a").uploaded == 0


def test_a_store_that_is_away_or_refuses_is_one_line(s3, folder, monkeypatch):
    import s3fs

    with pytest.raises(FaultError, match=r"^s3://no-such/x: cannot list it: FileNotFoundError: "):
        sync(files(folder), "s3://no-such/x")

    async def refused(self, *args, **kwargs):
        raise PermissionError("Access Denied")

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_pipe_file", refused)
        with pytest.raises(FaultError, match=r"cannot write published.json: PermissionError: Access Denied$"):
            sync(files(folder), s3.url)
    assert s3.objects() == {}
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(FaultError, match=r"cannot list it: EndpointConnectionError: Could not connect"):
        sync(files(folder), s3.url)


def test_a_missing_driver_names_the_line_that_installs_it(folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in ("s3fs", "gcsfs") else find(name, *a)
    )
    for scheme, extra in (("s3", "s3"), ("gs", "gs")):
        with pytest.raises(
            FaultError, match=rf"{scheme}://b/x needs \w+; .*pip install 'pathclip\[{extra}\]'"
        ):
            sync(files(folder), f"{scheme}://b/x")
    with pytest.raises(FaultError, match=r"http://127.0.0.1:9/x: cannot "):
        sync(files(folder), "http://127.0.0.1:9/x")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("bucket/set", "'bucket/set' is no url; expected one such as s3://bucket/folder"),
        ("s3://", "'s3://' is no url"),
        ("simplecache::s3://b/x", "is no url"),
        ("s4://b/x", "fsspec knows no s4://"),
        ("ftp://me:secret@host/x", "the ftp url holds a password"),
    ],
)
def test_urls_that_cannot_be_meant_are_refused(url, says):
    with pytest.raises(UserError) as told:
        check_url(url)
    assert says in str(told.value)
    assert "secret" not in str(told.value)


def test_a_url_is_known_where_a_folder_is_expected():
    assert meant_url(Path("s3://bucket/set")) == "s3://bucket/set"
    assert meant_url("memory://set") == "memory://set"
    for path in ("data/set", "/data/s3:/x", "C:/data", "s3:"):
        assert meant_url(path) is None
    assert check_url("s3://bucket/set") == "s3://bucket/set"
