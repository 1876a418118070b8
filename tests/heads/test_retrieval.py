from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pathclip.core.errors import UserError
from pathclip.heads import retrieval as r


def unit(n: int, dim: int = 8, seed: int = 0) -> torch.Tensor:
    features = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(features, dim=1)


def recall_slow(queries, gallery, query_ids, gallery_ids, k):
    """As in the definition: sort the whole gallery for each query, look for the id among the first k."""
    hits = 0
    for query, own in zip(queries.double(), query_ids, strict=True):
        scores = [float((query @ item).float()) for item in gallery.double()]
        order = sorted(range(len(scores)), key=lambda j: (-scores[j], j))
        hits += own in [gallery_ids[j] for j in order[:k]]
    return hits / len(query_ids)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 23), st.integers(1, 29), st.integers(1, 5), st.integers(0, 999))
def test_recall_agrees_with_sorting_everything(q: int, g: int, ids: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries = torch.from_numpy(rng.integers(-2, 3, (q, 3))).float()  # small integers: many exact ties
    gallery = torch.from_numpy(rng.integers(-2, 3, (g, 3))).float()
    query_ids, gallery_ids = rng.integers(0, ids, q).tolist(), rng.integers(0, ids, g).tolist()
    ours = r.recall_at_k(queries, gallery, query_ids, gallery_ids, ks=(1, 2, 5, 40))
    for k, value in ours.items():
        assert value == pytest.approx(recall_slow(queries, gallery, query_ids, gallery_ids, k))


@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
def test_the_size_of_the_chunks_changes_nothing(chunk: int) -> None:
    queries, gallery = unit(20), unit(31, seed=1)
    gallery[17] = gallery[4]
    ids, gallery_ids = np.arange(20) % 9, np.arange(31) % 9
    whole = r.first_hit_ranks(queries, gallery, ids, gallery_ids)
    np.testing.assert_array_equal(r.first_hit_ranks(queries, gallery, ids, gallery_ids, chunk=chunk), whole)


def test_recall_counts_every_caption_of_an_image() -> None:
    images = torch.eye(3)
    texts = torch.tensor([[0, 1.0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])  # image a has captions 0 and 1
    assert r.recall_at_k(images, texts, ["a", "b", "c"], ["a", "a", "b", "c"], ks=(1, 2)) == {
        1: 2 / 3,
        2: 1.0,
    }
    # image b meets caption 0 (of a) first: equally similar, and earlier
    assert r.first_hit_ranks(images, texts, ["a", "b", "c"], ["a", "a", "b", "c"]).tolist() == [0, 1, 0]


def test_equal_pictures_are_hits_for_each_other_when_they_share_the_id() -> None:
    features = torch.cat([torch.eye(4), torch.eye(4)])
    assert r.recall_at_k(features, features, list("abcdabcd"), list("abcdabcd"), ks=(1,))[1] == 1.0
    assert r.recall_at_k(features, features, list("abcdefgh"), list("abcdefgh"), ks=(1,))[1] == 0.5


def test_all_features_equal_rank_by_position() -> None:
    same = unit(1).repeat(700, 1)
    ranks = r.first_hit_ranks(same, same, range(700), range(700), chunk=97)
    np.testing.assert_array_equal(ranks, np.arange(700))
    assert r.recall_at_k(same, same, range(700), range(700), ks=(7,))[7] == r.random_recall(
        range(700), range(700), 7
    )


def test_a_query_without_a_partner_is_a_miss() -> None:
    assert r.recall_at_k(unit(2), unit(3), [1, 9], [1, 1, 1], ks=(1, 99)) == {1: 0.5, 99: 0.5}


@pytest.mark.parametrize(
    ("size", "k", "published"), [(2023, 10, 0.005), (210, 50, 0.238), (1419, 50, 0.035), (558, 10, 0.018)]
)
def test_random_recall_is_k_over_n_as_published(size: int, k: int, published: float) -> None:
    assert r.random_recall(range(size), range(size), k) == k / size == pytest.approx(published, abs=5e-4)


def test_random_recall_with_several_targets_agrees_with_shuffling() -> None:
    ids = np.array([0, 0, 0, 1, 1, 2, 3, 4])
    rng = np.random.default_rng(0)
    hits = [np.mean([i in rng.permutation(ids)[:2] for i in range(6)]) for _ in range(4000)]
    assert r.random_recall(range(6), ids, 2) == pytest.approx(np.mean(hits), abs=0.01)  # id 5 has no target
    assert r.random_recall([0], ids, 100) == 1.0


def test_retrieval_metrics_look_both_ways() -> None:
    images, texts = unit(12, seed=3), unit(12, seed=4)
    ids = [f"p{i}" for i in range(12)]
    both = r.retrieval_metrics(images, texts, ids, ids, ks=(1, 10))
    assert set(both) == {"image_to_text", "text_to_image"}
    assert both["image_to_text"]["R@10"] == r.recall_at_k(images, texts, ids, ids, (10,))[10]
    assert both["text_to_image"]["R@1"] == r.recall_at_k(texts, images, ids, ids, (1,))[1]
    assert both["text_to_image"]["random"] == {"R@1": 1 / 12, "R@10": 10 / 12}


def test_renaming_the_ids_and_scaling_the_features_changes_nothing() -> None:
    queries, gallery = unit(9, seed=5), unit(9, seed=6)
    plain = r.recall_at_k(queries, gallery, range(9), range(9))
    assert r.recall_at_k(4 * queries.numpy(), 2 * gallery, list("ihgfedcba"), list("ihgfedcba")) == plain


def test_no_matrix_of_all_pairs_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    features = unit(1000, 4).numpy()
    sizes: list[int] = []
    original = r._settle

    def watched(scores: torch.Tensor, *rest: torch.Tensor) -> None:
        sizes.append(scores.numel())
        original(scores, *rest)

    monkeypatch.setattr(r, "_settle", watched)
    r.first_hit_ranks(features, features, range(1000), range(1000), chunk=256)
    assert max(sizes) == 256 * 256
    assert len(sizes) == 2 * 4 * 4


@pytest.mark.parametrize("spread", [1e-8, 1e-7, 3e-7, 1e-6, 1e-5])
def test_scores_that_differ_in_the_last_bits_are_ranked_exactly(spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    base = torch.nn.functional.normalize(torch.randn(1, 512, generator=generator), dim=1)
    gallery = base + spread * torch.randn(300, 512, generator=generator)
    gallery[200:] = gallery[:100]  # and exact ties among them
    queries = base.repeat(40, 1) + 1e-3 * torch.randn(40, 512, generator=generator)
    scores = (queries.double() @ gallery.double().T).float()
    expected = []
    for row, own in enumerate(range(150, 190)):
        order = sorted(range(300), key=lambda j, row=row: (-float(scores[row, j]), j))
        expected.append(order.index(own))
    for chunk in (37, 300):
        ranks = r.first_hit_ranks(queries, gallery, range(150, 190), range(300), chunk=chunk)
        assert ranks.tolist() == expected


@pytest.mark.parametrize("allowed", [None, np.array([1, 4, 5, 6, 30])])
def test_search_agrees_with_sorting_and_settles_ties_by_position(allowed: np.ndarray | None) -> None:
    gallery = unit(40, seed=7).numpy()
    gallery[30] = gallery[5] = gallery[4]
    query = gallery[4]
    scores, places = r.nearest_rows(gallery, query, 4, allowed)
    pool = np.arange(40) if allowed is None else allowed
    expected = sorted(pool, key=lambda j: (-np.float32(query @ gallery[j]).round(5), j))[:4]
    assert places.tolist() == expected
    assert places[:3].tolist() == [4, 5, 30]
    assert scores[0] == scores[2] == pytest.approx(1.0)
    assert r.nearest_rows(gallery, query, 99, allowed)[1].tolist() == sorted(
        pool,
        key=lambda j: (-(gallery[j].astype(np.float64) @ query.astype(np.float64)).astype(np.float32), j),
    )


def test_search_agrees_with_faiss_on_a_table_mapped_from_disk(tmp_path: Path) -> None:
    import faiss

    np.save(tmp_path / "a.npy", unit(500, seed=3).numpy())
    gallery = np.load(tmp_path / "a.npy", mmap_mode="r")
    index = faiss.IndexFlatIP(8)
    index.add(np.ascontiguousarray(gallery))
    query = unit(1, seed=4).numpy()[0]
    scores, rows = r.nearest_rows(gallery, query, 20)
    theirs, places = index.search(query[None], 20)
    assert rows.tolist() == places[0].tolist()
    np.testing.assert_allclose(scores, theirs[0], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda x: r.recall_at_k(x, x[:, :3], range(4), range(4)),
            "features differ in width: queries 8, gallery 3",
        ),
        (lambda x: r.recall_at_k(x, x, range(3), range(4)), "query_ids holds 3 ids for 4 features"),
        (lambda x: r.recall_at_k(x, x[:0], range(4), []), r"gallery_features has shape \(0, 8\)"),
        (lambda x: r.recall_at_k(x, x, range(4), range(4), ks=(0,)), r"ks = \[0\]"),
        (lambda x: r.recall_at_k(x, x, range(4), list("abcd")), "ids differ in kind"),
        (
            lambda x: r.recall_at_k(x * torch.nan, x, range(4), range(4)),
            "query_features: 4 of 4 rows are not finite",
        ),
    ],
)
def test_wrong_input_is_named(call: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        call(unit(4))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("candidates", "at_10", "at_50"),
    [  # PLIP's text-to-image sets: Huang et al. 2023, figure 3e
        (2023, 0.005, 0.025),  # Twitter
        (210, 0.048, 0.238),  # PathPedia
        (1419, 0.007, 0.035),  # PubMed
        (558, 0.018, 0.090),  # Books
    ],
)
def test_random_recall_of_plips_sets_is_k_of_n_as_published(
    candidates: int, at_10: float, at_50: float
) -> None:
    ids = list(range(candidates))
    assert r.random_recall(ids, ids, 10) == pytest.approx(10 / candidates)
    assert [r.random_recall(ids, ids, k) for k in (10, 50)] == pytest.approx([at_10, at_50], abs=5e-4)
