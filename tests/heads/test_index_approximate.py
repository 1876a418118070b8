from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pathclip.core.errors import UserError
from pathclip.heads import Index
from pathclip.heads.index import approximate
from pathclip.heads.index import index as index_module
from pathclip.heads.index.build import EMBEDDINGS_SCHEMA, Embeddings
from pathclip.heads.index.sources import COLUMNS
from pathclip.heads.retrieval import nearest_rows

COUNT, DIM = 6000, 64


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """Features in clusters, as those of pictures are."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, DIM))
    return unit(centres[rng.integers(0, 60, COUNT)] + 0.35 * rng.normal(size=(COUNT, DIM)))


@pytest.fixture
def large(features: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """What 6,000 pictures would be if a thousand were many."""
    monkeypatch.setattr(index_module, "APPROXIMATE_ABOVE", 1000)
    record: dict[str, Any] = {
        "schema": EMBEDDINGS_SCHEMA,
        "count": COUNT,
        "dim": DIM,
        "metric": "inner_product",
        "normalized": True,
        "has_texts": False,
        "source": {"kind": "list", "path": None, "index_sha256": None},
        "model": {"pretrained": None},
        "bad": [],
    }
    rows = [{**dict.fromkeys(COLUMNS), "key": f"{i}"} for i in range(COUNT)]
    table = pl.DataFrame(rows, schema=COLUMNS)
    Index(Embeddings(features, None, table, record)).save(tmp_path / "emb")
    return Index.open(tmp_path / "emb")


def test_a_large_index_finds_nearly_all_of_the_nearest_with_their_exact_scores(
    large: Index, features: np.ndarray
) -> None:
    rng = np.random.default_rng(1)
    queries = unit(features[rng.integers(0, COUNT, 40)] + 0.1 * rng.normal(size=(40, DIM)))
    found = 0
    for query in queries:
        scores, rows = nearest_rows(features, query, 10)
        exact = dict(zip(rows.tolist(), scores.tolist(), strict=True))
        hits = large.search(query, 10)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            assert hit.score == pytest.approx(float(features[hit.row] @ query), abs=1e-6)
        found += sum(hit.row in exact for hit in hits)
    assert found / 400 >= 0.95


def test_it_looks_at_a_share_of_the_rows(
    large: Index, features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counted(table: np.ndarray, *arguments: Any) -> Any:
        seen.append(len(table))
        return nearest_rows(table, *arguments)

    monkeypatch.setattr(index_module, "nearest_rows", counted)
    large.search(features[0], 5)
    assert 5 <= seen[0] <= approximate.FEWEST_CANDIDATES
    large.search(features[0], 5, exact=True)
    large.search(features[0], 5, where="key < '3'")
    assert seen[1:] == [COUNT, COUNT]


def test_exact_search_of_a_large_index_is_exact(large: Index, features: np.ndarray) -> None:
    scores, rows = nearest_rows(features, features[7], 20)
    hits = large.search(features[7], 20, exact=True)
    assert [hit.row for hit in hits] == rows.tolist()
    np.testing.assert_array_equal([hit.score for hit in hits], scores.astype(float))


def test_the_same_features_make_the_same_file(large: Index, features: np.ndarray, tmp_path: Path) -> None:
    large.save(tmp_path / "again")
    assert large.folder == tmp_path / "again"
    assert (tmp_path / "again/image.index").read_bytes() == (tmp_path / "emb/image.index").read_bytes()


def test_a_small_index_never_reads_the_file(large: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "APPROXIMATE_ABOVE", COUNT)
    assert large.folder is not None
    (large.folder / "image.index").unlink()
    assert large.search(large.image_features[3], 1)[0].row == 3


@pytest.mark.parametrize("damage", ["missing", "cut", "another"])
def test_a_damaged_file_is_named_with_what_helps(
    large: Index, tmp_path: Path, features: np.ndarray, damage: str
) -> None:
    path = tmp_path / "emb/image.index"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        import faiss

        faiss.write_index(approximate.train_ivfpq(features[:2000]), str(path))
    with pytest.raises(UserError, match="build the index again"):
        large.search(features[0], 3)
    assert large.search(features[0], 3, exact=True)[0].row == 0


def test_asked_for_in_memory_it_says_why_not(features: np.ndarray, large: Index) -> None:
    index = Index(large._embeddings)
    assert index.search(features[0], 1)[0].row == 0
    with pytest.raises(UserError, match="searched exactly"):
        index.search(features[0], 1, exact=False)
