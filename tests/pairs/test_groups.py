from __future__ import annotations

import hashlib
import hmac

import pytest
from pydantic import ValidationError

from pathclip.pairs import Components, DedupConfig, SplitConfig, assign_splits, keyed_id


def test_a_keyed_id_is_base32_of_an_hmac_without_dots():
    found = keyed_id(b"k" * 32, "sample", "x:1:3_1", "ab")
    digest = hmac.new(b"k" * 32, b"sample\x1fx:1:3_1\x1fab", hashlib.sha256).digest()
    value = int.from_bytes(digest[:10], "big")
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    assert found == "".join(alphabet[value >> shift & 31] for shift in range(75, -1, -5))


def test_ids_differ_by_key_kind_and_part():
    ids = {
        keyed_id(b"a", "sample", "1", "2"),
        keyed_id(b"b", "sample", "1", "2"),
        keyed_id(b"a", "group", "1", "2"),
        keyed_id(b"a", "sample", "12"),
    }
    assert len(ids) == 4


def test_components_join_through_any_node():
    ties = Components()
    ties.join("a", ("author", "1"))
    ties.join("b", ("author", "1"))
    ties.join("b", "c")
    assert ties.members(["a", "b", "c", "d"]) == [["a", "b", "c"], ["d"]]


def test_splits_meet_their_shares_and_keep_groups_whole():
    sizes = {f"group{n:04d}": 1 + n % 5 for n in range(400)}
    splits = assign_splits(sizes, SplitConfig(val=0.1, test=0.2))
    total = sum(sizes.values())
    shares = {s: sum(sizes[g] for g in sizes if splits[g] == s) / total for s in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.01)


def test_splits_depend_on_the_ids_alone():
    sizes = {f"g{n}": n % 3 + 1 for n in range(50)}
    assert assign_splits(sizes, SplitConfig()) == assign_splits(dict(reversed(sizes.items())), SplitConfig())


def test_a_split_without_a_share_stays_empty():
    assert set(assign_splits({f"g{n}": 1 for n in range(30)}, SplitConfig(val=0, test=0)).values()) == {
        "train"
    }


def test_shares_and_radii_must_make_sense():
    with pytest.raises(ValidationError, match="leave nothing to train on"):
        SplitConfig(val=0.5, test=0.5)
    with pytest.raises(ValidationError, match="must be at least drop_radius"):
        DedupConfig(drop_radius=5, tie_radius=4)
