"""Configs that come with pathclip, by name."""

from __future__ import annotations

from pathlib import Path

__all__ = ["preset_file", "presets"]

FOLDER = Path(__file__).parent


def presets() -> tuple[str, ...]:
    """Their names."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def preset_file(name: str | Path) -> Path:
    """The file of a preset; any other name is taken for a path and comes back as it is."""
    return FOLDER / f"{name}.toml" if str(name) in presets() and not Path(name).exists() else Path(name)
