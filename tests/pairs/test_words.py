from __future__ import annotations

import pytest

from pathclip.core.errors import UserError
from pathclip.pairs import (
    Caption,
    CaptionConfig,
    Drop,
    LanguageConfig,
    SelectConfig,
    TextConfig,
    Threads,
    has_pathology_term,
    is_question,
    last_edits,
    own_caption,
    picture_captions,
    rank_replies,
    reply_caption,
    select,
)
from pathclip.tweets import Media, Tweet

PHOTO = (Media("3_1"),)


def tweet(tweet_id: str = "1", text: str = "Melanoma of the skin", **more: object) -> Tweet:
    return Tweet(id=tweet_id, text=text, **{"lang": "en", **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("post", "code"),
    [
        (tweet(), None),
        (tweet(kind="retweet"), "retweet"),
        (tweet(sensitive=True), "sensitive"),
        (tweet(is_withheld=True), "withheld"),
        (tweet(is_bot=True), None),
        (tweet(lang="tr"), "language"),
        (tweet(lang="en-GB"), None),
        (tweet(text="皮膚生検：基底細胞癌です。興味深い症例"), "language"),
        (tweet(lang=None), None),
        (tweet(lang="und", text="Melanoma de la piel con ulceración"), "language"),
        (tweet(lang="qme", text="基底細胞癌 皮膚生検 症例報告"), "language"),
        (tweet(lang="und", text="BCC"), None),
        (tweet(lang="und", text="皮膚癌"), "language"),
        (tweet(lang="und", text="मेलेनोमा त्वचा"), "language"),
        (tweet(lang="und", text="α"), None),
        (tweet(kind="quote"), None),
        (tweet(kind="reply"), None),
    ],
)
def test_posts_are_selected_by_kind_flag_and_language(post, code):
    found = select(post, SelectConfig(), LanguageConfig())
    assert (found.code if found else None) == code


def test_selection_is_a_policy():
    keep = SelectConfig(retweets="keep", sensitive="keep", withheld="keep", bots="drop")
    assert select(tweet(kind="retweet", sensitive=True, is_withheld=True), keep, LanguageConfig()) is None
    assert select(tweet(is_bot=True), keep, LanguageConfig()).code == "bot"
    assert select(tweet(lang=None), keep, LanguageConfig(unknown="drop")).code == "language"
    assert select(tweet(lang="und", text="BCC"), keep, LanguageConfig(unknown="drop")).code == "language"
    assert select(tweet(lang="tr"), keep, LanguageConfig(languages=("en", "tr"))) is None


@pytest.mark.parametrize(
    ("detector", "lang", "text", "kept"),
    [
        ("script", "tr", "Melanoma of the skin with ulceration", True),
        ("script", "en", "Melanoma de la piel con ulceración en una mujer", False),
        ("script", "en", "皮膚生検：基底細胞癌です。興味深い症例", False),
        ("script", None, "BCC", True),
        ("py3langid", "tr", "Poorly differentiated adenocarcinoma of the colon with signet ring cells", True),
        ("py3langid", "en", "Melanoma de la piel con ulceración en una mujer de 45 años", False),
        ("py3langid", "en", "Deri biyopsisinde malign melanom olgusu, hasta 45 yaşında", False),
        ("py3langid", "en", "Tümör hücreleri CD20 pozitif", False),
        ("py3langid", "en", "Adenoma pleomórfico da parótida", False),
        ("py3langid", "en", "CD20+ CD79a+ PAX5+ BCL2- HER2 3+", True),
        ("py3langid", None, "Basal cell carcinoma, nodular and infiltrative pattern, PAS and CD117", True),
    ],
)
def test_who_says_which_language_it_is_is_a_policy(detector, lang, text, kept):
    if detector == "py3langid":
        pytest.importorskip("py3langid")
    found = select(tweet(text=text, lang=lang), SelectConfig(), LanguageConfig(detector=detector))
    assert (found is None) == kept, found


def test_medical_english_is_not_taken_for_latin_by_py3langid():
    pytest.importorskip("py3langid")
    config = LanguageConfig(detector="py3langid")
    texts = [
        "Pleomorphic adenoma of the parotid gland",
        "Invasive lobular carcinoma, single file pattern",
        "Dermatofibrosarcoma protuberans, storiform pattern",
        "Granuloma annulare with palisading histiocytes",
        "Lichen planus: sawtooth acanthosis and band-like infiltrate",
        "Molluscum contagiosum of the eyelid",
        "Chronic gastritis with Helicobacter pylori",
        "Verruca vulgaris with koilocytes",
        "Melanoma in situ",
        "Placenta, chorangioma",
        "Acinic cell carcinoma",
    ]
    assert [t for t in texts if select(tweet(text=t), SelectConfig(), config)] == []


def test_a_detector_that_cannot_be_had_is_named_before_anything_is_read(monkeypatch):
    from pathclip.tweets.language import load_guesser

    load_guesser.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"needs py3langid; install it with: pip install 'pathclip\[language\]'"
    ):
        load_guesser(("en",))
    monkeypatch.undo()
    pytest.importorskip("py3langid")
    with pytest.raises(UserError, match=r"language\.languages = xx"):
        load_guesser(("xx",))
    with pytest.raises(ValueError, match="script tells English from others"):
        LanguageConfig(detector="script", languages=("es",))


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("What is your diagnosis?", True),
        ("Dx？", True),
        ("What's your diagnosis", True),
        ("Any thoughts on this lesion", True),
        ("Guess the diagnosis", True),
        ("Melanoma of the skin", False),
        ("Thoughtful case of melanoma", False),
        ("Diagnosis: melanoma", False),
    ],
)
def test_questions_are_known_with_and_without_a_mark(text, asks):
    assert is_question(text) is asks


