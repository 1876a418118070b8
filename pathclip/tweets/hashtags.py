"""The hashtags of pathology posts: OpenPath's 32, and what the common ones say in words."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["OPENPATH", "canonical", "in_words", "names_a_field"]

OPENPATH = (
    "Autopsy",
    "BloodBank",
    "blooducation",
    "BreastPath",
    "BSTpath",
    "CardiacPath",
    "ClinPath",
    "Cytopath",
    "dermpath",
    "EndoPath",
    "ENTPath",
    "EyePath",
    "FNApath",
    "ForensicPath",
    "GIPath",
    "GUPath",
    "Gynpath",
    "HemePath",
    "HPBpath",
    "IDpath",
    "MolDx",
    "nephpath",
    "NeuroPath",
    "OralPath",
    "pancpath",
    "PathGME",
    "pathInformatics",
    "patientbloodmanagement",
    "PediPath",
    "PulmPath",
    "RenalPath",
    "SurgPath",
)
"""Spelled as in the paper's figure; matched without regard to case. Source: Huang et al. 2023, fig. 1."""

_CANONICAL = {tag.lower(): tag for tag in OPENPATH}

# the tag in lower case: what it says in words; "" where it only calls a community
WORDS = {
    # subspecialties
    "autopsy": "autopsy",
    "bloodbank": "blood bank",
    "blooducation": "",
    "breastpath": "breast pathology",
    "bstpath": "bone and soft tissue pathology",
    "cardiacpath": "cardiac pathology",
    "cardiopath": "cardiac pathology",
    "clinpath": "clinical pathology",
    "cytopath": "cytopathology",
    "cytology": "cytology",
    "dermpath": "dermatopathology",
    "dermatopathology": "dermatopathology",
    "dermatology": "dermatology",
    "endopath": "endocrine pathology",
    "endocrinepath": "endocrine pathology",
    "entpath": "head and neck pathology",
    "hnpath": "head and neck pathology",
    "headandneckpath": "head and neck pathology",
    "eyepath": "ophthalmic pathology",
    "fnapath": "fine needle aspiration",
    "fna": "FNA",
    "forensicpath": "forensic pathology",
    "gipath": "gastrointestinal pathology",
    "gupath": "genitourinary pathology",
    "gynpath": "gynecologic pathology",
    "hemepath": "hematopathology",
    "hematopath": "hematopathology",
    "hpbpath": "hepatopancreatobiliary pathology",
    "liverpath": "liver pathology",
    "idpath": "infectious disease pathology",
    "infectiouspath": "infectious disease pathology",
    "moldx": "molecular diagnostics",
    "molpath": "molecular pathology",
    "nephpath": "nephropathology",
    "neuropath": "neuropathology",
    "oralpath": "oral pathology",
    "omfspath": "oral and maxillofacial pathology",
    "pancpath": "pancreatic pathology",
    "pathgme": "",
    "pathinformatics": "pathology informatics",
    "patientbloodmanagement": "patient blood management",
    "pedipath": "pediatric pathology",
    "pedpath": "pediatric pathology",
    "placentapath": "placental pathology",
    "perinatalpath": "perinatal pathology",
    "pulmpath": "pulmonary pathology",
    "thoracicpath": "thoracic pathology",
    "lungpath": "lung pathology",
    "renalpath": "renal pathology",
    "kidneypath": "kidney pathology",
    "surgpath": "surgical pathology",
    "softtissuepath": "soft tissue pathology",
    "bonepath": "bone pathology",
    "musclepath": "muscle pathology",
    "thyroidpath": "thyroid pathology",
    "urocyto": "urine cytology",
    "uropath": "urologic pathology",
    "prostatepath": "prostate pathology",
    "bladderpath": "bladder pathology",
    "ihcpath": "immunohistochemistry",
    "ihc": "IHC",
    "immunohistochemistry": "immunohistochemistry",
    "immunofluorescence": "immunofluorescence",
    "flowcytometry": "flow cytometry",
    "empath": "electron microscopy",
    "electronmicroscopy": "electron microscopy",
    "frozensection": "frozen section",
    "grosspath": "gross pathology",
    "grosspathology": "gross pathology",
    "vetpath": "veterinary pathology",
    "toxpath": "toxicologic pathology",
    "digitalpath": "digital pathology",
    "digitalpathology": "digital pathology",
    "compath": "computational pathology",
    "computationalpathology": "computational pathology",
    "histopath": "histopathology",
    "histopathology": "histopathology",
    "histology": "histology",
    "pathology": "pathology",
    "pathologist": "pathologist",
    "pathologists": "pathologists",
    "anatomicpathology": "anatomic pathology",
    # stains and abbreviations that keep their case
    "he": "H&E",
    "handestain": "H&E stain",
    "pas": "PAS",
    "afb": "AFB",
    "gms": "GMS",
    "congored": "Congo red",
    "bcc": "BCC",
    "scc": "SCC",
    "dcis": "DCIS",
    "lcis": "LCIS",
    "gist": "GIST",
    "dlbcl": "DLBCL",
    "cll": "CLL",
    "aml": "AML",
    "hpv": "HPV",
    "ibd": "IBD",
    "rcc": "RCC",
    "hcc": "HCC",
    "nsclc": "NSCLC",
    "pdac": "PDAC",
    "gbm": "GBM",
    "covid19": "COVID-19",
    "barrettsesophagus": "Barrett's esophagus",
    # organs and diagnoses often written as one word
    "softtissue": "soft tissue",
    "lymphnode": "lymph node",
    "bonemarrow": "bone marrow",
    "skincancer": "skin cancer",
    "breastcancer": "breast cancer",
    "lungcancer": "lung cancer",
    "coloncancer": "colon cancer",
    "colorectalcancer": "colorectal cancer",
    "prostatecancer": "prostate cancer",
    "ovariancancer": "ovarian cancer",
    "pancreaticcancer": "pancreatic cancer",
    "thyroidcancer": "thyroid cancer",
    "braintumor": "brain tumor",
    "softtissuetumor": "soft tissue tumor",
    "spitznevus": "Spitz nevus",
    "bluenevus": "blue nevus",
    "signetring": "signet ring",
    "granularcell": "granular cell",
    "celiacdisease": "celiac disease",
    "crohns": "Crohn's disease",
    "hpylori": "H. pylori",
    "helicobacter": "Helicobacter",
    # calls to a community
    "pathtwitter": "",
    "pathx": "",
    "patholog": "",
    "pathart": "",
    "pathbugs": "infectious disease pathology",
    "pathjc": "",
    "pathresidents": "",
    "pathmatch": "",
    "pathmatch2021": "",
    "pathmatch2022": "",
    "pathmatch2023": "",
    "pathlife": "",
    "pathology101": "",
    "pathpearls": "",
    "pathboards": "",
    "pathquiz": "",
    "pathvisuals": "",
    "pathed": "",
    "path2path": "",
    "ilovepathology": "",
    "lovepathology": "",
    "ihatepathology": "",
    "whypathology": "",
    "dermtwitter": "",
    "gitwitter": "",
    "medtwitter": "",
    "meded": "",
    "medstudenttwitter": "",
    "foamed": "",
    "foampath": "",
    "futurepath": "",
    "usmle": "",
    "uscap": "",
    "uscap2020": "",
    "uscap2021": "",
    "uscap2022": "",
    "uscap2023": "",
    "usctwitter": "",
    "womeninpathology": "",
    "caseoftheday": "case of the day",
    "cotd": "case of the day",
    "microscopy": "microscopy",
    "underthemicroscope": "",
    "science": "",
    "medicine": "",
    "oncology": "oncology",
    "cancer": "cancer",
    "hematology": "hematology",
}

