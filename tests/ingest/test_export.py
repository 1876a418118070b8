from __future__ import annotations

import hashlib
import json
import subprocess

import pytest
from looking import provenance, samples
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.config import load_config
from pathclip.core.errors import UserError
from pathclip.ingest import IngestConfig, Requests, export_ids, ingest, takedown


@pytest.fixture
def config(dump, tmp_path, key_file):
    for n in range(5):
        dump.picture(f"p{n}.jpg", n)
        dump.post(str(998 + n), f"Melanoma {n} of the skin", f"p{n}")
    reply = [{"type": "replied_to", "id": "998"}]
    dump.post("2000", "Agree, a melanoma", referenced_tweets=reply, conversation_id="998")
    dump.post("2001", "What is it?", "p0x")
    return IngestConfig(
        sources=(dump.tweets,),
        media=dump.media,
        out=tmp_path / "out",
        key_file=key_file,
        image={"min_side_px": 99},
    )


USED = ["998", "999", "1000", "1001", "1002", "2000"]


def test_the_ids_are_those_of_pictures_and_captions_in_parts_with_checksums(config):
    ingest(config)
    done = export_ids(config.out, part_ids=4)
    assert (done.ids, done.parts) == (6, ("ids-00000.txt", "ids-00001.txt"))
    folder = config.out / "ids"
    assert [(folder / name).read_text().split() for name in done.parts] == [USED[:4], USED[4:]]
    assert {row["tweet_id"] for row in provenance(config.out)} == set(USED)
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    export_ids(config.out, format="csv")
    assert (folder / "ids-00000.csv").read_text().split() == ["id", *USED]
    assert not (folder / "ids-00000.txt").exists(), "an earlier export is replaced"


def test_with_recipe_and_key_others_make_the_same_samples_again(config, tmp_path, dump):
    ingest(config)
    export_ids(config.out, tmp_path / "given")
    ids = (tmp_path / "given" / "ids-00000.txt").read_text().split()
    dump.pages = [page for page in dump.pages if page["data"][0]["id"] in ids]  # what hydrating gives
    recipe = load_config(IngestConfig, tmp_path / "given" / "recipe.toml")
    assert recipe.image.min_side_px == 99
    again = recipe.replace(
        sources=(dump.tweets,), media=dump.media, out=tmp_path / "again", key_file=config.key_file
    )
    ingest(again)
    assert samples(again.out) == samples(config.out)


def test_nothing_but_post_ids_is_given_away(config, tmp_path):
    ingest(config)
    export_ids(config.out, tmp_path / "given")
    text = "".join(p.read_text() for p in (tmp_path / "given").iterdir())
    for private in ("a998", "p0.jpg", "3_998p0", "Melanoma", str(config.out), str(config.key_file)):
        assert private not in text


def test_a_takedown_keeps_the_exported_ids_in_step(config):
    ingest(config)
    export_ids(config.out, part_ids=4)
    takedown(config.out, Requests(posts={"999": "request"}), key_file=config.key_file)
    ids = [i for p in sorted((config.out / "ids").glob("ids-*")) for i in p.read_text().split()]
    assert ids == [i for i in USED if i != "999"]
    checked = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=config.out / "ids", capture_output=True, check=False
    )
    assert checked.returncode == 0


def test_what_cannot_be_exported_is_refused(config, tmp_path, dump):
    with pytest.raises(UserError, match=r"no private/provenance\.parquet"):
        export_ids(tmp_path)
    ingest(config)
    with pytest.raises(UserError, match="expected 1 to 1500000"):
        export_ids(config.out, part_ids=1_500_001)
    with pytest.raises(UserError, match=r"holds report\.json"):
        export_ids(config.out, config.out)
    table = dump.media / "t.csv"
    table.write_text("image,caption\np0.jpg,Melanoma\n")
    ingest(IngestConfig(sources=(table,), out=tmp_path / "table"))
    with pytest.raises(UserError, match="samples of tables have no ids"):
        export_ids(tmp_path / "table")


def test_the_verb_says_what_leaves_the_private_part(config):
    ingest(config)
    result = CliRunner().invoke(app, ["data", "export-ids", str(config.out), "--format", "csv"])
    assert result.exit_code == 0
    assert "6 post ids in 1 files" in result.stdout
    assert "these ids leave the private part" in result.stdout
    result = CliRunner().invoke(app, ["data", "export-ids", str(config.out), "--json"])
    assert json.loads(result.stdout)["ids"] == 6
