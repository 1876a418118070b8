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
    "auprc": "Average precision, one class against the rest",
    "acc5": "Accuracy, top five",
    "mcc": "Matthews correlation",
    "kappa": "Cohen's kappa",
    "quadratic_kappa": "Cohen's kappa, quadratic weights",
    "ece": "Calibration error (0 is best)",
}
SETS_SHOWN = 3
WAYS = {"image_to_text": "Picture to caption", "text_to_image": "Caption to picture"}


def report_page(report: EvaluateReport) -> str:
    """A self-contained HTML page: no script, nothing fetched, every text escaped.

    The confusion matrix is taken from the picture that the report has already written.
    """
    title = f"{report.dataset}: {report.provenance['model']}"
    return document(title, "\n".join([_head(report, title), *_sections(report)]))


def _sections(report: EvaluateReport) -> Iterator[str]:
    if report.confusion is not None:
        yield _section("Metrics", _metrics(report), _note(report))
        yield from _leak_section(report)
        yield _section("Classes", _classes(report))
        yield _section("Confusion matrix", _picture(report, "confusion", "confusion matrix"))
        note = "How often answers of a confidence are right, with 95 % intervals; below the line: too sure."
        yield _section("Reliability", _picture(report, "reliability", "reliability curve"), note)
    elif report.task == "zeroshot_retrieval":
        for way, name in WAYS.items():
            yield _section(name, _recalls(report, way))
        yield from _leak_section(report)
    else:
        yield _section("Metrics", _plain_metrics(report), _note(report))
        yield from _leak_section(report)
    yield from _further(report)
    if report.mistakes:
        cards = "\n".join(map(_card, report.mistakes))
        title = "Furthest from their caption" if report.confusion is None else "Wrong and sure of it"
        yield _section(title, f'<div class="cards">{cards}</div>')
    if report.bad:
        rows = [(item.name, item.reason) for item in report.bad[:200]]
        note = f"The first 200 of {len(report.bad)}." if len(report.bad) > 200 else ""
        yield _section("Pictures left out", table(("picture", "reason"), rows), note)
    if "prompts" in report.provenance:
        yield _section("Prompts", _prompts(report.provenance["prompts"]), "Every name in every sentence.")
    protocol = report.provenance.get("protocol", {})
    if protocol.get("quirks") or protocol.get("how"):
        rows = [*(("", line) for line in protocol["how"]), *protocol["quirks"].items()]
        note = "Named ones are quirks of the published evaluation that this protocol repeats." * bool(
            protocol["quirks"]
        )
        yield _section(f"Protocol {protocol['name']}", table(("", ""), rows), note)
    yield _section("How it was obtained", _provenance(report.provenance))


def _further(report: EvaluateReport) -> Iterator[str]:
    """What only some reports have."""
    extra = report.extra
    if extra.get("strata"):
        yield _section("By organ", _strata(extra["strata"]))
    if extra.get("subsets"):
        rows = [
            (r["subset"], r["scored"], show(r["accuracy"]), interval(r["interval"]), show(r["chance"]))
            for r in extra["subsets"]
        ]
        yield _section("Subsets", table(("subset", "questions", "accuracy", "95 % interval", "chance"), rows))
    if extra.get("labels"):
        yield _section("Classes", _labels(extra["labels"]))
    if extra.get("few_shot"):
        note = "Mean of the draws, and what 95 % of them lie between."
        yield _section("With few training pictures per class", _few_shot(report), note)
    if extra.get("plip_probe"):
        note = "The penalty was chosen by these very figures, which are of the test pictures."
        yield _section("Five seeds, four penalties", _grid(extra["plip_probe"]), note)


def _head(report: EvaluateReport, title: str) -> str:
    counts = report.counts
    left_out = f", {counts['bad']} left out" if counts["bad"] else ""
    scored = f"{report.task.replace('_', ' ')} · {counts['scored']} pictures scored{left_out}"
    return f'<h1>{escape(title)}</h1>\n<p class="soft">{escape(scored)} · for research, not for diagnosis</p>'


def _section(title: str, body: str, note: str = "") -> str:
    soft = f'<p class="soft">{escape(note)}</p>\n' if note else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{soft}{body}\n</section>"


