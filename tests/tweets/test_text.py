from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathclip.tweets import OPENPATH, canonical, clean
from pathclip.tweets.fields import as_bool, as_count, as_id, basename, utc
from pathclip.tweets.hashtags import WORDS, in_words
from pathclip.tweets.language import is_language_known, latin_share, num_letters, sounds_foreign

KEPT = [
    "CD20+",
    "ER-/PR-",
    "p40",
    "H&E",
    "40x",
    "1:100",
    ">50%",
    "<5 mitoses",
    "Ki-67 >20%",
    "t(11;22)",
    "HER2 3+",
    "↑↓→",
    "S100−",
    "β-catenin",
    "C3d",
    "PD-L1",
    "5-10 µm",
]


@pytest.mark.parametrize("token", KEPT)
def test_medical_tokens_stay_as_written(token):
    assert clean(f"Tumor with {token} here") == f"Tumor with {token} here"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Nice H&amp;E &gt;50% &lt;5", "Nice H&E >50% <5"),
        ("Key &lt;b&gt;feature&lt;/b&gt; and <i>more</i>", "Key feature and more"),
        ("Melanoma https://t.co/abc123", "Melanoma"),
        ("Melanoma https://t.co/abc123 of skin www.example.org/x", "Melanoma of skin"),
        ("@a @b_2 .@c Agree, melanoma", "Agree, melanoma"),
        ("Thanks @user_5 for sharing. Melanoma", "Thanks for sharing. Melanoma"),
        ("RT @user_5: Melanoma", "Melanoma"),
        ("Melanoma 🔬👩🏽‍⚕️🇹🇷 of skin", "Melanoma of skin"),
        ("CD20 ➕ ➡️ ⬆️ Ki67", "CD20 + → ↑ Ki67"),
        ("Melanoma\n\nof \u200b the\tskin", "Melanoma of the skin"),
        ("Melanoma of skin #dermpath #pathtwitter", "Melanoma of skin"),
        ("Melanoma of skin #dermpath\n#pathtwitter https://t.co/a", "Melanoma of skin"),
        ("#Melanoma of #skin in #dermpath today", "Melanoma of skin in dermatopathology today"),
        ("Case (@user) of melanoma ( )", "Case of melanoma"),
        ("Melanoma of skin cc @a @b", "Melanoma of skin"),
        ("It\u2019s \u201cbenign\u201d", 'It\'s "benign"'),
        ("schÃ¶n melanoma", "schön melanoma"),
        ("Cafe\u0301-au-lait macule", "Café-au-lait macule"),
        ("mail@example.org", "mail@example.org"),
        ("C#minor and 5#", "C#minor and 5#"),
        ("#dermpath #BCC", ""),
        ("Nice case of #melanoma #dermpath #pathtwitter", "Nice case of melanoma"),
        ("Our survey results are in #GIPath #melanoma", "Our survey results are in"),
        ("Tumor is ER-/PR-", "Tumor is ER-/PR-"),
        ("Melanoma of skin -", "Melanoma of skin"),
        ("CD34 - CD117 -", "CD34 - CD117 -"),
        ("H&amp;amp;E of the skin", "H&E of the skin"),
        ("Melanoma (https://t.co/abc) of skin", "Melanoma of skin"),
        ("Melanoma by @a and @b", "Melanoma"),
        ("Melanoma [@a, @b & @c] of skin", "Melanoma of skin"),
        ("h/t @a melanoma, photo credit: @b", "melanoma"),
        ("MT @a: Melanoma", "Melanoma"),
        ("Masson trichrome (MT), seen with @a.", "Masson trichrome (MT), seen."),
        ("Cyst of 5 cc, 10cc.", "Cyst of 5 cc, 10cc."),
        ("\u200dMelanoma", "Melanoma"),
        ("CD99➕ S100➖", "CD99+ S100-"),
        ("ＣＤ２０＋ ﬁbrosis", "CD20+ fibrosis"),
        ("- Melanoma:", "Melanoma"),
        ("H&E @40x, IHC @ 20X @user", "H&E @40x, IHC @ 20X"),
        ("Case #1: melanoma, lesion #2", "Case #1: melanoma, lesion #2"),
        ("Tumor of .5 cm at 1 : 100 .", "Tumor of .5 cm at 1 : 100."),
        ("", ""),
    ],
)
def test_the_platforms_additions_go(text, expected):
    assert clean(text) == expected


def test_hashtag_policies():
    text = "Classic #SpitzNevus of skin #dermpath #pathtwitter"
    assert clean(text) == "Classic Spitz nevus of skin"
    assert clean(text, hashtags="unwrap") == "Classic Spitz nevus of skin dermatopathology"
    assert clean(text, hashtags="strip") == "Classic of skin"


def test_a_cut_text_loses_its_last_word():
    assert clean("Melanoma of the sk…", is_truncated=True) == "Melanoma of the"
    assert clean("Melanoma of the sk… https://t.co/a", is_truncated=True) == "Melanoma of the"


@given(st.text(max_size=300))
def test_cleaning_any_text_neither_fails_nor_leaves_links_or_double_spaces(text):
    cleaned = clean(text)
    assert "https://t.co/" not in cleaned
    assert "  " not in cleaned
    assert cleaned == cleaned.strip()


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("dermpath", "dermatopathology"),
        ("DermPath", "dermatopathology"),
        ("GIPath", "gastrointestinal pathology"),
        ("surgpath", "surgical pathology"),
        ("IHCpath", "immunohistochemistry"),
        ("pathtwitter", ""),
        ("MucinousCarcinoma", "Mucinous Carcinoma"),
        ("CD34", "CD34"),
        ("soft_tissue", "soft tissue"),
        ("softtissue", "soft tissue"),
        ("Liverpath", "liver pathology"),
        ("Spleenpath", "Spleen pathology"),
        ("HER2", "HER2"),
        ("melanoma", "melanoma"),
    ],
)
def test_hashtags_in_words(tag, words):
    assert in_words(tag) == words


