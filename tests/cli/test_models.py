from __future__ import annotations

import json

import open_clip
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.encoders import KNOWN_MODELS, shipped_configs
from pathclip.evaluation import benchmarks
from pathclip.heads import shipped_prompts, shipped_templates


def test_every_config_published_model_and_prompt_set_is_listed_in_full() -> None:
    result = CliRunner().invoke(app, ["models"], env={"COLUMNS": "40"})
    assert result.exit_code == 0, result.output
    for name in (*shipped_configs(), *(known.name for known in KNOWN_MODELS), *shipped_prompts()):
        assert name in result.stdout
    assert f"{len(open_clip.list_models())} open_clip architectures" in result.stdout


def test_every_benchmark_is_listed_with_what_was_seen_of_it() -> None:
    data = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)
    assert {row["name"]: row["status"] for row in data["benchmarks"]} == {
        name: benchmarks[name].status for name in benchmarks
    }
    assert data["template_sets"] == list(shipped_templates())
    shown = CliRunner().invoke(app, ["models", "kather"]).stdout
    assert "layout-only  NCT-CRC-HE-100K/ and CRC-VAL-HE-7K/" in shown


def test_a_pattern_narrows_the_names() -> None:
    result = CliRunner().invoke(app, ["models", "vit-b-32", "--json"])
    data = json.loads(result.stdout)
    assert "ViT-B-32" in data["open_clip"]
    assert data["shipped_configs"] == data["prompt_sets"] == data["published"] == []
    result = CliRunner().invoke(app, ["models", "plip"])
    assert "vinid/plip" in result.stdout
    assert "tiny-vit-112" not in result.stdout
    assert "no name contains 'zzz'" in CliRunner().invoke(app, ["models", "zzz"]).stdout


def test_terms_and_access_of_published_models_are_told() -> None:
    data = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)
    conch = next(model for model in data["published"] if model["name"] == "MahmoodLab/CONCH")
    assert (conch["access"], conch["status"]) == ("gated", "supported")
    assert all(model["licence"] for model in data["published"])
