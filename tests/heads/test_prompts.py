from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pathclip.core.errors import UserError
from pathclip.heads import Prompts, PromptSet, load_prompts, shipped_prompts
from pathclip.heads.prompts import DEFAULT_TEMPLATES, FOLDER, fill
from pathclip.heads.templates import FOLDER as TEMPLATES_FOLDER
from pathclip.heads.templates import shipped_templates
from pathclip.synthetic import CLASSES

REPO = Path(__file__).resolve().parents[2]
NAMES = {"TUM": ("adenocarcinoma", "cancer"), "ADI": ("adipose tissue",)}
TEMPLATES = ("an image of {}.", "{} is shown.")


def lists(names: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {label: list(value) for label, value in names.items()}


SHAPES: dict[str, Any] = {
    "one set": {"classnames": lists(NAMES), "templates": list(TEMPLATES)},
    "CONCH": {
        "0": {
            "classnames": lists(NAMES),
            "templates": ["an image of CLASSNAME.", "CLASSNAME is shown."],
        }
    },
    "clip_benchmark": {"classnames": lists(NAMES), "templates": ["an image of {c}.", "{c} is shown."]},
    "TITAN": {"prompts": lists(NAMES), "label_dict": {"TUM": 0, "ADI": 1}, "templates": list(TEMPLATES)},
    "our own": Prompts((PromptSet(NAMES, TEMPLATES),)).to_dict(),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_file_shape_gives_the_same_texts(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(SHAPES[shape]))
    prompts = load_prompts(path)
    assert prompts.labels == ("TUM", "ADI")
    (only,) = prompts.sets
    assert only.texts("TUM") == [
        "an image of adenocarcinoma.",
        "adenocarcinoma is shown.",
        "an image of cancer.",
        "cancer is shown.",
    ]
    assert only.texts("ADI") == ["an image of adipose tissue.", "adipose tissue is shown."]
    assert load_prompts(SHAPES[shape]).sets == prompts.sets


def test_mi_zeros_shape_has_one_name_and_other_templates_per_set(tmp_path: Path) -> None:
    sets = {
        "0": {"classnames": {"LUAD": "lung adenocarcinoma", "LUSC": "squamous"}, "templates": ["CLASSNAME."]},
        "1": {
            "classnames": {"LUSC": "LUSC", "LUAD": "LUAD"},
            "templates": ["a CLASSNAME.", "the CLASSNAME."],
        },
    }
    prompts = load_prompts(sets)
    assert prompts.labels == ("LUAD", "LUSC")
    assert [len(s.templates) for s in prompts.sets] == [1, 2]
    assert prompts.sets[1].texts("LUAD") == ["a LUAD.", "the LUAD."]


def test_keeps_shape_has_one_template_as_a_text() -> None:
    sets = {
        str(i): {"classnames": {"a": "x", "b": name}, "templates": "CLASSNAME."}
        for i, name in enumerate("yz")
    }
    prompts = load_prompts(sets)
    assert [s.texts("b") for s in prompts.sets] == [["y."], ["z."]]


def test_a_list_of_labels_is_read_aloud() -> None:
    prompts = load_prompts(["benign_lung", "adipose tissue"])
    assert prompts.labels == ("benign_lung", "adipose tissue")
    assert prompts.sets[0].classnames["benign_lung"] == ("benign lung",)
    assert prompts.sets[0].templates == DEFAULT_TEMPLATES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '["benign_lung", "fat"]'),
        ("c.txt", "benign_lung\n\n  fat \n"),
        ("c.yaml", "- benign_lung\n- fat\n"),
        ("c.yml", "prompts:\n  benign_lung: [benign lung]\n  fat: fat\n"),
        ("c.json", '{"benign_lung": "benign lung", "fat": ["fat"]}'),
    ],
)
def test_plain_files_give_names_in_the_default_templates(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    prompts = load_prompts(tmp_path / name)
    assert prompts.sets == load_prompts({"benign_lung": "benign lung", "fat": "fat"}).sets
    assert prompts.name == "c"


def test_given_templates_replace_those_of_every_set() -> None:
    sets = {
        "0": {"classnames": NAMES, "templates": ["{}."]},
        "1": {"classnames": NAMES, "templates": ["a {}."]},
    }
    prompts = load_prompts(sets, templates="{}")
    assert [s.texts("ADI") for s in prompts.sets] == [["adipose tissue"]]
    assert load_prompts(prompts, templates=["a {}", "b {}"]).sets[0].texts("ADI") == [
        "a adipose tissue",
        "b adipose tissue",
    ]


def test_braces_in_names_and_templates_do_no_harm() -> None:
    prompts = load_prompts({"a": "HER2 {3+}", "b": "50% {0}"}, templates="{x} of {}")
    assert prompts.sets[0].texts("a") == ["{x} of HER2 {3+}"]


def test_the_hash_follows_the_content_alone(tmp_path: Path) -> None:
    path = tmp_path / "any.json"
    path.write_text(json.dumps(lists(NAMES)))
    assert load_prompts(path).sha256 == load_prompts(NAMES).sha256
    assert load_prompts(NAMES).sha256 != load_prompts(NAMES, templates="{}").sha256
    assert load_prompts(load_prompts(NAMES).to_dict()).sha256 == load_prompts(NAMES).sha256


@pytest.mark.parametrize("name", shipped_prompts())
def test_every_shipped_set_loads_and_fits_its_schema(name: str) -> None:
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    schema = json.loads((REPO / "docs/reference/schemas/prompts.schema.json").read_text())
    jsonschema.validate(content, schema)
    assert content["name"] == name
    prompts = load_prompts(name)
    assert prompts.name == name
    names = [n for s in prompts.sets for names in s.classnames.values() for n in names]
    assert len(names) == len(set(names))


def test_the_tissue_set_has_the_synthetic_classes() -> None:
    assert load_prompts("tissue").labels == CLASSES


def test_the_lung_colon_set_has_the_classes_of_the_tiles(data_dir: Path) -> None:
    labels = {line.split(",")[2] for line in (data_dir / "tiles/labels.csv").read_text().splitlines()[1:]}
    assert set(load_prompts("lung-colon").labels) == labels


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("tisue", "no class file or shipped prompt set 'tisue'; did you mean 'tissue'"),
        ("here/nscl.json", "no class file or shipped prompt set 'here/nscl.json'; did you mean 'nsclc'"),
        ("zzzzzz", "'zzzzzz'; shipped sets: bach, benign-malignant"),
        (["tumour"], r"1 classes \(tumour\); a classification needs at least two"),
        ([], r"0 classes \(\)"),
        ({}, r"0 classes \(\)"),
        (["a", "b", "a"], "class 'a' is listed twice"),
        (["a", " "], "class ' ' has an empty name"),
        ({"a": [], "b": "x"}, "class 'a' has an empty name"),
        ({"a": "", "b": "x"}, "class 'a' has an empty name"),
        ({"a": 3, "b": "x"}, "class 'a' has names 3; expected a text or a list of texts"),
        ({"a": ["x", 3], "b": "x"}, "class 'a' has names"),
        ({"a": "x", "b": "x"}, r"classes 'a' and 'b' have the same names \(x\)"),
        (
            {"classnames": {"a": "x", "b": "y"}, "templates": ["a picture"]},
            "template 'a picture' has no place",
        ),
        ({"classnames": {"a": "x", "b": "y"}, "templates": []}, "no templates; leave `templates` out"),
        (
            {
                "0": {"classnames": {"a": "x", "b": "y"}, "templates": "{}"},
                "1": {"classnames": {"a": "x", "c": "y"}, "templates": "{}"},
            },
            "classes, set 1: the sets must have the same classes; b, c differ",
        ),
        (7, "expected class names, found int: 7"),
    ],
)
def test_prompts_that_cannot_classify_are_refused_in_one_line(classes: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_prompts(classes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", b"{", r"c\.json is not valid JSON"),
        ("c.yaml", b"a: [", r"c\.yaml is not valid YAML"),
        ("c.txt", b"\xff\xfe\xfa", r"c\.txt cannot be read as text"),
        ("c.txt", b"one\n", r"c\.txt: 1 classes \(one\)"),
        ("c.json", b'"text"', r"c\.json: expected class names, found str"),
    ],
)
def test_a_class_file_that_cannot_be_read_is_named(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_prompts(tmp_path / name)
    assert "\n" not in str(caught.value)


PLIP = {
    "kather": {
        "ADI": "adipose tissue",
        "BACK": "background",
        "DEB": "debris",
        "LYM": "lymphocytes",
        "MUC": "mucus",
        "MUS": "smooth muscle",
        "NORM": "normal colon mucosa",
        "STR": "cancer-associated stroma",
        "TUM": "colorectal adenocarcinoma epithelium",
    },
    "pannuke": {"benign": "benign", "malignant": "malignant"},
    "digestpath": {"benign": "benign", "malignant": "malignant"},
    "wsss4luad": {"tumor": "tumor", "normal": "normal"},
}


@pytest.mark.parametrize(
    ("name", "template"),
    [  # of the repository: _dataset_loader.py, text_style_4; for PanNuke caption_no_tissue
        ("kather", "An H&E image patch of {}."),
        ("pannuke", "An H&E image of {} tissue."),
        ("digestpath", "An H&E image patch of {} tissue."),
        ("wsss4luad", "An H&E image patch of {} tissue."),
        # of the paper: figure 2b
        ("kather-paper", "An H&E image of {}"),
        ("pannuke-paper", "An H&E image of {} tissue"),
        ("digestpath-paper", "An H&E image of {} tissue"),
        ("wsss4luad-paper", "An H&E image of {} tissue"),
    ],
)
def test_plips_prompts_are_word_for_word_in_both_wordings(name: str, template: str) -> None:
    (only,) = load_prompts(f"plip-{name}").sets
    classes = PLIP[name.removesuffix("-paper")]
    assert list(only.classnames) == list(classes)
    for label, text in classes.items():
        assert only.texts(label) == [template.replace("{}", text)]


@pytest.mark.parametrize(("name", "count"), [("conch-style", 22), ("mi-zero-style", 16), ("quilt-style", 4)])
def test_a_shipped_template_set_fits_its_schema_and_is_our_own_wording(name: str, count: int) -> None:
    content = json.loads((TEMPLATES_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    schema = json.loads((REPO / "docs/reference/schemas/templates.schema.json").read_text())
    jsonschema.validate(content, schema)
    assert content["name"] == name
    prompts = load_prompts(NAMES, templates=name)
    assert len(prompts.sets[0].templates) == count
    assert len(prompts.sets[0].texts("TUM")) == 2 * count
    theirs = {"an H&E stained image of CLASSNAME.", "a histopathological image showing CLASSNAME."}
    theirs |= {"a histopathology slide showing {c}", "presence of {c} tissue on image", "CLASSNAME is shown."}
    assert not {fill(t, "x") for t in theirs} & {fill(t, "x") for t in prompts.sets[0].templates}


def test_every_template_set_is_listed_and_a_sentence_without_a_place_names_them() -> None:
    assert shipped_templates() == ("conch-style", "mi-zero-style", "quilt-style")
    with pytest.raises(UserError, match=r"template 'conch-stile' has no place.*by name: conch-style, "):
        load_prompts(NAMES, templates="conch-stile")
