"""The one adapter to open_clip: what a model is made of, and the module built from it."""

from __future__ import annotations

import copy
import dataclasses
import difflib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pathclip.core import extras
from pathclip.core.errors import UserError
from pathclip.core.files import read_json
from pathclip.encoders.coca import DECODER_KEYS, build_coca, check_coca
from pathclip.encoders.formats import LAYOUTS
from pathclip.encoders.formats.bert import bert_folder

__all__ = [
    "Architecture",
    "build_clip",
    "evaluation_transform",
    "find_architecture",
    "shipped_configs",
    "whole_preprocess",
]

CONFIGS = Path(__file__).parent / "configs"
MODEL_KEYS = frozenset(
    (
        "embed_dim",
        "vision_cfg",
        "text_cfg",
        "multimodal_cfg",
        "quick_gelu",
        "custom_text",
        "init_logit_scale",
        "init_logit_bias",
        "nonscalar_logit_scale",
    )
)
VISION_KEYS = frozenset(field.name for field in dataclasses.fields(CLIPVisionCfg))
TEXT_KEYS = frozenset(field.name for field in dataclasses.fields(CLIPTextCfg))
PREPROCESS_KEYS = frozenset(field.name for field in dataclasses.fields(PreprocessCfg))
DRAWS = frozenset((Tensor.normal_, Tensor.uniform_, Tensor.erfinv_))
OLD_TEXT_KEYS = {"pooler_type": "hf_pooler_type", "proj": "hf_proj_type"}


@dataclass(frozen=True, slots=True)
class Architecture:
    """All that is needed to build a model, in open_clip's words.

    Attributes:
        name: What it is called: an open_clip model name, a shipped config, a file's stem.
        model_cfg: open_clip's ``model_cfg``; in another layout, the sizes that its weights tell.
        preprocess_cfg: open_clip's ``preprocess_cfg`` (mean, std, interpolation, resize_mode, ...).
        folder: Where the files of its text tower lie (tokenizer, sizes of a BERT), if it has any.
        layout: ``"open_clip"``, or a name in `pathclip.encoders.formats.LAYOUTS`.
    """

    name: str
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    folder: Path | None = None
    layout: str = "open_clip"

    def overridden(self, **overrides: Any) -> Architecture:
        """A copy with some values changed.

        Args:
            overrides: Keys of ``model_cfg``; ``vision_cfg``, ``text_cfg``, ``multimodal_cfg`` and
                ``preprocess_cfg`` take dicts, which are merged. ``image_size`` and ``context_length`` may be
                given directly.

        Raises:
            UserError: If a key does not exist, or the model is in another layout.
        """
        if self.layout != "open_clip":
            raise UserError(f"{self.name} is built as its weights say; it takes no {', '.join(overrides)}")
        model_cfg, preprocess_cfg = copy.deepcopy(self.model_cfg), dict(self.preprocess_cfg)
        if "image_size" in overrides:
            model_cfg["vision_cfg"]["image_size"] = overrides.pop("image_size")
        if "context_length" in overrides:
            for part in ("text_cfg", "multimodal_cfg") if "multimodal_cfg" in model_cfg else ("text_cfg",):
                model_cfg[part]["context_length"] = overrides["context_length"]
            del overrides["context_length"]
        preprocess_cfg.update(overrides.pop("preprocess_cfg", {}))
        for key, value in overrides.items():
            if isinstance(value, dict) and isinstance(model_cfg.get(key), dict):
                model_cfg[key].update(value)
            else:
                model_cfg[key] = value
        return checked(
            self.name, {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}, folder=self.folder
        )


def shipped_configs() -> tuple[str, ...]:
    """Names of the small configs that come with pathclip."""
    return tuple(sorted(path.stem for path in CONFIGS.glob("*.json")))


def find_architecture(name: str | Path) -> Architecture:
    """Look up a shipped config, an open_clip model name, or read a JSON config file.

    Raises:
        UserError: If nothing of that name is known, or the file is no model config.
    """
    path = Path(name)
    if path.suffix == ".json" or path.is_file():
        return checked(path.stem, read_json(path), place=str(path), folder=path.parent)
    if str(name) in shipped_configs():
        return checked(str(name), read_json(CONFIGS / f"{name}.json"))
    config = open_clip.get_model_config(str(name).replace("/", "-"))
    if config is None:
        raise UserError(_unknown(str(name)))
    return checked(str(name).replace("/", "-"), {"model_cfg": config})


