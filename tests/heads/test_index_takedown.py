from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import polars as pl
import pytest
from colour_model import ColourModel, colour_model, paint
from typer.testing import CliRunner

from pathclip.cli.__main__ import app
from pathclip.core.errors import UserError
from pathclip.core.files import sha256_file
from pathclip.heads.index import Index, remover
from pathclip.ingest import IngestConfig, ingest


@pytest.fixture(scope="module")
def model() -> ColourModel:
    return colour_model()


def post(number: int, text: str, **more: object) -> dict:
    return {
        "id": f"{700000 + number}",
        "text": text,
        "lang": "en",
        "author_id": f"{800000 + number}",
        "conversation_id": f"{700000 + number}",
        **more,
    }


def reply(number: int, to: int, text: str) -> dict:
    target = f"{700000 + to}"
    refers = [{"type": "replied_to", "id": target}]
    return post(number, text, conversation_id=target, referenced_tweets=refers)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Six pictures of one post each; the first post asks, so that two replies are its captions."""
    posts, media = [], []
    for n, colour in enumerate(("red", "green", "blue", "pink", "yellow", "cyan"), start=1):
        paint(tmp_path / "media" / f"p{n}.png", colour, seed=n, size=(150 + n, 150))
        text = "What is this?" if n == 1 else f"{colour} melanoma number {n}"
        posts.append(post(n, text, attachments={"media_keys": [f"3_{n}"]}))
        media.append({"media_key": f"3_{n}", "type": "photo", "url": f"https://pbs.twimg.com/media/p{n}.png"})
    posts += [reply(11, 1, "Agree, red carcinoma"), reply(12, 1, "Definitely a red sarcoma")]
    (tmp_path / "t.jsonl").write_text(json.dumps({"data": posts, "includes": {"media": media}}))
    out = tmp_path / "data"
    ingest(
        IngestConfig(
            sources=(tmp_path / "t.jsonl",),
            media=tmp_path / "media",
            out=out,
            pack={"shard_samples": 4},
            split={"val": 0, "test": 0, "tie_authors": False},
            dedup={"exact": False, "drop_radius": -1, "tie_radius": -1},
            image={"min_side_px": 16},
        )
    )
    return out


def take_down(dataset: Path, ids: list[str], *indexes: Path) -> dict:
    (dataset.parent / "ids.txt").write_text("\n".join(ids))
    also = [part for index in indexes for part in ("--also", str(index))]
    result = CliRunner().invoke(
        app, ["data", "takedown", str(dataset), "--ids", str(dataset.parent / "ids.txt"), *also, "--json"]
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_takedown_leaves_no_row_vector_or_caption_in_an_index(
    model: ColourModel, dataset: Path, tmp_path: Path
) -> None:
    emb = tmp_path / "emb"
    before = Index.build(model, dataset, emb)
    captions = before.metadata["caption"].to_list()
    gone = [
        row for row, caption in enumerate(captions) if "melanoma number 4" in caption or "number 2" in caption
    ]
    assert len(gone) == 2
    vectors, keys = before.image_features[gone], [before.metadata["key"][row] for row in gone]
    done = take_down(dataset, ["700004", "700002"], emb)
    assert (done["samples"], done["derived"]) == (2, 2)
    after = Index.open(emb, model=model)
    assert len(after) == len(before) - 2
    searcher = faiss.read_index(str(emb / "image.index"))
    np.testing.assert_array_equal(searcher.reconstruct_n(0, searcher.ntotal), after.image_features)
    kept = [row for row in range(len(before)) if row not in gone]
    np.testing.assert_array_equal(after.image_features, before.image_features[kept])
    assert not any((after.image_features == vector).all(axis=1).any() for vector in vectors)
    for path in (p for p in emb.rglob("*") if p.is_file()):
        text = path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".parquet":
            text += str(pl.read_parquet(path).to_dicts())
        assert not any(word in text for word in (*keys, "melanoma number 4", "number 2"))
    assert after.record["source"]["index_sha256"] == sha256_file(dataset / "index.json")
    for hit in after.search("red", k=len(after)):
        after.picture(hit)  # found where it lies now


def test_a_sample_that_lost_its_first_caption_is_found_by_its_picture_alone(
    model: ColourModel, dataset: Path, tmp_path: Path
) -> None:
    before = Index.build(model, dataset, tmp_path / "emb")
    row = before.metadata["caption"].to_list().index("Agree, red carcinoma")
    assert take_down(dataset, ["700011"], tmp_path / "emb")["captions"] == 1
    after = Index.open(tmp_path / "emb")
    assert after.metadata["caption"].to_list()[row] is None
    assert after.text_features is not None
    assert not after.text_features[row].any()
    assert after.text_features[np.arange(len(after)) != row].any(axis=1).all()
    np.testing.assert_array_equal(after.image_features, before.image_features)


def test_an_index_of_before_agrees_after_a_second_run(
    model: ColourModel, dataset: Path, tmp_path: Path
) -> None:
    """A takedown killed before it came to the indexes, or an index forgotten, is made good by a repeat."""
    emb, other = tmp_path / "emb", tmp_path / "other"
    Index.build(model, dataset, emb)
    Index.build(model, dataset, other)
    take_down(dataset, ["700004"])
    done = take_down(dataset, ["700004"], emb, other)
    assert (done["samples"], done["derived"], done["before"]) == (0, 2, 1)
    before = {p: sha256_file(p) for p in emb.rglob("*") if p.is_file()}
    assert take_down(dataset, ["700004"], emb)["derived"] == 0
    assert {p: sha256_file(p) for p in emb.rglob("*") if p.is_file()} == before


def test_what_is_no_index_of_a_dataset_is_refused_before_anything_happens(
    model: ColourModel, dataset: Path, tmp_path: Path
) -> None:
    Index.build(model, tmp_path / "media", tmp_path / "emb")
    with pytest.raises(UserError, match="whose names are no sample ids"):
        remover(tmp_path / "emb")
    (tmp_path / "ids.txt").write_text("700004")
    before = sha256_file(dataset / "index.json")
    for place in (tmp_path / "emb", tmp_path / "media"):
        result = CliRunner().invoke(
            app, ["data", "takedown", str(dataset), "--ids", str(tmp_path / "ids.txt"), "--also", str(place)]
        )
        assert result.exit_code == 2
    assert sha256_file(dataset / "index.json") == before
