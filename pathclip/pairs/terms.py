"""Does a text speak of pathology? Word stems and a vocabulary of the microscope, no trained table."""

from __future__ import annotations

import re

__all__ = ["has_pathology_term"]

# endings by which medicine names tumours, inflammations, states and procedures
_ENDINGS = (
    "oma|omas|omata|omatous|omatosis|itis|itides|itic|osis|oses|otic|plasia|plasias|plastic|plasm|plasms|trophy|trophic|"
    "pathy|pathic|emia|aemia|emic|cyte|cytes|cytic|cytosis|cytoma|blast|blasts|blastic|blastoma|sarcoma|carcinoma|"
    "carcinomas|megaly|sclerosis|sclerotic|stenosis|ectasia|ectasis|rrhage|rrhagic|necrosis|necrotic|fibrosis|fibrotic|"
    "lysis|lytic|philia|philic|penia|penic|genesis|ectomy|scopy|scopic|opsy|opsies|histo\\w+|cyto\\w+|immuno\\w+|"
    "adeno\\w+|neuro\\w+|lympho\\w+|angio\\w+|lipo\\w+|fibro\\w+|myxo\\w+|chondro\\w+|osteo\\w+|hepat\\w+|nephr\\w+|"
    "pyelo\\w+|granulo\\w+|melan\\w+|kerat\\w+|squam\\w+|papill\\w+"
)
_SUFFIX = re.compile(rf"(?i)\b\w*(?:{_ENDINGS})\b")
_STARTS = re.compile(
    r"(?i)\b(?:adeno|carcino|neuro|lympho|angio|lipo|fibro|myxo|chondro|osteo|hepat|nephr|pyelo|granul|melan|kerat|squam|"
    r"papill|histo|cyto|immuno|dermat|gastr|entero|colon|cholecyst|pancreat|thyroid|parathyroid|adrenal|pituitar|prostat|"
    r"endometri|myometri|cervic|placent|chorio|glomerul|tubul|mesangi|eosinophil|basophil|neutrophil|plasmacyt|mitos|mitot|"
    r"nucle|cytoplasm|chromatin|pleomorph|atyp|dysplas|metaplas|hyperplas|neoplas|metast|malign|benign|invas|infiltrat|"
    r"inflamm|necro|fibros|hyalin|amyloid|mucin|mucos|stroma|epitheli|mesenchym|endotheli|spindle|gland|villous|villi|crypt|"
    r"acin|duct|lobul|follic|cyst|tumou?r|lesion|nodul|polyp|ulcer|abscess|edema|oedema|hemorrh|haemorrh|thromb|infarct|"
    r"vascul|perineural|desmoplas|reactive|regenerat|degenerat|calcif|psammoma|pigment|hemosiderin|anthracot)\w*"
)
_WORDS = re.compile(
    r"(?i)\b(?:biops(?:y|ies)|specimen|resection|excision|stain(?:s|ed|ing)?|h\s?&\s?e|ihc|fish|pas|gms|afb|trichrome|"
    r"ki-?67|cd\d+\w*|p\d{2}|s-?100|sox-?10|ck\d+|cytokeratin|desmin|vimentin|ttf-?1|gata-?3|pax-?8|her-?2|er|pr|"
    r"cells?|cellular|tissue|skin|kidney|renal|liver|lung|brain|breast|bone|marrow|spleen|stomach|esophagus|appendix|"
    r"gallbladder|bladder|ovar(?:y|ian)|uter(?:us|ine)|testis|testicular|nerve|muscle|cartilage|node|nodal|"
    r"cancer|sarcoma|lymphoma|leuk\w+|nevus|naevus|hamartoma|granuloma|diagnosis|diagnostic|ddx|dx|differential|"
    r"grade|stage|who|margin|margins|pattern|patterns|morpholog\w+|architectur\w+|microscop\w+|patholog\w+|"
    r"fungal|fungus|bacteria\w*|viral|virus|parasit\w+|worm|larva\w*|hyphae|spores|mutation|fusion|rearrange\w+|"
    r"signet|ring|foam\w*|giant|clear|oncocyt\w+|rhabdoid|plasmacytoid|epithelioid|storiform|palisad\w+|rosettes?|"
    r"eosin\w*|hematoxylin|haematoxylin|artifact|artefact|decidua\w*|keloid|scar|morphea|wart|mole|"
    r"disease|syndrome|infection|crohn'?s?|barrett'?s?|hodgkin'?s?|paget'?s?|whipple'?s?)\b"
)


def has_pathology_term(text: str) -> bool:
    """True if any word of the text belongs to the language of pathology.

    Example:
        >>> has_pathology_term("Agree, acute appendicitis"), has_pathology_term("Congrats!! Great picture")
        (True, False)
    """
    return bool(_SUFFIX.search(text) or _STARTS.search(text) or _WORDS.search(text))
