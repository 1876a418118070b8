"""Names on the Hugging Face hub -> a local folder: the cache first, the network only if need be."""

from __future__ import annotations

from pathlib import Path

from pathclip.core.errors import UserError
from pathclip.encoders.formats import LAYOUTS
from pathclip.encoders.known import KNOWN_MODELS
from pathclip.encoders.text_files import TEXT_FILES
from pathclip.encoders.weights import WEIGHTS_ORDER

__all__ = ["hub_folder", "looks_like_hub_name"]

CONFIG_FILES = ("open_clip_config.json", "config.json")
EXTRA_FILES = (
    "pathclip.json",
    "preprocessor_config.json",
    *TEXT_FILES,
    *(name for layout in LAYOUTS.values() for name in layout.text_files if name not in TEXT_FILES),
)
# models whose weights say all
NO_CONFIG = {
    known.name.lower()
    for known in KNOWN_MODELS
    for layout in LAYOUTS.values()
    if layout.name == known.format and layout.config is None
}
TIMEOUT_S = 10.0
PLAIN_REASONS = {
    "OfflineModeIsEnabled": "offline mode is on (HF_HUB_OFFLINE)",
    "RepositoryNotFoundError": "the hub has no such model, or it is private",
    "GatedRepoError": "its owner must grant access: accept the terms on its page, then `hf auth login`",
}


def looks_like_hub_name(name: str) -> bool:
    """``owner/model``: one slash, nothing that only paths have."""
    owner, slash, model = name.partition("/")
    plain = all(part and not part.startswith((".", "~")) and "\\" not in part for part in (owner, model))
    return (
        bool(slash)
        and plain
        and "/" not in model
        and not name.endswith((".pt", ".bin", ".safetensors", ".json"))
    )


def hub_folder(name: str) -> Path:
    """The folder in huggingface_hub's cache that holds a model's config and weights.

    Files already in the cache are used without touching the network.

    Raises:
        UserError: If they are not cached and cannot be fetched; the line says how to get them.
    """
    config, weights = _cached(name, CONFIG_FILES), _cached(name, WEIGHTS_ORDER)
    whole = name.lower() in NO_CONFIG if config is None else weights and config.parent == weights.parent
    if weights is not None and whole:
        return weights.parent
    try:
        return _fetch(name)
    except UserError:
        raise
    except Exception as error:  # the hub's client raises its own, httpx' and the system's errors
        reason = PLAIN_REASONS.get(type(error).__name__)
        reason = reason or f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise UserError(_how_to_get(name, reason)) from None


def _cached(name: str, files: tuple[str, ...]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file in files:
        found = try_to_load_from_cache(name, file)
        if isinstance(found, str):
            return Path(found)
    return None


def _fetch(name: str) -> Path:
    """Fetch one config, one weights file and what belongs to them, all of one revision."""
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi().model_info(
        name, timeout=TIMEOUT_S
    )  # asked first: it fails at once, downloads retry for minutes
    present = {sibling.rfilename for sibling in info.siblings or ()}
    config = next((file for file in CONFIG_FILES if file in present), None)
    weights = next((file for file in WEIGHTS_ORDER if file in present), None)
    if weights is None or (config is None and name.lower() not in NO_CONFIG):
        lacking = WEIGHTS_ORDER if weights is None else CONFIG_FILES
        raise UserError(
            f"{name} on the hub is in no format that pathclip reads: it has none of {', '.join(lacking)}"
        )
    files = [*(extra for extra in EXTRA_FILES if extra in present), weights, *([config] if config else [])]
    return [Path(hf_hub_download(name, file, revision=info.sha)).parent for file in files][-1]


def _how_to_get(name: str, reason: str) -> str:
    from huggingface_hub import constants

    return (
        f"{name} is not in the cache ({constants.HF_HUB_CACHE}) and could not be fetched: {reason}; run "
        f"`hf download {name}` where there is a network, or copy its files into a folder and give its path"
    )
