"""Posts to pairs: select, thread, caption, look at pictures, find duplicates, group and split."""

from pathclip.pairs.caption import (
    CaptionConfig,
    TextConfig,
    is_question,
    own_caption,
    part_captions,
    picture_captions,
    rank_continuations,
    rank_replies,
    reply_caption,
)
from pathclip.pairs.deduplicate import Components, DedupConfig
from pathclip.pairs.encode import PackConfig, passed_through, stored_jpeg, strip_metadata
from pathclip.pairs.fit import FittedFilter, fit_filter, read_labels
from pathclip.pairs.images import Header, damage, decode, read_header
from pathclip.pairs.pair import Box, Caption, CaptionSource, Drop, Pair, Split
from pathclip.pairs.panels import find_panels
from pathclip.pairs.phash import near_pairs, phash
from pathclip.pairs.phi import why_phi
from pathclip.pairs.positions import is_positional
from pathclip.pairs.scaled import LOOK_SIDE_PX, small_picture
from pathclip.pairs.score import FilterConfig, score, why_no_micrograph
from pathclip.pairs.select import LanguageConfig, SelectConfig, select
from pathclip.pairs.split import SPLITS, SplitConfig, assign_splits, keyed_id
from pathclip.pairs.terms import has_pathology_term
from pathclip.pairs.threads import Threads, last_edits

__all__ = [
    "LOOK_SIDE_PX",
    "SPLITS",
    "Box",
    "Caption",
    "CaptionConfig",
    "CaptionSource",
    "Components",
    "DedupConfig",
    "Drop",
    "FilterConfig",
    "FittedFilter",
    "Header",
    "LanguageConfig",
    "PackConfig",
    "Pair",
    "SelectConfig",
    "Split",
    "SplitConfig",
    "TextConfig",
    "Threads",
    "assign_splits",
    "damage",
    "decode",
    "find_panels",
    "fit_filter",
    "has_pathology_term",
    "is_positional",
    "is_question",
    "keyed_id",
    "last_edits",
    "near_pairs",
    "own_caption",
    "part_captions",
    "passed_through",
    "phash",
    "picture_captions",
    "rank_continuations",
    "rank_replies",
    "read_header",
    "read_labels",
    "reply_caption",
    "score",
    "select",
    "small_picture",
    "stored_jpeg",
    "strip_metadata",
    "why_no_micrograph",
    "why_phi",
]
