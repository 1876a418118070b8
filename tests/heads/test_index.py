from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
import torch
from colour_model import TINY, ColourModel, colour_model, paint
from PIL import Image

from pathclip.core.errors import FaultError, UserError
from pathclip.encoders import create
from pathclip.heads.index import Index, contact_sheet, folder
from pathclip.shards import Sample, write_index, write_shard

REPO = Path(__file__).resolve().parents[2]
SCHEMAS = REPO / "docs/reference/schemas"


@pytest.fixture(scope="module")
def model() -> ColourModel:
    return colour_model()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for colour in ("red", "green", "blue"):
        for seed in range(3):
            paint(tmp_path / "pictures" / colour / f"{seed}.png", colour, seed=seed)
    return tmp_path / "pictures"


def sample(tmp_path: Path, i: int, colour: str, split: str, caption: str) -> Sample:
    jpg = paint(tmp_path / "scratch" / f"{i}.jpg", colour, seed=i).read_bytes()
    captions = ((caption, "tweet"), ("a reply", "reply"))
    return Sample(f"{i:016d}", f"g{i}", f"p{i}", captions, "dermpath", 40, 32, None, split, jpg)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    train = [
        sample(tmp_path, i, c, "train", f"{c} tissue {i}") for i, c in enumerate(("red", "green", "blue"))
    ]
    test = [
        sample(tmp_path, i, c, "test", f"<b>{c}</b> & more") for i, c in enumerate(("red", "pink"), start=3)
    ]
    shards = {
        split: [write_shard(root / f"shards/{split}-000000.tar", samples, root=root)]
        for split, samples in (("train", train), ("test", test))
    }
    write_index(root, shards)
    return root


def test_a_text_finds_its_pictures_with_the_cosine_as_score(model: ColourModel, pictures: Path) -> None:
    index = Index.build(model, pictures)
    hits = index.search("the green ones", k=4)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    assert {hit.key for hit in hits[:3]} == {"green/0.png", "green/1.png", "green/2.png"}
    assert {hit.metadata["label"] for hit in hits[:3]} == {"green"}
    slow = model.encode_text("green")[0].numpy() @ index.image_features.T
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(slow)[::-1][:4], atol=1e-6)
    assert Path(hits[0].location or "").is_file()


def test_a_picture_finds_itself_first_and_its_like_next(model: ColourModel, pictures: Path) -> None:
    index = Index.build(model, pictures)
    path = pictures / "blue/1.png"
    with Image.open(path) as image:
        loaded = image.convert("RGB")
    for query in (path, str(path), loaded, np.asarray(loaded), path.read_bytes()):
        hits = index.search(image=query, k=3)
        assert hits[0].key == "blue/1.png"
        assert hits[0].score == pytest.approx(1, abs=1e-6)
        assert {hit.metadata["label"] for hit in hits} == {"blue"}
    assert index.search(path, 3, image=True) == index.search(image=path, k=3)


def test_features_can_be_searched_without_a_model(model: ColourModel, pictures: Path, tmp_path: Path) -> None:
    built = Index.build(model, pictures, tmp_path / "emb")
    index = Index.open(tmp_path / "emb")
    query = 5 * torch.as_tensor(built.image_features[4])
    assert index.search(query, k=1)[0].row == 4
    assert index.search(query, k=1)[0].score == pytest.approx(1, abs=1e-6)


def test_an_opened_index_answers_as_the_one_that_was_built(
    model: ColourModel, dataset: Path, tmp_path: Path
) -> None:
    built = Index.build(model, dataset, tmp_path / "emb")
    opened = Index.open(tmp_path / "emb", model=model)
    assert opened.search("red", 5) == built.search("red", 5)
    assert opened.record == built.record
    assert len(opened) == 5


def test_the_folder_has_clip_retrievals_layout_and_validates(
    model: ColourModel, dataset: Path, tmp_path: Path
) -> None:
    import faiss

    out = tmp_path / "emb"
    Index.build(model, dataset / "shards", out)
    record = json.loads((out / "index.json").read_text())
    jsonschema.validate(record, json.loads((SCHEMAS / "embeddings.schema.json").read_text()))
    table = pl.read_parquet(out / "metadata/metadata_0.parquet")
    row_schema = json.loads((SCHEMAS / "embeddings-metadata.schema.json").read_text())
    for row in table.to_dicts():
        jsonschema.validate(row, row_schema)
    assert pl.read_parquet_metadata(out / "metadata/metadata_0.parquet")["schema"] in row_schema["title"]
    images, texts = np.load(out / "img_emb/img_emb_0.npy"), np.load(out / "text_emb/text_emb_0.npy")
    assert images.shape == texts.shape == (5, record["dim"])
    assert images.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    searcher = faiss.read_index(str(out / "image.index"))
    assert isinstance(searcher, faiss.IndexFlatIP)
    np.testing.assert_array_equal(searcher.reconstruct_n(0, 5), images)
    assert table["split"].to_list() == ["train"] * 3 + ["test"] * 2
    np.testing.assert_allclose(texts, model.encode_text(table["caption"].to_list()).numpy())


