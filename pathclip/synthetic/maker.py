"""`Maker`: collects the posts of a dump, the files to write and the truth about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from pathclip.synthetic.captions import HASHTAGS, QUESTIONS, caption
from pathclip.synthetic.pictures import FAULTS, Picture
from pathclip.synthetic.posts import Json, Page, post
from pathclip.synthetic.tiles import generator, tile_seed
from pathclip.synthetic.truth import Decision

__all__ = ["Kind", "Maker"]

POSTS_PER_PAGE = 50
FIRST_ID = 1_500_000_000_000_000_000
Kind = Callable[["Maker"], int]
"""Adds one post of a kind; returns how many pictures of it are kept."""


class Maker:
    """Collects posts, files to write and the truth about them.

    Args:
        folder: The dump's folder.
        seed: Of everything by chance.
        size_px: Side of painted pictures.
        mpp: Their scale.
        classes: Tissues, painted in turn.

    Attributes:
        posts: Every post with its media objects, in the order of making.
        late: Posts that come again at the end of the file.
        pictures: Files to paint.
        copies: (source, copy) of files to copy.
        decisions: The truth.
    """

    def __init__(self, folder: Path, seed: int, size_px: int, mpp: float, classes: tuple[str, ...]) -> None:
        self.rng = generator("dump", seed)
        self.media_folder, self.seed, self.size_px, self.mpp = folder / "media", seed, size_px, mpp
        self.classes = classes
        self.posts: list[tuple[Json, list[Json]]] = []
        self.late: list[tuple[Json, list[Json]]] = []
        self.pictures: list[Picture] = []
        self.copies: list[tuple[Path, Path]] = []
        self.decisions: list[Decision] = []
        self.next_id = FIRST_ID
        self.authors = 100

    def fill(self, pictures: int, shares: Mapping[Kind, float], plain: Kind) -> None:
        """Every kind of post in proportion; ``plain`` ones fill up."""
        self.authors = max(pictures // 2, 30)
        kept = 0
        for kind, share in shares.items():
            kept += sum(kind(self) for _ in range(max(round(share * pictures), 1)))
        self.fault("image_oversized")
        while kept < pictures:
            kept += plain(self)

    def lines(self) -> tuple[list[str], dict[str, int]]:
        """The lines of the file, with a bad one and a page of errors among them."""
        order = self.rng.permutation(len(self.posts))
        mixed = [self.posts[k] for k in order] + self.late
        lines = []
        for start in range(0, len(mixed), POSTS_PER_PAGE):
            page = Page()
            for one, media in mixed[start : start + POSTS_PER_PAGE]:
                page.posts.append(one)
                page.media += [m for m in media if m not in page.media]
            lines.append(page.line())
        lines.insert(1, '{"data": [{"id": "1", "text": "cut off in the mid')
        lines.insert(
            2,
            json.dumps(
                {"errors": [{"resource_id": "5", "title": "Not Found Error"}], "meta": {"result_count": 0}}
            ),
        )
        return lines, {"parse_error": 1, "error_page": 1}

    def id(self) -> str:
        """The next post's or attachment's id; time goes on."""
        self.next_id += int(self.rng.integers(4_000_000, 900_000_000_000))
        return str(self.next_id)

    def label(self) -> str:
        """The tissue whose turn it is."""
        return self.classes[len(self.pictures) % len(self.classes)]

    def author(self) -> int:
        """An author by chance."""
        return int(self.rng.integers(self.authors))

    def link(self) -> str:
        """A shortened link by chance."""
        return f"https://t.co/{int(self.rng.integers(16**10)):010x}"

    def tags(self) -> str:
        """One or two hashtags, with a space before."""
        return f" #{self.rng.choice(HASHTAGS)}" + (" #pathtwitter" if self.rng.random() < 0.4 else "")

    def picture(self, form: str, label: str | None) -> tuple[Json, str]:
        """A media object and the name of its file, which is put on the list."""
        number = len(self.pictures)
        stem = f"F{int(self.rng.integers(16**14)):014x}"
        suffix = "png" if form.startswith("png") or form == "image_oversized" else "jpg"
        name = f"{stem}.{suffix}"
        seed = tile_seed(self.seed, number)
        self.pictures.append(Picture(self.media_folder / name, form, label, seed, self.size_px, self.mpp))
        return self.media(name), name

    def media(self, name: str, kind: str = "photo", alt_text: str | None = None) -> Json:
        """A media object."""
        side = {"width": self.size_px, "height": self.size_px}
        media: Json = {"media_key": f"3_{self.id()}", "type": kind, **side}
        media["url" if kind == "photo" else "preview_image_url"] = f"https://pbs.twimg.com/media/{name}"
        if alt_text is not None:
            media["alt_text"] = alt_text
        return media

    def post(self, text: str, media: list[Json], author: int | None = None, **options: object) -> Json:
        """A post, put on the list."""
        made = post(
            self.rng,
            self.id(),
            text + (f" {self.link()}" if media else ""),
            self.author() if author is None else author,
            media_keys=[m["media_key"] for m in media],
            **options,  # type: ignore[arg-type]
        )
        self.posts.append((made, media))
        return made

    def decide(
        self, tweet: Json, media: Json | None, rule: str, kept: bool | None, **more: str | None
    ) -> None:
        """Note what should become of a candidate."""
        key = media["media_key"] if media else None
        self.decisions.append(Decision(tweet["id"], key, rule, kept, **more))

    def one(
        self,
        rule: str,
        text: str,
        label: str,
        *,
        form: str = "jpeg",
        source: str | None = "tweet",
        **options: object,
    ) -> int:
        """A post with one good picture."""
        media, name = self.picture(form, label)
        tweet = self.post(text, [media], **options)
        self.decide(tweet, media, rule, True, label=label, caption_from=source, file=name)
        return 1

    def reject(self, rule: str, code: str, text: str, label: str | None, **options: object) -> Json:
        """A post with a good picture that must not be used."""
        media, name = self.picture("jpeg", label)
        tweet = self.post(text, [media], **options)
        self.decide(tweet, media, rule, False, code=code, label=label, file=name)
        return tweet

    def question(self) -> str:
        """A question to put to colleagues."""
        return str(self.rng.choice(QUESTIONS)).format(int(self.rng.integers(30, 85)))

    def reply(self, to: Json, text: str, likes: int, rule: str, code: str) -> None:
        """A reply without pictures."""
        name = int(to["author_id"]) - 90_000_000
        tweet = self.post(f"@user_{name} {text}", [], likes=likes, reply_to=to)
        self.decide(tweet, None, rule, False, code=code)

    def fault(self, code: str) -> None:
        """A post with a broken file."""
        assert code in FAULTS
        label = self.label()
        media, name = self.picture(code, label)
        tweet = self.post(caption(self.rng, label) + self.tags(), [media])
        self.decide(tweet, media, code, False, code=code, label=label, file=name)
