"""One frozen pydantic model per component, read from TOML and overridden by ``--set a.b=c``."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from pathclip.core.errors import UserError

__all__ = ["Config", "load_config", "to_toml"]

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every config: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        return type(self).model_validate({**self.model_dump(), **changes})


def load_config(
    cls: type[C],
    path: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    base: Mapping[str, Any] | None = None,
) -> C:
    """Read a config from TOML and apply overrides.

    Args:
        cls: The config model.
        path: A TOML file; ``None`` starts from the defaults.
        overrides: Strings ``a.b=value``; the value is read as TOML, and as plain text where that fails.
        base: Values below the file's (a preset, or what the command line gave as arguments).

    Raises:
        UserError: If the file is missing or no TOML, or a key or value is wrong. The message names the
            dotted path, what was expected and the nearest valid key.
    """
    data = _merge(dict(base or {}), _read_toml(Path(path)) if path is not None else {})
    for override in overrides:
        key, sep, text = override.partition("=")
        if not sep or not key:
            raise UserError(f"--set {override}: expected a.b=value, for example --set optim.lr=1e-4")
        _assign(data, key.strip(), _parse_value(text), override)
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        place = f"{path}: " if path is not None else ""
        raise UserError(place + "; ".join(_explain(cls, e) for e in error.errors())) from None


def to_toml(config: Config) -> str:
    """The config as TOML text that `load_config` reads back to an equal config; ``None`` is left out."""
    return "\n".join(_toml_table(config.model_dump(mode="json"), ())) + "\n"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"config file {path} does not exist") from None
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(f"config file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"config file {path} is not valid TOML: {error}") from None


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), Mapping):
            below[key] = _merge(dict(below[key]), value)
        else:
            below[key] = value
    return below


def _assign(data: dict[str, Any], dotted: str, value: Any, override: str) -> None:
    *parents, leaf = dotted.split(".")
    for parent in parents:
        node = data.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"--set {override}: {parent} is a value, not a table")
        data[parent] = node = dict(node)
        data = node
    data[leaf] = value


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _explain(cls: type[BaseModel], error: Any) -> str:
    location = [part for part in error["loc"] if isinstance(part, str | int)]
    dotted = ".".join(str(part) for part in location) or "config"
    if error["type"] != "extra_forbidden":
        return f"{dotted} = {error.get('input')!r}: {error['msg'].removeprefix('Value error, ')}"
    valid = _fields_at(cls, location[:-1])
    near = difflib.get_close_matches(str(location[-1]), valid, n=1)
    prefix = "".join(f"{part}." for part in location[:-1])
    hint = f"did you mean {prefix}{near[0]}?" if near else f"valid keys: {', '.join(sorted(valid)) or 'none'}"
    return f"unknown key {dotted}; {hint}"


def _fields_at(cls: Any, location: list[str | int]) -> list[str]:
    for part in location:
        field = cls.model_fields.get(part) if _is_model(cls) else None
        if field is None:
            continue
        candidates = [field.annotation, *get_args(field.annotation)]
        cls = next((c for c in candidates if _is_model(c)), None)
    return list(cls.model_fields) if _is_model(cls) else []


def _is_model(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, BaseModel)


def _toml_table(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {k: v for k, v in table.items() if v is not None and not isinstance(v, Mapping)}
    nested = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    lines = [f"[{'.'.join(map(_toml_key, path))}]"] if path and (plain or not nested) else []
    lines += [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in plain.items()]
    for key, value in nested.items():
        lines += ["", *_toml_table(value, (*path, key))] if lines else _toml_table(value, (*path, key))
    return lines


def _toml_key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items() if v is not None)
            + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
