"""``private/report.html``: the funnel to look at, one file that asks nothing of the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from pathclip.core.files import atomic_write
from pathclip.core.page import data_uri, document, table
from pathclip.ingest.codes import MEANING, STAGES, Code
from pathclip.ingest.thumbs import KEPT
from pathclip.tweets import OPENPATH

__all__ = ["write_page"]

BAR_PX = 260


def write_page(path: Path, report: Mapping[str, Any], thumbs: Iterable[Mapping[str, Any]]) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        report: ``report.json``.
        thumbs: Rows of ``thumbs``.
    """
    title = f"{report['samples']} pairs from {report['posts']} posts"
    by_code: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in thumbs:
        by_code[row["code"]].append(row)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{report["lines"]} lines; read more than once: {report["repeated"]}. One candidate '
        "per picture of a post, post without one, table row, or line without a post. "
        "This page shows posts and pictures: it is private.</p>",
        "<h2>Funnel</h2>",
        _funnel(report),
        "<h2>Samples</h2>",
        _samples(report),
        "<h2>Captions by hashtag</h2>",
        _hashtags(report),
        *_gallery(report, by_code),
    ]
    with atomic_write(path, "w") as handle:
        handle.write(document(title, "\n".join(body)))


def _funnel(report: Mapping[str, Any]) -> str:
    """What is left after each stage, as bars, then every reason below its stage."""
    total, left = max(1, report["in"]), report["in"]
    rows = [_bar("in", report["in"], total, "")]
    for stage, codes in STAGES.items():
        if not (lost := report["by_stage"].get(stage)):
            continue
        left -= lost
        reasons = ", ".join(
            f"{code} {report['by_code'][code]}" for code in codes if code in report["by_code"]
        )
        rows.append(_bar(f"after {stage}", left, total, f"-{lost}: {reasons}"))
    rows.append(_bar("kept", report["kept"], total, f"{report['kept'] / total:.1%} of the candidates"))
    return "<table><tbody>" + "\n".join(rows) + "</tbody></table>"


def _bar(name: str, count: int, total: int, note: str) -> str:
    width = round(BAR_PX * count / total)
    bar = f'<div style="width:{width}px;height:14px;background:var(--accent);border-radius:2px"></div>'
    return (
        f'<tr><td>{escape(name)}</td><td class="number">{count}</td>'
        f'<td style="width:{BAR_PX + 24}px">{bar}</td><td>{escape(note)}</td></tr>'
    )


def _samples(report: Mapping[str, Any]) -> str:
    rows = [("split", split, count) for split, count in report["splits"].items()]
    rows += [("caption from", source, count) for source, count in report["by_source"].items()]
    rows.append(("groups", "", report["groups"]))
    rows += [
        ("large group", f"{g['group_id']} in {g['split']}", g["samples"]) for g in report["large_groups"]
    ]
    return table(("", "", "number"), rows, numbers=(2,))


def _hashtags(report: Mapping[str, Any]) -> str:
    """OpenPath's 32 hashtags in its order and form (tweets/replies), then what else there is."""
    found = dict(report["by_hashtag"])
    names = [*OPENPATH, *(name for name in found if name not in OPENPATH)]
    blank = {"tweets": 0, "replies": 0}
    rows = [(name, (row := found.get(name, blank))["tweets"], row["replies"]) for name in names]
    total = tuple(sum(row[n] for row in rows) for n in (1, 2))
    shown = [row for row in rows if row[1] or row[2]]
    absent = [row[0] for row in rows if not (row[1] or row[2])]
    note = f'<p class="soft">No captions under {escape(", ".join(absent))}.</p>' if absent else ""
    return table(("hashtag", "tweets", "replies"), [*shown, ("all", *total)], numbers=(1, 2)) + note


def _gallery(report: Mapping[str, Any], by_code: Mapping[str, list[Mapping[str, Any]]]) -> Iterable[str]:
    yield "<h2>A few that were kept</h2>"
    yield _cards(by_code.get(KEPT, []))
    for code in (code for codes in STAGES.values() for code in codes if code in by_code):
        count = report["by_code"].get(code, 0)
        shown = len(by_code[code])
        some = f"{shown} of {count}" if count > shown else f"{count}"
        yield f'<h2>{code}</h2>\n<p class="soft">{some}: {escape(MEANING[Code(code)])}</p>'
        yield _cards(by_code[code])


def _cards(rows: Iterable[Mapping[str, Any]]) -> str:
    return f'<div class="cards">{"".join(map(_card, rows)) or "none"}</div>'


def _card(row: Mapping[str, Any]) -> str:
    missing = '<div class="missing">cannot be shown</div>'
    picture = f'<img alt="" src="{data_uri(row["jpg"], "image/jpeg")}">' if row["jpg"] else missing
    size = f"{row['width']} x {row['height']} px<br>" if row["width"] else ""
    note = f"{escape(row['note'])}<br>" if row["note"] else ""
    where = f'<span class="soft mono">{escape(row["source"])}</span>'
    words = f"<figcaption>{note}{size}{where}</figcaption>"
    return f'<figure title="{escape(row["candidate_id"])}">{picture}{words}</figure>\n'