_CASE_SPLIT = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2,})|_")
_PATH_SUFFIX = re.compile(r"(?i)(?<=[a-z]{2})path$")


def canonical(hashtags: Iterable[str]) -> str | None:
    """The first of OpenPath's hashtags, in its spelling; None where there is none."""
    return next((_CANONICAL[tag.lower()] for tag in hashtags if tag.lower() in _CANONICAL), None)


def names_a_field(hashtag: str) -> bool:
    """True for tags that call a community or name a branch of pathology, not what a picture shows."""
    said = in_words(hashtag)
    return not said or hashtag.lower() in _CANONICAL or said.endswith(("pathology", "pathologist"))


def in_words(hashtag: str) -> str:
    """What a hashtag within a sentence says: the table first, then a split by case.

    Example:
        >>> in_words("dermpath"), in_words("MucinousCarcinoma"), in_words("CD34"), in_words("pathtwitter")
        ('dermatopathology', 'Mucinous Carcinoma', 'CD34', '')
    """
    known = WORDS.get(hashtag.lower())
    if known is not None:
        return known
    if _PATH_SUFFIX.search(hashtag):
        return f"{_PATH_SUFFIX.sub('', hashtag)} pathology"
    return " ".join(part for part in _CASE_SPLIT.split(hashtag) if part)
