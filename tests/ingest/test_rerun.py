from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time

import pyarrow.parquet as pq
import pytest
from looking import samples, shard_bytes

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import claim, read_json
from pathclip.ingest import IngestConfig, check, ingest


@pytest.fixture
def small(dump, tmp_path, key_file):
    """Eight pairs, and a config to ingest them."""
    for n in range(8):
        dump.picture(f"p{n}.jpg", n, side=160 + 10 * n)
        dump.post(str(n + 1), f"Melanoma {n} of the skin", f"p{n}")
    return IngestConfig(
        sources=(dump.tweets,),
        media=dump.media,
        out=tmp_path / "out",
        key_file=key_file,
        pack={"shard_samples": 3},
    )


def test_a_second_run_has_nothing_to_do(small):
    first = ingest(small)
    before = shard_bytes(small.out)
    times = {p: p.stat().st_mtime_ns for p in small.out.rglob("*") if p.is_file()}
    second = ingest(small)
    assert (first.state, second.state) == ("new", "unchanged")
    assert second.data == first.data
    assert shard_bytes(small.out) == before
    assert {p: p.stat().st_mtime_ns for p in small.out.rglob("*") if p.is_file()} == times


def test_a_changed_plan_rebuilds_from_the_plan(small, tmp_path):
    ingest(small)
    parts = {p.name: p.stat().st_mtime_ns for p in (small.out / "private" / "parts").iterdir()}
    changed = small.replace(image={"min_side_px": 200})
    report = ingest(changed)
    assert report.state == "rebuilt"
    assert report.data["by_code"] == {"image_tiny": 4}
    assert {p.name: p.stat().st_mtime_ns for p in (small.out / "private" / "parts").iterdir()} == parts
    fresh = ingest(changed.replace(out=tmp_path / "fresh"))
    assert fresh.data == report.data
    assert shard_bytes(small.out) == shard_bytes(tmp_path / "fresh")


def test_a_card_that_a_person_completed_stays(small):
    ingest(small)
    card = small.out / "README.md"
    assert "Legal basis: **not stated yet**" in card.read_text()
    card.write_text(card.read_text().replace("**not stated yet**", "our own posts"))
    ingest(small.replace(image={"min_side_px": 200}))
    assert "Legal basis: our own posts" in card.read_text()


def test_a_changed_pack_rebuilds_the_shards(small, tmp_path):
    ingest(small)
    changed = small.replace(pack={"short_side_px": 100, "shard_samples": 50})
    assert ingest(changed).state == "rebuilt"
    assert {r["width"] for r in samples(small.out)} == {100}
    ingest(changed.replace(out=tmp_path / "fresh"))
    assert shard_bytes(small.out) == shard_bytes(tmp_path / "fresh")
    assert check(small.out).ok


def test_other_input_media_settings_or_key_are_refused_with_the_difference(small, dump, tmp_path):
    ingest(small)
    before = shard_bytes(small.out)
    with pytest.raises(UserError, match=r"collect\.max_bytes was 25000000, is 1000"):
        ingest(small.replace(collect={"max_bytes": 1000}))
    other = tmp_path / "other-key"
    other.write_bytes(b"x" * 32)
    with pytest.raises(UserError, match=r"the key of the ids is another one \(--key-file\)"):
        ingest(small.replace(key_file=other))
    dump.picture("new.jpg", 99)
    with pytest.raises(UserError, match="media: 8 files then, 9 now"):
        ingest(small)
    (dump.media / "new.jpg").unlink()
    dump.post("77", "Nevus of the skin", "p0")
    with pytest.raises(UserError, match=r"input: 1 files are new, 1 gone or changed.*--force-new"):
        ingest(small.replace(sources=(dump.tweets,)))
    assert shard_bytes(small.out) == before


def test_force_new_swaps_a_whole_generation_in(small, dump, tmp_path):
    ingest(small)
    (small.out / "notes.txt").write_text("mine")
    dump.picture("new.jpg", 99)
    dump.post("77", "Nevus of the skin", "new")
    changed = small.replace(sources=(dump.tweets,), force_new=True)
    report = ingest(changed)
    assert report.kept == 9
    assert check(small.out).ok
    assert not (small.out / ".new").exists()
    assert not (small.out / ".old").exists()
    assert (small.out / "notes.txt").read_text() == "mine"
    ingest(changed.replace(out=tmp_path / "fresh", force_new=False))
    assert shard_bytes(small.out) == shard_bytes(tmp_path / "fresh")
    assert ingest(changed.replace(force_new=False)).state == "unchanged"


def test_force_new_keeps_the_key_of_the_dataset(small):
    own = small.replace(key_file=None)
    ingest(own)
    ids = {r["sample_id"] for r in samples(own.out)}
    ingest(own.replace(force_new=True))
    assert {r["sample_id"] for r in samples(own.out)} == ids


@pytest.mark.parametrize(
    "lost", ["index.json", "private/plan.parquet", "shards/train-000000.stats.json", "private/parts"]
)
def test_what_a_killed_run_left_out_is_made_good(small, lost):
    ingest(small)
    before = shard_bytes(small.out)
    path = small.out / lost
    for part in [*path.glob("chunk-*"), *path.glob("pictures-*")] if path.is_dir() else [path]:
        part.unlink()
    (small.out / "index.json").unlink(missing_ok=True)
    (small.out / "shards" / ".train-000000.tar.abcd.part").write_bytes(b"half")
    assert ingest(small).state == "resumed"
    assert shard_bytes(small.out) == before


