"""The dump's truth and the ingest's decisions, candidate by candidate."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from pathclip.ingest import Code, IngestConfig, ingest
from pathclip.synthetic import write_dump


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    out = tmp_path_factory.mktemp("truth")
    truth = write_dump(out / "dump", 11, pictures=60, size_px=160)
    report = ingest(IngestConfig(sources=(truth.tweets,), media=truth.media, out=out / "dataset"))
    rows = [
        row
        for path in (out / "dataset/private/rejects").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    ]
    return truth, report, rows


def test_every_candidate_is_decided_as_the_dump_was_made(road):
    truth, _, rows = road
    codes = {(row["tweet_id"], row["media_key"]): row["code"] for row in rows}
    wrong = [
        (d.rule, d.kept, d.code, codes.get((d.tweet_id, d.media_key)))
        for d in truth.decisions
        if d.kept is not None and codes.get((d.tweet_id, d.media_key)) != d.code
    ]
    assert wrong == []


def test_nothing_is_counted_that_the_truth_does_not_know(road):
    truth, report, rows = road
    assert report.data["in"] == len(truth.decisions) + sum(truth.extra_lines.values())
    known = {(d.tweet_id, d.media_key) for d in truth.decisions}
    beyond = [row["code"] for row in rows if (row["tweet_id"], row["media_key"]) not in known]
    assert sorted(beyond) == sorted(code for code, n in truth.extra_lines.items() for _ in range(n))


def test_codes_of_the_truth_are_of_the_closed_list(road):
    truth, _, _ = road
    assert {d.code for d in truth.decisions if d.code} | set(truth.extra_lines) <= set(Code)
