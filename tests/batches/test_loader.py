from __future__ import annotations

import dataclasses
import logging
import os
import signal
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from shard_factory import make_dataset
from torch import Tensor

from pathclip.batches import AugmentConfig, Batch, BatchConfig, Order, ShardLoader, caption_id, stable_id
from pathclip.core.errors import FaultError, UserError
from pathclip.shards import Dataset


def tokenize(texts: list[str]) -> Tensor:
    return torch.tensor([[len(t), ord(t[0])] for t in texts])


def loader(root: Path, *, rank: int = 0, world_size: int = 1, seed: int = 3, **config: object) -> ShardLoader:
    chosen = BatchConfig(**{"size": 5, "workers": 0, **config})
    return ShardLoader(
        Dataset.open(root),
        "train",
        chosen,
        tokenize,
        image_size=16,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )


def take(stream: ShardLoader, count: int) -> list[Batch]:
    return list(islice(stream, count))


def same(first: Batch, second: Batch) -> bool:
    tensors = ("images", "tokens", "positive_ids", "caption_ids")
    return first.keys == second.keys and all(
        torch.equal(getattr(first, name), getattr(second, name)) for name in tensors
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data"), 24)


def test_batch_has_the_shapes_and_types_of_the_design(root: Path) -> None:
    batch = take(loader(root), 1)[0]
    assert batch.images.shape == (5, 3, 16, 16)
    assert batch.images.dtype == torch.uint8
    assert batch.tokens.shape == (5, 2)
    assert batch.positive_ids.dtype == batch.caption_ids.dtype == torch.int64
    assert len(batch.keys) == 5


def test_every_pass_holds_every_sample_once_and_is_shuffled_anew(root: Path) -> None:
    keys = [key for batch in take(loader(root), 24) for key in batch.keys]  # 120 positions: 5 passes
    passes = [keys[i : i + 24] for i in range(0, 120, 24)]
    assert all(len(set(one)) == 24 for one in passes)
    assert len({tuple(one) for one in passes}) == 5
    assert passes[0] != sorted(passes[0])


def test_number_of_workers_changes_nothing(root: Path) -> None:
    plain = take(loader(root, workers=0), 12)
    for workers, prefetch in ((1, 1), (3, 4)):
        threaded = take(loader(root, workers=workers, prefetch=prefetch), 12)
        assert all(same(a, b) for a, b in zip(plain, threaded, strict=True))


def test_processes_decode_what_threads_do(root: Path) -> None:
    plain, ours = take(loader(root), 9), take(loader(root, workers=2, processes=True), 9)
    assert all(same(a, b) for a, b in zip(plain, ours, strict=True))


def test_batches_of_processes_are_kept_by_their_holder(root: Path) -> None:
    batches = take(loader(root, workers=1, processes=True, prefetch=1), 6)
    assert len({bytes(batch.images.contiguous().numpy()) for batch in batches}) == 6


def child_processes() -> set[int]:
    return {
        int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()
    }


def test_a_decode_process_that_dies_is_replaced(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    others = child_processes()  # of other tests, such as Python's own resource tracker
    stream = iter(loader(root, workers=1, processes=True))
    first = [next(stream) for _ in range(2)]
    (worker,) = child_processes() - others
    os.kill(worker, signal.SIGKILL)
    with caplog.at_level(logging.WARNING, "pathclip"):
        rest = [next(stream) for _ in range(6)]
    stream.close()
    assert all(same(a, b) for a, b in zip(take(loader(root), 8), first + rest, strict=True))
    assert any("decode process ended (exit status -9)" in r.getMessage() for r in caplog.records)


def test_a_fault_in_a_process_reaches_the_loop(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, 12, change=lambda s: dataclasses.replace(s, jpg=b"no picture"))
    with pytest.raises(FaultError, match=r"12 samples in a row cannot be used"):
        take(loader(data, workers=1, processes=True), 1)


@pytest.mark.parametrize("stop", [0, 1, 4, 5, 9])
def test_a_loader_goes_on_exactly_where_another_stopped(root: Path, stop: int) -> None:
    whole = take(loader(root), 12)
    first = loader(root, workers=2)
    take(first, stop)
    second = loader(root, workers=1)
    second.load_state_dict(first.state_dict())
    assert all(same(a, b) for a, b in zip(whole[stop:], take(second, 12 - stop), strict=True))


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_together_see_what_one_rank_sees(root: Path, world_size: int) -> None:
    alone = take(loader(root), 6)
    ranks = [take(loader(root, rank=r, world_size=world_size), 6) for r in range(world_size)]
    for step, batch in enumerate(alone):
        shares = [rank[step] for rank in ranks]
        assert [key for share in shares for key in share.keys] == batch.keys
        assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
        assert torch.equal(torch.cat([share.caption_ids for share in shares]), batch.caption_ids)
        assert max(len(s.keys) for s in shares) - min(len(s.keys) for s in shares) <= 1


def test_state_carries_over_to_another_number_of_ranks(root: Path) -> None:
    before = loader(root, rank=1, world_size=2)
    take(before, 7)
    after = loader(root)
    after.load_state_dict(before.state_dict())
    assert same(take(after, 1)[0], take(loader(root), 8)[7])


def test_seed_changes_order_and_pictures(root: Path) -> None:
    first, second = take(loader(root, seed=1), 5), take(loader(root, seed=2), 5)
    assert [b.keys for b in first] != [b.keys for b in second]


def test_any_caption_is_drawn_and_first_is_always_the_first(root: Path) -> None:
    drawn = {int(i) for b in take(loader(root), 30) for i in b.caption_ids}
    first = {int(i) for b in take(loader(root, captions="first"), 30) for i in b.caption_ids}
    labels = ("fat", "muscle", "nuclei", "mucin")
    assert first == {caption_id(f"{name}.") for name in labels}
    assert drawn == first | {caption_id(f"An H&E image of {name}") for name in labels}


def test_captions_are_read_from_all_over_the_data(root: Path) -> None:
    stream = loader(root)
    every = stream.captions(10**6)
    assert len(every) >= stream.count
    some = stream.captions(stream.count // 3)
    assert len(every) // 4 < len(some) < len(every) // 2
    assert set(some) <= set(every)


def test_augmentation_does_not_change_which_captions_are_drawn(root: Path) -> None:
    plain = take(loader(root, augment=AugmentConfig.off()), 8)
    turned = take(loader(root), 8)
    assert all(torch.equal(a.caption_ids, b.caption_ids) for a, b in zip(plain, turned, strict=True))
    assert any(not torch.equal(a.images, b.images) for a, b in zip(plain, turned, strict=True))


def test_ids_are_the_same_in_every_process_and_on_every_machine() -> None:
    # golden values: blake2b with an 8-byte digest, little endian, shifted right by one
    assert stable_id("signet ring cells") == 7747780786712375269
    assert caption_id(" Signet  ring cells. ") == stable_id("signet ring cells")
    assert caption_id("signet ring cell") != caption_id("signet ring cells")
    assert 0 <= stable_id("") < 2**63


def test_samples_of_one_positive_id_share_it(root: Path) -> None:
    ids = {key: int(i) for b in take(loader(root), 10) for key, i in zip(b.keys, b.positive_ids, strict=True)}
    assert ids["tr00000000000000"] == ids["tr00000000000001"] != ids["tr00000000000002"]


def test_several_datasets_are_read_as_one(root: Path, tmp_path: Path) -> None:
    other = make_dataset(
        tmp_path / "b", 6, shards=1, change=lambda s: dataclasses.replace(s, sample_id="x" + s.sample_id[1:])
    )
    both = ShardLoader(
        [Dataset.open(root), Dataset.open(other)],
        "train",
        BatchConfig(size=5, workers=0),
        tokenize,
        image_size=16,
        seed=0,
    )
    keys = [key for batch in take(both, 6) for key in batch.keys]
    assert len(set(keys)) == 30
    assert sum(key.startswith("x") for key in keys) == 6


def weighted(root: Path, other: Path, weights: tuple[float, ...], **config: int) -> ShardLoader:
    return ShardLoader(
        [Dataset.open(root), Dataset.open(other)],
        "train",
        BatchConfig(size=6, workers=0),
        tokenize,
        image_size=16,
        seed=0,
        weights=weights,
    )


def test_weights_say_how_often_a_pass_takes_each_dataset(root: Path, tmp_path: Path) -> None:
    other = make_dataset(
        tmp_path / "b", 6, shards=1, change=lambda s: dataclasses.replace(s, sample_id="x" + s.sample_id[1:])
    )
    stream = weighted(root, other, (0.5, 3.0))
    assert stream.count == 12 + 18
    keys = [key for batch in take(stream, 10) for key in batch.keys]  # two passes
    for number in (0, 1):
        part = keys[30 * number : 30 * (number + 1)]
        tally = Counter(key for key in part if key.startswith("x"))
        assert len(tally) == 6
        assert set(tally.values()) == {3}
    plain = [key for key in keys if not key.startswith("x")]
    assert len(plain) == len(set(plain)) == 24  # every one of the first dataset once in two passes
    again = weighted(root, other, (0.5, 3.0))
    again.load_state_dict(stream.state_dict())
    later = take(weighted(root, other, (0.5, 3.0)), 12)[10:]
    assert all(same(a, b) for a, b in zip(later, take(again, 2), strict=True))
    ones = [b.keys for b in take(weighted(root, other, (1, 1)), 5)]
    assert ones == [b.keys for b in take(weighted(root, other, ()), 5)]
    with pytest.raises(UserError, match=r"data\.weights has 1 numbers for 2 datasets"):
        weighted(root, other, (1.0,))


def test_a_sample_drawn_twice_in_a_pass_is_augmented_anew(root: Path) -> None:
    stream = ShardLoader(
        Dataset.open(root),
        "train",
        BatchConfig(size=48, workers=0),
        tokenize,
        image_size=16,
        seed=0,
        weights=(2,),
    )
    batch = take(stream, 1)[0]
    pictures: dict[str, set[bytes]] = {}
    for key, image in zip(batch.keys, batch.images, strict=True):
        pictures.setdefault(key, set()).add(image.numpy().tobytes())
    assert len(pictures) == 24
    assert sum(len(p) for p in pictures.values()) > 40


def break_one(number: int, how: str) -> object:
    def change(sample):
        if int(sample.sample_id[2:]) != number:
            return sample
        if how == "picture":
            return dataclasses.replace(sample, jpg=sample.jpg[: len(sample.jpg) // 2])
        return dataclasses.replace(sample, captions=(("  ", "table"),))

    return change


@pytest.mark.parametrize(("how", "reason"), [("picture", "remature end"), ("caption", "no caption")])
def test_a_bad_sample_is_named_once_and_replaced_by_the_next(
    root: Path, tmp_path: Path, how: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    hurt = loader(make_dataset(tmp_path, 24, change=break_one(7, how)), workers=2)
    with caplog.at_level(logging.WARNING, "pathclip"):
        got = take(hurt, 15)
    whole = take(loader(root), 15)
    for mine, theirs in zip(got, whole, strict=True):
        for key, expected in zip(mine.keys, theirs.keys, strict=True):
            assert key == ("tr00000000000008" if expected == "tr00000000000007" else expected)
    assert list(hurt.bad) == ["train-000000.tar, key tr00000000000007"]
    assert reason in next(iter(hurt.bad.values()))
    assert len([r for r in caplog.records if "tr00000000000007" in r.getMessage()]) == 1


def test_a_bad_sample_does_not_disturb_exact_resume(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, 24, change=break_one(7, "picture"))
    whole, first = take(loader(data), 10), loader(data)
    take(first, 4)
    second = loader(data)
    second.load_state_dict(first.state_dict())
    assert all(same(a, b) for a, b in zip(whole[4:], take(second, 6), strict=True))


def test_a_split_of_bad_samples_is_a_fault_not_an_endless_search(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, 12, change=lambda s: dataclasses.replace(s, jpg=b"no picture"))
    with pytest.raises(FaultError, match=r"12 samples in a row cannot be used.*pathclip data verify"):
        take(loader(data), 1)


def test_a_cut_shard_is_refused_before_training(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, 24)
    tar = data / "shards" / "train-000001.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    with pytest.raises(UserError, match=r"train-000001.tar is cut"):
        loader(data)


def test_a_shard_cut_in_use_costs_its_samples_and_names_them(tmp_path: Path) -> None:
    data = make_dataset(tmp_path, 24)
    stream = loader(data)
    batches = iter(stream)
    next(batches)
    tar = data / "shards" / "train-000001.tar"
    with open(tar, "r+b") as handle:
        handle.truncate(tar.stat().st_size // 2)
    later = [next(batches) for _ in range(10)]
    assert all(len(batch.keys) == 5 for batch in later)
    assert stream.bad
    assert all(name.startswith("train-000001.tar, row") for name in stream.bad)
    assert set(stream.bad.values()) == {f"shard {tar} was cut while it was in use"}


def test_too_few_samples_for_a_batch_says_which_size_would_do(root: Path) -> None:
    with pytest.raises(UserError, match=r"24 samples, batch.size is 25: set batch.size to at most 24"):
        loader(root, size=25)


def test_more_ranks_than_samples_in_a_batch_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="6 ranks"):
        loader(root, world_size=6)


@pytest.mark.parametrize("name", ["seed", "count"])
def test_a_state_of_other_data_or_seed_is_refused(root: Path, name: str) -> None:
    stream = loader(root)
    with pytest.raises(UserError, match=f"made with {name} 99"):
        stream.load_state_dict({**stream.state_dict(), name: 99})


def pictures(stream: ShardLoader, passes: int) -> list[dict[str, Tensor]]:
    """Of each pass: sample -> picture."""
    found: list[dict[str, Tensor]] = []
    for batch in take(stream, passes * stream.count // stream.config.size):
        for key, image in zip(batch.keys, batch.images, strict=True):
            if not found or key in found[-1]:
                found.append({})
            found[-1][key] = image
    return found


def test_a_fixed_number_of_views_come_in_turn(root: Path) -> None:
    endless = pictures(loader(root, size=6), 5)
    two = pictures(loader(root, size=6, views=2), 5)
    assert [set(one) for one in two] == [set(endless[0])] * 5
    for key in endless[0]:
        for number in range(5):
            assert torch.equal(two[number][key], endless[number % 2][key])
    captions = [batch.caption_ids for batch in take(loader(root, views=2), 20)]
    plain = [batch.caption_ids for batch in take(loader(root), 20)]
    assert all(torch.equal(a, b) for a, b in zip(captions, plain, strict=True))  # these are drawn anew


@pytest.mark.parametrize("weights", [(), (1, 1), (2, 0.5), (0.3, 1), (3.7, 1)])
@pytest.mark.parametrize("stop", [1, 10, 23, 60, 200])
def test_the_passes_that_positions_reach_are_known(weights: tuple[float, ...], stop: int) -> None:
    order = Order([7, 16], seed=0, weights=weights)
    reached = 1 + max(number for number, _ in order.window(0, stop))
    whole = 1 + max(number for number, _ in order.window(0, -(-stop // order.count) * order.count))
    assert reached <= order.passes(stop) == whole
