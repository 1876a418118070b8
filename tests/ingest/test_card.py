from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.core.files import read_json, sha256_file
from pathclip.ingest import IngestConfig, Requests, card, ingest, takedown
from pathclip.ingest.card import OWN_WORDS


@pytest.fixture
def config(dump, tmp_path):
    for n in range(4):
        dump.picture(f"p{n}.jpg", n)
        dump.post(str(200 + n), f"Melanoma {n} of the skin", f"p{n}")
    return IngestConfig(sources=(dump.tweets,), media=dump.media, out=tmp_path / "out")


def header(out):
    return yaml.safe_load((out / "README.md").read_text().split("---\n")[1])


def test_the_legal_basis_has_no_default_and_is_asked_for(config):
    ingest(config)
    assert header(config.out)["legal_basis"] == "NOT STATED"
    with pytest.raises(UserError, match=r"no legal basis.*--legal-basis"):
        card(config.out)
    result = CliRunner().invoke(app, ["data", "card", str(config.out)])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    result = CliRunner().invoke(app, ["data", "verify", str(config.out), "--json"])
    assert result.exit_code == 0
    assert "no legal basis is stated" in json.loads(result.stdout)["notes"][0]
    arguments = ["data", "card", str(config.out), "--legal-basis", 'consent: "all" agreed', "--creator", "Us"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert header(config.out)["legal_basis"] == 'consent: "all" agreed'
    assert header(config.out)["creator"] == "Us"
    assert "consent" in read_json(config.out / "croissant.json")["usageInfo"]
    result = CliRunner().invoke(app, ["data", "verify", str(config.out), "--json"])
    assert json.loads(result.stdout)["notes"] == []
    card(config.out, license="cc-by-4.0")
    assert header(config.out)["legal_basis"] == 'consent: "all" agreed', "what was stated stays"


def test_the_header_is_what_hugging_face_reads(config):
    ingest(config.replace(card={"legal_basis": "own posts", "name": 'A "name": yes'}))
    found = header(config.out)
    assert found["pretty_name"] == 'A "name": yes'
    assert found["license"] == "other"
    assert found["language"] == ["en"]
    assert found["size_categories"] == ["n<1K"]
    assert set(found["task_categories"]) == {"zero-shot-image-classification", "image-to-text"}
    assert set(found["extra_gated_fields"].values()) == {"checkbox"}


def test_what_a_person_stated_and_wrote_outlasts_every_rewriting(config):
    ingest(config.replace(card={"legal_basis": "own posts"}))
    path = config.out / "README.md"
    path.write_text(path.read_text() + "\nOur own words.\n")
    for again in (
        lambda: ingest(config.replace(image={"min_side_px": 129})),
        lambda: ingest(config.replace(force_new=True)),
        lambda: takedown(config.out, Requests(posts={"200": "request"})),
        lambda: card(config.out, url="https://example.org"),
    ):
        again()
        assert path.read_text().count("Our own words.") == 1
        assert path.read_text().partition(OWN_WORDS)[2].strip() == "Our own words."
        assert header(config.out)["legal_basis"] == "own posts"
    assert "3 pairs" in path.read_text(), "the counts are those after the takedown"
    assert header(config.out)["homepage"] == "https://example.org"


def test_settings_of_the_card_change_the_card_and_nothing_else(config):
    ingest(config)
    times = {p: p.stat().st_mtime_ns for p in config.out.rglob("*") if p.is_file()}
    assert ingest(config.replace(card={"legal_basis": "own posts"})).state == "unchanged"
    changed = {p.name for p, t in times.items() if p.stat().st_mtime_ns != t}
    assert changed == {"README.md", "croissant.json"}


def test_croissant_names_every_file_with_its_checksum_and_has_the_rai_fields(config):
    ingest(config)
    data = read_json(config.out / "croissant.json")
    assert data["@type"] == "sc:Dataset"
    assert data["conformsTo"][0] == "http://mlcommons.org/croissant/1.0"
    assert data["conformsTo"][1].startswith("http://mlcommons.org/croissant/RAI/")
    objects = {d["@id"]: d for d in data["distribution"] if d["@type"] == "cr:FileObject"}
    tars = {p.relative_to(config.out).as_posix(): p for p in (config.out / "shards").glob("*.tar")}
    assert objects.keys() == tars.keys()
    for name, path in tars.items():
        assert objects[name]["sha256"] == sha256_file(path)
        assert objects[name]["contentSize"] == f"{path.stat().st_size} B"
    sets = {d["@id"] for d in data["distribution"] if d["@type"] == "cr:FileSet"}
    for record_set in data["recordSet"]:
        for field in record_set["field"]:
            assert field["source"]["fileSet"]["@id"] in sets
            assert field["@id"] == f"{record_set['@id']}/{field['name']}"
    rai = "dataCollection dataBiases dataLimitations dataUseCases personalSensitiveInformation"
    for name in f"{rai} dataPreprocessingProtocol dataReleaseMaintenancePlan".split():
        assert data[f"rai:{name}"]
    prefixes = {key.partition(":")[0] for key in data if ":" in key}
    assert prefixes <= data["@context"].keys(), "every prefix is declared"
