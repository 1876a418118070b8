"""``pathclip models``: what can be built, and what can be loaded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from pathclip.cli.app import JsonOption, Outcome, app, verb


@verb(app, "models")
def models(
    pattern: Annotated[str | None, typer.Argument(help="Show only names that contain this.")] = None,
    json: JsonOption = False,
) -> Outcome:
    """List shipped configs, published models, open_clip architectures, prompt sets and benchmarks.

    "supported" means that the tests compare this file format with its reference implementation, "layout-only"
    that a benchmark's reader was tried on miniature trees of the published layout, not yet on the set itself.
    """
    import open_clip

    from pathclip.encoders import KNOWN_MODELS, shipped_configs
    from pathclip.evaluation import benchmarks
    from pathclip.heads import shipped_prompts, shipped_templates

    def wanted(name: str) -> bool:
        return pattern is None or pattern.lower() in name.lower()

    data = {
        "shipped_configs": [describe_config(name) for name in shipped_configs() if wanted(name)],
        "published": [asdict(known) for known in KNOWN_MODELS if wanted(known.name)],
        "open_clip": [name for name in open_clip.list_models() if wanted(name)],
        "prompt_sets": [name for name in shipped_prompts() if wanted(name)],
        "template_sets": [name for name in shipped_templates() if wanted(name)],
        "benchmarks": [
            {"name": name, "status": benchmarks[name].status, "data": benchmarks[name].summary}
            for name in benchmarks
            if wanted(name)
        ],
    }
    return Outcome(data, as_text(data, pattern))


def describe_config(name: str) -> dict[str, Any]:
    """What a shipped config builds, without building it."""
    from pathclip.encoders import find_architecture

    config = find_architecture(name).model_cfg
    vision, text, decoder = config["vision_cfg"], config["text_cfg"], config.get("multimodal_cfg")
    if "timm_model_name" in vision:
        tower = f"{vision['timm_model_name']} (timm)"
    elif isinstance(vision["layers"], list):
        tower = f"ResNet {'-'.join(map(str, vision['layers']))}, width {vision['width']}"
    else:
        tower = f"ViT/{vision['patch_size']}, {vision['layers']} x {vision['width']}"
    return {
        "name": name,
        "image_tower": tower,
        "image_size": vision["image_size"],
        "text_tower": f"{text['layers']} x {text['width']}",
        "context_length": text["context_length"],
        "embed_dim": config["embed_dim"],
        "decoder": f"{decoder['layers']} x {decoder['width']}" if decoder else None,
    }


def as_text(data: dict[str, Any], pattern: str | None) -> list[Any]:
    """Lines for people; the open_clip names only as a count unless a pattern narrows them."""
    from pathclip.cli._text import columns, plain

    text: list[Any] = []
    if rows := data["shipped_configs"]:
        text.append(plain("Small configs to train from scratch (`model` in a training config)", "bold"))
        header = [key.replace("_", " ") for key in rows[0]]
        text += [*columns([[str(value or "") for value in row.values()] for row in rows], header=header), ""]
    if rows := data["published"]:
        text.append(plain("Published models (--model NAME, or a folder with their files)", "bold"))
        for row in rows:
            facts = (row["status"], row["format"], row["access"], f"licence: {row['licence']}", row["note"])
            text += [plain(row["name"]), plain(f"    {'; '.join(fact for fact in facts if fact)}")]
        text.append("")
    if names := data["open_clip"]:
        listed = (
            ", ".join(names) if pattern else f"{', '.join(names[:6])}, ... (`pathclip models ViT` narrows)"
        )
        text += [plain(f"{len(names)} open_clip architectures", "bold"), plain(listed), ""]
    if names := data["prompt_sets"]:
        text += [plain("Prompt sets (--classes NAME)", "bold"), plain(", ".join(names)), ""]
    if names := data["template_sets"]:
        text += [plain("Template sets (--set templates=NAME)", "bold"), plain(", ".join(names)), ""]
    if rows := data["benchmarks"]:
        text.append(plain("Benchmarks (pathclip evaluate --benchmark NAME --data DIR)", "bold"))
        text += columns([list(row.values()) for row in rows], header=("name", "status", "data"))
    return text or [plain(f"no name contains {pattern!r}")]
