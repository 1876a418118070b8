from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator

from pathclip.core.files import read_json
from pathclip.ingest import STAGES, Code, IngestConfig, ingest
from pathclip.ingest.tables import SCHEMAS

FOLDER = Path(__file__).parents[2] / "docs" / "reference" / "schemas"


def schema(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.schema.json").read_text())


@pytest.fixture(scope="module")
def dataset(synthetic_dump, tmp_path_factory):
    folder = tmp_path_factory.mktemp("schemas")
    table = folder / "pairs.csv"
    picture = next(d.file for d in synthetic_dump.decisions if d.rule == "plain")
    table.write_text(f"image,caption,split\n{picture},Some tissue,train\n,empty,train\n")
    config = IngestConfig(
        sources=(synthetic_dump.tweets, table), media=synthetic_dump.media, out=folder / "out"
    )
    ingest(config)
    return folder / "out"


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_parquet_file_fits_its_schema(dataset, name):
    described = schema(name)
    assert list(described["properties"]) == SCHEMAS[name].names
    assert described["title"] == SCHEMAS[name].metadata[b"schema"].decode() == f"pathclip.{name}/1"
    files = sorted((dataset / "private").rglob(f"{name}*.parquet"))
    validator = Draft202012Validator(described)
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert rows
    for row in rows:
        validator.validate(row)
    assert pq.read_schema(files[0]).metadata[b"schema"] == SCHEMAS[name].metadata[b"schema"]


@pytest.mark.parametrize(
    ("name", "file"), [("report", "report.json"), ("run", "private/run.json"), ("index", "index.json")]
)
def test_every_json_file_fits_its_schema(dataset, name, file):
    data = read_json(dataset / file)
    Draft202012Validator(schema(name)).validate(data)
    assert data["schema"] == f"pathclip.{name}/1"


def test_the_schemas_list_every_code_and_stage():
    assert schema("rejects")["properties"]["code"]["enum"] == [str(code) for code in Code]
    assert schema("report")["properties"]["by_code"]["propertyNames"]["enum"] == [str(code) for code in Code]
    assert schema("report")["properties"]["by_stage"]["propertyNames"]["enum"] == list(STAGES)
    assert schema("faults")["properties"]["code"]["enum"] == [*STAGES["read"], "taken_down"]
