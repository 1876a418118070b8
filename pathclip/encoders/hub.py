"""Names on the Hugging Face hub -> a local folder: the cache first, the network only if need be."""

from __future__ import annotations

from pathlib import Path

from pathclip.core.errors import UserError
from pathclip.encoders.weights import WEIGHTS_ORDER

__all__ = ["hub_folder", "looks_like_hub_name"]

CONFIG_FILES = ("open_clip_config.json", "config.json")
EXTRA_FILES = ("pathclip.json", "preprocessor_config.json")


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
    if config is None or weights is None or config.parent != weights.parent:  # never mix two revisions
        config, weights = _fetched(name, CONFIG_FILES), _fetched(name, WEIGHTS_ORDER)
    for extra in EXTRA_FILES:
        if _cached(name, (extra,)) is None and not _offline():
            _fetch(name, extra)
    return config.parent


def _cached(name: str, files: tuple[str, ...]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file in files:
        found = try_to_load_from_cache(name, file)
        if isinstance(found, str):
            return Path(found)
    return None


def _fetched(name: str, files: tuple[str, ...]) -> Path:
    reason = "offline mode is on (HF_HUB_OFFLINE)"
    if not _offline():
        for file in files:
            found, reason = _fetch(name, file)
            if found is not None:
                return found
    from huggingface_hub import constants

    raise UserError(
        f"{name} is not in the cache ({constants.HF_HUB_CACHE}) and could not be fetched: {reason}; run "
        f"`hf download {name}` where there is a network, or copy its files into a folder and give its path"
    )


def _fetch(name: str, file: str) -> tuple[Path | None, str]:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file)), ""
    except Exception as error:  # the hub's client raises its own, requests', httpx' and OS errors
        return None, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
