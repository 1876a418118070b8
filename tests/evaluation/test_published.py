from __future__ import annotations

import shutil
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
from benchmark_layouts import (
    KATHER,
    LC25000,
    bach,
    digestpath,
    kather,
    kimia,
    lc25000,
    mask,
    mhist,
    pannuke,
    pcam,
    strict,
    wsss4luad,
)
from colour_model import ColourModel, paint, schema
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.evaluation import EvaluateConfig, ProbeConfig, benchmarks, evaluate, probe
from pathclip.evaluation.digestpath import crop_label, crops, tissue_share
from pathclip.evaluation.pannuke import nuclei, pannuke_label
from pathclip.evaluation.pictures import PlipResized
from pathclip.evaluation.splits import grouped_split, plip_order, plip_split, stratified_split

MAKERS = {
    "kather": kather,
    "lc25000": lc25000,
    "bach": bach,
    "mhist": mhist,
    "kimia": kimia,
    "wsss4luad": wsss4luad,
    "pcam": pcam,
    "pannuke": pannuke,
    "digestpath": digestpath,
}


def read(name: str, root: Path, split: str | None = None, protocol: str = "corrected"):
    return benchmarks[name].read(root, split, protocol)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("trees")
    return {name: make(home / name) for name, make in MAKERS.items() if not (home / name).mkdir()}


def test_every_published_set_is_layout_only_until_it_was_seen() -> None:
    waiting = {name for name in benchmarks if benchmarks[name].status == "layout-only"}
    assert waiting == {*MAKERS, "mcq"}  # no published tree, but a published file, which test_mcq.py imitates


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("protocol", ["corrected", "plip-compat"])
def test_a_miniature_of_every_layout_is_scored(
    name: str, protocol: str, trees: dict[str, Path], model: ColourModel, tmp_path: Path
) -> None:
    config = EvaluateConfig(
        benchmark=name,
        data=trees[name],
        out=tmp_path / "out",
        protocol=protocol,
        ks=(1, 2),
        num_resamples=50,
    )
    report = evaluate(config, model=model)
    record = strict(tmp_path / "out/result.json")
    jsonschema.validate(record, schema("result"))
    assert report.counts["scored"] == report.counts["total"] > 3
    assert report.counts["bad"] == 0
    assert record["provenance"]["benchmark_status"] == "layout-only"
    written = record["provenance"]["protocol"]
    assert written["name"] == protocol
    assert bool(written["quirks"]) == (protocol == "plip-compat")
    assert written["headline"] in record["metrics"]
    assert ("resize_then_crop" in written["quirks"]) == (protocol == "plip-compat")
    page = (tmp_path / "out/report.html").read_text()
    assert f"Protocol {protocol}" in page


@pytest.mark.parametrize(
    ("name", "split", "per_class"),
    [
        (
            "kather",
            "test",
            dict.fromkeys(KATHER, 2),
        ),
        (
            "kather",
            "train",
            dict.fromkeys(KATHER, 3),
        ),
        ("lc25000", None, dict.fromkeys(sum(LC25000.values(), ()), 10)),
        ("lc25000", "test", dict.fromkeys(sum(LC25000.values(), ()), 3)),
        ("bach", None, dict.fromkeys(("Benign", "InSitu", "Invasive", "Normal"), 4)),
        ("mhist", "train", {"HP": 2, "SSA": 2}),
        ("mhist", None, {"HP": 2, "SSA": 2}),
        ("kimia", None, dict.fromkeys(("s0", "s1", "s2", "s3"), 3)),
        ("pcam", None, {"normal": 4, "tumor": 4}),
        ("pcam", "valid", {"normal": 2, "tumor": 2}),
    ],
)
def test_the_published_classes_and_splits_are_read(
    name: str, split: str | None, per_class: dict[str, int], trees: dict[str, Path]
) -> None:
    data = read(name, trees[name], split)
    assert {label: data.truth.count(label) for label in data.labels} == per_class
    assert data.split == (split or {"lc25000": "all", "bach": "all"}.get(name, "test"))