def test_a_poll_makes_a_question_and_a_link_with_a_question_mark_does_not():
    assert own_caption(tweet(has_poll=True), CaptionConfig(), TextConfig()) == Drop("question")
    linked = tweet(text="Melanoma of skin https://x.org/a?b=c", author_id="7")
    assert own_caption(linked, CaptionConfig(), TextConfig()) == Caption(
        "Melanoma of skin", "tweet", "1", "7"
    )


def test_an_empty_text_is_no_caption():
    for text in ("", "https://t.co/a", "#dermpath", "@someone", "🔬", "12"):
        assert own_caption(tweet(text=text), CaptionConfig(), TextConfig()).code == "no_caption"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@a Congrats!!", "1 words; at least 3"),
        ("@a What a great picture", "no pathology term"),
        ("@a Is it melanoma or a nevus?", ""),
        ("@a Agree, this is melanoma", None),
        ("@a Hyperplastic polyp of the colon", None),
    ],
)
def test_a_reply_must_say_something_of_pathology(text, why):
    found = reply_caption(tweet(text=text, kind="reply"), CaptionConfig(), TextConfig())
    assert (found.detail if isinstance(found, Drop) else None) == why


def test_a_reply_with_own_pictures_or_by_a_bot_is_none():
    text = "Agree, this is melanoma"
    assert isinstance(reply_caption(tweet(text=text, media=PHOTO), CaptionConfig(), TextConfig()), Drop)
    assert isinstance(reply_caption(tweet(text=text, is_bot=True), CaptionConfig(), TextConfig()), Drop)


@pytest.mark.parametrize(
    "text",
    [
        "Acute appendicitis",
        "kidneyoncocytoma",
        "CD20+ cells",
        "H&E",
        "keratin pearls",
        "signet ring",
        "Spitz nevus",
        "granulomatous inflammation",
        "Crohn's disease",
    ],
)
def test_terms_of_pathology_are_known(text):
    assert has_pathology_term(text)


@pytest.mark.parametrize(
    "text", ["Congrats!! Great picture", "Wow, so beautiful", "See you at the meeting", "Thank you my friend"]
)
def test_applause_holds_no_term(text):
    assert not has_pathology_term(text)


def test_replies_have_a_total_order():
    replies = [
        tweet("20", author_id="b", like_count=9, created_at="2022-01-02"),
        tweet("21", author_id="b", like_count=9, created_at="2022-01-01"),
        tweet("22", author_id="a", like_count=0, created_at="2022-01-03"),
        tweet("9", author_id="b", like_count=9, created_at="2022-01-02"),
        tweet("23", author_id="b", like_count=30),
    ]
    for order in (replies, replies[::-1]):
        assert [r.id for r in rank_replies(order, "a")] == ["22", "23", "21", "9", "20"]
    assert rank_replies(replies, None)[0].id == "23"


def test_captions_are_ranked_and_none_comes_twice():
    own = Caption("Melanoma of the skin", "tweet", "1")
    answer = Caption("Agree, melanoma", "reply", "2")
    media = Media("3_1", alt_text="Pigmented melanoma at low power")
    found = picture_captions(tweet(), media, own, [answer, own], CaptionConfig())
    assert [c.source for c in found] == ["tweet", "alt_text", "reply"]
    assert picture_captions(tweet(), Media("3_1"), Drop("question"), [], CaptionConfig()) == Drop("question")
    assert (
        picture_captions(tweet(), media, Drop("question"), [], CaptionConfig(alt_text=False)).code
        == "question"
    )
    assert picture_captions(
        tweet(), Media("3_1", alt_text="Image"), Drop("question"), [], CaptionConfig()
    ) == Drop("question")


def threads(*posts: Tweet) -> Threads:
    held, newest, _ = last_edits(posts)
    return Threads(held, newest)


