"""The card at the top of a dataset folder: what it holds, counted, and what it must not be taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pathclip.core.files import atomic_write
from pathclip.ingest.config import IngestConfig

__all__ = ["readme", "write_readme"]

UNSTATED = "Legal basis: **not stated yet**"


def write_readme(path: Path, report: dict[str, Any], config: IngestConfig) -> None:
    """Write the card, unless a person has stated the legal basis in the one that is there."""
    if path.is_file() and UNSTATED not in path.read_text(encoding="utf-8", errors="replace"):
        return
    with atomic_write(path, "w") as handle:
        handle.write(readme(report, config))


def readme(report: dict[str, Any], config: IngestConfig) -> str:
    """Markdown text of ``README.md``."""
    splits = "\n".join(f"| {split} | {count} |" for split, count in report["splits"].items())
    reasons = "\n".join(f"| {code} | {count} |" for code, count in report["by_code"].items())
    return f"""# Image-text pairs in pathology

{report["samples"]} pairs, made by `pathclip ingest` from {report["lines"]} lines ({report["posts"]} posts).

| split | samples |
|---|---|
{splits}

Of {report["in"]} candidates (one per picture of a post, table row or unreadable line) {report["kept"]} were
kept and {report["rejected"]} rejected:

| reason | candidates |
|---|---|
{reasons}

Pictures are stored with a short side of at most {config.pack.short_side_px} px, upright, in sRGB, without
metadata. Splits keep authors, conversations, cases and near-identical pictures together.

## Before it is shared

- {UNSTATED}. Whoever shares this dataset says on what basis it is used.
- `private/` names posts and authors and holds the key of the ids: it stays at home.
- X's terms forbid training foundation models on its content and sharing more than ids; research use only,
  and not for diagnosis.
"""
