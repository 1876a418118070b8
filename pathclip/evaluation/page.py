"""The report as one page: what was found, what it is worth, where it goes wrong, how it was obtained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from pathclip.core.errors import FaultError
from pathclip.core.page import data_uri, document, table, thumbnail
from pathclip.encoders.pictures import as_rgb

if TYPE_CHECKING:
    from pathclip.evaluation.report import EvaluateReport, Mistake

__all__ = ["report_page"]

NAMES = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "weighted_f1": "Weighted F1",
    "macro_f1": "Macro F1",
    "auroc": "AUROC, one class against the rest",
    "acc5": "Accuracy, top five",
    "mcc": "Matthews correlation",
    "kappa": "Cohen's kappa",
}
WAYS = {"image_to_text": "Picture to caption", "text_to_image": "Caption to picture"}


def report_page(report: EvaluateReport) -> str:
    """A self-contained HTML page: no script, nothing fetched, every text escaped.

    The confusion matrix is taken from the picture that the report has already written.
    """
    title = f"{report.dataset}: {report.provenance['model']}"
    return document(title, "\n".join([_head(report, title), *_sections(report)]))


def _sections(report: EvaluateReport) -> Iterator[str]:
    if report.confusion is not None:
        yield _section("Metrics", _metrics(report), "Intervals: 95 %, percentile bootstrap.")
        yield _section("Classes", _classes(report))
        picture = data_uri(report.files["confusion"].read_bytes(), "image/png")
        yield _section("Confusion matrix", f'<img alt="confusion matrix" src="{picture}">')
    else:
        for way, name in WAYS.items():
            yield _section(name, _recalls(report, way))
    if report.extra.get("few_shot"):
        note = "Mean of the draws, and what 95 % of them lie between."
        yield _section("With few training pictures per class", _few_shot(report), note)
    if report.mistakes:
        cards = "\n".join(map(_card, report.mistakes))
        title = "Furthest from their caption" if report.confusion is None else "Wrong and sure of it"
        yield _section(title, f'<div class="cards">{cards}</div>')
    if report.bad:
        rows = [(item.name, item.reason) for item in report.bad[:200]]
        note = f"The first 200 of {len(report.bad)}." if len(report.bad) > 200 else ""
        yield _section("Pictures left out", table(("picture", "reason"), rows), note)
    yield _section("How it was obtained", _provenance(report.provenance))


def _head(report: EvaluateReport, title: str) -> str:
    counts = report.counts
    left_out = f", {counts['bad']} left out" if counts["bad"] else ""
    scored = f"{report.task.replace('_', ' ')} · {counts['scored']} pictures scored{left_out}"
    return f'<h1>{escape(title)}</h1>\n<p class="soft">{escape(scored)} · for research, not for diagnosis</p>'


def _section(title: str, body: str, note: str = "") -> str:
    soft = f'<p class="soft">{escape(note)}</p>\n' if note else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{soft}{body}\n</section>"


def _metrics(report: EvaluateReport) -> str:
    constant, chance = report.baselines["constant_class"], report.baselines["chance"]
    rows = [
        (
            name,
            show(report.metrics[key]),
            interval(report.intervals[key]),
            show(constant.get(key)),
            show(chance.get(key)),
        )
        for key, name in NAMES.items()
        if report.metrics.get(key) is not None
    ]
    head = ("", "value", "95 % interval", f"always “{constant['label'].replace('_', ' ')}”", "chance")
    return table(head, rows, numbers=(1, 2, 3, 4))


def _classes(report: EvaluateReport) -> str:
    rows = [
        (
            row["label"].replace("_", " "),
            row["support"],
            row["predicted"],
            show(row["recall"]),
            interval(row["recall_interval"]),
            show(row["precision"]),
            show(row["f1"]),
        )
        for row in report.classes
    ]
    head = ("class", "pictures", "predicted", "recall", "95 % interval", "precision", "F1")
    return table(head, rows, numbers=range(1, 7))


def _few_shot(report: EvaluateReport) -> str:
    rows = [
        (row["shots"], show(row["balanced_accuracy"]), interval(row["interval"]), row["draws"])
        for row in report.extra["few_shot"]
    ]
    return table(
        ("pictures per class", "balanced accuracy", "95 % of the draws", "draws"), rows, numbers=range(4)
    )


def _recalls(report: EvaluateReport, way: str) -> str:
    metrics, intervals = report.metrics[way], report.intervals[way]
    rows = [
        (name, show(metrics[name]), interval(intervals[name]), show(random))
        for name, random in metrics["random"].items()
    ]
    rows.append(("median rank", f"{metrics['median_rank']:g} of {metrics['gallery']}", "", ""))
    return table(("", "value", "95 % interval", "chance"), rows, numbers=(1, 2, 3))


def _card(mistake: Mistake) -> str:
    try:
        image = f'<img alt="" src="{thumbnail(as_rgb(mistake.picture))}">'
    except FaultError as error:
        image = f'<div class="missing">{escape(str(error))}</div>'
    return (
        f'<figure title="{escape(mistake.name)}">{image}<figcaption>{escape(mistake.truth)}<br>'
        f'taken for <span class="tag">{escape(mistake.predicted)}</span> '
        f'<span class="soft">{escape(mistake.note)}</span></figcaption></figure>'
    )


def _provenance(provenance: Mapping[str, Any]) -> str:
    return table(("", ""), [(key, _plain(value)) for key, value in provenance.items()])


def _plain(value: Any) -> str:
    if isinstance(value, str | int | float) or value is None:
        return str(value if value is not None else "not known")
    return json.dumps(value, ensure_ascii=False, default=str)


def show(value: float | None) -> str:
    """Three decimals, or a dash where a number is not defined."""
    return "–" if value is None else f"{value:.3f}"


def interval(ends: Sequence[float | None]) -> str:
    """Low to high, three decimals."""
    return "–" if ends[0] is None else f"{show(ends[0])} to {show(ends[1])}"