def test_the_record_names_the_dataset_and_the_model(model: ColourModel, dataset: Path) -> None:
    import hashlib

    record = Index.build(model, dataset).record
    assert record["source"] == {
        "kind": "dataset",
        "path": str(dataset.resolve()),
        "index_sha256": hashlib.sha256((dataset / "index.json").read_bytes()).hexdigest(),
    }
    assert record["model"]["model"] == model.name


def test_pictures_without_captions_have_no_text_embeddings(
    model: ColourModel, pictures: Path, tmp_path: Path
) -> None:
    index = Index.build(model, pictures, tmp_path / "emb")
    assert index.text_features is None
    assert not (tmp_path / "emb/text_emb").exists()
    assert Index.open(tmp_path / "emb").text_features is None


def test_unreadable_pictures_are_named_left_out_and_shift_no_row(
    model: ColourModel, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / "green/1.png").write_bytes((pictures / "green/1.png").read_bytes()[:300])
    (pictures / "a.jpg").write_bytes(b"no picture")
    index = Index.build(model, pictures, tmp_path / "emb")
    assert [item["name"] for item in index.bad] == ["a.jpg", "green/1.png"]
    assert all(item["reason"] for item in index.bad)
    assert "2 pictures left out" in caplog.text
    for hit in index.search("green", k=8):
        row = model.encode_images([hit.location])[0].numpy()
        np.testing.assert_allclose(index.image_features[hit.row], row, atol=1e-6)


def test_a_cut_picture_in_a_shard_is_named_by_its_key(model: ColourModel, tmp_path: Path) -> None:
    samples = [sample(tmp_path, i, "red", "train", "red") for i in range(3)]
    cut = [s if i != 1 else replace(s, jpg=s.jpg[:200]) for i, s in enumerate(samples)]
    root = tmp_path / "cut"
    write_index(root, {"train": [write_shard(root / "shards/train-000000.tar", cut, root=root)]})
    index = Index.build(model, root)
    assert [item["name"] for item in index.bad] == [f"{1:016d}"]
    assert index.metadata["key"].to_list() == [f"{0:016d}", f"{2:016d}"]
    assert index.metadata["shard_row"].to_list() == [0, 2]


def test_a_list_of_anything_can_be_indexed(model: ColourModel, pictures: Path, tmp_path: Path) -> None:
    with Image.open(pictures / "red/0.png") as image:
        red = image.convert("RGB")
    index = Index.build(model, [red, np.asarray(red), str(pictures / "blue/0.png"), pictures / "green/0.png"])
    assert index.search("blue", 1)[0].location == str((pictures / "blue/0.png").resolve())
    assert [hit.score for hit in index.search("red", 2)] == pytest.approx([1, 1], abs=0.01)
    assert len(Index.build(model, pictures / "red/0.png")) == 1
    in_memory = Index.build(model, [np.asarray(red)])
    assert in_memory.search("red", 1)[0].location is None
    with pytest.raises(FaultError, match="given in memory"):
        in_memory.picture(in_memory.search("red", 1)[0])


def test_equally_similar_pictures_come_in_the_order_of_their_rows(model: ColourModel) -> None:
    same = np.full((30, 30, 3), (230, 25, 25), dtype=np.uint8)
    index = Index.build(model, [same] * 90)
    assert [hit.row for hit in index.search("red", 20)] == list(range(20))


def test_asking_for_more_than_there_is_gives_all_and_says_so(
    model: ColourModel, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = Index.build(model, pictures)
    with caplog.at_level(logging.WARNING):
        assert len(index.search("red", k=50)) == 9
    assert "k is 50, but there are 9 pictures" in caplog.text
    assert index.search("red", k=5, where="label = 'no such'") == []


@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("split = 'test'", {3, 4}),
        ("split = 'train' AND caption LIKE '%green%'", {1}),
        ("split IN ('train', 'test') AND NOT caption ILIKE '%TISSUE%'", {3, 4}),
        ("width > 30 AND label IS NULL", {0, 1, 2, 3, 4}),
    ],
)
def test_where_restricts_the_search_and_keeps_the_order(
    model: ColourModel, dataset: Path, where: str, keys: set[int]
) -> None:
    index = Index.build(model, dataset)
    hits = index.search("red", len(keys), where=where)
    assert {int(hit.key) for hit in hits} == keys
    everything = [hit.row for hit in index.search("red", 5)]
    assert [hit.row for hit in hits] == [row for row in everything if row in {h.row for h in hits}]
    assert [hit.rank for hit in hits] == list(range(1, len(keys) + 1))


