from __future__ import annotations

import numpy as np
import pytest

from pathclip.core.errors import UserError
from pathclip.heads import reliability


def slow(confidence: np.ndarray, hits: np.ndarray, bins: int) -> float:
    """By the definition: |share right - mean confidence| of each bin, weighted by its share."""
    error = 0.0
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        own = [i for i, c in enumerate(confidence) if low <= c < high or (c == 1 and place == bins - 1)]
        if own:
            gap = abs(np.mean([hits[i] for i in own]) - np.mean([confidence[i] for i in own]))
            error += len(own) / len(confidence) * gap
    return error


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_the_error_agrees_with_its_definition(bins: int) -> None:
    rng = np.random.default_rng(0)
    confidence = np.append(rng.random(200), [0.0, 1.0])
    hits = rng.random(202) < confidence**2
    found = reliability(confidence, hits, bins=bins, num_resamples=50)
    assert found.ece == pytest.approx(slow(confidence, hits, bins))
    assert sum(row["count"] for row in found.rows) == 202
    low, high = found.interval
    assert 0 <= low <= found.ece <= high


def test_the_interval_of_a_small_error_still_holds_it() -> None:
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.5, 1, 400)
    hits = rng.random(400) < confidence  # calibrated: what is left is noise, and resampling doubles it
    found = reliability(confidence, hits)
    low, high = found.interval
    assert found.ece < 0.06
    assert low <= found.ece <= high
    assert high < 2 * found.ece


def test_one_confidence_gives_its_distance_from_the_share_that_is_right() -> None:
    found = reliability([0.9] * 10, [True] * 6 + [False] * 4)
    assert found.ece == pytest.approx(0.3)
    (row,) = (row for row in found.rows if row["count"])
    assert (row["low"], row["high"], row["count"]) == (0.9, 1.0, 10)
    assert (row["confidence"], row["accuracy"]) == (pytest.approx(0.9), pytest.approx(0.6))
    low, high = row["interval"]
    assert 0.2 < low < 0.6 < high < 1.0
    empty = found.rows[0]
    assert (empty["count"], empty["accuracy"], empty["interval"]) == (0, None, (None, None))


def test_sure_and_right_has_no_error() -> None:
    assert reliability([1.0] * 5, [True] * 5).ece == 0.0


def test_whole_groups_are_resampled_and_the_error_does_not_change() -> None:
    rng = np.random.default_rng(1)
    confidence, hits = np.repeat(rng.random(40), 10), np.repeat(rng.random(40) < 0.5, 10)
    plain = reliability(confidence, hits)
    grouped = reliability(confidence, hits, groups=np.repeat(np.arange(40), 10))
    assert plain.ece == grouped.ece
    assert np.ptp(grouped.interval) > 1.5 * np.ptp(plain.interval)


@pytest.mark.parametrize(
    ("confidence", "hits", "text"),
    [
        ([], [], "expected one each per sample"),
        ([0.5], [True, False], "expected one each per sample"),
        ([1.5], [True], "outside 0 to 1"),
        ([float("nan")], [True], "outside 0 to 1"),
    ],
)
def test_what_is_no_confidence_is_refused(confidence: list, hits: list, text: str) -> None:
    with pytest.raises(UserError, match=text):
        reliability(confidence, hits)
