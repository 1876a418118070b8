"""What people hand over by mistake: each ends in one clear line, or is counted and left out."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_layouts import kimia, picture, tar_of, wds
from colour_model import TINY, ColourModel, paint
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import FaultError, UserError
from pathclip.encoders import DualEncoder, create
from pathclip.evaluation import EvaluateConfig, ProbeConfig, evaluate, probe


@pytest.fixture(scope="module")
def broken() -> DualEncoder:
    """A model whose pictures all have features of NaN."""
    model = create("tiny-vit-112", **TINY)
    with torch.no_grad():
        model.clip.visual.proj.fill_(torch.nan)
    return model


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for colour in ("red", "green"):
            for seed in range(3):
                place = tmp_path / "tiles" / split / colour / f"{seed}.png"
                paint(place, colour, seed=seed + 5 * (split == "test"))
    return tmp_path / "tiles"


def line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_prompts_for_classes_that_the_data_lack_are_counted_and_named(tiles: Path, tmp_path: Path) -> None:
    classes = ["red", "green", *(f"class {i}" for i in range(9))]
    with pytest.raises(UserError) as error:
        evaluate(EvaluateConfig(data=tiles, out=tmp_path / "out", classes=classes))
    text = line(error)
    assert "it has 'class 0', 'class 1'" in text
    assert "and 3 more, which the data lack" in text
    assert not (tmp_path / "out").exists()


def test_a_class_of_the_data_that_no_prompt_names_is_named(tiles: Path, tmp_path: Path) -> None:
    paint(tiles / "test/blue/0.png", "blue")
    with pytest.raises(UserError, match="it lacks 'blue'"):
        evaluate(EvaluateConfig(data=tiles, out=tmp_path / "out", classes=["red", "green"]))


@pytest.mark.parametrize("protocol", ["corrected", "plip-compat"])
def test_one_class_is_no_classification(tiles: Path, tmp_path: Path, protocol: Any) -> None:
    for file in (tiles / "test/green").iterdir():
        file.unlink()
    (tiles / "test/green").rmdir()
    with pytest.raises(UserError, match="two classes or more; found only 'red'"):
        evaluate(EvaluateConfig(data=tiles, out=tmp_path / "out", protocol=protocol))
    (tmp_path / "one.csv").write_text("path,label\na.png,red\nb.png,red\n")
    with pytest.raises(UserError, match=r"two classes or more; found \['red'\]"):
        evaluate(EvaluateConfig(benchmark="csv", data=tmp_path / "one.csv", out=tmp_path / "out"))


def test_where_one_class_is_left_after_bad_pictures_what_is_undefined_is_null(
    tiles: Path, model: ColourModel, tmp_path: Path
) -> None:
    for file in (tiles / "test/green").iterdir():
        file.write_bytes(b"x")
    report = evaluate(EvaluateConfig(data=tiles, out=tmp_path / "out", num_resamples=10), model=model)
    assert report.counts == {"total": 6, "scored": 3, "bad": 3, "ignored": 0}
    assert report.metrics["auroc"] is None
    assert report.metrics["mcc"] is None
    assert report.metrics["auprc"] == 1.0
    assert report.metrics["balanced_accuracy"] == 1.0
    assert [row["support"] for row in report.classes] == [0, 3]


def test_features_of_nan_are_a_fault_whatever_is_asked(
    tiles: Path, broken: DualEncoder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(FaultError, match="not finite for 6 of 6 pictures"):
        evaluate(EvaluateConfig(data=tiles, out=out), model=broken)
    with pytest.raises(FaultError, match="not finite"):
        probe(ProbeConfig(train=tiles, test=tiles, out=out), model=broken)
    with pytest.raises(FaultError, match="not finite"):
        evaluate(EvaluateConfig(benchmark="kimia", data=kimia(tmp_path / "k"), out=out), model=broken)
    for kind in ("retrieval", "multilabel"):
        root = wds(tmp_path / kind, tmp_path, kind)
        with pytest.raises(FaultError, match="not finite"):
            evaluate(EvaluateConfig(benchmark="wds", data=root, out=out), model=broken)
    assert not out.exists()


def test_pictures_that_do_not_decode_are_counted_in_every_task(model: ColourModel, tmp_path: Path) -> None:
    root = kimia(tmp_path / "k")
    (root / "KIMIA_Path24C/Test-patches/s0/1.jpg").write_bytes(b"x")
    config = EvaluateConfig(benchmark="kimia", data=root, out=tmp_path / "a", ks=(1,), num_resamples=5)
    report = evaluate(config, model=model)
    assert [item.name for item in report.bad] == ["s0/1.jpg"]
    assert report.counts["scored"] == 11
    for kind, part in (("multilabel", "npy"), ("retrieval", "txt")):
        root = wds(tmp_path / kind, tmp_path, kind)
        data = {"npy": _targets(), "txt": b"a red one"}[part]
        samples = [{"png": b"x", part: data}, {"png": picture(tmp_path, "red", 8), part: data}]
        tar_of(root / "test/1.tar", samples)
        config = EvaluateConfig(
            benchmark="wds", data=root, out=tmp_path / f"o{kind}", ks=(1,), num_resamples=5
        )
        report = evaluate(config, model=model)
        assert report.counts["bad"] == len(report.bad) == 1
        assert "s0000000.png" in report.bad[0].name
        assert report.bad[0].name in (tmp_path / f"o{kind}/report.html").read_text()


def _targets() -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.array([1, 0, 0]))
    return buffer.getvalue()


def test_a_k_beyond_the_gallery_is_told_and_recorded(
    model: ColourModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = wds(tmp_path / "set", tmp_path, "retrieval")
    config = EvaluateConfig(benchmark="wds", data=root, out=tmp_path / "o", ks=(1, 50), num_resamples=5)
    with caplog.at_level(logging.WARNING, "pathclip"):
        report = evaluate(config, model=model)
    assert "k = [50]: the gallery has 3 items, so R@k is 1 by force" in caplog.text
    assert report.provenance["ks_beyond_gallery"] == [50]
    assert (
        report.metrics["image_to_text"]["R@50"] == report.baselines["chance"]["image_to_text"]["R@50"] == 1.0
    )


def test_more_shots_than_pictures_are_named_before_the_model_is_loaded(tiles: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="class 'green' has 3 training pictures; 4 shots were asked for"):
        probe(ProbeConfig(train=tiles, test=tiles, out=tmp_path / "o", shots=(1, 4)))


def test_a_probe_of_a_set_without_classes_is_refused(tmp_path: Path) -> None:
    root = wds(tmp_path / "set", tmp_path, "retrieval")
    (root / "test").rename(root / "train")
    with pytest.raises(UserError, match="benchmark 'wds' has no class per picture"):
        probe(ProbeConfig(benchmark="wds", train=root, test=root, out=tmp_path / "o", model="none"))


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--benchmark", "kathar"], "did you mean 'kather'"),
        (
            ["--benchmark", "kather"],
            "expects CRC-VAL-HE-7K/ with a folder per class there; found test/, train/",
        ),
        (["--set", "protocol=plip"], "protocol"),
        (
            ["--against", "absent"],
            "absent does not exist; expected a dataset, shards or a folder of pictures",
        ),
        (["--set", "templates=conch-stile"], "template sets by name: conch-style"),
    ],
)
def test_the_command_line_ends_with_2_and_one_line(
    tiles: Path, tmp_path: Path, more: list[str], text: str
) -> None:
    words = ["evaluate", "--model", "none", "--data", str(tiles), "--out", str(tmp_path / "o"), *more]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    assert text in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
