from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator
from looking import codes, kept, needles_of, posts_of, rejects, samples, shard_bytes
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.core.files import read_json, sha256_file
from pathclip.ingest import (
    IngestConfig,
    Requests,
    check,
    explain,
    ingest,
    preset,
    read_events,
    read_ids,
    takedown,
)
from pathclip.ingest.journal import finish


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def traces(out: Path, needles: set[str]) -> list[tuple[str, str]]:
    """(file, needle) for whatever is still in a file's bytes or in the decoded rows of its parquet."""
    words = {n.encode() for n in needles if re.fullmatch(r"\w+", n)}
    phrases = {n.encode() for n in needles} - words
    found = []
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            rows = pq.read_table(path).to_pylist()
            data += "\n".join(str(v) for row in rows for v in _leaves(row)).encode()
        hits = words & set(re.findall(rb"\w+", data)) | {p for p in phrases if p in data}
        found += [(path.relative_to(out).as_posix(), hit.decode()) for hit in sorted(hits)]
    return found


def _leaves(value):
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


def wanted_of(dump_file: Path, posts: int, authors: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Some post ids and author ids, at random."""
    found, _, _ = posts_of(dump_file)
    chosen = random.Random(seed)
    ids = chosen.sample(sorted({p["id"] for p in found}), posts)
    return ids, chosen.sample(sorted({p["author_id"] for p in found if "author_id" in p}), authors)


def write_events(path: Path, posts: list[str], authors: list[str]) -> Path:
    """Events of both kinds, batch and stream, in turn."""
    lines = [
        {"id": i, "action": "delete", "created_at": "2021-01-01T00:00:00.000Z", "reason": "deleted"}
        if n % 2
        else {
            "data": {"delete": {"event_at": "2022-01-01T00:00:00.000Z", "tweet": {"id": i, "author_id": "1"}}}
        }
        for n, i in enumerate(posts)
    ]
    lines += [
        {"id": a, "action": "delete", "created_at": "2021-01-01T00:00:00+00:00", "reason": "protected"}
        if n % 2
        else {"data": {"user_delete": {"event_at": "2022-01-01T00:00:00.000Z", "user": {"id": a}}}}
        for n, a in enumerate(authors)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _leaves_no_trace(dump_file: Path, media: Path, tmp_path: Path, num_posts: int) -> None:
    config = IngestConfig(sources=(dump_file,), media=media, out=tmp_path / "d", pack={"shard_samples": 4})
    ingest(config)
    untouched_media = {p: sha256_file(p) for p in media.iterdir()}
    posts, authors = wanted_of(dump_file, num_posts, 3)
    needles = needles_of(dump_file, set(posts), set(authors))
    assert len(traces(config.out, needles)) > len(needles) / 2, "the search can find"
    before = {p.name: p.read_bytes() for p in (config.out / "shards").iterdir()}
    events = write_events(tmp_path / "events.jsonl", posts, authors)
    code, text, err = call("data", "takedown", config.out, "--events", events, "--json")
    assert code == 0, err
    done = json.loads(text)
    assert done["known"] >= num_posts
    assert not needles & set(re.findall(r"\w+", text)), "counts only"
    assert traces(config.out, needles) == []
    assert check(config.out).ok
    after = {p.name: p.read_bytes() for p in (config.out / "shards").iterdir()}
    changed = {
        name[:-4] for name, data in before.items() if name.endswith(".tar") and after.get(name) != data
    }
    assert len(changed) == done["shards"]
    assert changed
    assert len(changed) < len([name for name in before if name.endswith(".tar")]), "some are untouched"
    for again in (config, config.replace(image={"min_side_px": 129}), config.replace(force_new=True)):
        ingest(again)
        assert traces(config.out, needles) == []
        assert check(config.out).ok
    assert {p: sha256_file(p) for p in media.iterdir()} == untouched_media


def test_a_takedown_from_the_real_dump_leaves_no_trace(data_dir, tmp_path):
    _leaves_no_trace(data_dir / "dump" / "tweets.jsonl", data_dir / "dump" / "media", tmp_path, 50)


def test_a_takedown_from_a_synthetic_dump_leaves_no_trace(synthetic_dump, tmp_path):
    _leaves_no_trace(synthetic_dump.tweets, synthetic_dump.media, tmp_path, 6)


def test_a_takedown_counts_what_a_new_plan_counts(synthetic_dump, tmp_path):
    config = IngestConfig(sources=(synthetic_dump.tweets,), media=synthetic_dump.media, out=tmp_path / "d")
    ingest(config)
    posts, _ = wanted_of(synthetic_dump.tweets, 5, 0, seed=1)
    takedown(config.out, Requests(posts=dict.fromkeys(posts, "request")))
    edited = read_json(config.out / "report.json")
    assert edited["in"] == edited["kept"] + edited["rejected"]
    planned = ingest(config.replace(force_new=True)).data
    free = {"large_groups", "splits"}  # a new plan may share the groups out in another way
    assert {k: v for k, v in edited.items() if k not in free} == {
        k: v for k, v in planned.items() if k not in free
    }
    assert edited["by_code"]["taken_down"] >= 5


@pytest.fixture
def talk(dump, tmp_path, key_file):
    """Two pictures; one has only a reply for a caption, the other a post, a reply, and a repost that lost."""
    dump.picture("a.jpg", 1, side=200)
    dump.picture("b.jpg", 2)
    dump.picture("copy.jpg", 1, side=190)
    dump.picture("copy2.jpg", 1, side=180)
    dump.post("11", "What is it?", "b")
    reply = [{"type": "replied_to", "id": "11"}]
    dump.post("12", "Melanoma of the skin @drfoo", referenced_tweets=reply, conversation_id="11")
    dump.post("21", "Nevus of the skin", "a")
    reply = [{"type": "replied_to", "id": "21"}]
    dump.post("22", "Agree, benign nevus", referenced_tweets=reply, conversation_id="21")
    dump.post("31", "A nevus I saw", "copy")
    dump.post("32", "A nevus that I saw", "copy2")
    return IngestConfig(
        sources=(dump.tweets,),
        media=dump.media,
        out=tmp_path / "out",
        key_file=key_file,
        split={"val": 0, "test": 0},
    )


def remove(config, *posts, **kinds):
    return takedown(
        config.out, Requests(posts=dict.fromkeys(posts, "request"), **kinds), key_file=config.key_file
    )


def test_names_of_accounts_are_not_even_kept_in_the_private_part(talk):
    ingest(talk)
    assert not traces(talk.out, {"drfoo"})


def test_a_reply_leaves_its_sample_which_keeps_its_other_captions(talk):
    ingest(talk)
    assert remove(talk, "22").to_json() == {
        "requested": 1, "known": 1, "before": 0, "posts": 1, "samples": 0, "captions": 1, "shards": 1,
        "derived": 0, "dry_run": False, "events": {}, "unread": (), "published": None,
    }  # fmt: skip
    assert [c["text"] for c in kept(talk.out)["21", "3_21a"]["captions"]] == ["Nevus of the skin"]
    assert check(talk.out).ok


def test_a_posts_own_caption_leaves_with_the_post_and_the_reply_is_used_no_more(talk):
    ingest(talk)
    done = remove(talk, "21")
    assert (done.samples, done.captions) == (1, 0)
    assert ("21", "3_21a") not in kept(talk.out)
    assert codes(talk.out)["x:22"] == "no_media"
    assert not any("21" in (row["detail"] or "") for row in rejects(talk.out))


def test_a_sample_without_a_caption_leaves_and_is_accounted_for(talk):
    ingest(talk)
    assert remove(talk, "12").samples == 1
    row = next(row for row in rejects(talk.out) if row["candidate_id"] == "x:11:3_11b")
    assert (row["code"], row["detail"]) == ("no_caption", "all that was said of it was taken down")
    assert row["source"] == "tweets.jsonl:1#0"
    report = read_json(talk.out / "report.json")
    assert (report["in"], report["kept"], report["by_code"]) == (
        6, 1, {"taken_down": 1, "used_as_caption": 1, "no_caption": 1, "duplicate_near": 2},
    )  # fmt: skip
    assert check(talk.out).ok


def test_a_duplicate_that_lost_is_not_promoted_now_or_later(talk):
    ingest(talk)
    assert codes(talk.out)["x:31:3_31copy"] == "duplicate_near"
    remove(talk, "21")
    for again in (None, talk.replace(dedup={"drop_radius": 2}), talk.replace(force_new=True)):
        if again is not None:
            ingest(again)
        assert set(kept(talk.out)) == {("11", "3_11b")}
        assert codes(talk.out)["x:31:3_31copy"] == codes(talk.out)["x:32:3_32copy2"] == "taken_down"


def test_a_retweet_leaves_with_what_it_repeats(talk, dump):
    shown = {"attachments": {"media_keys": ["3_21a"]}}
    dump.post("41", "RT @drbar: Nevus of the", **shown, referenced_tweets=[{"type": "retweeted", "id": "21"}])
    dump.post("42", "RT @drbar: Nevus of the", **shown)
    config = talk.replace(sources=(dump.tweets,), select={"retweets": "keep"})
    ingest(config)
    assert remove(config, "21").posts == 3
    assert not traces(config.out, {"41", "42", "3_21a", "21"} - {"42"})
    assert read_json(config.out / "report.json")["by_code"]["taken_down"] >= 3


def test_an_older_version_leaves_alone_and_a_deleted_post_with_all_versions(talk, dump):
    dump.picture("e.jpg", 9)
    dump.post("5100000001", "Sarcoma of teh bone", "e", edit_history_tweet_ids=["5100000001"])
    dump.post("5200000001", "Sarcoma of the bone", "e", edit_history_tweet_ids=["5100000001", "5200000001"])
    config = talk.replace(sources=(dump.tweets,))
    ingest(config)
    assert codes(config.out)["x:5100000001:3_5100000001e"] == "superseded_edit"
    done = takedown(config.out, Requests(versions={"5100000001": "tweet_edit"}), key_file=config.key_file)
    assert (done.posts, done.samples) == (1, 0)
    assert ("5200000001", "3_5200000001e") in kept(config.out)
    assert not traces(config.out, {"5100000001", "Sarcoma of teh bone"})
    ingest(config.replace(force_new=True))
    assert ("5200000001", "3_5200000001e") in kept(config.out)
    assert remove(config, "5100000001").samples == 1, "a deletion names any version"
    assert ("5200000001", "3_5200000001e") not in kept(config.out)


def test_a_deletion_of_the_newest_version_takes_the_older_ones_along(talk, dump):
    """They share the attachment, and the older one does not know of the newer."""
    dump.picture("e.jpg", 9)
    dump.post("5100000001", "Sarcoma of teh bone", "e", edit_history_tweet_ids=["5100000001"])
    dump.post("5200000001", "Sarcoma of the bone", "e", edit_history_tweet_ids=["5100000001", "5200000001"])
    dump.pages[-1]["data"][0]["attachments"] = dump.pages[-2]["data"][0]["attachments"]
    config = talk.replace(sources=(dump.tweets,))
    ingest(config)
    assert remove(config, "5200000001").posts == 2
    assert not traces(config.out, {"5100000001", "5200000001", "3_5100000001e"})


@pytest.mark.parametrize(("name", "seed"), [(None, 0), (None, 4), ("plip", 1), ("permissive", 6)])
def test_takedowns_at_random_leave_a_whole_dataset_and_no_trace(synthetic_dump, tmp_path, name, seed):
    config = IngestConfig(
        sources=(synthetic_dump.tweets,), media=synthetic_dump.media, out=tmp_path / "d",
        pack={"shard_samples": 7}, **(preset(name) if name else {}),
    )  # fmt: skip
    ingest(config)
    for turn in range(3):
        posts, authors = wanted_of(synthetic_dump.tweets, 1 + 5 * turn, turn, seed=10 * seed + turn)
        requests = Requests(
            posts=dict.fromkeys(posts, "request"), authors=dict.fromkeys(authors, "user_delete")
        )
        takedown(config.out, requests)
        assert check(config.out).problems == []
        assert traces(config.out, needles_of(synthetic_dump.tweets, set(posts), set(authors))) == []
    edited = read_json(config.out / "report.json")
    planned = ingest(config.replace(force_new=True)).data
    for field in ("in", "kept", "rejected", "samples", "posts", "repeated", "by_hashtag", "by_source"):
        assert edited[field] == planned[field], field


def test_every_private_table_still_fits_its_schema(talk):
    ingest(talk)
    remove(talk, "21")
    folder = Path(__file__).parents[2] / "docs" / "reference" / "schemas"
    seen = set()
    for path in (talk.out / "private").rglob("*.parquet"):
        name = re.sub(r"-\d+$", "", path.stem)
        described = json.loads((folder / f"{name}.schema.json").read_text())
        assert pq.read_schema(path).metadata[b"schema"].decode() == described["title"]
        for row in pq.read_table(path).to_pylist():
            Draft202012Validator(described).validate(row)
        seen.add(name)
    assert seen >= {"posts", "faults", "pictures", "rejects", "plan", "provenance", "tombstones", "thumbs"}


def test_explain_tells_of_a_post_that_was_taken_down(talk):
    config = talk.replace(key_file=None)
    ingest(config)
    takedown(config.out, Requests(posts={"21": "request"}))
    (decision,) = explain(config.out, "21")["decisions"]
    assert (decision["code"], decision["tweet_id"]) == ("taken_down", "21")
    assert re.fullmatch(r"on \d{4}-\d\d-\d\d \(request\)", decision["detail"])
    with pytest.raises(UserError, match="knows nothing of '999'"):
        explain(config.out, "999")


def test_a_sample_id_counts_once_also_beside_its_post(talk):
    ingest(talk)
    name = kept(talk.out)["21", "3_21a"]["sample_id"]
    done = takedown(talk.out, Requests(posts={name: "request"}), key_file=talk.key_file, dry_run=True)
    assert (done.requested, done.known, done.samples) == (1, 1, 1)
    asked = Requests(posts={name: "request", "21": "request", "99": "request"})
    done = takedown(talk.out, asked, key_file=talk.key_file)
    assert (done.requested, done.known, done.samples) == (3, 2, 1)


def test_pictures_of_a_table_and_sample_ids_can_be_named(dump, tmp_path):
    dump.picture("p.jpg", 1)
    dump.picture("q.jpg", 2)
    table = dump.media / "t.csv"
    table.write_text("image,caption\np.jpg,Melanoma\np.jpg,Dark melanoma\nq.jpg,Nevus\n")
    config = IngestConfig(sources=(table,), out=tmp_path / "out")
    ingest(config)
    assert takedown(config.out, Requests(posts={"p.jpg": "request"})).samples == 1
    assert not traces(config.out, {"p.jpg", "Melanoma"})
    ingest(config.replace(force_new=True))
    (sample,) = samples(config.out)
    assert sample["captions"][0]["text"] == "Nevus"
    assert takedown(config.out, Requests(posts={sample["sample_id"]: "request"})).samples == 1
    assert samples(config.out) == []


def test_the_datasets_own_media_are_purged_and_the_users_are_not(talk, dump):
    """The own store holds files by hash or by name; a file that another post shows too stays."""
    dump.post("61", "Same nevus, other post", "b")
    config = talk.replace(sources=(dump.tweets,), dedup={"exact": False, "drop_radius": -1})
    ingest(config)
    store = config.out / "private" / "media"
    for name in ("a", "b"):
        data = (dump.media / f"{name}.jpg").read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        for path in (store / digest[:2] / f"{digest}.jpg", store / f"{name}.jpg"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    remove(config, "21", "11")
    left = {p.name for p in store.rglob("*") if p.is_file()}
    assert left == {"b.jpg", f"{hashlib.sha256((dump.media / 'b.jpg').read_bytes()).hexdigest()}.jpg"}
    assert (dump.media / "a.jpg").is_file()
    pictures = (config.out / "private" / "parts").glob("pictures-*")
    assert "a.jpg" not in {row["file"] for p in pictures for row in pq.read_table(p).to_pylist()}


def test_a_shard_that_is_emptied_goes_and_the_others_stay(dump, tmp_path):
    for n in range(6):
        dump.picture(f"p{n}.jpg", n, side=160 + 10 * n)
        dump.post(str(100 + n), f"Melanoma {n} of the skin", f"p{n}")
    config = IngestConfig(
        sources=(dump.tweets,), media=dump.media, out=tmp_path / "out", pack={"shard_samples": 1},
        split={"val": 0, "test": 0},
    )  # fmt: skip
    ingest(config)
    before = shard_bytes(config.out)
    takedown(config.out, Requests(posts={"101": "request"}))
    after = shard_bytes(config.out)
    lost = {name for name in before if name not in after}
    assert len(lost) == 3
    same = set(after) - {"index.json", "report.json"}
    assert {name: before[name] for name in same} == {name: after[name] for name in same}
    assert check(config.out).ok
    assert read_json(config.out / "index.json")["splits"]["train"]["count"] == 5


class Killed(BaseException):
    pass


def _state(out: Path) -> dict[str, str]:
    files = [p for p in out.rglob("*") if p.is_file() and p.name != "tombstones.parquet"]
    return {p.relative_to(out).as_posix(): sha256_file(p) for p in files}


def test_killed_at_any_moment_a_takedown_is_undone_or_completed(talk, tmp_path, monkeypatch):
    """Every rename and removal is such a moment; what stands is the old dataset or becomes the new one."""
    ingest(talk)
    old = _state(talk.out)
    done = tmp_path / "done"
    shutil.copytree(talk.out, done)
    takedown(done, Requests(posts={"21": "request"}), key_file=talk.key_file)
    new = _state(done)
    seen: set[str] = set()
    for moment in range(200):
        out = tmp_path / f"killed-{moment}"
        shutil.copytree(talk.out, out)
        if _takedown_killed_at(out, talk.key_file, moment, monkeypatch):
            break
        if (out / "index.json").is_file() and not (out / "private" / ".pending" / "todo.json").exists():
            assert check(out).ok, "what looks whole is whole"
        resumed = finish(out)
        state = _state(out)
        assert state in (old, new)
        seen.add("new" if state == new else "old")
        assert resumed == (state == new) or moment > 0
        takedown(out, Requests(posts={"21": "request"}), key_file=talk.key_file)
        assert _state(out) == new
        shutil.rmtree(out)
    assert moment > 20
    assert seen == {"old", "new"}


def _takedown_killed_at(out: Path, key_file: Path, moment: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run and be killed just before the given rename or removal; True where it came to its end."""
    count = iter(range(10_000))
    plain = {name: getattr(os, name) for name in ("replace", "unlink", "rmdir")}

    def watched(name):
        def act(*arguments, **more):
            if next(count) >= moment:
                raise Killed
            return plain[name](*arguments, **more)

        return act

    with monkeypatch.context() as patch:
        for name in plain:
            patch.setattr(os, name, watched(name))
        try:
            takedown(out, Requests(posts={"21": "request"}), key_file=key_file)
            return True
        except Killed:
            pass
    (out / "private" / "lock").unlink(missing_ok=True)  # as after a real kill: the lock of a dead process
    return False


def test_an_ingest_completes_a_takedown_that_was_killed(talk, monkeypatch):
    ingest(talk)
    for moment in range(100):
        shutil.copytree(talk.out, talk.out.with_name("one"))
        _takedown_killed_at(talk.out.with_name("one"), talk.key_file, moment, monkeypatch)
        if (talk.out.with_name("one") / "private" / ".pending" / "todo.json").exists():
            break
        shutil.rmtree(talk.out.with_name("one"))
    ingest(talk.replace(out=talk.out.with_name("one")))
    assert ("21", "3_21a") not in kept(talk.out.with_name("one"))
    assert check(talk.out.with_name("one")).ok


def test_a_dry_run_counts_and_writes_nothing(talk):
    ingest(talk)
    before = _state(talk.out)
    done = takedown(talk.out, Requests(posts={"21": "request"}), key_file=talk.key_file, dry_run=True)
    assert (done.posts, done.samples, done.dry_run) == (1, 1, True)
    assert "would remove 1 posts" in done.lines()[0]
    assert _state(talk.out) == before


def test_ids_taken_down_before_are_told_from_unknown_ones(talk):
    ingest(talk)
    remove(talk, "21")
    done = remove(talk, "21", "999")
    assert (done.requested, done.known, done.before, done.shards) == (2, 0, 1, 0)
    assert "1 ids had been taken down before" in done.lines()


def test_a_key_is_needed_and_must_be_the_one(talk, tmp_path):
    ingest(talk)
    with pytest.raises(UserError, match="--key-file"):
        takedown(talk.out, Requests(posts={"21": "request"}))
    other = tmp_path / "other"
    other.write_bytes(b"y" * 32)
    with pytest.raises(UserError, match="made with another key"):
        takedown(talk.out, Requests(posts={"21": "request"}), key_file=other)
    remove(talk, "21")
    with pytest.raises(UserError, match="made under another key"):
        ingest(talk.replace(key_file=other, force_new=True))
    assert check(talk.out).ok


def test_takedown_refuses_what_is_no_whole_dataset(tmp_path, talk):
    with pytest.raises(UserError, match="takedown needs the folder that ingest wrote"):
        takedown(tmp_path, Requests())
    ingest(talk)
    (talk.out / "index.json").unlink()
    with pytest.raises(UserError, match="not complete"):
        remove(talk, "21")


@pytest.mark.parametrize(
    ("event", "kind", "reason"),
    [
        ({"id": "1", "action": "delete", "reason": "deleted"}, "posts", "deleted"),
        ({"data": {"delete": {"tweet": {"id": "1", "author_id": "9"}}}}, "posts", "delete"),
        ({"delete": {"status": {"id": 1, "id_str": "1", "user_id": 9}}}, "posts", "delete"),
        ({"data": {"withheld": {"tweet": {"id": "1"}, "countries": ["DE"]}}}, "posts", "withheld"),
        ({"status_withheld": {"id": 1, "user_id": 9}}, "posts", "status_withheld"),
        ({"data": {"drop": {"tweet": {"id": "1"}}}}, "posts", "drop"),
        ({"data": {"user_delete": {"user": {"id": "1"}}}}, "authors", "user_delete"),
        ({"data": {"user_protect": {"user": {"id": "1"}}}}, "authors", "user_protect"),
        ({"user_suspend": {"id": 1, "timestamp_ms": "0"}}, "authors", "user_suspend"),
        ({"id": "1", "action": "delete", "reason": "protected"}, "authors", "protected"),
        ({"data": {"tweet_edit": {"tweet": {"id": "2"}, "initial_tweet_id": "1"}}}, "versions", "tweet_edit"),
    ],
)  # fmt: skip
def test_events_of_every_shape_are_read(tmp_path, event, kind, reason):
    path = tmp_path / "e.jsonl"
    path.write_text("\n" + json.dumps(event) + "\n")
    assert getattr(read_events(path), kind) == {"1": reason}


def test_the_real_compliance_events_are_read(data_dir):
    found = read_events(data_dir / "payloads" / "tweets_compliance.jsonl")
    assert found.posts == {"1170025343927402435": "protected", "1170147183102664643": "deactivated"}
    found = read_events(data_dir / "payloads" / "users_compliance.jsonl")
    assert found.authors == {"1489680861": "protected"}
    assert (found.events["delete (protected)"], found.unread) == (2, [])


def test_a_reversal_takes_back_its_own_event_and_no_request(talk, tmp_path):
    ingest(talk)
    gone = {"data": {"user_suspend": {"user": {"id": "a21"}}}}
    back = {"data": {"user_unsuspend": {"user": {"id": "a21"}}}}
    path = tmp_path / "e.jsonl"
    path.write_text("".join(json.dumps(e) + "\n" for e in (back, gone, back, gone)))
    assert takedown(talk.out, read_events(path), key_file=talk.key_file).samples == 1
    remove(talk, "11")
    path.write_text(
        json.dumps(back) + "\n" + json.dumps({"data": {"undelete": {"tweet": {"id": "11"}}}}) + "\n"
    )
    takedown(talk.out, read_events(path), key_file=talk.key_file)
    ingest(talk.replace(force_new=True))
    assert set(kept(talk.out)) == {("21", "3_21a")}


def test_lines_that_are_no_event_are_named_and_the_rest_is_done(talk, tmp_path):
    ingest(talk)
    path = tmp_path / "e.jsonl"
    lines = ["{", '{"data": {"mystery": {}}}', '{"data": {"delete": {}}}', '{"id": "1", "action": "read"}']
    lines += ['{"scrub_geo": {"user_id": 1}}', '{"id": "21", "action": "delete"}']
    path.write_text("\n".join(lines))
    code, out, _ = call("data", "takedown", talk.out, "--events", path, "--key-file", talk.key_file, "--json")
    done = json.loads(out)
    assert (code, done["samples"]) == (1, 1)
    assert done["unread"] == [
        "e.jsonl:1: not JSON",
        "e.jsonl:2: no known event (keys: mystery)",
        "e.jsonl:3: delete without an id",
        "e.jsonl:4: action 'read' is not known",
    ]
    path.write_text("{}\n")
    assert call("data", "takedown", talk.out, "--events", path)[0] == 2


@pytest.mark.parametrize(
    ("text", "name", "posts", "authors"),
    [
        ("1\n\n 2 \n", "i.txt", {"1", "2"}, set()),
        ("\ufeffid,text\n1,a\n2,b\n", "i.csv", {"1", "2"}, set()),
        ("text;tweet_id\na;1\n", "i.csv", {"1"}, set()),
        ("user_id\n7\n", "i.csv", set(), {"7"}),
        ("https://x.com/someone/status/123?s=20\n", "i.txt", {"123"}, set()),
    ],
)
def test_ids_are_read_from_lists_and_tables(tmp_path, text, name, posts, authors):
    (tmp_path / name).write_text(text)
    found = read_ids(tmp_path / name)
    assert (found.posts.keys(), found.authors.keys()) == (posts, authors)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no ids"),
        ("1\n1.5e+18\n", r"i.csv:2: 1.5e\+18 is a rounded number"),
        ("name,text\nx,y\n", "columns are name, text"),
    ],
)
def test_ids_that_cannot_be_meant_are_refused(tmp_path, text, says):
    (tmp_path / "i.csv").write_text(text)
    with pytest.raises(UserError, match=says):
        read_ids(tmp_path / "i.csv")


def test_the_verb_wants_ids_or_events(talk, tmp_path):
    code, _, err = call("data", "takedown", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "either --ids FILE or --events FILE" in err
    code, _, err = call("data", "takedown", tmp_path, "--ids", tmp_path / "gone.txt")
    assert (code, err) == (2, f"error: source {tmp_path / 'gone.txt'} does not exist\n")