def _note(report: EvaluateReport) -> str:
    protocol = report.provenance.get("protocol", {})
    headline = protocol.get("headline")
    by = f" Protocol {protocol['name']}: its figure is {NAMES.get(headline, headline)}." if protocol else ""
    return f"Intervals: 95 %, percentile bootstrap.{by}"


def _picture(report: EvaluateReport, role: str, alt: str) -> str:
    return f'<img alt="{alt}" src="{data_uri(report.files[role].read_bytes(), "image/png")}">'


def _plain_metrics(report: EvaluateReport) -> str:
    chance = report.baselines["chance"]
    rows = [
        (name.replace("_", " "), show(value), interval(report.intervals[name]), show(chance.get(name)))
        for name, value in report.metrics.items()
    ]
    return table(("", "value", "95 % interval", "chance"), rows, numbers=(1, 2, 3))


def _leak_section(report: EvaluateReport) -> Iterator[str]:
    if "against" in report.extra:
        yield _section("Also in the training data", *_leaks(report))


def _prompts(prompts: Mapping[str, Any]) -> str:
    """Names by class and sentences, of each set."""
    rows: list[tuple[str, str]] = []
    for number, one in enumerate(prompts["sets"][:SETS_SHOWN]):
        name = prompts["name"] if len(prompts["sets"]) == 1 else f"{prompts['name']}, set {number}"
        rows += [(label.replace("_", " "), "; ".join(names)) for label, names in one["classnames"].items()]
        rows.append((f"sentences ({name})", "  ·  ".join(one["templates"])))
    if len(prompts["sets"]) > SETS_SHOWN:
        rows.append(("", f"and {len(prompts['sets']) - SETS_SHOWN} more sets; all stand in result.json"))
    return table(("", ""), rows)


def _leaks(report: EvaluateReport) -> tuple[str, str]:
    """The figures with and without them, and a line that counts."""
    found = report.extra["against"]
    count, bad = found["also_in_training"], len(found["not_compared"])
    note = (
        f"{count} of {report.counts['total']} test pictures are also among {found['pictures']} pictures of "
        f"{found['dataset']}" + (f"; {bad} could not be compared." if bad else ".")
    )
    if "metrics" not in found:
        alone = count and count == report.counts["scored"]
        return "", note + (" None is left to score without them." if alone else "")
    clean, ends = found["metrics"], found["intervals"]
    names = NAMES if report.confusion is not None else {key: key.replace("_", " ") for key in ends}
    rows = [
        (name, show(report.metrics[key]), show(clean[key]), interval(ends[key]))
        for key, name in names.items()
        if isinstance(clean.get(key), float) and report.metrics.get(key) is not None
    ]
    return table(("", "with them", "without", "95 % interval"), rows, numbers=(1, 2, 3)), note


def _strata(strata: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            row["stratum"],
            row["scored"],
            show(row["weighted_f1"]),
            interval(row["weighted_f1_interval"]),
            show(row["constant_class_weighted_f1"]),
            show(row["balanced_accuracy"]),
        )
        for row in strata
    ]
    head = ("", "pictures", "weighted F1", "95 % interval", "constant class", "balanced accuracy")
    return table(head, rows, numbers=range(1, 6))


def _labels(labels: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (row["label"], row["support"], show(row["average_precision"]), show(row["auroc"])) for row in labels
    ]
    return table(("class", "pictures", "average precision", "AUROC"), rows, numbers=(1, 2, 3))


def _grid(probe: Mapping[str, Any]) -> str:
    rows = [
        (f"{row['alpha']:g}", f"{show(row['mean'])} ± {show(row['sd'])}", show(row["weighted_f1_mean"]))
        for row in probe["grid"]
    ]
    return table(("alpha", "macro F1, mean ± sd", "weighted F1, mean"), rows, numbers=range(3))


def _metrics(report: EvaluateReport) -> str:
    constant, chance = report.baselines["constant_class"], report.baselines["chance"]
    headline = report.provenance.get("protocol", {}).get("headline")
    rows = [
        (
            name,
            show(report.metrics[key]),
            interval(report.intervals[key]),
            show(constant.get(key)),
            show(chance.get(key)),
        )
        for key, name in sorted(NAMES.items(), key=lambda item: item[0] != headline)
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
    rows = [(key, _plain(value)) for key, value in provenance.items() if key not in ("protocol", "prompts")]
    return table(("", ""), rows)


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
