"""Match the classes of a data set with the classes of the prompts."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pathclip.core.errors import UserError
from pathclip.evaluation.config import EvaluateConfig
from pathclip.evaluation.datasets import LabelledImages
from pathclip.heads import Prompts, load_prompts

__all__ = ["match_classes", "prompts_for"]


PLIP_TEMPLATE = "An H&E image patch of {}."


def prompts_for(config: EvaluateConfig, data: LabelledImages, default: str | None = None) -> Prompts:
    """The prompts of a benchmark: what was asked for, else its own, else the names of its classes."""
    classes = config.classes if config.classes is not None else default
    names = {label: [label.replace("_", " ").strip()] for label in data.labels}
    templates = config.templates
    if templates is None and classes is None:
        templates = PLIP_TEMPLATE if config.protocol == "plip-compat" else data.templates or None
    return load_prompts(names if classes is None else classes, templates=templates)


def match_classes(labels: Sequence[str], prompts: Prompts, place: str) -> dict[str, str]:
    """Label of the data -> label of the prompts; case, spaces, hyphens and underscores do not matter.

    Raises:
        UserError: If either side has a class that the other lacks.
    """
    known = {_plain(label): label for label in prompts.labels}
    wanted = {_plain(label): label for label in labels}
    if len(known) < len(prompts.labels) or len(wanted) < len(labels):
        known, wanted = {label: label for label in prompts.labels}, {label: label for label in labels}
    lacking = [wanted[key] for key in wanted if key not in known]
    beyond = [known[key] for key in known if key not in wanted]
    if lacking or beyond:
        parts = [f"it lacks {_list(lacking)}"] if lacking else []
        parts += [f"it has {_list(beyond)}, which the data lack"] if beyond else []
        raise UserError(
            f"classes {prompts.name!r} do not fit {place}: {' and '.join(parts)}{_hint(lacking, beyond)}; "
            "both must name the same classes"
        )
    return {wanted[key]: known[key] for key in wanted}


def _plain(label: str) -> str:
    return "_".join(label.casefold().replace("-", " ").replace("_", " ").split())


def _list(labels: Sequence[str]) -> str:
    shown = ", ".join(map(repr, labels[:6]))
    return shown + (f" and {len(labels) - 6} more" if len(labels) > 6 else "")


def _hint(lacking: Sequence[str], beyond: Sequence[str]) -> str:
    for label in lacking:
        near = difflib.get_close_matches(label, beyond, n=1)
        if near:
            return f" (is {near[0]!r} the data's {label!r}?)"
    return ""
