"""Every kind of post a real dump holds, one function each: it adds posts, files and the truth about them."""

from __future__ import annotations

from pathclip.synthetic.captions import CHATTER, FOREIGN, answer, caption, vague
from pathclip.synthetic.maker import Kind, Maker
from pathclip.synthetic.pictures import Picture
from pathclip.synthetic.posts import post

__all__ = ["SHARES", "plain"]

MORE = "Clinical history and ancillary studies follow in the thread. "


def plain(make: Maker) -> int:
    """A picture and a caption that names its tissue."""
    label = make.label()
    return make.one("plain", caption(make.rng, label) + make.tags(), label)


def several(make: Maker) -> int:
    """Two to four pictures of one tissue under one caption."""
    label = make.label()
    count = int(make.rng.integers(2, 5))
    made = [make.picture("jpeg", label) for _ in range(count)]
    tweet = make.post(caption(make.rng, label) + make.tags(), [media for media, _ in made])
    for media, name in made:
        make.decide(tweet, media, "several", True, label=label, caption_from="tweet", file=name)
    return count


def answered(make: Maker) -> int:
    """A question; the most liked reply names the tissue."""
    label = make.label()
    media, name = make.picture("jpeg", label)
    asked = make.post(make.question() + make.tags(), [media])
    make.decide(asked, media, "answered", True, label=label, caption_from="reply", file=name)
    make.reply(asked, answer(make.rng, label), 40, "answer", "used_as_caption")
    make.reply(asked, str(make.rng.choice(CHATTER)), 3, "chatter", "no_media")
    return 1


def commented(make: Maker) -> int:
    """A good caption and a reply that names the tissue as well."""
    label = make.label()
    kept = make.one("commented", caption(make.rng, label) + make.tags(), label)
    said = make.posts[-1][0]
    make.reply(said, answer(make.rng, label), 25, "answer", "used_as_caption")
    return kept


def described(make: Maker) -> int:
    """The text says nothing, the alt text names the tissue."""
    label = make.label()
    media, name = make.picture("jpeg", label)
    media["alt_text"] = caption(make.rng, label).replace("&amp;", "&").replace("<b>", "").replace("</b>", "")
    tweet = make.post(vague(make.rng) + make.tags(), [media])
    make.decide(tweet, media, "described", True, label=label, caption_from="alt_text", file=name)
    return 1


def long(make: Maker) -> int:
    """Cut after 280 characters in ``text``; whole in ``note_tweet``."""
    label = make.label()
    whole = f"{caption(make.rng, label)} {MORE * 5}".strip()
    kept = make.one("long", whole[:276] + "…", label)
    make.posts[-1][0]["note_tweet"] = {"text": whole}
    return kept


def unspecific(make: Maker) -> int:
    """A caption that says nothing of the picture."""
    return make.one("vague", vague(make.rng) + make.tags(), make.label(), source=None)


def thanks(make: Maker) -> int:
    """Mentions, a line break and escapes to be cleaned away."""
    label = make.label()
    thanks = f"Thanks @user_{make.author()} for sharing.\n"
    text = f"{thanks}{caption(make.rng, label)} &gt;&gt; thread{make.tags()}"
    return make.one("thanks", text, label)


def quoting(make: Maker) -> int:
    """A quote with a picture and words of its own."""
    label = make.label()
    quoted = make.posts[int(make.rng.integers(len(make.posts)))][0]["id"]
    return make.one("quoting", caption(make.rng, label) + make.tags(), label, refers=("quoted", quoted))


def cmyk(make: Maker) -> int:
    """A JPEG in printing colours."""
    label = make.label()
    return make.one("cmyk", caption(make.rng, label) + make.tags(), label, form="jpeg_cmyk")


def rotated(make: Maker) -> int:
    """A JPEG on its side, with orientation and place in its EXIF."""
    label = make.label()
    return make.one("rotated", caption(make.rng, label) + make.tags(), label, form="jpeg_rotated")


def png(make: Maker) -> int:
    """A PNG."""
    label = make.label()
    return make.one("png", caption(make.rng, label) + make.tags(), label, form="png")


def transparent(make: Maker) -> int:
    """A PNG with a transparent corner."""
    label = make.label()
    return make.one("transparent", caption(make.rng, label) + make.tags(), label, form="png_transparent")


def edited(make: Maker) -> int:
    """Posted, then corrected: both versions were collected."""
    label = make.label()
    media, name = make.picture("jpeg", label)
    author = make.author()
    first = make.post(caption(make.rng, label)[:12] + " typo", [media], author)
    second = make.post(caption(make.rng, label) + make.tags(), [media], author)
    second["edit_history_tweet_ids"] = [first["id"], second["id"]]
    make.decide(first, media, "edited", False, code="superseded_edit", label=label, file=name)
    make.decide(second, media, "edited", True, label=label, caption_from="tweet", file=name)
    return 1


def repeated(make: Maker) -> int:
    """The same post on two pages; the second time with more likes."""
    label = make.label()
    kept = make.one("repeated", caption(make.rng, label) + make.tags(), label)
    tweet, media = make.posts[-1]
    later = {**tweet, "public_metrics": {**tweet["public_metrics"], "like_count": 99}}
    make.late.append((later, media))
    return kept


def reposted(make: Maker) -> int:
    """Another author posts the picture again, smaller and compressed once more."""
    label = make.label()
    kept = make.one("plain", caption(make.rng, label) + make.tags(), label)
    original = make.pictures[-1]
    media, name = make.picture("repost", label)
    make.pictures[-1] = Picture(
        make.media_folder / name, "repost", label, original.seed, make.size_px, make.mpp
    )
    tweet = make.post(caption(make.rng, label) + make.tags(), [media])
    make.decide(tweet, media, "reposted", False, code="duplicate_near", label=label, file=name)
    return kept


