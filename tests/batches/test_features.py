from __future__ import annotations

import pickle
from itertools import islice
from pathlib import Path

import pytest
import torch
from shard_factory import make_dataset

from pathclip.batches import BadImageError, BatchConfig, FeatureStore, ShardLoader, features
from pathclip.core.errors import FaultError
from pathclip.shards import Dataset


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setattr(features, "PART", 10)
    return FeatureStore(tmp_path / "store", 13, 4, 2)


def test_a_store_gives_rows_and_reasons_and_travels(store: FeatureStore) -> None:
    first, second, third, fourth = store.parts
    assert [(p.view, p.start, p.stop) for p in (second, third)] == [(0, 10, 13), (1, 0, 10)]
    store.write(second, torch.arange(12.0).reshape(3, 4), {11: "it is cut"})
    for each in (store, pickle.loads(pickle.dumps(store))):
        assert each.row(0, 12).tolist() == [8, 9, 10, 11]
        with pytest.raises(BadImageError, match=r"^it is cut$"):
            each.row(0, 11)
        with pytest.raises(FaultError, match=r"view-0001-000000\.safetensors cannot be read"):
            each.row(1, 0)
    assert [store.holds(part) for part in (first, second, third, fourth)] == [False, True, False, False]


def test_equal_features_give_equal_files(store: FeatureStore) -> None:
    part = store.parts[1]
    contents = set()
    for _ in range(8):
        store.write(part, torch.ones(3, 4), {12: "b", 11: "a"})
        contents.add(store.path(part).read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 2}, {"workers": 1, "processes": True}])
def test_batches_hold_a_samples_feature_of_the_passs_view(
    tmp_path: Path, store: FeatureStore, options: dict[str, object]
) -> None:
    store = FeatureStore(tmp_path / "own", 24, 4, 2)
    for part in store.parts:
        indices = torch.arange(part.start, part.stop)
        rows = torch.stack([indices, torch.full_like(indices, part.view), -indices, indices], 1)
        store.write(part, rows.float(), {7: "it is cut"} if part.start == 0 else {})
    data = Dataset.open(make_dataset(tmp_path / "data", 24))
    config = BatchConfig.model_validate({"size": 8, "views": 2, **options})
    loader = ShardLoader(data, "train", config, lambda t: torch.zeros(1, 1).long(), image_size=16, seed=0)
    loader.read_features(store)
    for number, batch in enumerate(islice(loader, 9)):
        assert (batch.images.shape, batch.images.dtype) == ((8, 4), torch.float32)
        for key, row in zip(batch.keys, batch.images.tolist(), strict=True):
            index = int(key[2:])
            assert row == [index, (number // 3) % 2, -index, index]
            assert index != 7
    assert loader.bad == {"train-000000.tar, key tr00000000000007": "it is cut"}
