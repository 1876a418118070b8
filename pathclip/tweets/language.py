"""Is a text English? The platform's word, checked by script; without its word, script and function words."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from types import ModuleType

from pathclip.core import extras
from pathclip.core.errors import UserError

__all__ = [
    "UNKNOWN",
    "guess",
    "is_language_known",
    "latin_share",
    "load_guesser",
    "num_letters",
    "sounds_foreign",
]

UNKNOWN = frozenset({"und", "qme", "qht", "qam", "qct", "qst", "qud", "zxx", "art", ""})
"""The platform's codes for "no language": undetermined, only media, hashtags, mentions, links, too short."""

MARKER = re.compile(r"\w*\d\w*|\b[A-Z]{2,}\b|\w+[+−]")
WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
NAMES = re.compile(r"\b[Vv]on (?=[A-Z])|\bdel\s*\(|\bvan der (?=[A-Z])")  # von Kossa, del(17p)
GREEK_WORD = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]{3,}")
_ENGLISH_WORDS = """
the of and with in for from this that is are was were be been has have not no by on at as an it or to
showing shows case cells cell which than these those can may my our we you his her skin breast lung liver
kidney bone marrow brain thyroid bladder stomach node gland year old woman man female male stain staining
high low power view nice great classic beautiful example mass type
"""
_FOREIGN_WORDS = """
el los las del una unos unas con por que como pero este esta estos estas muy más también según caso paciente
años mujer hombre lesión tejido hallazgos biopsia piel nevo células celular hígado riñón pulmón ganglio
moderadamente diferenciado pobremente infiltrante gástrica hermoso tumoral uma com não são pela pelo dos das
mais também quando lesão tecido biópsia pele fígado pulmão invasivo lindo il lo gli della delle degli nella
questo questa anni donna uomo cutanea cutaneo tiroide polmone fegato mammella bellissimo le les des une avec
dans pour sur qui est sont cette chez cas peau sein foie poumon biopsie cutané cutanée carcinome carcinomes
adénome mélanome lymphome canalaire der und ist mit ein eine einer eines nicht bei auf zur zum auch jähriger
jährige von haut lunge niere leber magen darm lymphom melanom karzinom schöner het een voor niet zijn bij
huid borst casus och som ikke inte för är huden hud ve bir bu ile için olan olgu olgusu olguda tanı nedir
hasta hastası kadın erkek vaka deri mide pozitif negatif kronik aktif gastrit güzel yaş yaşında linfoma
quiste ovario seroso tumeur cellule granulomes carcinom bazocelular basocelular adenom jest nie się oraz
przypadek skóry skóra czerniak rak guz yang pada untuk kasus kulit payudara
"""
_STEMS = """
adenokar basalzell biyopsi tümör hücre böbre akciğer karaciğer müsinöz huidb carcinoom melanoom
lymfoom schilddrüse pleomórf pléomorph
"""
FOREIGN_ENDINGS = ("ción", "ciones", "ção", "ções", "zione", "zioni", "ität", "keit")
# no English word has these, and none but names and a few loans (naïve, café) have others with a mark
STRANGE = re.compile(r"[ışŞğĞİčČžŽřŘůěőűłŁąężŻśŚćĆńășȘțȚ]|[Kk]ar[cszk]inom|[Cc]arcinoom|sinooma")
MARKED = re.compile(r"(?![A-ZÀ-Þ])\w*[áíóúàèìòùâêîôûãõñ]\w*")
FOREIGN_STEMS = tuple(_STEMS.split())
ENGLISH = frozenset(_ENGLISH_WORDS.split())
FOREIGN = frozenset(_FOREIGN_WORDS.split())  # neither English nor medical Latin


def is_language_known(lang: str | None) -> bool:
    """True where the platform's code names a language."""
    return lang is not None and lang.lower() not in UNKNOWN


def num_letters(text: str) -> int:
    """Letters of any script."""
    return sum(map(str.isalpha, text))


def latin_share(text: str) -> float:
    """Share of Latin letters among the letters, 0 to 1; 1 where there are none.

    Single Greek letters count (α-SMA, β2), Greek words do not.
    """
    letters = [] if text.isascii() else [c for c in text if c.isalpha()]
    if not letters:
        return 1.0
    greek = sum(map(num_letters, GREEK_WORD.findall(text)))
    return (sum(_is_latin(c) for c in letters) - greek) / len(letters)


def sounds_foreign(text: str) -> bool:
    """True where words of another language written in Latin script outnumber the English ones.

    No trained table: a vote of short lists of words, stems and endings, for posts whose language the platform
    does not tell. Markers and abbreviations (IL-6, TIL) do not vote, nor do names (von Kossa) and del(17p).
    """
    text = NAMES.sub(" ", text)
    text = text if text.isupper() else MARKER.sub(" ", text)
    words = WORD.findall(text)
    foreign = sum(map(_is_foreign, words))
    return foreign > sum(word.lower() in ENGLISH for word in words)


def _is_foreign(word: str) -> bool:
    low = word.lower()
    return (
        low in FOREIGN
        or low.startswith(FOREIGN_STEMS)
        or low.endswith(FOREIGN_ENDINGS)
        or STRANGE.search(word) is not None
        or MARKED.fullmatch(word) is not None
    )


# without a closed list, Latin names of diseases are taken for Latin, Romanian or Esperanto
CANDIDATES = ("ar", "de", "en", "es", "fr", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "zh")


MARGIN = 15.0
"""Nats. Of 26 texts 7 English diagnoses came up to 8 below another language, 10 foreign texts 25 and more."""


def guess(text: str, wanted: tuple[str, ...]) -> str | None:
    """The language of a text by py3langid, among the wanted ones and those common on the platform.

    A wanted one is preferred unless another is likelier by `MARGIN` in log probability: diseases have Latin
    names. Markers and abbreviations ("CD20+", "HER2", "BCC") are left out; None where no word remains.
    """
    words = " ".join(word for word in WORD.findall(MARKER.sub(" ", text)) if len(word) > 1)
    if not words:
        return None
    scores = dict(load_guesser(wanted).rank(words))
    likeliest, best = max(scores, key=scores.__getitem__), max(wanted, key=scores.__getitem__)
    return best if scores[best] >= scores[likeliest] - MARGIN else likeliest


@lru_cache(maxsize=1)
def load_guesser(wanted: tuple[str, ...]) -> ModuleType:
    """The package with its tables loaded, held to a closed list of languages.

    Raises:
        UserError: If it is not installed, or does not know a wanted language.
    """
    package = extras.require("py3langid", extra="language", why='language.detector = "py3langid"')
    try:
        package.set_languages(sorted({*CANDIDATES, *wanted}))
    except ValueError as error:
        raise UserError(f"language.languages = {', '.join(wanted)}: {error}") from None
    return package


def _is_latin(character: str) -> bool:
    if character.isascii():
        return True
    name = unicodedata.name(character, "")
    return name.startswith(("LATIN", "GREEK", "MICRO", "FEMININE", "MASCULINE"))
