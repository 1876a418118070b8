from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from pathclip.core.errors import UserError
from pathclip.heads import metrics as m
from pathclip.heads._ranking import in_top, macro_auprc, macro_auroc

# PLIP on Kather, figure 2d of Huang et al. 2023 (rows actual: ADI BACK STR TUM DEB LYM MUC NORM MUS)
KATHER = np.array(
    [
        [1027, 92, 169, 0, 47, 0, 3, 0, 0],
        [0, 847, 0, 0, 0, 0, 0, 0, 0],
        [0, 6, 276, 3, 0, 0, 0, 0, 136],
        [0, 62, 436, 702, 1, 0, 5, 22, 5],
        [0, 175, 141, 1, 3, 0, 0, 1, 18],
        [0, 64, 131, 1, 0, 437, 1, 0, 0],
        [1, 125, 867, 2, 0, 0, 6, 0, 34],
        [2, 110, 65, 226, 0, 0, 7, 331, 0],
        [0, 2, 168, 3, 0, 0, 1, 0, 418],
    ]
)
NAMES = ["ADI", "BACK", "STR", "TUM", "DEB", "LYM", "MUC", "NORM", "MUS"]


def labels_of(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices(confusion.shape)
    return np.repeat(rows.ravel(), confusion.ravel()), np.repeat(columns.ravel(), confusion.ravel())


def random_labels(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    return true, np.where(rng.random(n) < 0.6, true, rng.integers(0, classes, n))


def test_plip_on_kather_gives_the_published_figures() -> None:
    true, pred = labels_of(KATHER)
    assert len(true) == 7180
    metrics, intervals = m.classification_metrics(true, pred, NAMES)
    assert metrics["weighted_f1"] == pytest.approx(0.5647, abs=5e-5)
    assert metrics["macro_f1"] == pytest.approx(0.510, abs=5e-4)
    assert metrics["accuracy"] == pytest.approx(0.564, abs=5e-4)
    assert metrics["balanced_accuracy"] == pytest.approx(0.539, abs=5e-4)
    f1 = [row["f1"] for row in m.per_class_metrics(*labels_of(KATHER), NAMES)]
    assert f1 == pytest.approx([0.867, 0.727, 0.206, 0.647, 0.015, 0.816, 0.011, 0.605, 0.695], abs=5e-4)
    low, high = intervals["weighted_f1"]  # the paper prints 0.559 to 0.572; a percentile bootstrap is wider
    assert 0.550 < low < 0.559
    assert 0.572 < high < 0.580


@pytest.mark.parametrize(
    ("support", "label", "expected"),
    [
        ((16781, 2033), "benign", 0.841),  # DigestPath, all benign
        ((16781, 2033), "malignant", 0.021),
        ((1019, 869), "benign", 0.378),  # PanNuke
        ((2015, 1013), "benign", 0.532),  # WSSS4LUAD, all tumor
    ],
)
def test_a_constant_class_scores_the_published_weighted_f1(
    support: tuple[int, int], label: str, expected: float
) -> None:
    true = np.repeat([0, 1], support)
    baseline = m.constant_class_baseline(true, ["benign", "malignant"], label)
    assert baseline["weighted_f1"] == pytest.approx(expected, abs=5e-4)
    assert baseline["balanced_accuracy"] == 0.5


def test_the_constant_class_is_the_most_frequent_one_unless_named() -> None:
    assert m.constant_class_baseline(["a", "b", "b"], ["a", "b"])["label"] == "b"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 10_000))
