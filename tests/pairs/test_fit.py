from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.pairs import FittedFilter, fit_filter, read_labels, score
from pathclip.synthetic import CLASSES, paint_tile

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "schemas" / "filter.schema.json"


def meadow(seed: int) -> Image.Image:
    """Greens under a sky, as no stain has them together."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 25, (160, 200, 3))
    noise[:60] += rng.uniform([100, 150, 210], [150, 190, 250])
    noise[60:] += rng.uniform([40, 110, 20], [110, 170, 60])
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    rows = ["image,label"]
    for seed in range(24):
        Image.fromarray(paint_tile(CLASSES[seed % len(CLASSES)], seed, 160)).save(folder / f"m{seed}.png")
        meadow(seed).save(folder / f"o{seed}.jpg")
        rows += [f"m{seed}.png,micrograph", f"o{seed}.jpg,0"]
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    rows += ["gone.png,1", "broken.jpg,other", "m1.png,maybe"]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


def test_a_filter_is_fitted_saved_and_gives_the_same_answers_again(labels: Path, tmp_path: Path) -> None:
    fitted = fit_filter(*read_labels(labels))
    assert fitted.record["labels"] == {"micrograph": 24, "other": 24}
    assert fitted.record["held_out"] == {"folds": 5, "micrographs_lost": 0.0, "others_rejected": 1.0}
    assert list(fitted.record["unusable"].values())[:2] == [
        "no file gone.png",
        "label 'maybe' is neither micrograph nor other",
    ]
    assert len(fitted.record["unusable"]) == 3
    fitted.save(tmp_path / "filter.json")
    jsonschema.validate(json.loads((tmp_path / "filter.json").read_text()), json.loads(SCHEMA.read_text()))
    again = FittedFilter.load(tmp_path / "filter.json")
    for picture in (meadow(100), Image.fromarray(paint_tile(CLASSES[0], 100, 160))):
        assert again.probability(score(picture)) == fitted.probability(score(picture))
    assert "probability of a micrograph 0.0" in (again.why_rejected(score(meadow(100))) or "")
    assert again.why_rejected(score(Image.fromarray(paint_tile(CLASSES[0], 100, 160)))) is None


def test_the_probability_is_scikit_learns(labels: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from pathclip.pairs.fit import FEATURES

    rows, _ = read_labels(labels)
    rows = [row for row in rows if row[0].name != "broken.jpg"]
    scores = [score(Image.open(path).convert("RGB")) for path, _ in rows]
    values = np.array([[s[name] for name in FEATURES] for s in scores])
    scaler = StandardScaler().fit(values)
    model = LogisticRegression(class_weight="balanced", max_iter=2000)
    model.fit(scaler.transform(values), [label for _, label in rows])
    expected = model.predict_proba(scaler.transform(values))[:, 1]
    fitted = fit_filter(rows)
    assert [fitted.probability(s) for s in scores] == pytest.approx(expected.tolist(), abs=1e-9)


def test_a_picture_is_scored_as_the_ingest_scores_it(tmp_path: Path) -> None:
    from pathclip.ingest.config import CollectConfig
    from pathclip.ingest.look import look_at
    from pathclip.pairs.fit import _scores

    large = Image.fromarray(paint_tile(CLASSES[0], 3, 700)).resize((1400, 1100))
    large.save(tmp_path / "large.jpg", quality=90)
    columns, _ = look_at(tmp_path / "large.jpg", CollectConfig())
    assert json.loads(columns["scores"]) == _scores(tmp_path / "large.jpg")


def test_mistakes_are_one_line(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a CSV with the columns image, label"):
        read_labels(tmp_path / "no.csv")
    (tmp_path / "odd.csv").write_text("file,kind\na,b\n")
    with pytest.raises(UserError, match=r"has the columns \['file', 'kind'\]; expected image, label"):
        read_labels(tmp_path / "odd.csv")
    rows, _ = read_labels(labels)
    with pytest.raises(UserError, match="24 micrographs and 0 others can be used"):
        fit_filter(row for row in rows if row[1])
    with pytest.raises(UserError, match=r"filter.model: .* does not exist"):
        FittedFilter.load(tmp_path / "no.json")
    (tmp_path / "odd.json").write_text('{"schema": "pathclip.filter/1"}')
    with pytest.raises(UserError, match="is no filter of this version"):
        FittedFilter.load(tmp_path / "odd.json")


def test_the_command_fits_and_ingest_obeys(labels: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    made = run(app, ["data", "fit-filter", str(labels), "--out", str(tmp_path / "f.json"), "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout.splitlines()[-1])["held_out"]["others_rejected"] == 1
    (tmp_path / "pairs.csv").write_text(
        "image,caption\nm0.png,Fat tissue here\no0.jpg,A walk in the meadow\n"
    )
    arguments = [
        "ingest",
        str(tmp_path / "pairs.csv"),
        "--media",
        str(labels.parent),
        "--out",
        str(tmp_path / "d"),
    ]
    plain = run(app, [*arguments, "--json"])
    assert json.loads(plain.stdout.splitlines()[-1])["kept"] == 2
    filtered = run(app, [*arguments, "--set", f"filter.model={tmp_path / 'f.json'}", "--json"])
    report = json.loads(filtered.stdout.splitlines()[-1])
    assert (report["kept"], report["by_code"], report["state"]) == (1, {"filter_model": 1}, "rebuilt")
