from __future__ import annotations

import csv
import errno
import json
import logging
import os
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from slide_fakes import GLASS, MeanColour, damage_tile, painted, write_slide_at, write_tiff

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import read_json
from pathclip.slides import SlideConfig, SlideInput, read_features, read_inputs, run_slides
from pathclip.slides.folder import OutputFolder, SlideRecord, place_of

CLASSES = {"pink": ["pink"], "purple": ["purple"]}
SCHEMAS = Path(__file__).resolve().parents[2] / "docs/reference/schemas"
SUFFIXES = (".geojson", ".h5", ".heatmap.png", ".html", ".regions.geojson", ".scores.parquet")
SMALL = SlideConfig(tile_px=128, page_tiles=2)
SMALL_KS = SlideConfig(page_tiles=2)  # for cached features, which have decided on their tiles


@pytest.fixture(autouse=True)
def quick_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure is tested in test_slides_files; drawing it dozens of times would take half a minute."""
    monkeypatch.setattr("pathclip.slides.export.write_heatmap", lambda path, *_: path.touch() or path)


def status(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / "status.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        jsonschema.validate(row, json.loads((SCHEMAS / "slide-status.schema.json").read_text()))
    return rows


def results(out: Path) -> list[dict[str, str]]:
    with open(out / "results.csv", newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels, _ = painted(1024, 768)
    return write_slide_at(tmp_path_factory.mktemp("small") / "small.tif", pixels, 0.5, levels=1)


@pytest.fixture
def cohort(tmp_path: Path, small: Path) -> dict[str, Path]:
    """One slide of every fate."""
    folder = tmp_path / "slides"
    folder.mkdir()
    paths = {
        name: folder / f"{name}.tif" for name in ("good", "blank", "broken", "no_scale", "holed", "gone")
    }
    shutil.copy(small, paths["good"])
    write_slide_at(paths["blank"], np.full((512, 512, 3), GLASS, np.uint8), 0.5, levels=1)
    paths["broken"].write_bytes(b"II*\0 not a slide")
    write_tiff(paths["no_scale"], painted(512, 512)[0], levels=1)
    shutil.copy(small, paths["holed"])
    damage_tile(paths["holed"], 300, 300)
    paths["folder"] = folder / "folder.svs"
    paths["folder"].mkdir()
    return paths


def test_every_slide_ends_as_a_row_and_no_bad_one_stops_the_others(
    cohort: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO, "pathclip"):
        run = run_slides(list(cohort.values()), MeanColour(), CLASSES, SMALL, out)
    rows = {row["name"]: row for row in status(out)}
    assert [row["slide"] for row in status(out)] == [str(path) for path in cohort.values()]
    assert {name: row["state"] for name, row in rows.items()} == {
        "good": "done",
        "blank": "empty",
        "broken": "failed",
        "no_scale": "failed",
        "holed": "failed",
        "gone": "failed",
        "folder": "failed",
    }
    assert "--slide-mpp" in rows["no_scale"]["reason"]
    assert "tiles cannot be read, more than 5%" in rows["holed"]["reason"]
    assert "does not exist" in rows["gone"]["reason"]
    assert "is a folder" in rows["folder"]["reason"]
    assert "no tile with enough tissue" in rows["blank"]["reason"]
    assert all("\n" not in (row["reason"] or "") for row in rows.values())
    assert rows["good"]["tiles"] > 20
    assert run.exit_code == 1
    assert (run.count("done"), run.count("empty"), run.count("failed")) == (1, 1, 5)
    for name in rows:
        present = {suffix for suffix in SUFFIXES if (out / f"{name}{suffix}").exists()}
        assert present == (set(SUFFIXES) if name in ("good", "blank") else set()), name
    assert "good.tif: pink," in caplog.text
    assert "broken.tif: failed:" in caplog.text


def test_results_hold_label_scale_and_every_k(cohort: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = run_slides(list(cohort.values()), MeanColour(), CLASSES, SMALL.replace(top_k=(1, 5)), out)
    rows = results(out)
    assert list(rows[0]) == [
        *("slide", "patient", "label", "mpp", "mpp_source", "tiles"),
        *("K1_pink", "K1_purple", "K5_pink", "K5_purple"),
    ]
    assert [Path(row["slide"]).stem for row in rows] == ["good", "blank"]  # failed slides have no result
    good, blank = rows
    assert (good["label"], good["mpp_source"]) == ("pink", "tiff-resolution")
    assert float(good["mpp"]) == pytest.approx(0.5)
    assert float(good["K5_pink"]) == pytest.approx(run.records[0].scores["5"]["pink"])
    assert (blank["label"], blank["tiles"], blank["K1_pink"]) == ("", "0", "")


def test_the_result_file_says_how_the_run_was_done(small: Path, tmp_path: Path) -> None:
    run_slides(small, MeanColour(), CLASSES, SMALL, tmp_path / "out")
    result = read_json(tmp_path / "out/result.json")
    assert result["task"] == "slide_zeroshot_classification"
    assert result["metrics"]["done"] == 1
    assert result["classnames"] == ["pink", "purple"]
    told = result["provenance"]
    assert told["checkpoint_sha256"] == "a" * 64
    assert told["mpp"] == 0.5
    assert told["K"] == [1, 5, 10, 50, 100]
    assert told["temperature"] == pytest.approx(1 / 50)
    assert len(told["prompts"]["sha256"]) == 64
    assert told["config"]["tile_px"] == 128
    schema = SCHEMAS / "result.schema.json"
    if schema.is_file():
        jsonschema.validate(result, json.loads(schema.read_text()))


def test_known_labels_are_judged_with_intervals(small: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copy(small, tmp_path / f"{name}.tif")
    (tmp_path / "s.csv").write_text("slide,label,patient\na.tif,pink,p1\nb.tif,purple,p2\n")
    run_slides(tmp_path / "s.csv", MeanColour(), CLASSES, SMALL, tmp_path / "out")
    result = read_json(tmp_path / "out/result.json")
    assert result["metrics"]["judged"] == 2
    assert result["metrics"]["balanced_accuracy"] == 0.5
    assert len(result["intervals"]["balanced_accuracy"]) == 2
    assert [row["patient"] for row in results(tmp_path / "out")] == ["p1", "p2"]


def test_a_known_label_that_is_no_class_is_named_not_judged(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    item = SlideInput("a", small, truth="sarcoma")
    with caplog.at_level(logging.WARNING, "pathclip"):
        run_slides([item], MeanColour(), CLASSES, SMALL, tmp_path / "out")
    assert "labels that are no class are not judged: sarcoma" in caplog.text
    assert "judged" not in read_json(tmp_path / "out/result.json")["metrics"]


def test_records_are_whole_and_leak_no_path(small: Path, tmp_path: Path) -> None:
    run_slides(small, MeanColour(), CLASSES, SMALL, tmp_path / "out")
    record = read_json(tmp_path / "out/.pathclip/small.json")
    jsonschema.validate(record, json.loads((SCHEMAS / "slide-record.schema.json").read_text()))
    assert set(record["files"]) == {"small" + suffix for suffix in SUFFIXES}
    assert OutputFolder(tmp_path / "out").record("small").scores == record["scores"]
    assert not list((tmp_path / "out/.pathclip").glob("*.claim"))


def test_a_rerun_skips_what_is_done_and_changes_nothing(small: Path, tmp_path: Path) -> None:
    model, out = MeanColour(), tmp_path / "out"
    run_slides(small, model, CLASSES, SMALL, out)
    before, passes = content(out), len(model.batches)
    again = run_slides(small, model, CLASSES, SMALL, out)
    assert again.skipped == {"small"}
    assert len(model.batches) == passes
    assert content(out) == before
    run_slides(small, model, CLASSES, SMALL, out, overwrite=True)
    assert len(model.batches) == 2 * passes


def test_new_prompts_score_cached_features_and_new_settings_do_not(small: Path, tmp_path: Path) -> None:
    model, out = MeanColour(), tmp_path / "out"
    run_slides(small, model, CLASSES, SMALL, out)
    passes = len(model.batches)
    run = run_slides(small, model, {"red": ["red"], "pink": ["pink"]}, SMALL, out)
    assert len(model.batches) == passes
    assert set(run.records[0].scores["1"]) == {"red", "pink"}
    assert list(results(out)[0])[6:8] == ["K1_red", "K1_pink"]
    run_slides(small, model, CLASSES, SMALL.replace(mpp=1.0), out)
    assert len(model.batches) > passes


@pytest.mark.parametrize("change", ["touch", "delete"])
def test_a_changed_slide_or_a_lost_file_is_done_again(small: Path, tmp_path: Path, change: str) -> None:
    slide, out = Path(shutil.copy(small, tmp_path / "a.tif")), tmp_path / "out"
    run_slides(slide, MeanColour(), CLASSES, SMALL, out)
    if change == "touch":
        os.utime(slide, ns=(1, 1))
    else:
        (out / "a.geojson").unlink()
    assert run_slides(slide, MeanColour(), CLASSES, SMALL, out).skipped == frozenset()
    assert (out / "a.geojson").exists()


def test_a_killed_run_resumes_to_the_files_of_a_clean_one(small: Path, tmp_path: Path) -> None:
    paths = [Path(shutil.copy(small, tmp_path / f"{name}.tif")) for name in "abc"]
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    run_slides(paths, MeanColour(), CLASSES, SMALL, clean)

    class Killed(MeanColour):
        def encode_pixels(self, images, *, normalize=True):
            if len(self.batches) == 1:
                raise KeyboardInterrupt
            return super().encode_pixels(images, normalize=normalize)

    with pytest.raises(KeyboardInterrupt):
        run_slides(paths, Killed(), CLASSES, SMALL, killed)
    assert not (killed / "b.h5").exists()
    assert not list(killed.glob(".*.part"))
    run = run_slides(paths, MeanColour(), CLASSES, SMALL, killed)
    assert run.skipped == {"a"}
    compared = [n for n in content(clean) if n.endswith((".geojson", ".html", ".csv", ".parquet"))]
    assert len(compared) == 15
    for name in compared:
        assert content(killed)[name] == content(clean)[name], name


def test_what_a_killed_run_left_half_written_is_swept(small: Path, tmp_path: Path) -> None:
    paths = [Path(shutil.copy(small, tmp_path / name)) for name in ("a.tif", "a.b.tif")]
    folder = OutputFolder(tmp_path / "out")
    left = [".a.h5.01234567.part", ".results.csv.01234567.part", ".a.b.html.01234567.part"]
    left.append(".status.jsonl.01234567.part")
    for name in left:
        (folder.path / name).touch()
    os.utime(folder.path / left[1], (0, 0))  # others may be writing the table that is new
    folder.claim_path("a.b").write_text("1 another-host\n")  # is being written there
    run_slides(paths, MeanColour(), CLASSES, SMALL, folder.path)
    assert [name for name in left if (folder.path / name).exists()] == left[2:]


def test_pages_of_cached_features_are_those_of_the_first_run(small: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    run_slides(small, MeanColour(), CLASSES, SMALL, first)
    run_slides(small, MeanColour(), None, SMALL, again)
    run_slides(small, MeanColour(), CLASSES, SMALL, again)  # as after a kill between features and pictures
    for name in ("small.heatmap.png", "small.html", "small.geojson"):
        assert content(again)[name] == content(first)[name], name


def test_a_failed_slide_is_tried_again(cohort: dict[str, Path], small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_slides(cohort["gone"], MeanColour(), CLASSES, SMALL, out).exit_code == 2
    shutil.copy(small, cohort["gone"])
    run = run_slides(cohort["gone"], MeanColour(), CLASSES, SMALL, out)
    assert (run.exit_code, run.records[0].state) == (0, "done")
    assert [row["state"] for row in status(out)] == ["done"]


def test_exit_codes_tell_a_mistake_from_a_fault(cohort: dict[str, Path], tmp_path: Path) -> None:
    def code(*names: str) -> int:
        paths = [cohort[name] for name in names]
        return run_slides(paths, MeanColour(), CLASSES, SMALL, tmp_path / "-".join(names)).exit_code

    assert code("good") == code("blank") == 0
    assert code("no_scale") == code("gone", "no_scale") == 2
    assert code("broken") == code("broken", "gone") == code("good", "gone") == 1


def test_another_settings_slides_are_left_out_of_the_tables(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (Path(shutil.copy(small, tmp_path / f"{name}.tif")) for name in "ab")
    run_slides(first, MeanColour(), CLASSES, SMALL, tmp_path / "out")
    with caplog.at_level(logging.INFO, "pathclip"):
        run_slides(second, MeanColour(), CLASSES, SMALL.replace(top_k=(3,)), tmp_path / "out")
    assert [row["name"] for row in status(tmp_path / "out")] == ["b"]
    assert "1 slides in" in caplog.text
    run_slides(second, MeanColour(), CLASSES, SMALL, tmp_path / "out")
    assert [row["name"] for row in status(tmp_path / "out")] == ["b", "a"]


def test_a_bug_in_one_slide_is_a_row_not_the_end(small: Path, tmp_path: Path) -> None:
    class Broken(MeanColour):
        def encode_pixels(self, images, *, normalize=True):
            raise RuntimeError("CUDA out of memory")

    run = run_slides(small, Broken(), CLASSES, SMALL, tmp_path / "out")
    assert (run.exit_code, run.records[0].reason) == (1, "RuntimeError: CUDA out of memory")


def test_a_full_disk_stops_the_run(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [Path(shutil.copy(small, tmp_path / f"{name}.tif")) for name in "ab"]

    def full(path: Path, *_: object, **__: object) -> None:
        raise FaultError(f"cannot write {path}") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathclip.slides.features.write_features", full)
    model = MeanColour()
    with pytest.raises(FaultError, match="cannot write"):
        run_slides(paths, model, CLASSES, SMALL, tmp_path / "out")
    assert len(model.batches) == 1


def test_a_slide_replaced_while_it_is_read_is_not_trusted(small: Path, tmp_path: Path) -> None:
    slide = Path(shutil.copy(small, tmp_path / "a.tif"))

    class Replacing(MeanColour):
        def encode_pixels(self, images, *, normalize=True):
            os.utime(slide, ns=(7, 7))
            return super().encode_pixels(images, normalize=normalize)

    run = run_slides(slide, Replacing(), CLASSES, SMALL, tmp_path / "out")
    assert "changed while it was read" in run.records[0].reason


def test_a_slide_that_another_process_holds_is_left_to_it(small: Path, tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    folder.claim_path("small").write_text("1 another-host\n")
    run = run_slides(small, MeanColour(), CLASSES, SMALL, tmp_path / "out")
    assert (run.elsewhere, run.records, run.exit_code) == (("small",), (), 0)


def test_embedding_writes_features_and_no_answers(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = run_slides(small, MeanColour(), None, SMALL, out)
    assert sorted(path.name for path in out.iterdir()) == [".pathclip", "small.h5", "status.jsonl"]
    assert run.records[0].label is None
    assert read_features(out / "small.h5").features.shape == (run.records[0].tiles, 3)
    model = MeanColour()
    run_slides(small, model, CLASSES, SMALL, out)  # and a later classification uses them
    assert model.batches == []


def test_named_features_are_scored_without_their_slides(small: Path, tmp_path: Path) -> None:
    run_slides(small, MeanColour(), None, SMALL, tmp_path / "h5")
    model, out = MeanColour(), tmp_path / "out"
    run = run_slides([], model, CLASSES, SMALL_KS, out, features=[tmp_path / "h5/small.h5"])
    assert model.batches == []
    assert run.records[0].label == "pink"
    assert sorted(p.name for p in out.glob("small*")) == sorted("small" + s for s in SUFFIXES if s != ".h5")
    again = run_slides([], model, CLASSES, SMALL_KS, out, features=[tmp_path / "h5/small.h5"])
    assert again.skipped == {"small"}
    assert '"jpeg": null' in (out / "small.html").read_text(encoding="utf-8")
    run_slides(small, model, CLASSES, SMALL_KS, out, features=[tmp_path / "h5/small.h5"])
    assert '"jpeg": null' not in (out / "small.html").read_text(encoding="utf-8")


def test_features_in_the_folder_itself_stay_their_slides(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_slides(small, MeanColour(), None, SMALL, out)
    for prompts in (CLASSES, {"red": ["red"], "pink": ["pink"]}):
        run = run_slides([], MeanColour(), prompts, SMALL_KS, out, features=[out / "small.h5"])
        assert [(r.name, r.slide, r.label) for r in run.records] == [("small", str(small), "pink")]
    assert {path.name for path in out.glob("small*")} == {"small" + suffix for suffix in SUFFIXES}
    again = run_slides(small, MeanColour(), CLASSES, SMALL, out)
    assert again.records[0].name == "small"


def test_features_beside_their_slide_keep_its_name(small: Path, tmp_path: Path) -> None:
    run_slides(small, MeanColour(), None, SMALL, tmp_path / "h5")
    for _ in range(2):
        run = run_slides(
            small, MeanColour(), CLASSES, SMALL_KS, tmp_path / "out", features=[tmp_path / "h5/small.h5"]
        )
    assert (run.records[0].name, run.skipped) == ("small", {"small"})


def test_settings_that_features_already_decide_are_refused(small: Path, tmp_path: Path) -> None:
    run_slides(small, MeanColour(), None, SMALL, tmp_path / "h5")
    with pytest.raises(UserError, match="slide_mpp, tile_px cannot be set with --features"):
        run_slides(
            [],
            MeanColour(),
            CLASSES,
            SMALL.replace(slide_mpp=0.3),
            tmp_path / "out",
            features=[tmp_path / "h5/small.h5"],
        )


def test_features_that_do_not_fit_are_refused(small: Path, tmp_path: Path) -> None:
    run_slides(small, MeanColour(), None, SMALL, tmp_path / "h5")
    cached = tmp_path / "h5/small.h5"
    with pytest.raises(UserError, match="for that classes are needed"):
        run_slides([], MeanColour(), None, SMALL_KS, tmp_path / "out", features=[cached])
    other = Path(shutil.copy(small, tmp_path / "other.tif"))
    with pytest.raises(UserError, match=r"other\.tif has no features file of its name"):
        run_slides(other, MeanColour(), CLASSES, SMALL_KS, tmp_path / "out", features=[cached])
    run = run_slides([], MeanColour("b" * 64), CLASSES, SMALL_KS, tmp_path / "out", features=[cached])
    assert "pass the model that made them" in run.records[0].reason
    run = run_slides([], MeanColour(), CLASSES, SMALL_KS, tmp_path / "out", features=[tmp_path / "no.h5"])
    assert (run.exit_code, "does not exist" in run.records[0].reason) == (2, True)


def test_one_mask_for_many_slides_is_refused(cohort: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "m.png").touch()
    with pytest.raises(UserError, match="is one mask for 2 slides; give a folder"):
        run_slides(
            [cohort["good"], cohort["blank"]],
            MeanColour(),
            CLASSES,
            SMALL.replace(mask=tmp_path / "m.png"),
            tmp_path / "out",
        )


def test_engines_that_spread_need_the_model_by_name(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the model by name or path"):
        run_slides(small, MeanColour(), CLASSES, SMALL, tmp_path / "out", engine="processes")


def test_an_unwritable_folder_is_named_before_any_work(small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write into .*file/out.*choose another --out"):
        run_slides(small, MeanColour(), CLASSES, SMALL, tmp_path / "file" / "out")


def names(tmp_path: Path, *paths: str) -> list[str]:
    return OutputFolder(tmp_path / "names").names([Path(path) for path in paths])


def test_names_are_stems_then_file_names_then_hashes(tmp_path: Path) -> None:
    assert names(tmp_path, "/x/a.svs", "/x/b.tif") == ["a", "b"]
    assert names(tmp_path, "/x/a.svs", "/x/a.tif", "/x/b.tif") == ["a.svs", "a.tif", "b"]
    found = names(tmp_path, "/x/a.svs", "/y/a.svs", "/x/a.tif")
    assert found == [f"a-{place_of(Path('/x/a.svs'))[:8]}", f"a-{place_of(Path('/y/a.svs'))[:8]}", "a.tif"]
    assert len({name.casefold() for name in names(tmp_path, "/x/A.svs", "/y/a.SVS", "/x/a.svs.tif")}) == 3


def test_unicode_and_endless_names_are_kept_usable(tmp_path: Path) -> None:
    assert names(tmp_path, "/x/Schnitt 腺癌.svs") == ["Schnitt 腺癌"]
    (long,) = names(tmp_path, f"/x/{'a' * 240}.svs")
    assert len(long) < 60


def test_a_second_run_never_takes_over_anothers_name(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
        shutil.copy(small, tmp_path / place / "a.tif")
        os.utime(tmp_path / place / "a.tif", ns=(ord(place), ord(place)))
        run_slides(tmp_path / place / "a.tif", MeanColour(), CLASSES, SMALL, out)
    assert sorted(row["name"] for row in status(out)) == ["a", "a.tif"]
    assert (out / "a.tif.html").exists()
    rerun = run_slides([tmp_path / "y/a.tif", tmp_path / "x/a.tif"], MeanColour(), CLASSES, SMALL, out)
    assert rerun.skipped == {"a", "a.tif"}


def test_a_moved_slide_keeps_its_name_and_result(small: Path, tmp_path: Path) -> None:
    slide, out = Path(shutil.copy2(small, tmp_path / "a.tif")), tmp_path / "out"
    run_slides(slide, MeanColour(), CLASSES, SMALL, out)
    (tmp_path / "archive").mkdir()
    moved = Path(shutil.move(slide, tmp_path / "archive/a.tif"))
    assert run_slides(moved, MeanColour(), CLASSES, SMALL, out).skipped == {"a"}


def test_a_record_that_cannot_be_read_counts_as_absent(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    folder.record_path("a").write_text("{")
    folder.record_path("b").write_text('{"schema": "other/1"}')
    folder.record_path("c").write_text('{"schema": "pathclip.slide-record/1"}')
    assert folder.records() == {}
    record = SlideRecord("d", "d.svs", "p", None, "k", "r", "done")
    folder.write_record(record)
    assert folder.records() == {"d": record}


def test_a_table_of_slides_is_read_with_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    (tmp_path / "s.csv").write_text(
        "\ufeffSlide , MPP,patient,label,site\na.svs,0.25,p 1,luad,x\n/far/b.svs,,,,\n", encoding="utf-8"
    )
    assert read_inputs(tmp_path / "s.csv") == [
        SlideInput("a.svs", tmp_path / "a.svs", 0.25, "p 1", "luad"),
        SlideInput("/far/b.svs", Path("/far/b.svs")),
    ]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("file,mpp\na.svs,1\n", "has no column slide; its columns: file, mpp"),
        ("slide\n", "has no rows"),
        ("slide,mpp\na.svs,0.25\nb.svs,40x\n", r"line 3: mpp '40x'; expected µm/px between 0.05 and 20"),
        ("slide,mpp\na.svs,353\n", "line 2: mpp '353'"),
        ("slide,mpp\n,0.5\n", "line 2: column slide is empty"),
        ("slide\n\xff", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "s.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=match):
        read_inputs(tmp_path / "s.csv")


def test_patterns_and_repeats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b.svs", "a.svs", "c.tif"):
        (tmp_path / name).touch()
    found = read_inputs([f"{tmp_path}/*.svs", tmp_path / "a.svs", tmp_path / "c.tif"])
    assert [item.path.name for item in found] == ["a.svs", "b.svs", "c.tif"]
    with pytest.raises(UserError, match="no slide matches"):
        read_inputs(f"{tmp_path}/*.ndpi")
    with pytest.raises(UserError, match="no slides given"):
        read_inputs([])
    with pytest.raises(UserError, match=r"s\.csv does not exist"):
        read_inputs(tmp_path / "s.csv")
    caplog.clear()
    twice = read_inputs([SlideInput("a", tmp_path / "a.svs"), SlideInput("a", tmp_path / "a.svs", mpp=0.5)])
    assert len(twice) == 1
    assert "named twice" in caplog.text


def test_the_tables_scale_reaches_the_slide(cohort: dict[str, Path], tmp_path: Path) -> None:
    item = SlideInput("x", cohort["no_scale"], mpp=0.5)
    run = run_slides([item], MeanColour(), CLASSES, SMALL, tmp_path / "out")
    assert (run.records[0].mpp, run.records[0].mpp_source) == (0.5, "csv")
    run = run_slides([item], MeanColour(), CLASSES, SMALL.replace(slide_mpp=0.25), tmp_path / "out")
    assert (run.records[0].mpp, run.records[0].mpp_source) == (0.25, "slide-mpp")


def test_the_result_counts_what_other_processes_did(small: Path, tmp_path: Path) -> None:
    first, second = (Path(shutil.copy(small, tmp_path / f"{name}.tif")) for name in "ab")
    run_slides(first, MeanColour(), CLASSES, SMALL, tmp_path / "out")
    claim = OutputFolder(tmp_path / "out").claim_path("a")
    claim.write_text("1 another-host\n")
    run = run_slides([first, second], MeanColour(), CLASSES, SMALL, tmp_path / "out")
    assert run.elsewhere == ("a",)
    assert read_json(tmp_path / "out/result.json")["metrics"]["slides"] == 2
    assert [row["name"] for row in status(tmp_path / "out")] == ["a", "b"]