def test_every_metric_agrees_with_scikit_learn(n: int, classes: int, seed: int) -> None:
    true, pred = random_labels(n, classes, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that occur on one side only
        assert m.accuracy(true, pred) == pytest.approx(sk.accuracy_score(true, pred))
        assert m.balanced_accuracy(true, pred) == pytest.approx(sk.balanced_accuracy_score(true, pred))
        for average, ours in (("weighted", m.weighted_f1), ("macro", m.macro_f1)):
            assert ours(true, pred) == pytest.approx(
                sk.f1_score(true, pred, average=average, zero_division=0)
            )
        np.testing.assert_array_equal(m.confusion_matrix(true, pred), sk.confusion_matrix(true, pred))
        if len(set(true)) > 1 and len(set(pred)) > 1:
            assert m.matthews_correlation(true, pred) == pytest.approx(sk.matthews_corrcoef(true, pred))
            assert m.cohen_kappa(true, pred) == pytest.approx(sk.cohen_kappa_score(true, pred))


def test_a_constant_prediction_has_no_correlation_to_report() -> None:
    metrics, intervals = m.classification_metrics(["a", "b"], ["a", "a"], ["a", "b"])
    assert metrics["mcc"] is None
    assert intervals["mcc"] == (None, None)
    assert metrics["kappa"] == 0.0


def test_a_class_that_never_occurs_does_not_enter_the_means() -> None:
    metrics, _ = m.classification_metrics(["a", "b"], ["a", "b"], ["a", "b", "ghost"])
    assert metrics["balanced_accuracy"] == metrics["macro_f1"] == 1.0


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_auroc_agrees_with_scikit_learn_with_ties(classes: int) -> None:
    true, _ = random_labels(300, classes, 1)
    scores = np.random.default_rng(2).random((300, classes)) + 0.5 * np.eye(classes)[true]
    scores = np.round(scores / scores.sum(axis=1, keepdims=True), 2)  # many ties
    ours = m.auroc(true, scores, [f"c{i}" for i in range(classes)])
    if classes == 2:
        assert ours == pytest.approx(sk.roc_auc_score(true, scores[:, 1] - scores[:, 0]))
    else:
        areas = [sk.roc_auc_score(true == c, scores[:, c]) for c in range(classes)]
        assert ours == pytest.approx(np.mean(areas))


def test_auroc_of_reversed_scores_is_its_complement() -> None:
    true, _ = random_labels(50, 2, 3)
    scores = np.random.default_rng(4).random((50, 2))
    assert m.auroc(true, scores, "ab") == pytest.approx(1 - m.auroc(true, -scores, "ab"))


def test_auroc_is_undefined_with_one_class_in_the_truth() -> None:
    metrics, intervals = m.classification_metrics([0, 0], [0, 1], ["a", "b"], scores=np.eye(2))
    assert metrics["auroc"] is None
    assert intervals["auroc"] == (None, None)


def test_weighted_auroc_equals_auroc_of_the_repeated_samples() -> None:
    rng = np.random.default_rng(5)
    true, scores = rng.integers(0, 3, 40), np.round(rng.random((40, 3)), 1)
    weights = rng.integers(0, 4, 40)
    repeated = np.repeat(np.arange(40), weights)
    expected = macro_auroc(true[repeated], scores[repeated], np.ones((1, len(repeated))))
    np.testing.assert_allclose(macro_auroc(true, scores, weights[None].astype(float)), expected)


def test_acc5_needs_five_classes_and_counts_the_top_five() -> None:
    rng = np.random.default_rng(6)
    true, scores = rng.integers(0, 8, 200), rng.random((200, 8))
    labels = [str(i) for i in range(8)]
    metrics, intervals = m.classification_metrics(true, scores.argmax(1), labels, scores)
    assert metrics["acc5"] == pytest.approx(sk.top_k_accuracy_score(true, scores, k=5, labels=range(8)))
    assert metrics["acc1"] == metrics["accuracy"]
    assert metrics["mean_per_class_recall"] == metrics["balanced_accuracy"]
    assert intervals["acc5"][0] <= metrics["acc5"] <= intervals["acc5"][1]
    few, _ = m.classification_metrics(true % 4, true % 4, labels[:4], scores[:, :4])
    assert few["acc5"] is None


def test_top_five_of_equal_scores_go_by_column() -> None:
    assert in_top(np.zeros((2, 6)), np.array([4, 5]), 5).tolist() == [1.0, 0.0]


def test_the_bootstrap_of_accuracy_is_the_binomial() -> None:
    from scipy.stats import binom

    true, pred = labels_of(np.array([[60, 20], [10, 30]]))
    _, intervals = m.classification_metrics(true, pred, "ab", num_resamples=20_000)
    expected = binom.ppf([0.025, 0.975], 120, 0.75) / 120
    assert intervals["accuracy"] == pytest.approx(expected, abs=1 / 120)  # a step is one sample


def test_the_vectorised_bootstrap_agrees_with_resampling_one_by_one() -> None:
    true, pred = random_labels(80, 3, 7)
    rng = np.random.default_rng(8)
    draws = [rng.integers(0, 80, 80) for _ in range(1500)]
    slow = np.quantile([m.macro_f1(true[d], pred[d]) for d in draws], [0.025, 0.975])
    _, intervals = m.classification_metrics(true, pred, "abc", num_resamples=4000)
    assert intervals["macro_f1"] == pytest.approx(slow, abs=0.015)


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    true, pred = random_labels(200, 3, 9)
    one, two, other = (m.classification_metrics(true, pred, "abc", seed=s)[1] for s in (1, 1, 2))
    assert one == two
    assert one != other


def test_resampling_whole_groups_widens_the_interval_of_repeated_samples() -> None:
    true, pred = random_labels(60, 3, 10)
    true10, pred10, groups = np.repeat(true, 10), np.repeat(pred, 10), np.repeat(np.arange(60), 10)
    alone = m.classification_metrics(true, pred, "abc")[1]["accuracy"]
    naive = m.classification_metrics(true10, pred10, "abc")[1]["accuracy"]
    grouped = m.classification_metrics(true10, pred10, "abc", groups=groups)[1]["accuracy"]
    width = [high - low for low, high in (alone, naive, grouped)]
    assert width[2] == pytest.approx(width[0], rel=0.1)  # ten copies of a sample tell nothing new
    assert width[1] < 0.5 * width[0]


def test_groups_change_intervals_and_never_the_metric() -> None:
    true, pred = random_labels(60, 5, 11)
    scores = np.eye(5)[pred] + np.random.default_rng(0).random((60, 5)) / 10
    groups = [f"patient {i % 7}" for i in range(60)]
    plain, _ = m.classification_metrics(true, pred, "abcde", scores)
    grouped, intervals = m.classification_metrics(true, pred, "abcde", scores, groups=groups)
    assert plain == grouped
    assert all(low <= grouped[k] <= high for k, (low, high) in intervals.items())


def test_a_mean_of_constants_has_no_width() -> None:
    assert m.mean_interval([0.3] * 9) == pytest.approx((0.3, 0.3))


def test_bootstrap_interval_takes_any_statistic_of_the_counts() -> None:
    low, high = m.bootstrap_interval(lambda cm: cm[:, 0, 1].astype(float), np.array([[5, 5], [0, 0]]))
    assert 0 <= low < 5 < high <= 10


def test_per_class_recall_stands_beside_its_interval() -> None:
    rows = m.per_class_metrics(*labels_of(KATHER), NAMES)
    assert [row["support"] for row in rows] == KATHER.sum(axis=1).tolist()
    assert rows[1]["recall"] == 1.0
    assert rows[1]["recall_interval"] == (1.0, 1.0)
    assert all(low <= row["recall"] <= high for row in rows for low, high in [row["recall_interval"]])


def test_per_class_recall_of_whole_groups_is_less_certain() -> None:
    true, pred = (np.repeat(side, 10) for side in random_labels(60, 3, 12))
    groups = np.repeat(np.arange(60), 10)
    plain = m.per_class_metrics(true, pred, "abc")
    grouped = m.per_class_metrics(true, pred, "abc", groups=groups)
    for one, other in zip(plain, grouped, strict=True):
        assert one["recall"] == other["recall"]
        assert np.ptp(other["recall_interval"]) > 2 * np.ptp(one["recall_interval"])


def test_names_and_columns_mean_the_same() -> None:
    names, columns = ["b", "a", "b"], [1, 0, 1]
    assert m.classification_metrics(names, names, ["a", "b"]) == m.classification_metrics(
        columns, columns, ["a", "b"]
    )
    np.testing.assert_array_equal(m.confusion_matrix([10, 20], [20, 20], [20, 10]), [[1, 0], [1, 0]])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: m.classification_metrics([], [], "ab"), "no sample to score"),
        (lambda: m.classification_metrics(["c"], ["a"], ["a", "b"]), "y_true holds 'c'"),
        (lambda: m.classification_metrics([5], [0], ["a", "b"]), "y_true holds column 5"),
        (lambda: m.confusion_matrix(["a"], ["a", "b"]), "expected one per sample"),
        (lambda: m.confusion_matrix(["a"], ["a"], []), "labels is empty"),
        (lambda: m.auroc([0], [[1.0]], "ab"), r"shape \(1, 1\); expected"),
        (
            lambda: m.auroc([0, 1], [[1.0, 0], [np.nan, 0]], "ab"),
            "1 of 2 rows are not finite, the first is row 1",
        ),
        (lambda: m.classification_metrics([0], [0], "ab", groups=["x", "y"]), "groups names 2 samples"),
    ],
)
def test_wrong_input_is_named(call: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_auprc_agrees_with_scikit_learns_average_precision_with_ties(classes: int) -> None:
    true, _ = random_labels(300, classes, 1)
    scores = np.random.default_rng(2).random((300, classes)) + 0.5 * np.eye(classes)[true]
    scores = np.round(scores / scores.sum(axis=1, keepdims=True), 2)
    gap = scores[:, 1] - scores[:, 0]
    ranked = [-gap, gap] if classes == 2 else list(scores.T)
    expected = [sk.average_precision_score(true == c, ranked[c]) for c in range(classes)]
    assert m.auprc(true, scores, [f"c{i}" for i in range(classes)]) == pytest.approx(np.mean(expected))


def test_weighted_auprc_equals_auprc_of_the_repeated_samples() -> None:
    rng = np.random.default_rng(5)
    true, scores = rng.integers(0, 3, 40), np.round(rng.random((40, 3)), 1)
    weights = rng.integers(0, 4, 40)
    repeated = np.repeat(np.arange(40), weights)
    expected = macro_auprc(true[repeated], scores[repeated], np.ones((1, len(repeated))))
    np.testing.assert_allclose(macro_auprc(true, scores, weights[None].astype(float)), expected)


def test_scores_that_tell_nothing_have_the_share_of_the_class_as_auprc() -> None:
    true = np.array([0] * 90 + [1] * 10)
    metrics, _ = m.classification_metrics(true, true, "ab", np.full((100, 2), 0.5))
    constant = m.constant_class_baseline(true, ["a", "b"])
    assert metrics["auprc"] == constant["auprc"] == pytest.approx((0.9 + 0.1) / 2)
    assert metrics["auroc"] == constant["auroc"] == 0.5


def test_the_constant_class_has_a_figure_beside_every_metric() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 60)
    scores = rng.random((60, 5))
    labels = list("abcde")
    metrics, _ = m.classification_metrics(true, scores.argmax(1), labels, scores, ordered=labels)
    constant = m.constant_class_baseline(true, labels)
    assert metrics.keys() - constant.keys() == {"acc5"}  # five of five names are always among five
    assert constant["mcc"] is None
    assert constant["kappa"] == constant["quadratic_kappa"] == 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(2, 6), st.integers(0, 10_000))
