"""A tweet dump with the noise of real ones, and the truth about every post and picture in it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pathclip.core import engine
from pathclip.core.errors import UserError
from pathclip.synthetic.captions import CHATTER, FOREIGN, HASHTAGS, QUESTIONS, answer, caption, vague
from pathclip.synthetic.classes import CLASSES
from pathclip.synthetic.pictures import FAULTS, Picture, write_picture
from pathclip.synthetic.posts import Json, Page, post
from pathclip.synthetic.tiles import generator, tile_seed

__all__ = ["Decision", "DumpTruth", "write_dump"]

POSTS_PER_PAGE = 50
MORE = "Clinical history and ancillary studies follow in the thread. "
FIRST_ID = 1_500_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Decision:
    """What should become of one candidate.

    Attributes:
        tweet_id: The post.
        media_key: The attachment; None for a post without one.
        rule: Why it is in the dump: the kind of post or fault.
        kept: Whether it becomes a sample; None where both are defensible.
        code: The reject code expected where it is not kept.
        label: The tissue shown, or None.
        caption_from: tweet, reply or alt_text: where the naming caption stands; None where nothing names it.
        file: Name of its file in the media folder, or None.
    """

    tweet_id: str
    media_key: str | None
    rule: str
    kept: bool | None
    code: str | None = None
    label: str | None = None
    caption_from: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class DumpTruth:
    """A written dump.

    Attributes:
        tweets: ``tweets.jsonl``.
        media: The folder of the pictures.
        decisions: One per (post, media) candidate, in file order; lines without posts are in ``extra_lines``.
        extra_lines: Lines that hold no post, by the code under which they are rejected.
    """

    tweets: Path
    media: Path
    decisions: tuple[Decision, ...]
    extra_lines: dict[str, int] = field(default_factory=dict)

    def by_rule(self) -> dict[str, int]:
        """Candidates per rule."""
        return dict(sorted(Counter(d.rule for d in self.decisions).items()))


def write_dump(
    out: str | Path,
    seed: int,
    *,
    pictures: int = 400,
    size_px: int = 192,
    mpp: float = 0.8,
    classes: tuple[str, ...] = CLASSES,
    workers: int = 1,
) -> DumpTruth:
    """Write ``out/tweets.jsonl`` (X API v2 pages, as twarc2 saves them) and ``out/media/``.

    Args:
        out: A folder; made when absent.
        seed: Not negative; equal arguments give equal bytes, whatever the number of workers.
        pictures: About how many painted pictures end as samples; noise comes on top, in proportion.
        size_px: Side of the painted pictures.
        mpp: Their scale in micrometres per pixel.
        classes: Tissues to paint, in equal numbers.
        workers: Processes that paint.

    Raises:
        UserError: If ``pictures`` is too small to hold every kind of post once.
    """
    if pictures < 40:
        raise UserError(f"pictures is {pictures}; below 40 a dump cannot hold every kind of post")
    folder = Path(out)
    (folder / "media").mkdir(parents=True, exist_ok=True)
    maker = _Maker(folder, seed, size_px, mpp, classes)
    maker.fill(pictures)
    lines, extra = maker.lines()
    (folder / "tweets.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_pictures(maker.pictures, workers)
    for source, copy in maker.copies:
        copy.write_bytes(source.read_bytes())
    return DumpTruth(folder / "tweets.jsonl", folder / "media", tuple(maker.decisions), extra)


def _write_pictures(pictures: list[Picture], workers: int) -> None:
    if workers == 1:
        for picture in pictures:
            write_picture(picture)
        return
    chunks = [pictures[k :: 4 * workers] for k in range(4 * workers)]
    for _ in engine.map(_write_chunk, chunks, engine="processes", workers=workers):
        pass


def _write_chunk(chunk: list[Picture]) -> None:
    for picture in chunk:
        write_picture(picture)


class _Maker:
    """Collects posts, files to write and the truth about them."""

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

    # -- the small parts

    def fill(self, pictures: int) -> None:
        """Every kind of post in proportion; ``plain`` ones fill up."""
        self.authors = max(pictures // 2, 30)
        kept = 0
        for kind, share in SHARES.items():
            for _ in range(max(round(share * pictures), 1)):
                kept += getattr(self, f"_{kind}")() or 0
        self._fault("image_oversized")
        while kept < pictures:
            kept += self._plain()

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

    def _id(self) -> str:
        self.next_id += int(self.rng.integers(4_000_000, 900_000_000_000))
        return str(self.next_id)

    def _label(self) -> str:
        return self.classes[len(self.pictures) % len(self.classes)]

    def _author(self) -> int:
        return int(self.rng.integers(self.authors))

    def _link(self) -> str:
        return f"https://t.co/{int(self.rng.integers(16**10)):010x}"

    def _tags(self) -> str:
        return f" #{self.rng.choice(HASHTAGS)}" + (" #pathtwitter" if self.rng.random() < 0.4 else "")

    def _picture(self, form: str, label: str | None) -> tuple[Json, str]:
        """A media object and the name of its file, which is put on the list."""
        number = len(self.pictures)
        stem = f"F{int(self.rng.integers(16**14)):014x}"
        suffix = "png" if form.startswith("png") or form == "image_oversized" else "jpg"
        name = f"{stem}.{suffix}"
        seed = tile_seed(self.seed, number)
        self.pictures.append(Picture(self.media_folder / name, form, label, seed, self.size_px, self.mpp))
        return self._media(name), name

    def _media(self, name: str, kind: str = "photo", alt_text: str | None = None) -> Json:
        side = {"width": self.size_px, "height": self.size_px}
        media: Json = {"media_key": f"3_{self._id()}", "type": kind, **side}
        media["url" if kind == "photo" else "preview_image_url"] = f"https://pbs.twimg.com/media/{name}"
        if alt_text is not None:
            media["alt_text"] = alt_text
        return media

    def _post(self, text: str, media: list[Json], author: int | None = None, **options: object) -> Json:
        made = post(
            self.rng,
            self._id(),
            text + (f" {self._link()}" if media else ""),
            self._author() if author is None else author,
            media_keys=[m["media_key"] for m in media],
            **options,  # type: ignore[arg-type]
        )
        self.posts.append((made, media))
        return made

    def _decide(
        self, tweet: Json, media: Json | None, rule: str, kept: bool | None, **more: str | None
    ) -> None:
        key = media["media_key"] if media else None
        self.decisions.append(Decision(tweet["id"], key, rule, kept, **more))

    def _one(
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
        media, name = self._picture(form, label)
        tweet = self._post(text, [media], **options)
        self._decide(tweet, media, rule, True, label=label, caption_from=source, file=name)
        return 1

    def _reject(self, rule: str, code: str, text: str, label: str | None, **options: object) -> Json:
        media, name = self._picture("jpeg", label)
        tweet = self._post(text, [media], **options)
        self._decide(tweet, media, rule, False, code=code, label=label, file=name)
        return tweet

    # -- posts that are kept

    def _plain(self) -> int:
        label = self._label()
        return self._one("plain", caption(self.rng, label) + self._tags(), label)

    def _several(self) -> int:
        """Two to four pictures of one tissue under one caption."""
        label = self._label()
        count = int(self.rng.integers(2, 5))
        made = [self._picture("jpeg", label) for _ in range(count)]
        tweet = self._post(caption(self.rng, label) + self._tags(), [media for media, _ in made])
        for media, name in made:
            self._decide(tweet, media, "several", True, label=label, caption_from="tweet", file=name)
        return count

    def _answered(self) -> int:
        """A question; the most liked reply names the tissue."""
        label = self._label()
        media, name = self._picture("jpeg", label)
        asked = self._post(self._question() + self._tags(), [media])
        self._decide(asked, media, "answered", True, label=label, caption_from="reply", file=name)
        self._reply(asked, answer(self.rng, label), 40, "answer", "used_as_caption")
        self._reply(asked, str(self.rng.choice(CHATTER)), 3, "chatter", "no_media")
        return 1

    def _commented(self) -> int:
        """A good caption and a reply that names the tissue as well."""
        label = self._label()
        kept = self._one("commented", caption(self.rng, label) + self._tags(), label)
        said = self.posts[-1][0]
        self._reply(said, answer(self.rng, label), 25, "answer", "used_as_caption")
        return kept

    def _described(self) -> int:
        """The text says nothing, the alt text names the tissue."""
        label = self._label()
        media, name = self._picture("jpeg", label)
        media["alt_text"] = (
            caption(self.rng, label).replace("&amp;", "&").replace("<b>", "").replace("</b>", "")
        )
        tweet = self._post(vague(self.rng) + self._tags(), [media])
        self._decide(tweet, media, "described", True, label=label, caption_from="alt_text", file=name)
        return 1

    def _long(self) -> int:
        """Cut after 280 characters in ``text``; whole in ``note_tweet``."""
        label = self._label()
        whole = f"{caption(self.rng, label)} {MORE * 5}".strip()
        kept = self._one("long", whole[:276] + "…", label)
        self.posts[-1][0]["note_tweet"] = {"text": whole}
        return kept

    def _vague(self) -> int:
        return self._one("vague", vague(self.rng) + self._tags(), self._label(), source=None)

    def _thanks(self) -> int:
        """Mentions, a line break and escapes to be cleaned away."""
        label = self._label()
        thanks = f"Thanks @user_{self._author()} for sharing.\n"
        text = f"{thanks}{caption(self.rng, label)} &gt;&gt; thread{self._tags()}"
        return self._one("thanks", text, label)

    def _quoting(self) -> int:
        """A quote with a picture and words of its own."""
        label = self._label()
        quoted = self.posts[int(self.rng.integers(len(self.posts)))][0]["id"]
        return self._one("quoting", caption(self.rng, label) + self._tags(), label, refers=("quoted", quoted))

    def _cmyk(self) -> int:
        label = self._label()
        return self._one("cmyk", caption(self.rng, label) + self._tags(), label, form="jpeg_cmyk")

    def _rotated(self) -> int:
        label = self._label()
        return self._one("rotated", caption(self.rng, label) + self._tags(), label, form="jpeg_rotated")

    def _png(self) -> int:
        label = self._label()
        return self._one("png", caption(self.rng, label) + self._tags(), label, form="png")

    def _transparent(self) -> int:
        label = self._label()
        return self._one(
            "transparent", caption(self.rng, label) + self._tags(), label, form="png_transparent"
        )

    def _edited(self) -> int:
        """Posted, then corrected: both versions were collected."""
        label = self._label()
        media, name = self._picture("jpeg", label)
        author = self._author()
        first = self._post(caption(self.rng, label)[:12] + " typo", [media], author)
        second = self._post(caption(self.rng, label) + self._tags(), [media], author)
        second["edit_history_tweet_ids"] = [first["id"], second["id"]]
        self._decide(first, media, "edited", False, code="superseded_edit", label=label, file=name)
        self._decide(second, media, "edited", True, label=label, caption_from="tweet", file=name)
        return 1

    def _repeated(self) -> int:
        """The same post on two pages; the second time with more likes."""
        label = self._label()
        kept = self._one("repeated", caption(self.rng, label) + self._tags(), label)
        tweet, media = self.posts[-1]
        later = {**tweet, "public_metrics": {**tweet["public_metrics"], "like_count": 99}}
        self.late.append((later, media))
        return kept

    def _reposted(self) -> int:
        """Another author posts the picture again, smaller and compressed once more."""
        label = self._label()
        kept = self._one("plain", caption(self.rng, label) + self._tags(), label)
        original = self.pictures[-1]
        media, name = self._picture("repost", label)
        self.pictures[-1] = Picture(
            self.media_folder / name, "repost", label, original.seed, self.size_px, self.mpp
        )
        tweet = self._post(caption(self.rng, label) + self._tags(), [media])
        self._decide(tweet, media, "reposted", False, code="duplicate_near", label=label, file=name)
        return kept

    def _copied(self) -> int:
        """Another author posts the very same file."""
        label = self._label()
        kept = self._one("plain", caption(self.rng, label) + self._tags(), label)
        source = self.pictures[-1].path
        name = f"F{int(self.rng.integers(16**14)):014x}.jpg"
        self.copies.append((source, self.media_folder / name))
        media = self._media(name)
        tweet = self._post(caption(self.rng, label) + self._tags(), [media])
        self._decide(tweet, media, "copied", False, code="duplicate_exact", label=label, file=name)
        return kept

    # -- posts that are not

    def _retweet(self) -> None:
        original, media = self.posts[int(self.rng.integers(len(self.posts)))]
        while "referenced_tweets" in original:
            original, media = self.posts[int(self.rng.integers(len(self.posts)))]
        text = f"RT @user_{int(original['author_id']) - 90_000_000}: {original['text']}"
        cut = text if len(text) <= 140 else text[:139] + "…"
        tweet = post(
            self.rng,
            self._id(),
            cut,
            self._author(),
            media_keys=[m["media_key"] for m in media],
            likes=0,
            refers=("retweeted", original["id"]),
        )
        self.posts.append((tweet, media))
        for one in media or [None]:
            self._decide(tweet, one, "retweet", False, code="retweet")

    def _unanswered(self) -> None:
        asked = self._reject("unanswered", "question", self._question() + self._tags(), self._label())
        if self.rng.random() < 0.5:
            self._reply(asked, str(self.rng.choice(CHATTER)), 2, "chatter", "no_media")

    def _sensitive(self) -> None:
        label = self._label()
        self._reject("sensitive", "sensitive", caption(self.rng, label) + self._tags(), label, sensitive=True)

    def _foreign(self) -> None:
        lang = str(self.rng.choice(list(FOREIGN)))
        text = str(self.rng.choice(FOREIGN[lang])) + self._tags()
        self._reject("foreign", "language", text, self._label(), lang=lang)

    def _wordless(self) -> None:
        self._reject("wordless", "no_caption", self._tags().strip(), self._label(), lang="qht")

    def _missing(self) -> None:
        label = self._label()
        media = self._media(f"F{int(self.rng.integers(16**14)):014x}.jpg")
        tweet = self._post(caption(self.rng, label) + self._tags(), [media])
        self._decide(tweet, media, "missing", False, code="image_missing", label=label)

    def _unlisted(self) -> None:
        """The page's includes do not describe the attachment."""
        media = self._media("unlisted.jpg")
        tweet = self._post(caption(self.rng, self._label()) + self._tags(), [media])
        self.posts[-1] = (tweet, [])
        self._decide(tweet, media, "unlisted", False, code="media_unlisted")

    def _moving(self) -> None:
        kind = str(self.rng.choice(["video", "animated_gif"]))
        media = self._media(f"F{int(self.rng.integers(16**14)):014x}.jpg", kind)
        tweet = self._post(caption(self.rng, self._label()) + self._tags(), [media])
        self._decide(tweet, media, "moving", False, code="video")

    def _broken(self) -> None:
        for code in ("image_truncated", "image_tiny", "not_an_image"):
            self._fault(code)

    def _odd(self) -> None:
        for code in ("image_animated", "image_aspect"):
            self._fault(code)

    def _fault(self, code: str) -> None:
        assert code in FAULTS
        label = self._label()
        media, name = self._picture(code, label)
        tweet = self._post(caption(self.rng, label) + self._tags(), [media])
        self._decide(tweet, media, code, False, code=code, label=label, file=name)

    def _words_only(self) -> None:
        text = f"{caption(self.rng, self._label())}. See the thread for pictures" + self._tags()
        self._decide(self._post(text, []), None, "words_only", False, code="no_media")

    def _off_topic(self) -> None:
        """A holiday or a lecture under a path hashtag: a filter may drop it, nothing yet must."""
        form = str(self.rng.choice(["landscape", "lecture"]))
        media, name = self._picture(form, None)
        text = (
            "Greetings from the conference"
            if form == "landscape"
            else "Great lecture on colon pathology today"
        )
        tweet = self._post(text + self._tags(), [media])
        self._decide(tweet, media, "off_topic", None, caption_from="tweet", file=name)

    def _question(self) -> str:
        return str(self.rng.choice(QUESTIONS)).format(int(self.rng.integers(30, 85)))

    def _reply(self, to: Json, text: str, likes: int, rule: str, code: str) -> None:
        name = int(to["author_id"]) - 90_000_000
        tweet = self._post(f"@user_{name} {text}", [], likes=likes, reply_to=to)
        self._decide(tweet, None, rule, False, code=code)


SHARES = {
    "several": 0.05,
    "answered": 0.06,
    "commented": 0.06,
    "described": 0.03,
    "long": 0.015,
    "vague": 0.01,
    "thanks": 0.03,
    "quoting": 0.01,
    "cmyk": 0.005,
    "rotated": 0.01,
    "png": 0.01,
    "transparent": 0.005,
    "edited": 0.005,
    "repeated": 0.005,
    "reposted": 0.02,
    "copied": 0.01,
    "retweet": 0.06,
    "unanswered": 0.04,
    "sensitive": 0.02,
    "foreign": 0.04,
    "wordless": 0.01,
    "missing": 0.015,
    "unlisted": 0.005,
    "moving": 0.015,
    "broken": 0.01,
    "odd": 0.004,
    "words_only": 0.05,
    "off_topic": 0.02,
}
"""Kinds of posts, each a method of the maker, per kept picture."""