def test_the_table_holds_about_150_tags_and_all_of_openpath():
    assert len(OPENPATH) == 32
    assert len(WORDS) >= 140
    assert {tag.lower() for tag in OPENPATH} <= WORDS.keys()
    assert all(tag == tag.lower() for tag in WORDS)


def test_the_hashtag_a_pair_is_counted_under_is_openpaths_first_in_its_spelling():
    assert canonical(["pathtwitter", "gipath", "DERMPATH"]) == "GIPath"
    assert canonical(["DERMPATH"]) == "dermpath"
    assert canonical(["pathtwitter"]) is None


def test_letters_and_scripts_are_counted():
    assert num_letters("p40 は +") == 2
    assert latin_share("皮膚生検：基底細胞癌") == 0
    assert latin_share("TGF-β α2 µm") == 1
    assert latin_share("123") == 1
    assert latin_share("癌ab") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("Melanoma of the skin with ulceration", False),
        ("Adenocarcinoma, colon", False),
        ("Carcinoma in situ, lentigo maligna, verruca vulgaris", False),
        ("Melanoma de la piel con ulceración en una mujer de 50 años", True),
        ("Carcinoma der Haut mit Ulzeration bei einer Patientin", True),
        ("Un caso di melanoma della cute con questo aspetto", True),
        ("Melanom olgusu, deri biyopsisinde tipik bulgular", True),
        ("Mélanome de la peau chez une patiente dans les suites", True),
        ("Melanoma da pele com ulceração em uma paciente", True),
    ],
)
def test_function_words_tell_other_languages(text, foreign):
    assert sounds_foreign(text) is foreign


@pytest.mark.parametrize(
    "text",
    [
        "Kolon adenokarsinomu, müsinöz tip",
        "Böbrekte onkositom",
        "Over seröz karsinomu",
        "Carcinoma ductal invasivo da mama",
        "Lesión melanocítica atípica en espalda",
        "Carcinoma papillifero della tiroide",
        "Adénome pléomorphe de la parotide",
        "Schilddrüsenkarzinom, papillär",
        "Niercelcarcinoom",
        "Bazální karcinom kůže",
        "Rak piersi, przewodowy",
        "Kanker payudara invasif",
        "MELANOMA DE LA PIEL",
    ],
)
def test_short_titles_in_other_languages_are_known(text):
    assert sounds_foreign(text)


@pytest.mark.parametrize(
    "text",
    [
        "CLL, del(17p)",
        "IL-6 and IL 17 in psoriasis",
        "von Kossa stain",
        "Von Brunn nests, bladder",
        "External os of the cervix",
        "Para-aortic lymph node",
        "Hürthle cell neoplasm",
        "Ménétrier disease",
        "Café-au-lait macule",
        "Mycosis fungoides",
        "Linitis plastica",
        "Carcinoma ex pleomorphic adenoma",
        "Nevus of Ota",
        "Tinea versicolor",
        "TIL in melanoma",
        "Fall colors under the microscope",
        "Beau lines",
        "Eosinophilic rim",
        "Cute granuloma",
        "Gravida 2, para 1",
    ],
)
def test_names_markers_and_medical_latin_are_not_foreign(text):
    assert not sounds_foreign(text)


def test_greek_letters_are_latin_and_greek_words_are_not():
    assert latin_share("α-SMA and β2") == 1.0
    assert latin_share("Μελάνωμα δέρματος") == 0.0


def test_the_platforms_word_for_no_language_is_not_one():
    assert [is_language_known(code) for code in ("en", "tr", "und", "qme", "qht", "zxx", None)] == [
        True,
        True,
        False,
        False,
        False,
        False,
        False,
    ]


def test_fields_take_what_fits_and_nothing_else():
    assert [as_id(v) for v in ("1", 2, 3.0, 1.5e18, 2.5, True, None, [], " ")] == [
        "1",
        "2",
        "3",
        None,
        None,
        None,
        None,
        None,
        None,
    ]
    assert [as_count(v) for v in ("12", 3, 4.9, "x", None, "9" * 40, 1e300)] == [12, 3, 4, 0, 0, 0, 0]
    assert [as_bool(v) for v in (True, "true", "True", "false", 1, None)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2022-03-01T12:00:00.000Z", "2022-03-01T12:00:00.000Z"),
        ("2022-03-01T12:00:00+02:00", "2022-03-01T10:00:00.000Z"),
        ("Wed Dec 09 19:40:11 +0000 2015", "2015-12-09T19:40:11.000Z"),
        ("2022-03-01", "2022-03-01T00:00:00.000Z"),
        ("yesterday", None),
        (None, None),
        ("9999-12-31T23:59:59-23:00", None),
    ],
)
def test_times_are_read_in_both_spellings(time, expected):
    assert utc(time) == expected


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://pbs.twimg.com/media/FxY.jpg", "FxY.jpg"),
        ("https://pbs.twimg.com/media/FxY.jpg:large", "FxY.jpg"),
        ("https://pbs.twimg.com/media/FxY?format=png&name=orig", "FxY.png"),
        ("https://pbs.twimg.com/media/FxY", "FxY"),
        ("https://pbs.twimg.com/", None),
        ("http://[broken", None),
        (None, None),
    ],
)
def test_the_files_name_is_taken_from_the_url(url, name):
    assert basename(url) == name