def copied(make: Maker) -> int:
    """Another author posts the very same file."""
    label = make.label()
    kept = make.one("plain", caption(make.rng, label) + make.tags(), label)
    source = make.pictures[-1].path
    name = f"F{int(make.rng.integers(16**14)):014x}.jpg"
    make.copies.append((source, make.media_folder / name))
    media = make.media(name)
    tweet = make.post(caption(make.rng, label) + make.tags(), [media])
    make.decide(tweet, media, "copied", False, code="duplicate_exact", label=label, file=name)
    return kept


def retweet(make: Maker) -> int:
    original, media = make.posts[int(make.rng.integers(len(make.posts)))]
    while "referenced_tweets" in original:
        original, media = make.posts[int(make.rng.integers(len(make.posts)))]
    text = f"RT @user_{int(original['author_id']) - 90_000_000}: {original['text']}"
    cut = text if len(text) <= 140 else text[:139] + "…"
    tweet = post(
        make.rng,
        make.id(),
        cut,
        make.author(),
        media_keys=[m["media_key"] for m in media],
        likes=0,
        refers=("retweeted", original["id"]),
    )
    make.posts.append((tweet, media))
    for one in media or [None]:
        make.decide(tweet, one, "retweet", False, code="retweet")
    return 0


def unanswered(make: Maker) -> int:
    """A question that nobody answers."""
    asked = make.reject("unanswered", "question", make.question() + make.tags(), make.label())
    if make.rng.random() < 0.5:
        make.reply(asked, str(make.rng.choice(CHATTER)), 2, "chatter", "no_media")
    return 0


def sensitive(make: Maker) -> int:
    """Flagged by the platform."""
    label = make.label()
    make.reject("sensitive", "sensitive", caption(make.rng, label) + make.tags(), label, sensitive=True)
    return 0


def foreign(make: Maker) -> int:
    """Not in English."""
    lang = str(make.rng.choice(list(FOREIGN)))
    text = str(make.rng.choice(FOREIGN[lang])) + make.tags()
    make.reject("foreign", "language", text, make.label(), lang=lang)
    return 0


def wordless(make: Maker) -> int:
    """Hashtags only."""
    make.reject("wordless", "no_caption", make.tags().strip(), make.label(), lang="qht")
    return 0


def missing(make: Maker) -> int:
    """The file was not collected."""
    label = make.label()
    media = make.media(f"F{int(make.rng.integers(16**14)):014x}.jpg")
    tweet = make.post(caption(make.rng, label) + make.tags(), [media])
    make.decide(tweet, media, "missing", False, code="image_missing", label=label)
    return 0


def unlisted(make: Maker) -> int:
    """The page's includes do not describe the attachment."""
    media = make.media("unlisted.jpg")
    tweet = make.post(caption(make.rng, make.label()) + make.tags(), [media])
    make.posts[-1] = (tweet, [])
    make.decide(tweet, media, "unlisted", False, code="media_unlisted")
    return 0


def moving(make: Maker) -> int:
    """A video or an animated GIF."""
    kind = str(make.rng.choice(["video", "animated_gif"]))
    media = make.media(f"F{int(make.rng.integers(16**14)):014x}.jpg", kind)
    tweet = make.post(caption(make.rng, make.label()) + make.tags(), [media])
    make.decide(tweet, media, "moving", False, code="video")
    return 0


def broken(make: Maker) -> int:
    """One each of the common broken files."""
    for code in ("image_truncated", "image_tiny", "not_an_image"):
        make.fault(code)
    return 0


def odd(make: Maker) -> int:
    """One each of the rare ones."""
    for code in ("image_animated", "image_aspect"):
        make.fault(code)
    return 0


def words_only(make: Maker) -> int:
    """A post without a picture."""
    text = f"{caption(make.rng, make.label())}. See the thread for pictures" + make.tags()
    make.decide(make.post(text, []), None, "words_only", False, code="no_media")
    return 0


def off_topic(make: Maker) -> int:
    """A holiday or a lecture under a path hashtag: a filter may drop it, nothing yet must."""
    form = str(make.rng.choice(["landscape", "lecture"]))
    media, name = make.picture(form, None)
    text = (
        "Greetings from the conference" if form == "landscape" else "Great lecture on colon pathology today"
    )
    tweet = make.post(text + make.tags(), [media])
    make.decide(tweet, media, "off_topic", None, caption_from="tweet", file=name)
    return 0


SHARES: dict[Kind, float] = {
    several: 0.05,
    answered: 0.06,
    commented: 0.06,
    described: 0.03,
    long: 0.015,
    unspecific: 0.01,
    thanks: 0.03,
    quoting: 0.01,
    cmyk: 0.005,
    rotated: 0.01,
    png: 0.01,
    transparent: 0.005,
    edited: 0.005,
    repeated: 0.005,
    reposted: 0.02,
    copied: 0.01,
    retweet: 0.06,
    unanswered: 0.04,
    sensitive: 0.02,
    foreign: 0.04,
    wordless: 0.01,
    missing: 0.015,
    unlisted: 0.005,
    moving: 0.015,
    broken: 0.01,
    odd: 0.004,
    words_only: 0.05,
    off_topic: 0.02,
}
"""How many posts of each kind come on one kept picture."""
