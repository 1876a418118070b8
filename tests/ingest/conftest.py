from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pathclip.synthetic import write_dump

sys.path.insert(0, str(Path(__file__).parent))  # looking.py, the helpers of this folder

KEY = b"0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="session")
def synthetic_dump(tmp_path_factory):
    """A small dump whose every decision is known."""
    return write_dump(tmp_path_factory.mktemp("synthetic"), seed=5, pictures=60, size_px=160)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    return path


class Dump:
    """A dump in the making: posts as one v2 page a line, pictures as JPEGs of random texture."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.media = folder, folder / "media"
        self.media.mkdir(parents=True)
        self.pages: list[dict[str, Any]] = []

    @property
    def tweets(self) -> Path:
        path = self.folder / "tweets.jsonl"
        path.write_text("".join(json.dumps(page) + "\n" for page in self.pages))
        return path

    def picture(self, name: str, seed: int, side: int = 160, **options: Any) -> bytes:
        small = np.random.default_rng(seed).integers(0, 256, (10, 10, 3), np.uint8)
        image = Image.fromarray(small).resize((160, 160), Image.Resampling.BICUBIC).resize((side, side))
        out = io.BytesIO()
        image.save(out, "JPEG", **{"quality": 92, **options})
        (self.media / name).write_bytes(out.getvalue())
        return out.getvalue()

    def post(self, tweet_id: str, text: str, *media: str, **more: Any) -> None:
        """``media`` are stems of files; the media key is ``3_`` and the post's id and the stem."""
        keys = [f"3_{tweet_id}{name}" for name in media]
        post = {
            "id": tweet_id,
            "text": text,
            "lang": "en",
            "author_id": f"a{tweet_id}",
            "conversation_id": tweet_id,
            "created_at": f"2022-01-01T00:00:{int(tweet_id) % 60:02d}.000Z",
            **more,
        }
        if keys:
            post["attachments"] = {"media_keys": keys}
        found = [
            {"media_key": key, "type": "photo", "url": f"https://pbs.twimg.com/media/{name}.jpg"}
            for key, name in zip(keys, media, strict=True)
        ]
        self.pages.append({"data": [post], "includes": {"media": found}})


@pytest.fixture
def dump(tmp_path: Path) -> Dump:
    return Dump(tmp_path / "dump")
