"""What decides a label, patients, fractions and draws, over a run."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from slide_fakes import COLOURS, GLASS, MeanColour, write_slide_at

from pathclip.core.errors import UserError
from pathclip.core.files import read_json
from pathclip.heads import balanced_accuracy, build_classifier, draw_prompts, load_prompts
from pathclip.slides import (
    SlideConfig,
    SlidePrediction,
    embed,
    judge_draws,
    pool_top_k,
    read_features,
    rescore,
    run_slides,
)
from pathclip.slides.draws import draw_classifiers, draw_metrics, draw_winners
from pathclip.slides.pool import score_tiles

CLASSES = {"pink": ["pink"], "purple": ["purple"]}
SCHEMAS = Path(__file__).resolve().parents[2] / "docs/reference/schemas"
SMALL = SlideConfig(tile_px=128, page_tiles=0)


@pytest.fixture(autouse=True)
def quick_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathclip.slides.export.write_heatmap", lambda path, *_: path.touch() or path)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def block(path: Path, name: str, tiles: int, more: str | None = None) -> Path:
    """A slide with a block of one colour, ``tiles`` tiles wide, and one tile of another."""
    pixels = np.full((640, 1280, 3), GLASS, np.uint8)
    pixels[128:384, 128 : 128 * (tiles + 1)] = COLOURS[name]
    if more:
        pixels[128:256, 128 : 128 + 128] = COLOURS[more]
    return write_slide_at(path, pixels, 0.5, levels=1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patient p1: two slides and a blank one; p2: one slide; and a slide of no one."""
    folder = tmp_path_factory.mktemp("cohort")
    block(folder / "a.tif", "pink", 3)
    block(folder / "b.tif", "purple", 5, more="pink")
    write_slide_at(folder / "blank.tif", np.full((512, 512, 3), GLASS, np.uint8), 0.5, levels=1)
    block(folder / "c.tif", "pink", 4)
    shutil.copy(folder / "a.tif", folder / "d.tif")
    rows = ["slide,patient,label", "a.tif,p1,purple", "b.tif,p1,purple", "blank.tif,p1,", "c.tif,p2,pink"]
    (folder / "s.csv").write_text("\n".join([*rows, "d.tif,,pink"]) + "\n")
    return folder


