from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from pathclip.heads.result import write_result

REPO = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((REPO / "docs/reference/schemas/result.schema.json").read_text())


class FakeModel:
    def provenance(self) -> dict[str, object]:
        return {
            "model": "tiny",
            "pretrained": None,
            "checkpoint_sha256": "0" * 64,
            "versions": {"torch": "2"},
        }


def write(folder: Path, **changes: object) -> dict[str, object]:
    arguments: dict[str, object] = {
        "dataset": "kather",
        "model": FakeModel(),
        "task": "zeroshot_classification",
        "metrics": {
            "acc1": 0.5,
            "acc5": float("nan"),
            "image_to_text": {"R@1": 0.1, "random": {"R@1": 0.01}},
        },
        "intervals": {"acc1": (0.4, 0.6), "acc5": (None, None), "image_to_text": {"R@1": (0.0, 0.2)}},
        "provenance": {"seed": 0, "prompts": "shipped"},
        **changes,
    }
    path = write_result(folder, **arguments)  # type: ignore[arg-type]
    assert path == folder / "result.json"
    text = path.read_text(encoding="utf-8")
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))


def test_the_file_holds_clip_benchmarks_keys_and_its_origin(tmp_path: Path) -> None:
    record = write(tmp_path / "new" / "folder", classnames=["a", "b"], templates=["an H&E image of {}"])
    jsonschema.validate(record, SCHEMA)
    clip_benchmark = {
        "dataset",
        "model",
        "pretrained",
        "task",
        "metrics",
        "language",
        "classnames",
        "templates",
    }
    assert clip_benchmark <= record.keys()
    assert (record["model"], record["pretrained"], record["language"]) == ("tiny", "", "en")
    assert record["provenance"]["checkpoint_sha256"] == "0" * 64
    assert record["provenance"]["seed"] == 0
    assert record["intervals"]["acc1"] == [0.4, 0.6]


def test_a_number_that_is_none_is_null_and_never_nan(tmp_path: Path) -> None:
    assert write(tmp_path)["metrics"]["acc5"] is None


def test_a_model_may_be_given_by_name_and_optional_keys_stay_out(tmp_path: Path) -> None:
    record = write(tmp_path, model="ViT-B-32", provenance={"pretrained": "openai"})
    assert (record["model"], record["pretrained"]) == ("ViT-B-32", "openai")
    assert not {"classnames", "templates"} & record.keys()


def test_clip_benchmark_build_can_flatten_the_file(tmp_path: Path) -> None:
    record = write(tmp_path)
    row = {**record["metrics"], **{k: v for k, v in record.items() if k != "metrics"}}
    assert row["model"] + " " + row["pretrained"] == "tiny "  # its model_fullname
    assert row["acc1"] == 0.5


def test_details_are_added_and_replace_nothing(tmp_path: Path) -> None:
    counts = {"total": 3, "scored": 2, "bad": 1}
    assert write(tmp_path, details={"counts": counts})["counts"] == counts
    with pytest.raises(AssertionError, match="would replace"):
        write(tmp_path, details={"metrics": {}})