def test_a_reply_speaks_of_the_nearest_pictures_up_the_chain():
    first = tweet("1", media=PHOTO, conversation_id="1")
    second = tweet("2", in_reply_to_id="1", kind="reply", conversation_id="1")
    third = tweet("3", media=PHOTO, in_reply_to_id="2", kind="reply", conversation_id="1")
    to_first = tweet("4", in_reply_to_id="2", kind="reply", conversation_id="1")
    to_third = tweet("5", in_reply_to_id="3", kind="reply", conversation_id="1")
    lost = tweet("6", in_reply_to_id="77", kind="reply", conversation_id="1")
    found = threads(first, second, third, to_first, to_third, lost)
    assert [found.pictures_of(p) for p in (second, to_first, to_third, lost)] == ["1", "1", "3", "1"]
    assert len({found.thread(i) for i in "123456"}) == 1


def test_threads_form_without_conversation_ids():
    found = threads(
        tweet("1", media=PHOTO), tweet("2", in_reply_to_id="1"), tweet("3", in_reply_to_id="2"), tweet("4")
    )
    assert found.pictures_of(tweet("3", in_reply_to_id="2")) == "1"
    assert found.thread("3") == found.thread("1") != found.thread("4")


def test_a_thread_with_one_picture_and_a_missing_root_still_finds_it():
    picture = tweet("2", media=PHOTO, in_reply_to_id="1", conversation_id="1")
    reply = tweet("3", in_reply_to_id="9", conversation_id="1")
    assert threads(picture, reply).pictures_of(reply) == "2"


def test_a_whole_chain_without_pictures_speaks_of_none():
    root = tweet("1", conversation_id="1")
    beside = tweet("2", media=PHOTO, in_reply_to_id="1", conversation_id="1")
    reply = tweet("3", in_reply_to_id="1", conversation_id="1")
    found = threads(root, beside, reply)
    assert found.pictures_of(reply) is None, "the picture beside it answers the same post"
    assert found.pictures_of(root) is None, "a thread's first post answers nothing"


def test_a_conversation_id_alone_leads_to_the_first_post():
    assert (
        threads(tweet("1", media=PHOTO), tweet("2", conversation_id="1")).pictures_of(
            tweet("2", conversation_id="1")
        )
        == "1"
    )


def test_circles_of_replies_end():
    a, b = tweet("1", in_reply_to_id="2"), tweet("2", in_reply_to_id="1")
    own = tweet("3", in_reply_to_id="3", media=PHOTO)
    found = threads(a, b, own)
    assert found.pictures_of(a) is None
    assert found.pictures_of(own) is None


def test_long_chains_and_circles_are_walked_once():
    chain = [tweet("1", media=PHOTO)] + [tweet(str(n), in_reply_to_id=str(n - 1)) for n in range(2, 30_000)]
    circle = [tweet(f"c{n}", in_reply_to_id=f"c{(n + 1) % 30_000}") for n in range(30_000)]
    found = threads(*chain, *circle)
    assert {found.pictures_of(post) for post in chain[1:]} == {"1"}
    assert {found.pictures_of(post) for post in circle} == {None}


def test_a_circle_with_one_picture_speaks_of_it_and_the_picture_of_none():
    posts = [
        tweet("1", media=PHOTO, in_reply_to_id="3"),
        tweet("2", in_reply_to_id="1"),
        tweet("3", in_reply_to_id="2"),
    ]
    for order in (posts, posts[::-1]):
        found = threads(*posts)
        assert {p.id: found.pictures_of(p) for p in order} == {"1": None, "2": "1", "3": "1"}


def test_replies_to_an_older_version_follow_the_edit():
    old = tweet("1", media=PHOTO, conversation_id="1", edit_history=("1", "2"))
    new = tweet("2", media=PHOTO, conversation_id="1", edit_history=("1", "2"))
    reply = tweet("3", in_reply_to_id="1", conversation_id="1")
    posts, newest, repeats = last_edits([new, old, reply])
    assert newest == {"1": "2"}
    assert repeats == 0
    assert Threads(posts, newest).pictures_of(reply) == "2"


def test_a_repeated_post_keeps_one_record_whatever_the_order():
    versions = [
        tweet("1", text="referenced", is_referenced=True, like_count=99),
        tweet("1", text="first", like_count=1, source="a:1"),
        tweet("1", text="first", like_count=7, source="a:9"),
        tweet("1", text="unlisted", media=(Media("3_1", "unlisted"),), like_count=7),
    ]
    for order in (versions, versions[::-1]):
        posts, _, repeats = last_edits(order)
        assert repeats == 3
        assert posts["1"].text == "first" or posts["1"].text == "unlisted"
        assert posts["1"].like_count == 7
    assert last_edits(versions)[0] == last_edits(versions[::-1])[0]
