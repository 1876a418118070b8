"""Every way a candidate can end without becoming a pair, and the stage at which it does. A closed list."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["MEANING", "STAGES", "Code", "stage_of"]


class Code(StrEnum):
    """Why a candidate is rejected. ``used_as_caption`` is the one that is no loss."""

    # read: lines that yield no post
    PARSE_ERROR = "parse_error"
    LINE_TOO_LONG = "line_too_long"
    UNKNOWN_SHAPE = "unknown_shape"
    ERROR_PAGE = "error_page"
    COMPLIANCE_EVENT = "compliance_event"
    NOT_HYDRATED = "not_hydrated"
    FLOAT_ID = "float_id"
    DELETED_POST = "deleted_post"
    BAD_ROW = "bad_row"
    LINE_POISON = "line_poison"
    # select: posts that may not be used
    TAKEN_DOWN = "taken_down"
    NOT_LISTED = "not_listed"
    SUPERSEDED_EDIT = "superseded_edit"
    RETWEET = "retweet"
    WITHHELD = "withheld"
    SENSITIVE = "sensitive"
    BOT = "bot"
    LANGUAGE = "language"
    # caption: what the words are good for
    NO_MEDIA = "no_media"
    USED_AS_CAPTION = "used_as_caption"
    QUESTION = "question"
    NO_CAPTION = "no_caption"
    SEVERAL_PICTURES = "several_pictures"
    # image: what the file is good for
    VIDEO = "video"
    MEDIA_UNLISTED = "media_unlisted"
    IMAGE_MISSING = "image_missing"
    DOWNLOAD_GONE = "download_gone"
    DOWNLOAD_BLOCKED = "download_blocked"
    DOWNLOAD_REFUSED = "download_refused"
    DOWNLOAD_SLOW = "download_slow"
    DOWNLOAD_FAILED = "download_failed"
    IMAGE_OUTSIDE = "image_outside"
    IMAGE_UNREADABLE = "image_unreadable"
    NOT_AN_IMAGE = "not_an_image"
    IMAGE_TRUNCATED = "image_truncated"
    IMAGE_OVERSIZED = "image_oversized"
    IMAGE_ANIMATED = "image_animated"
    IMAGE_POISON = "image_poison"
    IMAGE_TINY = "image_tiny"
    IMAGE_ASPECT = "image_aspect"
    NOT_MICROGRAPH = "not_micrograph"
    FILTER_MODEL = "filter_model"
    FILTER_SCORER = "filter_scorer"
    PHI_SUSPECT = "phi_suspect"
    # dedup and split
    DUPLICATE_EXACT = "duplicate_exact"
    DUPLICATE_NEAR = "duplicate_near"
    GROUP_IN_TEST = "group_in_test"
    GROUP_IN_VAL = "group_in_val"


STAGES = {
    "read": (
        "parse_error",
        "line_too_long",
        "unknown_shape",
        "error_page",
        "compliance_event",
        "not_hydrated",
        "float_id",
        "deleted_post",
        "bad_row",
        "line_poison",
    ),
    "select": (
        "taken_down",
        "not_listed",
        "superseded_edit",
        "retweet",
        "withheld",
        "sensitive",
        "bot",
        "language",
    ),
    "caption": ("no_media", "used_as_caption", "question", "no_caption", "several_pictures"),
    "image": (
        "video",
        "media_unlisted",
        "image_missing",
        "download_gone",
        "download_blocked",
        "download_refused",
        "download_slow",
        "download_failed",
        "image_outside",
        "image_unreadable",
        "not_an_image",
        "image_truncated",
        "image_oversized",
        "image_animated",
        "image_poison",
        "image_tiny",
        "image_aspect",
        "not_micrograph",
        "filter_model",
        "filter_scorer",
        "phi_suspect",
    ),
    "dedup": ("duplicate_exact", "duplicate_near"),
    "split": ("group_in_test", "group_in_val"),
}
"""Stage to its codes, in the order candidates pass them."""

MEANING = {
    Code.PARSE_ERROR: "the line is not UTF-8 or not JSON, or the rest of the file is damaged",
    Code.LINE_TOO_LONG: "too long to be a post or a page of posts; passed over without holding it",
    Code.UNKNOWN_SHAPE: "JSON of no shape that holds a post",
    Code.ERROR_PAGE: "a response page that holds errors and no posts",
    Code.COMPLIANCE_EVENT: "a notice that something was deleted, withheld or protected, not a post",
    Code.NOT_HYDRATED: "an id without its post",
    Code.FLOAT_ID: "an id was stored as a number with a point and lost its last digits; store ids as text",
    Code.DELETED_POST: "deleted by its author; archives keep such posts for a while",
    Code.BAD_ROW: "a table row without picture or caption, or with an unknown split",
    Code.LINE_POISON: "the process that read the line died, twice (crash or out of memory)",
    Code.TAKEN_DOWN: "taken down before (`pathclip data takedown`), or a copy of a picture that was",
    Code.NOT_LISTED: "not in the list of ids that was given",
    Code.SUPERSEDED_EDIT: "an older version of a post that was edited; the last one is used",
    Code.RETWEET: "repeats another post",
    Code.WITHHELD: "withheld in some country",
    Code.SENSITIVE: "flagged by the platform",
    Code.BOT: "the account's name ends in bot",
    Code.LANGUAGE: "not in a wanted language",
    Code.NO_MEDIA: "a post without a picture whose text captions none",
    Code.USED_AS_CAPTION: "a reply, or a further row, whose text captions a kept picture",
    Code.QUESTION: "the post asks, and no reply answers",
    Code.NO_CAPTION: "no text left to caption the picture",
    Code.SEVERAL_PICTURES: "one of several pictures of its post, and caption.multi takes no such",
    Code.VIDEO: "a video or animated GIF attachment",
    Code.MEDIA_UNLISTED: "the payload does not describe the attachment, and no file bears its key",
    Code.IMAGE_MISSING: "no such file in the media folder",
    Code.DOWNLOAD_GONE: "the platform no longer has the picture",
    Code.DOWNLOAD_BLOCKED: "its address may not be asked (scheme, host, port, network, redirects)",
    Code.DOWNLOAD_REFUSED: "the server refused the request",
    Code.DOWNLOAD_SLOW: "not whole within download.max_s; --retry-failed asks again",
    Code.DOWNLOAD_FAILED: "the download failed for now; --retry-failed asks again",
    Code.IMAGE_OUTSIDE: "the path or a link leads out of the media folder",
    Code.IMAGE_UNREADABLE: "the file cannot be opened",
    Code.NOT_AN_IMAGE: "the file is no picture",
    Code.IMAGE_TRUNCATED: "the picture is cut or damaged",
    Code.IMAGE_OVERSIZED: "too many pixels or bytes; refused before decoding",
    Code.IMAGE_ANIMATED: "several frames or pages",
    Code.IMAGE_POISON: "the process that looked at the picture died, twice (crash or out of memory)",
    Code.IMAGE_TINY: "short side below image.min_side_px",
    Code.IMAGE_ASPECT: "longer than image.max_aspect times its short side",
    Code.NOT_MICROGRAPH: "surely a chart, a page of text or a blank (filter.pictures)",
    Code.FILTER_MODEL: "below the threshold of your own filter (filter.model)",
    Code.FILTER_SCORER: "the checkpoint takes it for no micrograph (filter.scorer_min)",
    Code.PHI_SUSPECT: "may name a patient: burnt-in letters, a label or a code; look, then privacy.cleared",
    Code.DUPLICATE_EXACT: "the same bytes as a kept picture, which has its captions too",
    Code.DUPLICATE_NEAR: "near-identical to a kept picture",
    Code.GROUP_IN_TEST: "its group also has test members (given splits win)",
    Code.GROUP_IN_VAL: "its group also has val members (given splits win)",
}

_STAGE_OF = {code: stage for stage, codes in STAGES.items() for code in codes}


def stage_of(code: str) -> str:
    """The stage of a code.

    Raises:
        KeyError: If the code is not in the list: a bug, codes are never made up on the way.
    """
    return _STAGE_OF[code]
