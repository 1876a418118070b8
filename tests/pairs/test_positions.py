"""Several pictures under one text."""

from __future__ import annotations

import pytest

from pathclip.pairs import (
    Caption,
    CaptionConfig,
    Drop,
    TextConfig,
    Threads,
    last_edits,
    own_caption,
    picture_captions,
    rank_continuations,
)
from pathclip.pairs.positions import is_positional, shares
from pathclip.tweets import Media, Tweet


@pytest.mark.parametrize(
    "text",
    [
        "Left: H&E, right: CD20",
        "Spitz nevus (left) beside melanoma (right)",
        "Melanoma on the left, nevus on the right",
        "A: low power B: high power",
        "(A) H&E (B) Congo red (C) polarised light",
        "1) H&E 2) PAS",
        "The second image shows mitoses",
        "Amyloid, Fig. 2 under polarised light",
        "Clockwise: H&E, PAS, silver and IF",
        "Top left: gross",
        "See upper panel for the gland",
    ],
)
def test_captions_that_tell_pictures_apart_are_known(text):
    assert is_positional(text)


@pytest.mark.parametrize(
    "text",
    [
        "Left breast, mucinous carcinoma",
        "Mass of the right kidney, clear cell RCC",
        "Hepatitis B in the upper lobe",
        "Grade 2 carcinoma, 1/20 nodes",
        "Group A streptococcus",
        "HER2 3+ in the left lower lobe",
        "Polyp on the left side of the colon",
        "Type A thymoma",
        "Vitamin B: a note",
        "Stage 1: small tumour",
        "Carcinoma in the left upper lobe",
    ],
)
def test_sides_of_the_body_and_grades_are_no_places_of_pictures(text):
    assert not is_positional(text)


@pytest.mark.parametrize(
    ("text", "num", "parts"),
    [
        ("Nevus. A: low power, B: high power", 2, ("Nevus. low power", "Nevus. high power")),
        ("Left: H&E. Right: CD20+ cells", 2, ("H&E", "CD20+ cells")),
        ("1) H&E 2) PAS 3) silver", 3, ("H&E", "PAS", "silver")),
        ("Melanoma, (a) HMB45 (b) S100 (c) SOX10", 3, ("Melanoma HMB45", "Melanoma S100", "Melanoma SOX10")),
        ("A: low power, B: high power", 3, None),
        ("A: low power, B: high power", 1, None),
        ("B: low power, A: high power", 2, None),
        ("Melanoma of the skin", 2, None),
        ("A: B:", 2, None),
    ],
)
def test_each_picture_has_its_share_where_the_marks_fit(text, num, parts):
    assert shares(text, num) == parts


POST = Tweet(id="1", text="Nevus. A: low power B: high power", lang="en", author_id="a")
OWN = own_caption(POST, CaptionConfig(), TextConfig())


def texts(number: int, num: int = 2, **config: object) -> list[tuple[str, bool]] | Drop:
    found = picture_captions(POST, Media("3_1"), OWN, [], CaptionConfig(**config), (number, num))
    return found if isinstance(found, Drop) else [(c.text, c.positional) for c in found]


def test_what_several_pictures_get_is_a_policy():
    whole = "Nevus. A: low power B: high power"
    assert texts(1) == [(whole, True)]
    assert texts(0, 1) == [(whole, False)], "a single picture has no place"
    assert texts(1, multi="split") == [("Nevus. high power", False)]
    assert texts(1, 3, multi="split") == [(whole, True)]
    assert texts(0, multi="first") == [(whole, True)]
    assert texts(1, multi="first") == Drop("several_pictures", "picture 2 of 2")
    assert texts(0, multi="drop") == Drop("several_pictures", "picture 1 of 2")
    assert texts(0, 1, multi="drop") == [(whole, False)]
    assert texts(0, positional="drop").code == "no_caption"


def test_captions_have_a_total_order():
    media = Media("3_1", alt_text="Nests of naevus cells")
    answers = [Caption("Maturation", "continuation", "2"), Caption("Agree, nevus", "reply", "3")]
    found = picture_captions(POST, media, OWN, answers, CaptionConfig())
    assert [c.source for c in found] == ["tweet", "alt_text", "continuation", "reply"]


def post(tweet_id: str, author: str | None, to: str | None = None, **more: object) -> Tweet:
    return Tweet(id=tweet_id, text="x", author_id=author, in_reply_to_id=to, **more)  # type: ignore[arg-type]


def test_a_continuation_is_an_unbroken_chain_of_one_author():
    first = post("1", "a", media=(Media("3_1"),))
    posts = [
        first,
        post("2", "a", "1"),
        post("3", "a", "2"),
        post("4", "b", "1"),
        post("5", "a", "4"),
        post("6", "a", "99"),
        post("7", "a", "8"),
        post("8", "a", "7"),
        post("9", None, "1"),
    ]
    held, newest, _ = last_edits(posts)
    threads = Threads(held, newest)
    assert [p.id for p in posts[1:] if threads.continues(p, "1")] == ["2", "3"]


def test_continuations_come_in_the_order_they_were_written():
    posts = [
        post("3", "a", created_at="2022-01-02"),
        post("10", "a", created_at="2022-01-01"),
        post("9", "a", created_at="2022-01-01"),
        post("1", "a"),
    ]
    for order in (posts, posts[::-1]):
        assert [p.id for p in rank_continuations(order)] == ["9", "10", "3", "1"]


@pytest.mark.parametrize(
    "text", ["hacettepe-com-case-31.", "some_case_12", "Case 14", "IMG_2041", "DSC 0012"]
)
def test_a_label_is_a_caption_unless_told_otherwise(text):
    tweet = Tweet(id="1", text=f"{text} #SurgPath https://t.co/x")
    assert own_caption(tweet, CaptionConfig(), TextConfig()).text == text.rstrip()
    assert own_caption(tweet, CaptionConfig(labels="drop"), TextConfig()) == Drop(
        "no_caption", "a label and no words"
    )


@pytest.mark.parametrize(
    "text", ["clear-cell-carcinoma", "Case 14: melanoma", "t(11;22) sarcoma", "PD-L1 22C3"]
)
def test_words_are_no_label(text):
    assert isinstance(
        own_caption(Tweet(id="1", text=text), CaptionConfig(labels="drop"), TextConfig()), Caption
    )
