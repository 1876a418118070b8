"""The dataset card: ``README.md`` with a Hugging Face header, from counts only, and what a person states."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pathclip._version import __version__
from pathclip.core.errors import UserError
from pathclip.core.files import atomic_write, read_json, write_json
from pathclip.ingest.codes import MEANING, Code
from pathclip.ingest.config import CardConfig
from pathclip.ingest.croissant import croissant
from pathclip.ingest.report import open_report
from pathclip.shards import ShardInfo

__all__ = ["card", "merged", "read_card", "settings_of", "write_card"]

UNSTATED = "**not stated yet**"
LEGAL = re.compile(r"^- Legal basis: (.*)$", re.MULTILINE)
PLAIN = re.compile(r"[\w.-]+")
HEADER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
OWN_WORDS = "<!-- What stands below this line is yours: it is kept when the card is written again. -->"
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))


def card(out: str | Path, **stated: str | None) -> Path:
    """Write ``README.md`` and ``croissant.json`` of a dataset again, with what is stated about it.

    Args:
        out: The dataset folder.
        **stated: Fields of `CardConfig`; what is None stays as the card has it.

    Returns:
        The card.

    Raises:
        UserError: If there is no dataset, or neither the card nor the caller states a legal basis.
    """
    out = Path(out)
    report = open_report(out).data
    index = read_json(out / "index.json")
    known = read_card(out / "README.md")
    config = known.replace(**{name: value for name, value in stated.items() if value is not None})
    if config.legal_basis is None:
        raise UserError(
            f"{out} states no legal basis, and there is no default: say why the posts may be used with "
            '--legal-basis "..." (for example consent of the authors, or own posts)'
        )
    splits = {s: [ShardInfo(**shard) for shard in t["shards"]] for s, t in index["splits"].items()}
    write_card(out, out, report, splits, config, settings_of(out))
    return out / "README.md"


def settings_of(out: Path) -> dict[str, Any]:
    """The settings a dataset was made with, where its private part is there."""
    path = out / "private" / "run.json"
    return read_json(path)["config"] if path.is_file() else {}


def merged(config: CardConfig, standing: CardConfig) -> CardConfig:
    """What the settings state; where they state nothing, what the card that lies there does."""
    blank = CardConfig()
    stated = {n: v for n, v in config.model_dump().items() if v != getattr(blank, n)}
    return standing.replace(**stated)


def read_card(path: Path) -> CardConfig:
    """What a person has stated in a card that lies there; hand-edited ones are read just so."""
    if not path.is_file():
        return CardConfig()
    text = path.read_text(encoding="utf-8", errors="replace")
    found: dict[str, str] = {}
    header = HEADER.match(text)
    for line in header[1].splitlines() if header else ():
        key, _, value = line.partition(": ")
        name = {"pretty_name": "name", "license": "license", "creator": "creator", "homepage": "url"}.get(key)
        if name and value.strip():
            found[name] = _unquoted(value.strip())
    if (legal := LEGAL.search(text)) and UNSTATED not in legal[1] and len(legal[1].strip()) > 2:
        found["legal_basis"] = legal[1].strip()
    return CardConfig.model_validate(found)


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value


def write_card(
    out: Path,
    target: Path,
    report: dict[str, Any],
    splits: dict[str, list[ShardInfo]],
    config: CardConfig,
    settings: dict[str, Any],
) -> None:
    """Write both files to ``target``; what a person wrote below the line in the card of ``out`` is kept.

    Args:
        out: The dataset folder.
        target: Where to write; the dataset folder or a place beside it.
        report: ``report.json``.
        splits: The shards.
        config: What is stated.
        settings: The sections of the ingest's config.
    """
    standing = out / "README.md"
    text = standing.read_text(encoding="utf-8", errors="replace") if standing.is_file() else ""
    own = text.partition(OWN_WORDS)[2].strip()
    written = f"{readme(report, config, settings)}\n{OWN_WORDS}\n" + (f"\n{own}\n" if own else "")
    data = croissant(report, splits, config, settings, out / "croissant.json")
    if target != out or text != written:
        with atomic_write(target / "README.md", "w") as handle:
            handle.write(written)
    if target != out or not (out / "croissant.json").is_file() or read_json(out / "croissant.json") != data:
        write_json(target / "croissant.json", data)


def readme(report: dict[str, Any], config: CardConfig, settings: dict[str, Any]) -> str:
    """Markdown text of ``README.md``."""
    splits = "\n".join(f"| {split} | {count} |" for split, count in report["splits"].items())
    reasons = "\n".join(f"| {c} | {n} | {MEANING[Code(c)]} |" for c, n in report["by_code"].items())
    sources = ", ".join(f"{source} {count}" for source, count in report["by_source"].items()) or "none"
    side = settings.get("pack", {}).get("short_side_px")
    size = f"with a short side of at most {side} px, " if side else ""
    return f"""{_header(report, config, settings)}
# {config.name}

{report["samples"]} pairs, made by `pathclip ingest` {__version__} from {report["lines"]} lines
({report["posts"]} posts). Captions by source: {sources}.

| split | samples |
|---|---|
{splits}

Of {report["in"]} candidates (one per picture of a post, table row or unreadable line) {report["kept"]} were
kept and {report["rejected"]} rejected:

| reason | candidates | |
|---|---|---|
{reasons}

Pictures are stored {size}upright, in sRGB, without metadata. Splits keep authors,
conversations, cases and near-identical pictures together. `croissant.json` describes the files.

## Before it is shared

- Legal basis: {config.legal_basis or UNSTATED}
- Whoever shares this dataset says on what basis it is used (`pathclip data card DIR --legal-basis "..."`).
- `private/` names posts and authors and holds the key of the ids: it stays at home.
- X's terms forbid training foundation models on its content and sharing more than ids; research use only,
  and not for diagnosis.
- Deleted and protected posts are taken down (`pathclip data takedown`); take the newest version.
"""


def _header(report: dict[str, Any], config: CardConfig, settings: dict[str, Any]) -> str:
    """The YAML that Hugging Face reads; texts are JSON strings, which YAML reads as they are."""
    languages = settings.get("language", {}).get("languages") or ["en"]
    size = next((name for most, name in SIZES if report["samples"] < most), "n>1M")
    quoted = {name: json.dumps(value, ensure_ascii=False) for name, value in config.model_dump().items()}
    more = [f"creator: {quoted['creator']}"] if config.creator else []
    more += [f"homepage: {quoted['url']}"] if config.url else []
    return "\n".join(
        [
            "---",
            f"pretty_name: {quoted['name']}",
            f"license: {config.license if PLAIN.fullmatch(config.license) else quoted['license']}",
            f"legal_basis: {quoted['legal_basis'] if config.legal_basis else 'NOT STATED'}",
            *more,
            "language:",
            *(f"- {language}" for language in languages),
            "task_categories:",
            "- zero-shot-image-classification",
            "- image-to-text",
            "size_categories:",
            f"- {size}",
            "tags:",
            "- pathology",
            "- medical",
            "- webdataset",
            'extra_gated_prompt: "For research, not for diagnosis. Nobody in it may be sought out."',
            "extra_gated_fields:",
            "  I use it for research only: checkbox",
            "  I remove what the maintainers take down: checkbox",
            "---",
        ]
    )