@pytest.fixture(scope="module")
def done(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done")
    config = SMALL.replace(top_k=(1, 5, 100), draws=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathclip.slides.export.write_heatmap", lambda path, *_: path.touch() or path)
        run_slides(cohort / "s.csv", MeanColour(), CLASSES, config, out)
    return out


@pytest.mark.parametrize(("pooling", "key"), [("topk", "10"), ("mean", "mean"), ("fraction", "fraction")])
def test_the_label_is_that_of_the_chosen_pooling_and_all_are_reported(
    prediction: SlidePrediction, config: SlideConfig, pooling: str, key: str
) -> None:
    found = rescore(prediction.slide, MeanColour(), CLASSES, config.replace(pooling=pooling))
    scores = {"10": found.scores[10], "mean": found.means, "fraction": found.fractions}
    assert found.label == max(scores[key], key=scores[key].get)
    assert found.scores == prediction.scores
    np.testing.assert_allclose(list(found.means.values()), found.tile_scores.mean(axis=0), atol=1e-6)
    best = found.tile_probabilities.argmax(axis=1)
    assert found.fractions == {"pink": np.mean(best == 0), "purple": np.mean(best == 1)}
    assert found.pooling == pooling
    assert {"topk": "MI-Zero", "mean": "all tiles", "fraction": "KEEP"}[pooling] in found.provenance[
        "pooling"
    ]


def test_a_few_sure_tiles_decide_by_top_k_and_many_unsure_ones_by_fraction(tmp_path: Path) -> None:
    pixels = np.full((640, 1280, 3), GLASS, np.uint8)
    pixels[128:384, 128:896] = (150, 120, 120)  # 12 tiles, rather purple than pink
    pixels[128:256, 128:256] = COLOURS["pink"]
    path = write_slide_at(tmp_path / "a.tif", pixels, 0.5, levels=1)
    features = embed(MeanColour(), path, SMALL)
    labels = {
        pooling: rescore(features, MeanColour(), CLASSES, SlideConfig(pooling=pooling, label_k=1)).label
        for pooling in ("topk", "mean", "fraction")
    }
    assert labels == {"topk": "pink", "mean": "purple", "fraction": "purple"}


def test_a_background_class_is_no_label_and_wrong_ones_are_named(
    prediction: SlidePrediction, config: SlideConfig, cohort: Path, tmp_path: Path
) -> None:
    found = rescore(prediction.slide, MeanColour(), CLASSES, config.replace(background=("pink",)))
    assert found.label == "purple"
    assert found.agreement == 1
    assert found.fractions == prediction.fractions
    with pytest.raises(UserError, match="background = 'normal' is no class; the classes are: pink, purple"):
        run_slides(
            cohort / "a.tif", MeanColour(), CLASSES, SMALL.replace(background=("normal",)), tmp_path / "o"
        )
    with pytest.raises(UserError, match="names every class"):
        SMALL.replace(background=("pink", "purple")).background_columns(["pink", "purple"])


def test_fractions_are_shares_and_areas_of_the_tiles_by_argmax(done: Path) -> None:
    rows = {Path(row["slide"]).stem: row for row in table(done / "fractions.csv")}
    assert list(rows["a"]) == [
        *("slide", "patient", "label", "tiles", "mm2", "share_pink", "share_purple"),
        *("mm2_pink", "mm2_purple", "mean_pink", "mean_purple"),
    ]
    assert [(rows[n]["share_pink"], rows[n]["share_purple"]) for n in "ab"] == [
        ("1.0", "0.0"),
        ("0.1", "0.9"),
    ]
    tile = (128 * 0.5) ** 2 / 1e6
    for name, (pink, purple) in {"a": (6, 0), "b": (1, 9)}.items():
        assert int(rows[name]["tiles"]) == pink + purple
        assert float(rows[name]["mm2_pink"]) == pytest.approx(pink * tile, rel=1e-3)
        assert float(rows[name]["mm2_purple"]) == pytest.approx(purple * tile, rel=1e-3)
        assert float(rows[name]["mm2"]) == pytest.approx((pink + purple) * tile, rel=1e-3)
        features = read_features(done / f"{name}.h5")
        cosines = score_tiles(features.features, np.asarray(build_classifier(MeanColour(), CLASSES)))
        assert float(rows[name]["mean_pink"]) == pytest.approx(cosines[:, 0].mean(), abs=1e-6)
    assert (rows["blank"]["tiles"], rows["blank"]["share_pink"], rows["blank"]["mean_pink"]) == ("0", "", "")


def test_a_patient_is_pooled_over_the_tiles_of_all_slides(done: Path) -> None:
    rows = {row["patient"]: row for row in table(done / "patients.csv")}
    assert list(rows) == ["p1", "p2"]
    assert list(rows["p1"])[:7] == ["patient", "label", "slides", "missing", "tiles", "K1_pink", "K1_purple"]
    assert [rows["p1"][key] for key in ("slides", "missing", "tiles")] == ["2", "1", "16"]
    tiles = np.concatenate([read_features(done / f"{name}.h5").features for name in "ab"])
    cosines = score_tiles(tiles, np.asarray(build_classifier(MeanColour(), CLASSES)))
    for k, row in zip((1, 5, 100), pool_top_k(cosines, (1, 5, 100)), strict=True):
        assert [float(rows["p1"][f"K{k}_{name}"]) for name in CLASSES] == row.tolist()
    assert float(rows["p1"]["mean_purple"]) == pytest.approx(cosines[:, 1].mean(), abs=1e-6)
    assert float(rows["p1"]["share_purple"]) == 9 / 16
    alone = next(row for row in table(done / "results.csv") if row["patient"] == "p2")
    assert alone["K5_pink"] == rows["p2"]["K5_pink"]


def test_results_say_what_is_judged_by_slide_and_what_by_patient(done: Path) -> None:
    result = read_json(done / "result.json")
    jsonschema.validate(result, json.loads((SCHEMAS / "result.schema.json").read_text()))
    assert result["level"] == "slide"
    assert result["metrics"]["judged"] == 4  # the blank slide has no label
    labels = {Path(row["slide"]).stem: row["label"] for row in table(done / "results.csv")}
    assert labels == {"a": "pink", "b": "purple", "blank": "", "c": "pink", "d": "pink"}
    assert result["metrics"]["accuracy"] == 0.75
    patients = result["patients"]
    assert patients["level"] == "patient"
    label = next(row["label"] for row in table(done / "patients.csv") if row["patient"] == "p1")
    assert patients["metrics"]["judged"] == patients["metrics"]["patients"] == 2
    assert patients["metrics"]["accuracy"] == (1.0 if label == "purple" else 0.5)
    assert len(patients["intervals"]["accuracy"]) == 2


def test_intervals_of_slides_resample_whole_patients(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pathclip.heads

    seen = []
    real = pathclip.heads.classification_metrics

    def spy(*values: object, **named: object) -> object:
        seen.append(named.get("groups"))
        return real(*values, **named)

    monkeypatch.setattr(pathclip.heads, "classification_metrics", spy)
    run_slides(cohort / "s.csv", MeanColour(), CLASSES, SMALL, tmp_path)
    assert seen == [["patient p1", "patient p1", "patient p2", "slide d"], None]


def test_slides_that_disagree_on_a_patient_are_named_and_it_is_not_judged(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["slide,patient,label", f"{cohort}/a.tif,p,pink", f"{cohort}/b.tif,p,purple"]
    (tmp_path / "s.csv").write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING, "pathclip"):
        run_slides(tmp_path / "s.csv", MeanColour(), CLASSES, SMALL, tmp_path / "out")
    assert "patient p: its slides have the labels pink and purple; it is not judged" in caplog.text
    result = read_json(tmp_path / "out/result.json")
    assert result["patients"]["metrics"] == {"patients": 1, "slides": 2}
    assert result["metrics"]["judged"] == 2


def test_without_patients_there_is_no_table_of_them(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_text("left by an earlier run")
    run_slides(cohort / "a.tif", MeanColour(), CLASSES, SMALL, tmp_path)
    assert not (tmp_path / "patients.csv").exists()
    assert "patients" not in read_json(tmp_path / "result.json")


def test_patients_of_cached_features_keep_their_names(cohort: Path, done: Path, tmp_path: Path) -> None:
    out = shutil.copytree(done, tmp_path / "out")
    features = [out / f"{name}.h5" for name in "abc"]
    run_slides([], MeanColour(), CLASSES, SlideConfig(page_tiles=0), out, features=features)
    assert [row["patient"] for row in table(out / "patients.csv")] == ["p1", "p2"]


POOL = {
    "pink": ["pink", "red", "pink and red"],
    "purple": ["purple", "purple and red"],
}


def test_draws_label_as_one_classification_per_draw_would(
    prediction: SlidePrediction, config: SlideConfig
) -> None:
    model, prompts = MeanColour(), load_prompts(POOL)
    config = config.replace(smooth=8, background=("pink",), draws=12)
    classifiers = draw_classifiers(model, prompts, 12)
    assert classifiers.shape == (12, 3, 2)
    for background in ((), (0,)):
        winners = draw_winners(prediction.slide, classifiers, config, background)
        for seed in range(12):
            drawn = draw_prompts(prompts, seed)
            names = {"background": ("pink",) if background else ()}
            for pooling in ("topk", "mean", "fraction"):
                one = rescore(prediction.slide, model, drawn, config.replace(pooling=pooling, **names))
                key = "10" if pooling == "topk" else pooling
                assert one.classes[winners[key][seed]] == one.label


def test_draws_are_scored_in_blocks_without_a_difference(
    prediction: SlidePrediction, config: SlideConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifiers = draw_classifiers(MeanColour(), load_prompts(POOL), 9)
    whole = draw_winners(prediction.slide, classifiers, config)
    monkeypatch.setattr("pathclip.slides.draws.BLOCK", 1)
    assert draw_winners(prediction.slide, classifiers, config) == whole


def test_the_median_over_draws_stands_beside_its_quartiles() -> None:
    truth = ["x", "x", "y", "y"]
    winners = [{"1": [0, 0, 0, 1]}, {"1": [0, 0, 1, 1]}, {"1": [1, 0, 1, 0]}, {"1": [1, 1, 1, 0]}]
    found = draw_metrics(truth, winners, ["x", "y"])["1"]
    per_draw = [["x", "x", "y", "y"], ["x", "x", "x", "y"], ["x", "y", "y", "y"], ["y", "y", "x", "x"]]
    assert found["values"] == [balanced_accuracy(truth, row) for row in per_draw] == [1.0, 0.75, 0.75, 0.0]
    assert found["median"] == 0.75
    assert (found["q25"], found["q75"]) == (0.5625, 0.8125)
    assert (found["min"], found["max"]) == (0, 1)


def test_draws_are_in_the_result_with_their_level_and_seeds(done: Path, tmp_path: Path) -> None:
    draws = read_json(done / "result.json")["draws"]
    assert (draws["level"], draws["count"], draws["seeds"], draws["judged"]) == ("slide", 7, [0, 6], 4)
    assert set(draws["balanced_accuracy"]) == {"1", "5", "100", "mean", "fraction"}
    assert draws["decided_by"] == "5"
    assert len(draws["balanced_accuracy"]["5"]["values"]) == 7
    record = read_json(done / ".pathclip/a.json")
    jsonschema.validate(record, json.loads((SCHEMAS / "slide-record.schema.json").read_text()))
    assert len(record["draws"]["5"]) == 7


def test_the_library_judges_draws_as_a_run_does(done: Path, tmp_path: Path) -> None:
    told = read_json(done / "result.json")["draws"]["balanced_accuracy"]
    config = SlideConfig(top_k=(1, 5, 100))
    paths, truth = [done / f"{name}.h5" for name in "abcd"], ["purple", "purple", "pink", "pink"]
    slides = [read_features(paths[0]), *paths[1:]]
    assert judge_draws(MeanColour(), slides, truth, CLASSES, draws=7, config=config) == told
    with pytest.raises(UserError, match="label 'blue' is no class; the classes are: pink, purple"):
        judge_draws(MeanColour(), slides[:1], ["blue"], CLASSES)
    with pytest.raises(UserError, match=r"blank.h5 has no tiles"):
        judge_draws(MeanColour(), [done / "blank.h5"], ["pink"], CLASSES)
    with pytest.raises(UserError, match="were made by mean-colour"):
        judge_draws(MeanColour("b" * 64), slides[:1], ["pink"], CLASSES)


def test_the_sets_of_a_file_are_draws_as_they_stand(done: Path, cohort: Path, tmp_path: Path) -> None:
    sets = {str(seed): draw_prompts(load_prompts(POOL), seed).sets[0] for seed in range(5)}
    content = {key: {"classnames": s.classnames, "templates": list(s.templates)} for key, s in sets.items()}
    (tmp_path / "sets.json").write_text(json.dumps(content))
    out = shutil.copytree(done, tmp_path / "out")
    config = SMALL.replace(top_k=(1, 5, 100), draws="sets")
    run_slides(cohort / "s.csv", MeanColour(), tmp_path / "sets.json", config, out)
    told = read_json(out / "result.json")["draws"]
    assert (told["count"], told["seeds"]) == (5, None)
    paths, truth = [done / f"{name}.h5" for name in "abcd"], ["purple", "purple", "pink", "pink"]
    for seed in range(5):
        labels = [
            rescore(read_features(path), MeanColour(), load_prompts(content[str(seed)]), config).label
            for path in paths
        ]
        assert told["balanced_accuracy"]["5"]["values"][seed] == balanced_accuracy(truth, labels)
    for wrong in (-1, 1001, 2.5, "all"):
        with pytest.raises(ValueError, match="expected a whole number from 0 to 1000, or 'sets'"):
            SMALL.replace(draws=wrong)
    with pytest.raises(UserError, match="draws = 'sets': prompts custom hold one set"):
        run_slides(cohort / "s.csv", MeanColour(), CLASSES, config, tmp_path / "one")


def test_draws_without_known_labels_say_so(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pathclip"):
        run_slides(cohort / "a.tif", MeanColour(), CLASSES, SMALL.replace(draws=3), tmp_path)
    assert "draws = 3: no slide has a known label" in caplog.text
    assert read_json(tmp_path / "result.json")["draws"]["judged"] == 0


def test_more_draws_read_no_slide_again(cohort: Path, done: Path, tmp_path: Path) -> None:
    model, out = MeanColour(), shutil.copytree(done, tmp_path / "out")
    run_slides(cohort / "s.csv", model, CLASSES, SMALL.replace(top_k=(1, 5, 100), draws=9), out)
    assert model.batches == []
    assert read_json(out / "result.json")["draws"]["count"] == 9


def test_fewer_files_are_written_where_fewer_are_asked_for(cohort: Path, tmp_path: Path) -> None:
    slides, out = [cohort / "a.tif", cohort / "blank.tif"], tmp_path / "out"
    run = run_slides(slides, MeanColour(), CLASSES, SMALL.replace(outputs=("scores",)), out)
    assert [record.files for record in run.records] == [
        ("a.h5", "a.scores.parquet"),
        ("blank.h5", "blank.scores.parquet"),
    ]
    assert sorted(path.name for path in out.glob("a.*")) == ["a.h5", "a.scores.parquet"]
    data = (out / "index.html").read_text(encoding="utf-8")
    assert '"page": null' in data
    again = run_slides(slides, MeanColour(), CLASSES, SMALL.replace(outputs=()), tmp_path / "none")
    assert [record.label for record in again.records] == ["pink", None]
    assert (tmp_path / "none/fractions.csv").is_file()
    with pytest.raises(ValueError, match="outputs"):
        SMALL.replace(outputs=("pages",))
