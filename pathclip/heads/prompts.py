"""Class names and templates -> `Prompts`, from what a person has: a list, a dict, a file, a shipped name."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.core.files import read_json
from pathclip.heads.templates import named_templates, shipped_templates

__all__ = ["DEFAULT_TEMPLATES", "PromptSet", "Prompts", "load_prompts", "shipped_prompts"]

FOLDER = Path(__file__).parent / "prompt_sets"
PLACEHOLDERS = ("CLASSNAME", "{c}", "{}")
DEFAULT_TEMPLATES = (
    "{}.",
    "an H&E image of {}.",
    "a histology image showing {}.",
    "a photomicrograph of {}.",
    "{}, H&E stain.",
    "microscopic view of {}.",
)
Classes = "Prompts | Mapping[str, Any] | Sequence[str] | str | Path"


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Names of each class, and sentences to put them into.

    Attributes:
        classnames: Label -> one or more names; every set of a `Prompts` has the same labels.
        templates: Sentences with one of the placeholders ``{}``, ``{c}``, ``CLASSNAME``.
    """

    classnames: dict[str, tuple[str, ...]]
    templates: tuple[str, ...]

    def texts(self, label: str) -> list[str]:
        """Every name of a class in every template."""
        return [fill(template, name) for name in self.classnames[label] for template in self.templates]