@pytest.mark.parametrize(
    "where",
    [
        "nope = 1",
        "split",
        "",
        "split = test",
        "width > 1; DROP TABLE metadata",
        "key IN (SELECT column_1 FROM read_csv('FILE'))",
        "read_csv('FILE')",
        "(SELECT 1)",
    ],
)
def test_a_wrong_condition_is_refused_and_no_condition_reads_a_file(
    model: ColourModel, dataset: Path, tmp_path: Path, where: str
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("column_1\n0000000000000000\n")
    index = Index.build(model, dataset)
    with pytest.raises(UserError, match="expected SQL over key, image_path, caption"):
        index.search("red", where=where.replace("FILE", str(secret)))


def test_a_picture_of_a_shard_can_be_shown_until_the_shard_is_rewritten(
    model: ColourModel, dataset: Path, tmp_path: Path
) -> None:
    index = Index.build(model, dataset)
    hit = index.search("pink", 1)[0]
    assert (hit.location or "").endswith("shards/test-000000.tar/0000000000000004.jpg")
    assert np.asarray(index.picture(hit)).mean(axis=(0, 1)) == pytest.approx([230, 25, 230], abs=9)
    write_shard(dataset / "shards/test-000000.tar", [sample(tmp_path, 9, "red", "test", "red")], root=dataset)
    with pytest.raises(FaultError, match=r"test-000000\.tar"):
        index.picture(hit)  # its row is gone
    first = index.search("red", 1, where="split = 'test'")[0]
    with pytest.raises(FaultError, match="rewritten since; build the index again"):
        index.picture(first)  # another sample lies in its place
    (dataset / "shards/test-000000.tar").unlink()
    with pytest.raises(FaultError, match=r"test-000000\.tar"):
        index.picture(first)


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.images += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_contact_sheet_is_one_page_with_pictures_inside_and_texts_escaped(
    model: ColourModel, dataset: Path, tmp_path: Path
) -> None:
    index = Index.build(model, dataset)
    query = "<script>alert(1)</script> red & pink"
    hits = index.search(query, 5)
    image = paint(tmp_path / "q.png", "red")
    page = contact_sheet(index, hits, tmp_path / "a/sheet.html", query=query, image=image, note="a <note>")
    text = page.read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    assert len(links.images) == 6
    assert all(link.startswith("data:image/jpeg;base64,") for link in links.images)
    assert "script" not in links.tags
    assert "&lt;script&gt;alert(1)" in text
    assert "&lt;b&gt;pink&lt;/b&gt; &amp; more" in text
    assert "a &lt;note&gt;" in text
    assert not re.search(r"https?://", text)


def test_a_picture_that_is_gone_leaves_its_place_on_the_sheet(
    model: ColourModel, pictures: Path, tmp_path: Path
) -> None:
    index = Index.build(model, pictures)
    hits = index.search("red", 3)
    (pictures / "red/0.png").unlink()
    text = contact_sheet(index, hits, tmp_path / "s.html", query="red").read_text()
    assert text.count('class="missing"') == 1
    assert "no such file" in text


def test_another_model_is_refused_and_a_moved_one_can_be_named(pictures: Path, tmp_path: Path) -> None:
    first, other, wide = (
        create("tiny-vit-112", seed=s, **{**TINY, "embed_dim": d}) for s, d in ((0, 8), (1, 8), (0, 12))
    )
    for name, encoder in (("first", first), ("other", other), ("wide", wide)):
        encoder.save(tmp_path / name)
    out = tmp_path / "emb"
    built = Index.build(first, pictures, out)
    hits = built.search("gland", 3)
    assert Index.open(out).search("gland", 3) == hits  # loaded from where the record says
    with pytest.raises(
        UserError, match="is not the model the index was built with: its checkpoint_sha256 is"
    ):
        Index.open(out, model=tmp_path / "other")
    with pytest.raises(UserError, match="gives 12 numbers per picture; the index holds 8"):
        Index.open(out, model=wide)
    (tmp_path / "first").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="name the index's model with --model"):
        Index.open(out).search("gland")
    assert Index.open(out, model=tmp_path / "moved").search("gland", 3) == hits


def test_an_index_of_an_unsaved_model_asks_for_it(model: ColourModel, pictures: Path, tmp_path: Path) -> None:
    Index.build(model, pictures, tmp_path / "emb")
    with pytest.raises(UserError, match="model that was never saved"):
        Index.open(tmp_path / "emb").search("red")