def test_the_archives_own_folder_may_be_named_itself(trees: dict[str, Path]) -> None:
    whole = read("kather", trees["kather"])
    assert read("kather", trees["kather"] / "CRC-VAL-HE-7K").truth == whole.truth
    inner = trees["bach"] / "ICIAR2018_BACH_Challenge"
    assert (
        read("bach", inner).truth == read("bach", inner / "Photos").truth == read("bach", trees["bach"]).truth
    )


def test_files_beside_the_pictures_are_counted_as_ignored(trees: dict[str, Path]) -> None:
    assert [path.name for path in read("bach", trees["bach"]).ignored] == ["Thumbs.db"] * 4


@pytest.mark.parametrize(
    ("name", "remove", "text"),
    [
        ("kather", "CRC-VAL-HE-7K/TUM", "expects the folders TUM there"),
        ("kather", "CRC-VAL-HE-7K", r"expects CRC-VAL-HE-7K/ with a folder per class there; found NCT-CRC"),
        (
            "lc25000",
            "lung_colon_image_set/lung_image_sets/lung_n",
            "the folders lung_image_sets/lung_n",
        ),
        ("bach", "ICIAR2018_BACH_Challenge/Photos", r"expects ICIAR2018_BACH_Challenge/Photos/ there"),
        ("mhist", "annotations.csv", r"expects annotations\.csv and images/ there"),
        ("kimia", "KIMIA_Path24C", r"expects Test-patches/ with a folder per slide there; found nothing"),
        ("wsss4luad", "1.training", r"expects 1\.training/ with names ending in \[tumor, stroma, normal\]"),
        (
            "pcam",
            "camelyonpatch_level_2_split_test_y.h5",
            r"expects camelyonpatch.*_test_y\.h5 there",
        ),
        ("pannuke", "fold_2/Fold 2/masks/fold2/masks.npy", r"expects .*masks/fold2/masks\.npy there"),
        (
            "digestpath",
            "Colonoscopy_tissue_segment_dataset/tissue-train-pos-v1",
            "expects tissue-train-pos-v1/ there",
        ),
    ],
)
def test_a_missing_part_is_named_with_its_place_in_one_line(
    name: str, remove: str, text: str, trees: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(trees[name], tmp_path / name)
    target = root / remove
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(UserError, match=text) as caught:
        read(name, root)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("name", ["kather", "mhist", "kimia", "pcam", "pannuke", "wsss4luad", "lc25000"])
def test_an_unknown_split_is_refused(name: str, trees: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"has no (split|partition) 'dev'"):
        read(name, trees[name], "dev")


def test_a_packed_file_of_pcam_says_how_to_unpack_it(trees: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(trees["pcam"], tmp_path / "pcam")
    x = root / "camelyonpatch_level_2_split_test_x.h5"
    x.rename(f"{x}.gz")
    with pytest.raises(UserError, match=r"unpack camelyonpatch_level_2_split_test_x\.h5\.gz \(gunzip\)"):
        read("pcam", root)


def test_pcams_intervals_resample_slides_where_the_table_names_them(
    trees: dict[str, Path], tmp_path: Path
) -> None:
    assert read("pcam", trees["pcam"]).groups == tuple(f"wsi_{i // 2}" for i in range(8))
    root = shutil.copytree(trees["pcam"], tmp_path / "pcam")
    (root / "camelyonpatch_level_2_split_test_meta.csv").unlink()
    data = read("pcam", root)
    assert data.groups is None
    assert "no camelyonpatch_level_2_split_test_meta.csv" in data.how[0]


def test_a_cut_file_of_pcam_is_named(trees: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(trees["pcam"], tmp_path / "pcam")
    x = root / "camelyonpatch_level_2_split_test_x.h5"
    x.write_bytes(x.read_bytes()[:300])
    with pytest.raises(UserError, match=r"camelyonpatch_level_2_split_test_x\.h5"):
        read("pcam", root)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("1.2.3.440737-38208-17984-[1, 0, 0].png", "tumor"),
        ("1.2.3.440737_38208_17984_[1_1_0].png", "tumor"),
        ("436723-12-[0, 1, 0].png", "normal"),  # stroma alone
        ("436723-12-[0, 0, 1].png", "normal"),
    ],
)
def test_wsss4luad_is_tumor_where_the_first_bit_is_set(name: str, label: str, tmp_path: Path) -> None:
    for file in (name, "9-1-1-[0, 0, 1].png", "8-1-1-[1, 0, 0].png"):
        paint(tmp_path / "1.training" / file, "red")
    (tmp_path / "1.training/readme.txt").write_text("x")
    data = read("wsss4luad", tmp_path, "all")
    found = dict(zip((p.name for p in data.pictures), data.truth, strict=True))
    assert found[name] == label
    assert [path.name for path in data.ignored] == ["readme.txt"]


@pytest.mark.parametrize(
    ("name", "slide"),
    [
        ("436219-7159-48057-[1, 0, 0].png", "436219"),
        ("1.2.3.440737_38208_17984_[1_1_0].png", "1.2.3.440737"),
        ("TCGA-49-4490-100-200-[0, 1, 0].png", "TCGA-49-4490"),
        ("436723-12-13-14-[0, 0, 1].png", "436723"),  # rather too coarse a group than a shared slide
    ],
)
def test_wsss4luads_slide_is_what_stands_before_the_places(name: str, slide: str, tmp_path: Path) -> None:
    for file in (name, "9-1-1-[0, 0, 1].png", "8-1-1-[1, 0, 0].png"):
        paint(tmp_path / "1.training" / file, "red")
    data = read("wsss4luad", tmp_path, "all")
    assert slide in data.groups


def test_corrected_splits_never_share_a_slide_and_plips_do(trees: dict[str, Path]) -> None:
    for name in ("wsss4luad", "digestpath"):
        sides = {
            protocol: [set(read(name, trees[name], split, protocol).groups) for split in ("train", "test")]
            for protocol in ("corrected", "plip-compat")
        }
        assert not set.intersection(*sides["corrected"]), name
        assert set.intersection(*sides["plip-compat"]), name


def test_plips_order_is_that_of_pandas_sample() -> None:
    # pandas.DataFrame(range(n)).sample(frac=1, random_state=1), pandas 2.3
    assert plip_order(5).tolist() == [2, 1, 4, 0, 3]
    assert plip_order(10).tolist() == [2, 9, 6, 4, 0, 3, 1, 7, 8, 5]


@pytest.mark.parametrize(("total", "train"), [(10_091, 7_063), (62_713, 43_899)])
def test_plips_split_has_the_published_sizes(total: int, train: int) -> None:
    parts = plip_split(total)
    assert [len(part) for part in parts] == [train, total - train]
    assert sorted(parts[0] + parts[1]) == list(range(total))


def test_a_stratified_split_keeps_every_class_on_both_sides() -> None:
    truth = ["a"] * 20 + ["b"] * 10
    train, test = stratified_split(truth)
    assert sorted(train + test) == list(range(30))
    assert [sum(truth[i] == "b" for i in part) for part in (train, test)] == [7, 3]


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(UserError, match="choose --split all"):
        grouped_split(["one"] * 5)


# PanNuke: 10 neoplastic nuclei or more that are over 30 % of all are malignant, none is benign


@pytest.mark.parametrize(
    ("counts", "label"),
    [
        ((10, 0, 0, 0, 0), "malignant"),
        ((9, 0, 0, 0, 0), None),
        ((10, 23, 0, 0, 0), "malignant"),  # 30.3 %
        ((10, 24, 0, 0, 0), None),  # 29.4 %
        ((12, 28, 0, 0, 0), None),  # 30 % exactly is not over 30 %
        ((0, 1, 0, 0, 0), "benign"),
        ((1, 50, 0, 0, 0), None),
    ],
)
def test_pannukes_rule(counts: tuple[int, ...], label: str | None) -> None:
    assert pannuke_label(counts) == label


def test_a_mask_without_nuclei_is_dropped_and_background_is_none() -> None:
    assert nuclei(mask(0, 0), "corrected") is None
    assert nuclei(mask(0, 0), "plip-compat") is None
    assert nuclei(mask(3, 2), "corrected") == [3, 2, 0, 0, 0]


def test_plips_count_takes_the_background_for_a_nucleus() -> None:
    on_the_edge = mask(10, 23)
    assert nuclei(on_the_edge, "plip-compat") == [10, 23, 0, 0, 0, 1]
    assert pannuke_label(nuclei(on_the_edge, "corrected") or []) == "malignant"  # 10 of 33
    assert pannuke_label(nuclei(on_the_edge, "plip-compat") or []) is None  # 10 of 34


def test_plips_count_loses_ids_beyond_8_bits() -> None:
    late = mask(4, 0, first=255)  # 255, 256, 257, 258: of these 256 turns to 0
    assert (nuclei(late, "corrected") or [])[0] == 4
    assert (nuclei(late, "plip-compat") or [])[0] == 3


def test_pannuke_keeps_malignant_and_benign_by_published_folds(trees: dict[str, Path]) -> None:
    test, train = (read("pannuke", trees["pannuke"], split) for split in ("test", "train"))
    assert (len(test.truth), len(train.truth)) == (3 * 2 * 5, 2 * 3 * 2 * 5)  # organs x labels x repeats
    assert {picture.path.parent.name for picture in test.pictures} == {"fold3"}
    assert set(test.strata) == {"adrenal gland", "breast", "colon"}
    pixels = np.asarray(test.pictures[0]())
    assert pixels.dtype == np.uint8
    assert tuple(pixels[0, 0]) == ((230, 25, 25) if test.truth[0] == "malignant" else (25, 25, 230))


def test_plips_pannuke_split_is_70_to_30_within_organ_and_label(trees: dict[str, Path]) -> None:
    train, test = (read("pannuke", trees["pannuke"], split, "plip-compat") for split in ("train", "test"))
    kinds = [sorted(zip(data.strata, data.truth, strict=True)) for data in (train, test)]
    assert {kind: kinds[0].count(kind) for kind in kinds[0]} == dict.fromkeys(kinds[0], 10)  # int(0.7 * 15)
    assert {kind: kinds[1].count(kind) for kind in kinds[1]} == dict.fromkeys(kinds[1], 5)
    assert not {p.filename for p in train.pictures} & {p.filename for p in test.pictures}


def test_figures_by_organ_stand_beside_the_organs_constant_class(
    trees: dict[str, Path], model: ColourModel, tmp_path: Path
) -> None:
    classes = {"benign": "blue", "malignant": "red"}
    config = EvaluateConfig(
        benchmark="pannuke", data=trees["pannuke"], out=tmp_path / "out", classes=classes, num_resamples=20
    )
    report = evaluate(config, model=model)
    assert report.metrics["balanced_accuracy"] == 1.0
    rows = report.extra["strata"]
    assert [row["stratum"] for row in rows] == ["adrenal gland", "breast", "colon"]
    assert {row["scored"] for row in rows} == {10}
    assert rows[0]["weighted_f1"] == 1.0
    assert rows[0]["constant_class_weighted_f1"] == pytest.approx(1 / 3)
    assert "By organ" in (tmp_path / "out/report.html").read_text()


def test_arrays_of_other_shapes_are_refused(trees: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(trees["pannuke"], tmp_path / "p")
    np.save(root / "fold_1/Fold 1/masks/fold1/masks.npy", np.zeros((3, 24, 24, 6)))
    with pytest.raises(UserError, match=r"PanNuke, fold 1: images .* masks \(3, 24, 24, 6\)"):
        read("pannuke", root)
    (root / "fold_1/Fold 1/masks/fold1/masks.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"PanNuke, fold 1: .*unpack the archive again"):
        read("pannuke", root)


# DigestPath: background is R, G and B all 200 or more; half tissue at least; mask above 10


def test_digestpaths_background_needs_all_three_colours() -> None:
    pixels = np.array([[[200, 200, 200], [255, 255, 199]], [[199, 255, 255], [255, 255, 255]]], np.uint8)
    assert tissue_share(pixels) == 0.5


@pytest.mark.parametrize(
    ("tumour", "corrected", "compat"),
    [
        (0.0, "benign", "benign"),
        (0.01, None, None),
        (0.29, None, None),
        (0.3, None, "malignant"),
        (0.5, "malignant", "malignant"),
    ],
)
def test_digestpaths_rule(tumour: float, corrected: str | None, compat: str | None) -> None:
    assert crop_label(tumour, "corrected") == corrected
    assert crop_label(tumour, "plip-compat") == compat


def test_crops_overlap_by_a_tenth_and_leave_out_background() -> None:
    pixels = np.full((224, 650, 3), 100, np.uint8)
    pixels[:, 224 + 201 - 112 :] = 255  # the second crop is exactly half tissue
    found = [(left, top) for left, top, _ in crops(pixels, None, "corrected")]
    assert found == [(0, 0), (201, 0)]
    assert list(crops(pixels, None, "plip-compat")) == []  # these end with the last row


def test_digestpath_drops_crops_with_some_tumour_and_takes_benign_ones_of_positive_slides(
    trees: dict[str, Path],
) -> None:
    whole = read("digestpath", trees["digestpath"], "all")
    kinds = {
        (picture.path.parent.name[13:16], picture.downsample, picture.left, picture.top): label
        for picture, label in zip(whole.pictures, whole.truth, strict=True)
    }
    # 480 px at half size: crops at 0 and 201, those to the right a quarter tissue; 240 px at a fourth: one
    # crop, on positive slides 29 % tumour; smaller ones do not hold a crop
    assert kinds == {
        ("neg", 4, 0, 0): "benign",
        ("neg", 2, 0, 0): "benign",
        ("neg", 2, 0, 201): "benign",
        ("pos", 2, 0, 0): "malignant",
    }
    assert set(whole.groups) == {f"2019_{i:02d}{kind}" for i in range(4) for kind in "np"}
    assert whole.pictures[0]().shape == (224, 224, 3)


def test_a_slide_that_does_not_decode_is_counted_and_the_rest_goes_on(
    trees: dict[str, Path], model: ColourModel, tmp_path: Path
) -> None:
    root = shutil.copytree(trees["digestpath"], tmp_path / "d")
    slide = root / "Colonoscopy_tissue_segment_dataset/tissue-train-neg/2019_00n.jpg"
    slide.write_bytes(slide.read_bytes()[:400])
    config = EvaluateConfig(
        benchmark="digestpath", data=root, split="all", out=tmp_path / "o", num_resamples=5
    )
    report = evaluate(config, model=model)
    assert [item.name for item in report.bad] == ["tissue-train-neg/2019_00n.jpg"]
    assert report.counts["scored"] == 3 * 3 + 4


@pytest.mark.slow  # two processes load torch
def test_slides_shared_among_processes_give_the_same_crops_in_the_same_order(
    trees: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = read("digestpath", trees["digestpath"], "all")
    monkeypatch.setattr("pathclip.evaluation.digestpath.SLIDES_PER_WORKER", 4)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert read("digestpath", trees["digestpath"], "all") == alone


def test_a_positive_slide_without_its_mask_is_named(trees: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(trees["digestpath"], tmp_path / "d")
    (root / "Colonoscopy_tissue_segment_dataset/tissue-train-pos-v1/2019_01p_mask.jpg").unlink()
    with pytest.raises(UserError, match=r"expects 2019_01p_mask\.jpg beside it"):
        read("digestpath", root)


def test_plips_resizing_leaves_black_beside_an_oblong_picture() -> None:
    image = Image.new("RGB", (400, 250), "white")
    pixels = np.asarray(PlipResized(image)())
    assert pixels.shape == (224, 224, 3)
    assert (pixels == 0).all(axis=2).mean() == pytest.approx(0.058, abs=5e-4)  # computed from the code
    square = np.asarray(PlipResized(Image.new("RGB", (300, 300), "white"))())
    assert (square == 255).all()


def test_a_probe_reads_both_sides_of_a_published_set(
    trees: dict[str, Path], model: ColourModel, tmp_path: Path
) -> None:
    for protocol in ("corrected", "plip-compat"):
        out = tmp_path / protocol
        config = ProbeConfig(
            benchmark="wsss4luad",
            train=trees["wsss4luad"],
            test=trees["wsss4luad"],
            out=out,
            protocol=protocol,
            num_resamples=20,
        )
        report = probe(config, model=model)
        assert report.metrics["balanced_accuracy"] == 1.0
        record = strict(out / "result.json")
        jsonschema.validate(record, schema("result"))
        assert record["provenance"]["protocol"]["headline"] == (
            "macro_f1" if protocol == "plip-compat" else "balanced_accuracy"
        )
        assert ("plip_probe" in record) == (protocol == "plip-compat")
    grid = record["plip_probe"]["grid"]
    assert [row["alpha"] for row in grid] == [1e-4, 1e-3, 1e-2, 1e-1]
    assert all(len(row["macro_f1"]) == len(record["plip_probe"]["seeds"]) == 5 for row in grid)
    assert {"probe_alpha_on_test", "probe_macro_called_wf1"} <= record["provenance"]["protocol"][
        "quirks"
    ].keys()
    assert "Five seeds, four penalties" in (tmp_path / "plip-compat/report.html").read_text()


def test_what_cannot_be_compared_by_bytes_is_not_counted_as_none(
    trees: dict[str, Path], model: ColourModel, tmp_path: Path
) -> None:
    config = ProbeConfig(
        benchmark="pcam", train=trees["pcam"], test=trees["pcam"], out=tmp_path / "o", num_resamples=5, c=1.0
    )
    report = probe(config, model=model)
    assert "also_in_training" not in report.counts
    assert report.counts["scored"] == 8


def test_plips_probe_keeps_the_penalty_that_the_test_pictures_like_best() -> None:
    from pathclip.evaluation.plip_probe import plip_probe

    rng = np.random.default_rng(0)
    labels = ["a", "b", "c"] * 30
    centres = {"a": [1, 0, 0], "b": [0, 1, 0], "c": [0, 0, 1]}
    rows = np.array([centres[label] for label in labels]) + rng.normal(0, 0.6, (90, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    fitted, record = plip_probe(rows[:45], labels[:45], rows[45:], labels[45:])
    best = max(record["grid"], key=lambda row: row["mean"])
    assert record["alpha"] == best["alpha"]
    assert best["sd"] == pytest.approx(np.std(best["macro_f1"], ddof=1))
    from sklearn.linear_model import SGDClassifier
    from sklearn.metrics import f1_score

    slow = SGDClassifier(
        loss="log_loss", alpha=best["alpha"], max_iter=10_000, class_weight="balanced", random_state=1
    ).fit(rows[:45], labels[:45])
    assert slow.predict(rows[45:]).tolist() == fitted.predict(rows[45:])
    assert best["macro_f1"][0] == pytest.approx(
        f1_score(labels[45:], slow.predict(rows[45:]), average="macro")
    )


def test_neighbours_count_the_query_only_where_plip_did(
    trees: dict[str, Path], model: ColourModel, tmp_path: Path
) -> None:
    """Of three patches a slide, at k = 3 two can be others of it; with itself all three."""

    def run(protocol: str) -> dict:
        config = EvaluateConfig(
            benchmark="kimia",
            data=trees["kimia"],
            out=tmp_path / protocol,
            protocol=protocol,
            ks=(1, 3),
            num_resamples=20,
        )
        evaluate(config, model=model)
        return strict(tmp_path / protocol / "result.json")

    corrected, compat = run("corrected"), run("plip-compat")
    assert corrected["metrics"]["precision@3"] == pytest.approx(2 / 3)
    assert compat["metrics"]["hit@1"] == compat["metrics"]["precision@1"] == 1.0
    assert compat["metrics"]["precision@3"] == 1.0
    chance = corrected["baselines"]["chance"]
    assert [chance["precision@3"], chance["hit@1"]] == pytest.approx([2 / 11] * 2)
    assert compat["baselines"]["chance"]["hit@1"] == pytest.approx(3 / 12)


def test_neighbours_agree_with_sorting_every_row() -> None:
    import torch

    from pathclip.evaluation.neighbours import nearest

    features = torch.nn.functional.normalize(
        torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), dim=1
    )
    scores = features @ features.T
    slow = [
        sorted((j for j in range(30) if j != i), key=lambda j, i=i: (-float(scores[i, j]), j))[:5]
        for i in range(30)
    ]
    assert nearest(features, 5, np.arange(30)).tolist() == slow
    assert nearest(features, 1).tolist() == [[i] for i in range(30)]
    equal = torch.ones(4, 2) / 2**0.5
    found = nearest(equal, 2, np.arange(4)).tolist()
    assert found == [[1, 2], [0, 2], [0, 1], [0, 1]]  # of equal ones the earlier
    assert nearest(equal, 2, np.array([0, 0, 1, 1])).tolist() == [[2, 3], [2, 3], [0, 1], [0, 1]]


def test_neighbours_never_lie_in_the_querys_own_group(model: ColourModel, tmp_path: Path) -> None:
    """Three copies of each of four pictures: with their groups known, a copy is no find."""
    lines = []
    for i, (colour, label) in enumerate([("red", "a"), ("red", "a"), ("blue", "b"), ("cyan", "c")]):
        for copy in range(3):
            paint(tmp_path / "p" / f"{i}-{copy}.png", colour, seed=4 * i + copy)
            lines.append(f"p/{i}-{copy}.png,{label},g{i}")
    for name, head, cut in (("groups", "path,label,group", None), ("none", "path,label", -1)):
        rows = [",".join(line.split(",")[:cut]) for line in lines]
        (tmp_path / f"{name}.csv").write_text("\n".join([head, *rows]) + "\n")

    def run(name: str):
        config = EvaluateConfig(
            benchmark="neighbours",
            data=tmp_path / f"{name}.csv",
            out=tmp_path / f"o{name}",
            ks=(1, 2),
            num_resamples=5,
        )
        return evaluate(config, model=model)

    copies, honest = run("none"), run("groups")
    assert copies.metrics["precision@2"] == 1.0
    assert honest.metrics["hit@1"] == pytest.approx(6 / 12)  # of red ones each the other; b and c have nobody
    assert honest.provenance["left_out"] == "the query and its group"
    assert honest.baselines["chance"]["hit@1"] == pytest.approx(np.mean([3 / 9] * 6 + [0] * 6))
    assert honest.baselines["chance"]["hit@2"] == pytest.approx(0.5 * (1 - (6 * 5) / (9 * 8)))


def test_a_k_beyond_the_set_is_left_out_and_told(
    trees: dict[str, Path], model: ColourModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = EvaluateConfig(
        benchmark="kimia", data=trees["kimia"], out=tmp_path / "o", ks=(2, 12), num_resamples=5
    )
    report = evaluate(config, model=model)
    assert report.provenance["ks_left_out"] == [12]
    assert "k = [12] left out: there are 11 pictures to find" in caplog.text
    assert "hit@12" not in report.metrics
    with pytest.raises(UserError, match="each is more than the 11 pictures to find"):
        evaluate(config.model_copy(update={"ks": (12, 50)}), model=model)


def test_predictions_name_rows_of_arrays(trees: dict[str, Path], model: ColourModel, tmp_path: Path) -> None:
    config = EvaluateConfig(
        benchmark="pcam",
        data=trees["pcam"],
        out=tmp_path / "o",
        classes={"normal": "blue", "tumor": "red"},
        num_resamples=5,
    )
    report = evaluate(config, model=model)
    names = pl.read_parquet(tmp_path / "o/predictions.parquet")["image"].to_list()
    assert names[3] == "camelyonpatch_level_2_split_test_x.h5#3"
    assert report.metrics["accuracy"] == 1.0
    assert report.provenance["resampled"] == "4 groups"


def test_one_prompt_is_a_quirk_only_where_one_is_used(
    trees: dict[str, Path], model: ColourModel, tmp_path: Path
) -> None:
    def quirks(classes: str | None) -> set[str]:
        config = EvaluateConfig(
            benchmark="kather",
            data=trees["kather"],
            out=tmp_path / "o",
            protocol="plip-compat",
            classes=classes,
            num_resamples=5,
        )
        return set(evaluate(config, model=model).provenance["protocol"]["quirks"])

    assert quirks(None) == quirks("plip-kather-paper") == {"resize_then_crop", "one_prompt", "weighted_f1"}
    assert quirks("crc") == {"resize_then_crop", "weighted_f1"}
