from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from slide_fakes import MeanColour

from pathclip.core.errors import FaultError
from pathclip.slides import SlideConfig, embed, find_tissue, open_slide, plan_tiles
from pathclip.slides import encode as encoding
from pathclip.slides.features import write_features
from pathclip.slides.pool import score_tiles
from pathclip.slides.spool import FeatureSpool


def filled(rows: np.ndarray, *, by: int) -> FeatureSpool:
    spool = FeatureSpool(rows.shape[1])
    for start in range(0, len(rows), by):
        spool.add(rows[start : start + by])
    return spool


def test_rows_come_back_as_they_went_in() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 7)).astype(np.float16)
    spool = filled(rows, by=13)
    assert spool.shape == rows.shape
    np.testing.assert_array_equal(np.asarray(spool), rows)
    np.testing.assert_array_equal(spool[20:33], rows[20:33])
    np.testing.assert_array_equal(spool[90:200], rows[90:])
    assert spool[5:5].shape == (0, 7)
    spool.add(rows[:1])  # after reading elsewhere, still at the end
    np.testing.assert_array_equal(spool[100:], rows[:1])


def test_scores_of_a_spool_are_those_of_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float16)
    classifier = np.eye(8, 3, dtype=np.float32)
    expected = rows.astype(np.float32) / np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True)
    monkeypatch.setattr("pathclip.slides.pool.ROWS_AT_ONCE", 7)
    for features in (rows, filled(rows, by=20)):
        np.testing.assert_allclose(score_tiles(features, classifier), expected[:, :3], atol=1e-6)


@pytest.mark.parametrize("per_copy", [1, 2, 1000])
def test_a_spool_holds_the_features_that_an_array_would(
    slide_path: Path, monkeypatch: pytest.MonkeyPatch, per_copy: int
) -> None:
    monkeypatch.setattr(encoding, "BATCHES_PER_COPY", per_copy)
    slide = open_slide(slide_path)
    plan = plan_tiles(slide, 0.5, find_tissue(slide, 0.5), mpp=0.5, tile_px=128)
    spool = FeatureSpool(3)
    encoding.encode_tiles(slide, plan, MeanColour(), batch_size=8, spool=spool)
    values = encoding.encode_tiles(slide, plan, MeanColour(), batch_size=8).values
    slide.close()
    np.testing.assert_array_equal(np.asarray(spool), values)


def test_a_spool_is_written_to_h5_as_an_array_is(
    tmp_path: Path, slide_path: Path, config: SlideConfig
) -> None:
    import dataclasses

    import h5py

    features = embed(MeanColour(), slide_path, config)
    spooled = dataclasses.replace(features, features=filled(np.asarray(features.features), by=9))
    for name, value in (("a", features), ("b", spooled)):
        write_features(tmp_path / f"{name}.h5", value, name="x")
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        np.testing.assert_array_equal(a["features"][:], b["features"][:])
        assert a["features"].chunks == b["features"].chunks


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, place: int) -> None:
            return None

        def write(self, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    spool = FeatureSpool(3)
    spool._file.close()
    spool._file = Full()
    with pytest.raises(FaultError, match="No space left on device") as caught:
        spool.add(np.zeros((1, 3), np.float16))
    assert caught.value.__cause__.errno == errno.ENOSPC  # the job stops on this