@dataclass(frozen=True, slots=True)
class Prompts:
    """One or more prompt sets over the same classes.

    Attributes:
        sets: More than one are averaged, each counting equally.
        name: Where they came from: a shipped set, a file's stem, or ``"custom"``.
    """

    sets: tuple[PromptSet, ...]
    name: str = "custom"

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the classifier's columns."""
        return tuple(self.sets[0].classnames)

    @property
    def sha256(self) -> str:
        """Hash of the names and templates in their order; where they came from does not matter."""
        text = json.dumps(self.to_dict()["sets"], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: ``{"name", "labels", "sets": [{"classnames", "templates"}]}``."""
        sets = [
            {"classnames": {k: list(v) for k, v in s.classnames.items()}, "templates": list(s.templates)}
            for s in self.sets
        ]
        return {"name": self.name, "labels": list(self.labels), "sets": sets}


def fill(template: str, name: str) -> str:
    """Put a class name into a template."""
    for placeholder in PLACEHOLDERS:
        template = template.replace(placeholder, name)
    return template


def shipped_prompts() -> tuple[str, ...]:
    """Names of the prompt sets that come with pathclip."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def load_prompts(classes: Any, *, templates: Sequence[str] | str | None = None) -> Prompts:
    """Read prompts in any of the shapes in use.

    Args:
        classes: A list of names; a dict of label to name or names; a JSON, YAML or text file; the
            name of a shipped set; or `Prompts`. Files may be in MI-Zero's, CONCH's, KEEP's, TITAN's or
            clip_benchmark's shape, or hold a plain list or dict.
        templates: Sentences to use instead of the file's or the default ones; ``"{}"`` uses the bare names,
            the name of a shipped template set its sentences.

    Raises:
        UserError: If there is no such file or set, or its content cannot classify: under two classes, an
            empty name, a template without placeholder, sets of different classes.
    """
    if isinstance(classes, Prompts):
        prompts = classes
    elif isinstance(classes, str | Path):
        path, name = _find(classes)
        prompts = _parse(_read(path), name=name, place=str(path))
    else:
        prompts = _parse(classes, name="custom", place="classes")
    if templates is not None:
        given = named_templates(templates)
        sets = dict.fromkeys(
            tuple(s.classnames.items()) for s in prompts.sets
        )  # sets may differ by templates only
        prompts = Prompts(tuple(PromptSet(dict(names), given) for names in sets), prompts.name)
    _check(prompts, place=str(classes) if isinstance(classes, str | Path) else "classes")
    return prompts


def _find(classes: str | Path) -> tuple[Path, str]:
    path = Path(classes).expanduser()
    if path.is_file():
        return path, path.stem
    known = shipped_prompts()
    if str(classes) in known:
        return FOLDER / f"{classes}.json", str(classes)
    near = difflib.get_close_matches(path.stem, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(
        f"no class file or shipped prompt set {str(classes)!r}; {hint}shipped sets: {', '.join(known)}"
    )


def _read(path: Path) -> Any:
    if path.suffix == ".json":
        return read_json(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from None
    if path.suffix in (".yaml", ".yml"):
        import yaml  # comes with timm and huggingface_hub

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not valid YAML: {str(error).partition(chr(10))[0]}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _parse(content: Any, *, name: str, place: str) -> Prompts:
    if isinstance(content, Mapping) and "sets" in content:  # our own `Prompts.to_dict`
        return Prompts(tuple(_prompt_set(s, place) for s in content["sets"]), content.get("name", name))
    if _is_set(content):
        return Prompts((_prompt_set(content, place),), name)
    if isinstance(content, Mapping) and content and all(_is_set(value) for value in content.values()):
        return Prompts(
            tuple(_prompt_set(value, f"{place}, set {key}") for key, value in content.items()), name
        )
    if isinstance(content, Mapping) and isinstance(content.get("prompts"), Mapping):  # TITAN
        return Prompts(
            (_prompt_set({"classnames": content["prompts"], **_only_templates(content)}, place),), name
        )
    return Prompts((_prompt_set({"classnames": content}, place),), name)


def _is_set(content: Any) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get("classnames"), Mapping | list)


def _only_templates(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"templates": content["templates"]} if "templates" in content else {}


def _prompt_set(content: Mapping[str, Any], place: str) -> PromptSet:
    templates = content.get("templates", DEFAULT_TEMPLATES)
    templates = (templates,) if isinstance(templates, str) else tuple(templates)  # KEEP: one string
    return PromptSet(_classnames(content["classnames"], place), templates)


def _classnames(content: Any, place: str) -> dict[str, tuple[str, ...]]:
    if isinstance(content, str) or not isinstance(content, Mapping | Sequence):
        raise UserError(f"{place}: expected class names, found {type(content).__name__}: {content!r:.60}")
    if not isinstance(content, Mapping):
        labels = [str(label) for label in content]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise UserError(f"{place}: class {twice[0]!r} is listed twice")
        return {label: (label.replace("_", " ").strip(),) for label in labels}
    out: dict[str, tuple[str, ...]] = {}
    for label, names in content.items():
        names = (names,) if isinstance(names, str) else names
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
            raise UserError(
                f"{place}: class {label!r} has names {names!r:.60}; expected a text or a list of texts"
            )
        out[str(label)] = tuple(name.strip() for name in names)
    return out


def _check(prompts: Prompts, place: str) -> None:
    labels = prompts.labels if prompts.sets else ()
    if len(labels) < 2:
        raise UserError(
            f"{place}: {len(labels)} classes ({', '.join(labels)}); a classification needs at least two"
        )
    for number, prompt_set in enumerate(prompts.sets):
        where = place if len(prompts.sets) == 1 else f"{place}, set {number}"
        if set(prompt_set.classnames) != set(labels):
            differ = sorted(set(prompt_set.classnames) ^ set(labels))
            raise UserError(f"{where}: the sets must have the same classes; {', '.join(differ)} differ")
        for label, names in prompt_set.classnames.items():
            if not names or not all(names):
                raise UserError(f"{where}: class {label!r} has an empty name")
        seen: dict[tuple[str, ...], str] = {}
        for label, names in prompt_set.classnames.items():
            if (first := seen.setdefault(names, label)) != label:
                raise UserError(
                    f"{where}: classes {first!r} and {label!r} have the same names ({', '.join(names)})"
                )
        _check_templates(prompt_set.templates, where)


def _check_templates(templates: tuple[str, ...], where: str) -> None:
    if not templates:
        raise UserError(f"{where}: no templates; leave `templates` out to use the default ones")
    for template in templates:
        if not isinstance(template, str) or not any(p in template for p in PLACEHOLDERS):
            raise UserError(
                f"{where}: template {template!r} has no place for the class name; put {{}} there "
                f"(template sets by name: {', '.join(shipped_templates())})"
            )