def _killed(config, delay):
    process = multiprocessing.get_context("spawn").Process(target=ingest, args=(config,))
    process.start()
    time.sleep(delay)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.slow
def test_sigkill_at_any_moment_leaves_what_a_rerun_completes(small, tmp_path):
    ingest(small.replace(out=tmp_path / "whole"))
    for delay in (0.6, 0.9, 1.1, 1.3):
        config = small.replace(out=tmp_path / f"killed-{delay}")
        _killed(config, delay)
        if (config.out / "index.json").is_file():
            assert check(config.out).ok, "what looks whole is whole"
        ingest(config)
        assert shard_bytes(config.out) == shard_bytes(tmp_path / "whole")


def test_a_clock_that_jumps_changes_nothing(small, tmp_path, monkeypatch):
    whole = ingest(small.replace(out=tmp_path / "whole"))

    def away(*_):
        raise FaultError("the machine went down")

    with monkeypatch.context() as patch:
        patch.setattr("pathclip.ingest.run.materialise", away)
        with pytest.raises(FaultError):
            ingest(small)
    for seconds in (4_000_000_000, 0):  # the parts and pictures of tomorrow, then of 1970
        for path in (*small.out.rglob("*"), *small.media.iterdir(), *small.sources):
            os.utime(path, (seconds, seconds))
        clock = itertools.count(2_000_000_000, -86_400)
        monkeypatch.setattr(time, "time", lambda clock=clock: float(next(clock)))
        report = ingest(small)
        assert report.data == whole.data
        assert shard_bytes(small.out) == shard_bytes(tmp_path / "whole")
    assert report.state == "unchanged"


def test_two_runs_into_one_folder_do_not_mix(small):
    small.out.mkdir()
    with claim(small.out / "private" / "lock") as owned:
        assert owned
        with pytest.raises(UserError, match="another run is writing"):
            ingest(small)


def test_a_foreign_dataset_is_not_overwritten(small):
    (small.out / "shards").mkdir(parents=True)
    (small.out / "shards" / "train-000000.tar").write_bytes(b"precious")
    with pytest.raises(UserError, match="without the private part"):
        ingest(small)
    assert (small.out / "shards" / "train-000000.tar").read_bytes() == b"precious"


def test_a_dry_run_decides_and_writes_nothing(small):
    report = ingest(small.replace(dry_run=True))
    assert not small.out.exists()
    assert (report.state, report.kept) == ("dry-run", 8)
    assert "would write a new dataset" in report.messages[0]
    ingest(small)
    before = {p: p.stat().st_mtime_ns for p in small.out.rglob("*")}
    dry = small.replace(dry_run=True)
    assert "nothing to do" in ingest(dry).messages[0]
    assert "plan changed" in ingest(dry.replace(image={"min_side_px": 9})).messages[0]
    assert "would refuse" in ingest(dry.replace(collect={"max_bytes": 9999})).messages[0]
    assert "would start over" in ingest(dry.replace(force_new=True)).messages[0]
    assert {p: p.stat().st_mtime_ns for p in small.out.rglob("*")} == before


def test_a_picture_that_vanishes_between_the_phases_is_a_fault(small, dump):
    ingest(small)
    for stats in (small.out / "shards").glob("*.stats.json"):
        stats.unlink()
    (small.out / "index.json").unlink()
    size = (dump.media / "p0.jpg").stat().st_size
    (dump.media / "p0.jpg").write_bytes(b"x" * size)
    with pytest.raises(FaultError, match=r"p0\.jpg changed or vanished"):
        ingest(small)
    assert not (small.out / "index.json").exists()


def test_a_users_mistake_leaves_no_trace(small, tmp_path):
    blank = tmp_path / "blank.csv"
    blank.write_text("image,caption\n")
    with pytest.raises(UserError, match="nothing to read"):
        ingest(small.replace(sources=(blank,)))
    assert not (small.out / "private").exists()
    assert ingest(small).kept == 8


def test_damage_is_found_by_check(small):
    ingest(small)
    assert check(small.out).ok
    tar = next((small.out / "shards").glob("train-*.tar"))
    data = bytearray(tar.read_bytes())
    data[len(data) // 3] ^= 0xFF
    tar.write_bytes(data)
    assert any("SHA-256 differs" in problem for problem in check(small.out).problems)


def test_a_report_or_plan_that_does_not_fit_is_found(small):
    ingest(small)
    report = read_json(small.out / "report.json")
    (small.out / "report.json").write_text(
        __import__("json").dumps({**report, "kept": 7, "by_code": {"made_up": 1}, "samples": 9})
    )
    rejects = small.out / "private" / "rejects" / "rejects-00000.parquet"
    plan = small.out / "private" / "plan.parquet"
    pq.write_table(pq.read_table(plan).slice(1), plan)
    rejects.write_bytes(b"broken")
    said = "\n".join(check(small.out).problems)
    for part in ("is not kept 7", "by_code does not add up", "made_up", "9 samples", "cannot be read"):
        assert part in said
    rejects.unlink()
    assert "not what the plan names here" in "\n".join(check(small.out).problems)
    (small.out / "report.json").unlink()
    assert "report.json: missing" in check(small.out).problems