def test_quadratic_kappa_agrees_with_scikit_learn(n: int, classes: int, seed: int) -> None:
    true, pred = random_labels(n, classes, seed)
    if len(set(true)) > 1 or len(set(pred)) > 1:
        expected = sk.cohen_kappa_score(true, pred, weights="quadratic", labels=range(classes))
        assert m.quadratic_kappa(true, pred, list(range(classes))) == pytest.approx(expected)


def test_quadratic_kappa_forgives_neighbours_and_follows_the_scale_not_the_columns() -> None:
    labels = ["low", "mid", "high"]
    true = ["low", "mid", "high"] * 10
    near = ["low", "high", "high"] * 10
    far = ["high", "mid", "high"] * 10
    assert m.quadratic_kappa(true, near, labels) > m.quadratic_kappa(true, far, labels)
    assert m.cohen_kappa(true, near) == pytest.approx(m.cohen_kappa(true, far))
    columns = sorted(labels)  # high, low, mid
    metrics, intervals = m.classification_metrics(true, near, columns, ordered=labels)
    assert metrics["quadratic_kappa"] == pytest.approx(m.quadratic_kappa(true, near, labels))
    low, high = intervals["quadratic_kappa"]
    assert low <= metrics["quadratic_kappa"] <= high
    with pytest.raises(UserError, match="expected the classes"):
        m.classification_metrics(true, near, columns, ordered=["low", "high"])