def checked(name: str, config: Any, *, place: str | None = None, folder: Path | None = None) -> Architecture:
    """Turn the content of a config file into an `Architecture`.

    Args:
        name: Name of the result.
        config: ``{"model_cfg": ..., "preprocess_cfg": ...}`` or a bare ``model_cfg``.
        place: Where the config came from, for the message.
        folder: The model's folder, for a text tower that has files of its own.

    Raises:
        UserError: If a part is missing or a key is unknown.
    """
    place = place or f"model config {name}"
    model_cfg = config.get("model_cfg", config) if isinstance(config, dict) else None
    if not isinstance(model_cfg, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= model_cfg.keys():
        raise UserError(f"{place} is no open_clip model config: expected embed_dim, vision_cfg and text_cfg")
    model_cfg = copy.deepcopy(model_cfg)
    _refuse_unknown(model_cfg, MODEL_KEYS, place, "")
    _refuse_unknown(model_cfg["vision_cfg"], VISION_KEYS, place, "vision_cfg.")
    model_cfg["text_cfg"] = {OLD_TEXT_KEYS.get(k, k): v for k, v in model_cfg["text_cfg"].items()}
    _refuse_unknown(model_cfg["text_cfg"], TEXT_KEYS, place, "text_cfg.")
    preprocess = config.get("preprocess_cfg") or {}
    _refuse_unknown(preprocess, PREPROCESS_KEYS | {"size"}, place, "preprocess_cfg.")
    if "multimodal_cfg" in model_cfg:
        _refuse_unknown(model_cfg["multimodal_cfg"], DECODER_KEYS, place, "multimodal_cfg.")
        check_coca(model_cfg, place)
        model_cfg["custom_text"] = True  # open_clip builds a CoCa only where this is said too
    if "timm_model_name" in model_cfg["vision_cfg"]:
        model_cfg["vision_cfg"]["timm_model_pretrained"] = False  # never fetch weights behind the user's back
    return Architecture(name, model_cfg, whole_preprocess(preprocess), folder)


def whole_preprocess(stated: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's ``preprocess_cfg`` with its defaults filled in; the size is the model's."""
    merged = merge_preprocess_dict(PreprocessCfg(), {k: v for k, v in stated.items() if k != "size"})
    merged["mean"], merged["std"] = tuple(merged["mean"]), tuple(merged["std"])
    return {k: v for k, v in merged.items() if k not in ("size", "mode")}


def build_clip(architecture: Architecture, *, seed: int = 0, draw: bool = True) -> nn.Module:
    """Build the module on the CPU, its weights drawn from ``seed``; torch's random state is left as it was.

    Args:
        architecture: What to build.
        seed: Equal seeds give equal weights.
        draw: False leaves the weights as the memory holds them, for a caller who replaces them all.

    Raises:
        UserError: If open_clip cannot build it.
    """
    with torch.random.fork_rng(devices=[]), nullcontext() if draw else _Undrawn():
        torch.default_generator.manual_seed(seed)
        try:
            if architecture.layout != "open_clip":
                return LAYOUTS[architecture.layout].build(architecture.model_cfg)
            return _build_open_clip(architecture)
        except UserError:
            raise
        except (TypeError, ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:
            raise UserError(f"model config {architecture.name} cannot be built: {error}") from error


class _Undrawn(TorchFunctionMode):
    """Skips torch's initialisers: for KEEP they take 10 s, all the rest of building it 1.4 s (one core)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DRAWS or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _build_open_clip(architecture: Architecture) -> nn.Module:
    config = copy.deepcopy(architecture.model_cfg)
    if "multimodal_cfg" in config:
        del config["custom_text"]
        return build_coca(config)
    bert = "hf_model_name" in config["text_cfg"]
    if bert:
        config["text_cfg"].update(_local_text_tower(architecture))
    kind = CustomTextCLIP if config.pop("custom_text", False) or bert else CLIP
    clip = kind(**config)
    if bert:
        _narrow(clip, CLIPTextCfg(**config["text_cfg"]).context_length, architecture.name)
    return clip


def _local_text_tower(architecture: Architecture) -> dict[str, Any]:
    """What lets open_clip build a BERT from its sizes alone, on a machine without a network."""
    text_cfg = architecture.model_cfg["text_cfg"]
    folder = bert_folder(text_cfg["hf_model_name"], architecture.folder)
    extras.require("transformers", extra="hf", why=f"the BERT text tower of {architecture.name}")
    return {"hf_model_name": str(folder), "hf_model_pretrained": False}


def _narrow(clip: Any, context_length: int, name: str) -> None:
    """A BERT states all positions that it has; the model reads as many tokens as its config says."""
    if context_length > clip.context_length:
        raise UserError(
            f"model {name}: text_cfg.context_length is {context_length}, "
            f"its text tower has {clip.context_length} positions"
        )
    clip.context_length = clip.text.context_length = context_length


def evaluation_transform(architecture: Architecture, image_size: int) -> list[Any]:
    """open_clip's evaluation transform up to the RGB picture, without tensor and normalisation."""
    config = PreprocessCfg(size=image_size, **architecture.preprocess_cfg)
    return list(image_transform_v2(config, is_train=False).transforms[:-2])


def _refuse_unknown(given: dict[str, Any], known: frozenset[str], place: str, prefix: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(sorted(known))}"
            raise UserError(f"{place}: unknown key {prefix}{key}{hint}")


def _unknown(name: str) -> str:
    known = [*shipped_configs(), *open_clip.list_models()]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown model {name!r}; {hint}`pathclip models` lists them, or give the path of a JSON config"