def test_a_write_that_breaks_leaves_no_index_behind(
    model: ColourModel, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "emb"
    index = Index.build(model, pictures, out)

    def broken(*_: object) -> None:
        raise FaultError("no space left")

    monkeypatch.setattr(folder, "_write_array", broken)
    with pytest.raises(FaultError):
        index.save(out)
    with pytest.raises(UserError, match=r"is no index: it has no index\.json"):
        Index.open(out)


def test_a_missing_faiss_file_is_made_again_from_the_features(
    model: ColourModel, pictures: Path, tmp_path: Path
) -> None:
    built = Index.build(model, pictures, tmp_path / "emb")
    (tmp_path / "emb/image.index").unlink()
    assert Index.open(tmp_path / "emb", model=model).search("red") == built.search("red")


@pytest.mark.parametrize(
    ("file", "damage", "text"),
    [
        ("img_emb/img_emb_0.npy", lambda p: p.write_bytes(p.read_bytes()[:100]), "cannot be read"),
        ("img_emb/img_emb_0.npy", lambda p: np.save(p, np.zeros((2, 8), np.float32)), r"has shape \(2, 8\)"),
        ("metadata/metadata_0.parquet", lambda p: p.write_bytes(b"x"), "cannot be read"),
        ("metadata/metadata_0.parquet", lambda p: pl.read_parquet(p)[:2].write_parquet(p), "has 2 rows"),
        ("metadata/metadata_0.parquet", lambda p: p.unlink(), "cannot be read"),
        ("index.json", lambda p: p.write_text("[1]"), "schema is None"),
        ("index.json", lambda p: p.write_text("{"), "not valid JSON"),
    ],
)
def test_a_damaged_folder_is_named(
    model: ColourModel, pictures: Path, tmp_path: Path, file: str, damage: object, text: str
) -> None:
    out = tmp_path / "emb"
    Index.build(model, pictures, out)
    damage(out / file)  # type: ignore[operator]
    with pytest.raises(UserError, match=text) as caught:
        Index.open(out)
    assert file in str(caught.value)


def test_a_dataset_is_no_index_and_is_never_overwritten(model: ColourModel, dataset: Path) -> None:
    before = (dataset / "index.json").read_bytes()
    with pytest.raises(UserError, match="is this a dataset folder"):
        Index.open(dataset)
    with pytest.raises(UserError, match="is this a dataset folder"):
        Index.build(model, dataset, dataset)
    assert (dataset / "index.json").read_bytes() == before


def test_a_target_that_is_a_file_is_refused_before_the_work(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "emb").write_text("mine")
    with pytest.raises(UserError, match="emb is a file; an index needs a folder"):
        Index.build(None, pictures, tmp_path / "emb")  # type: ignore[arg-type]


def test_nothing_to_index_is_named(model: ColourModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no pictures"):
        Index.build(model, tmp_path / "empty")
    with pytest.raises(UserError, match="the list holds no pictures"):
        Index.build(model, [])
    with pytest.raises(UserError, match="does not exist"):
        Index.build(model, tmp_path / "absent")
    (tmp_path / "empty/a.png").write_bytes(b"")
    with pytest.raises(FaultError, match=r"none of 1 pictures could be read; a\.png"):
        Index.build(model, tmp_path / "empty")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"query": None}, "expected one query"),
        ({"query": "red", "image": "a.png"}, "expected one query"),
        ({"query": "  "}, "the query is empty"),
        ({"query": "red", "k": 0}, "k is 0"),
        ({"query": np.ones(3)}, r"query features have shape \(3,\); expected \(8,\)"),
        ({"query": np.full(8, np.nan)}, "all finite"),
        ({"image": "absent.png"}, "query picture absent.png: no such file"),
        ({"image": [np.zeros((9, 9, 3), np.uint8)] * 2}, "2 query pictures; expected one"),
    ],
)
def test_a_wrong_query_is_named(model: ColourModel, arguments: dict, text: str) -> None:
    index = Index.build(model, [np.zeros((30, 30, 3), np.uint8)])
    with pytest.raises(UserError, match=text):
        index.search(**arguments)


def test_a_model_with_damaged_weights_builds_no_index(tmp_path: Path, pictures: Path) -> None:
    broken = create("tiny-vit-112", **TINY)
    with torch.no_grad():
        broken.clip.visual.proj.fill_(torch.nan)
    with pytest.raises(FaultError, match="not finite"):
        Index.build(broken, pictures, tmp_path / "emb")
    assert not (tmp_path / "emb").exists()
