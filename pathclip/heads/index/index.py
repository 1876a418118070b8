"""`Index`: build, open, search and save an embedding folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pathclip.core.errors import UserError
from pathclip.core.files import strict_json
from pathclip.encoders import DualEncoder, encode_pictures, load
from pathclip.heads.index.approximate import APPROXIMATE_ABOVE, candidates, read_searcher, train_ivfpq
from pathclip.heads.index.build import Embeddings, embed
from pathclip.heads.index.folder import SEARCHER, check_target, read_folder, write_folder
from pathclip.heads.index.hits import Hit
from pathclip.heads.index.sources import open_source, read_picture
from pathclip.heads.retrieval import nearest_rows

__all__ = ["Index"]

log = logging.getLogger("pathclip")


class Index:
    """Pictures that can be found by text or by picture, by cosine similarity.

    Search is exact. Of a folder with more than a million pictures it takes candidates from an inverted file
    (IVF-PQ) and scores these exactly, unless exact search is asked for.

    Args:
        embeddings: Features, rows and record.
        model: The model that made them; loaded from where the record says when first needed.
        folder: Where it lies on disk, if it does.
    """

    def __init__(
        self, embeddings: Embeddings, *, model: DualEncoder | None = None, folder: Path | None = None
    ) -> None:
        self._embeddings = embeddings
        self._model = model
        self._candidates_from: Any = None
        self.folder = folder

    @classmethod
    def build(
        cls,
        model: DualEncoder,
        data: Any,
        out: str | Path | None = None,
        *,
        batch_size: int = 64,
        progress: bool = False,
        cache: str | Path | None = None,
    ) -> Self:
        """Encode pictures, and their captions where they have any.

        Pictures that cannot be read are named in the record (``bad``), counted and left out.

        Args:
            model: From `pathclip.load`.
            data: A dataset folder, its shards, a folder of pictures, or a list of these (paths, PIL, arrays).
            out: Folder to write; None keeps the index in memory.
            batch_size: Pictures per pass.
            progress: Show how far along the work is.
            cache: Folder to keep features in and to find them again.

        Raises:
            UserError: If there are no pictures.
            FaultError: If none can be read.
        """
        if out is not None:
            check_target(Path(out))  # before the work, not after it
        source = open_source(data)
        embedded = embed(model, source, batch_size=batch_size, progress=progress, cache=cache)
        index = cls(embedded, model=model)
        if index.bad:
            log.warning("%d pictures left out; the first is %s: %s", len(index.bad), *index.bad[0].values())
        return index if out is None else index.save(out)

    @classmethod
    def open(cls, folder: str | Path, *, model: DualEncoder | str | Path | None = None) -> Self:
        """Open an embedding folder.

        Args:
            folder: As written by `save`.
            model: The model it was built with, or where that lies now; by default where the record says.

        Raises:
            UserError: If there is no index, it is damaged, or the model is another one.
        """
        index = cls(read_folder(Path(folder)), folder=Path(folder))
        if isinstance(model, DualEncoder):
            index._model = index._checked(model, "the given model")
        elif model is not None:
            index._model = index._checked(load(model), str(model))
        return index

    def save(self, folder: str | Path) -> Self:
        """Write the folder: features, metadata, FAISS index and, last, index.json."""
        write_folder(Path(folder), self._embeddings, self._searcher())
        self.folder, self._candidates_from = Path(folder), None
        return self

    def search(
        self,
        query: Any = None,
        k: int = 10,
        *,
        image: Any = False,
        where: str | None = None,
        exact: bool | None = None,
    ) -> list[Hit]:
        """The k most similar pictures, the best first; equals go by row.

        Args:
            query: A text; or features (D,) as an array or tensor; or a picture, with ``image=True``.
            k: Where fewer pictures are there, all are returned and a warning line says so.
            image: A picture to search by (path, PIL, array or tensor) instead of ``query``.
            where: SQL condition over the metadata columns, for example ``"split = 'test' AND width > 500"``.
            exact: Compare with every picture; by default where there are at most a million, or a condition.

        Raises:
            UserError: If there is no query, the picture cannot be read, k < 1, or the condition is wrong.
        """
        if k < 1:
            raise UserError(f"k is {k}; expected at least 1")
        allowed = None if where is None else self._rows_where(where)
        features = self._query_features(query, image)
        available = len(self) if allowed is None else len(allowed)
        if k > available:
            condition = "" if where is None else f" where {where}"
            log.warning("k is %d, but there are %d pictures%s; these are returned", k, available, condition)
        if not available:
            return []
        if exact is None:
            exact = allowed is not None or not self._is_large
        if exact:
            scores, rows = nearest_rows(self.image_features, features, min(k, available), allowed)
        else:
            likely = self._likely_rows(features, min(k, available))
            scores, places = nearest_rows(self.image_features[likely], features, min(k, len(likely)))
            rows = likely[places]
        return [self._hit(r, s, p) for r, (s, p) in enumerate(zip(scores, rows, strict=True), start=1)]

    def picture(self, hit: Hit) -> Image.Image:
        """The picture of a hit, RGB.

        Raises:
            FaultError: If it is no longer where it was.
        """
        return read_picture(self._root, self.metadata.row(hit.row, named=True))

    def __len__(self) -> int:
        return len(self._embeddings.images)

    @property
    def image_features(self) -> NDArray[np.float32]:
        """(N, D), unit length."""
        return self._embeddings.images

    @property
    def text_features(self) -> NDArray[np.float32] | None:
        """(N, D), unit length, zero where there is no caption; None where nothing has one."""
        return self._embeddings.texts

    @property
    def metadata(self) -> Any:
        """A polars table, one row per picture."""
        return self._embeddings.metadata

    @property
    def record(self) -> dict[str, Any]:
        """Content of index.json: count, dim, source, model, bad."""
        return self._embeddings.record

    @property
    def bad(self) -> list[dict[str, str]]:
        """Pictures that were left out when it was built: name and reason."""
        return self.record["bad"]

    @property
    def model(self) -> DualEncoder:
        """The model the index was built with.

        Raises:
            UserError: If it is not where it was, or is not the same.
        """
        if self._model is None:
            home = self.record["model"]["pretrained"]
            if home is None:
                raise UserError(
                    "the index was built with a model that was never saved; open it with model=..."
                )
            try:
                self._model = self._checked(load(home), home)
            except UserError as error:
                raise UserError(f"{error}; name the index's model with --model") from None
        return self._model

    @property
    def _is_large(self) -> bool:
        return self.folder is not None and len(self) > APPROXIMATE_ABOVE

    def _likely_rows(self, features: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        if self.folder is None:
            raise UserError("an index in memory is searched exactly; save it for an approximate search")
        if self._candidates_from is None:
            self._candidates_from = read_searcher(self.folder / SEARCHER, len(self))
        return candidates(self._candidates_from, features, k)

    def _searcher(self) -> Any:
        """What large folders are searched by, and clip-retrieval and other programs search all by."""
        import faiss

        if len(self) > APPROXIMATE_ABOVE:
            return train_ivfpq(self.image_features)
        index = faiss.IndexFlatIP(self.record["dim"])
        index.add(np.ascontiguousarray(self.image_features))
        return index

    @property
    def _root(self) -> Path | None:
        path = self.record["source"]["path"]
        return None if path is None else Path(path)

    def _checked(self, model: DualEncoder, place: str) -> DualEncoder:
        if model.embed_dim != self.record["dim"]:
            raise UserError(
                f"{place} gives {model.embed_dim} numbers per picture; the index holds {self.record['dim']}"
            )
        ours, theirs = self.record["model"], json.loads(strict_json(model.provenance()))
        for what in ("checkpoint_sha256", "transform"):
            if ours[what] != theirs[what]:
                raise UserError(
                    f"{place} is not the model the index was built with: "
                    f"its {what} is {theirs[what]}, the index records {ours[what]}"
                )
        return model

    def _query_features(self, query: Any, image: Any) -> NDArray[np.float32]:
        if image is True:
            query, image = None, query
        if (query is None) == (image is False or image is None):
            raise UserError("expected one query: a text, features, or image=...")
        if query is None:
            return self._image_query(image)
        if isinstance(query, str):
            if not query.strip():
                raise UserError("the query is empty; expected a text such as 'signet ring cells'")
            return self.model.encode_text([query])[0].numpy()
        plain = query.detach().cpu() if isinstance(query, torch.Tensor) else query
        features = np.asarray(plain, dtype=np.float32)
        if features.shape != (self.record["dim"],) or not np.isfinite(features).all():
            expected = (self.record["dim"],)
            raise UserError(f"query features have shape {features.shape}; expected {expected}, all finite")
        return features / max(float(np.linalg.norm(features)), 1e-12)

    def _image_query(self, image: Any) -> NDArray[np.float32]:
        features, bad = encode_pictures(self.model, image)
        if bad:
            raise UserError(f"query picture {bad[0].name}: {bad[0].reason}")
        if len(features) != 1:
            raise UserError(f"{len(features)} query pictures; expected one")
        return features[0].numpy()

    def _rows_where(self, where: str) -> NDArray[np.int64]:
        import polars as pl

        try:  # an expression over the columns, not a query: it can read no other table and no file
            rows = self.metadata.with_row_index("_row").filter(pl.sql_expr(where))["_row"]
        except pl.exceptions.PolarsError as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"condition {where!r}: {reason}; expected SQL over {', '.join(self.metadata.columns)}, "
                "with texts in single quotes"
            ) from None
        return rows.to_numpy().astype(np.int64)

    def _hit(self, rank: int, score: float, row: int) -> Hit:
        values = self.metadata.row(int(row), named=True)
        key, caption, path = (values.pop(name) for name in ("key", "caption", "image_path"))
        location = None if path is None else str((self._root or Path()) / path)
        return Hit(rank, float(score), key, caption, location, int(row), values)
