"""``index.html``: the demo to look at, one file with every picture inside and nothing fetched."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from PIL import Image

from pathclip.core.files import atomic_write
from pathclip.demo.figures import LEGEND, data_uri, named_tiles, painted_regions, picture_uri, probability_map
from pathclip.synthetic import CLASSES

if TYPE_CHECKING:
    from pathclip.demo.road import SlideResult, ZeroShot
    from pathclip.heads import Index
    from pathclip.ingest import IngestReport

__all__ = ["write_page"]

STRIP = 8


def write_page(
    out: Path,
    summary: dict[str, Any],
    ingested: IngestReport,
    zeroshot: ZeroShot,
    slide: SlideResult,
    index: Index,
    found: dict[str, list[Any]],
) -> Path:
    """Write ``out/index.html``."""
    parts = [
        _head(summary),
        _ingest(out, summary, index),
        _train(out, summary),
        _zeroshot(out, summary, zeroshot),
        _retrieval(summary),
        _slide(summary, slide),
        _search(index, found),
        _next(summary),
    ]
    template = files("pathclip.demo").joinpath("page.html").read_text(encoding="utf-8")
    with atomic_write(out / "index.html", "w") as handle:
        handle.write(Template(template).substitute(body="\n".join(parts)))
    return out / "index.html"


def _head(summary: dict[str, Any]) -> str:
    zero, slide = summary["zeroshot"], summary["slide"]
    numbers = (
        (f"{summary['ingest']['kept']} of {summary['ingest']['in']}", "candidates kept"),
        (f"{summary['train']['steps']}", "training steps"),
        (f"{zero['balanced_accuracy']:.1%}", f"zero-shot balanced accuracy, chance {zero['chance']:.1%}"),
        (f"{zero['baseline']:.1%}", "the same by mean colour"),
        (_plain(slide["label"]), f"slide label; painted: {_plain(slide['expected'])}"),
        (f"{summary['seconds']:.0f} s", "from nothing"),
    )
    cards = "".join(f"<div><b>{escape(value)}</b>{escape(what)}</div>" for value, what in numbers)
    return (
        "<h1>From a tweet dump to a classified slide</h1>"
        '<p class="soft">Every picture on this page was painted by the demo: nobody\'s tissue is shown, '
        f"nothing was downloaded. pathclip {escape(summary['version'])}, seed {summary['seed']}.</p>"
        f'<div class="figures">{cards}</div>'
    )


def _ingest(out: Path, summary: dict[str, Any], index: Index) -> str:
    from pathclip.ingest import MEANING, Code

    ingest = summary["ingest"]
    rows = [("in", "", ingest["in"], "one per picture of a post, post without picture, or line")]
    rows += [("", code, f"−{n}", MEANING[Code(code)]) for code, n in ingest["by_code"].items()]
    rows += [("kept", "", ingest["kept"], "pictures with captions, in shards")]
    rng = random.Random(0)
    places = rng.sample(range(len(index)), min(STRIP, len(index)))
    metadata = index.metadata
    shown = [(index.picture(_Row(k)), metadata.row(k, named=True)["caption"]) for k in sorted(places)]
    return (
        "<h2>Ingest</h2><p>A dump in the form of the X API, with the noise that real dumps have: retweets, "
        "questions, replies, other languages, flags, reposts, broken files. Every candidate ends once, "
        "kept or rejected with a reason.</p>"
        f"{_table(('', 'reason', 'candidates', 'meaning'), rows, numbers=(2,))}"
        f"<h3>Some of the kept pairs</h3>{_strip(shown)}"
    )


def _train(out: Path, summary: dict[str, Any]) -> str:
    train = summary["train"]
    curves = out / "run" / "curves.png"
    text = (
        f"A dual encoder of two tiny towers, from random weights. Loss {train['loss_first']:.2f} at the "
        f"first step, {train['loss_last']:.2f} at step {train['steps']}; {train['samples_per_s']:.0f} "
        "samples per second."
    )
    picture = (
        f'<img src="{data_uri(curves.read_bytes(), "image/png")}" alt="loss by step">'
        if curves.is_file()
        else ""
    )
    return f"<h2>Train</h2><p>{escape(text)}</p>{picture}"


def _zeroshot(out: Path, summary: dict[str, Any], zeroshot: ZeroShot) -> str:
    zero = summary["zeroshot"]
    low, high = zero["interval"]
    between = f" (95 % interval {low:.1%} to {high:.1%})"
    text = (
        f"{zero['n']} tiles that no training step has seen, named by their words alone: balanced accuracy "
        f"{zero['balanced_accuracy']:.1%}{between}. Stains vary so much from tile to tile that the nearest "
        f"mean colour gets {zero['baseline']:.1%} right, and chance {zero['chance']:.1%}."
    )
    strips = []
    for label in CLASSES:
        paths = sorted((out / "heldout" / label).glob("*.jpg"))[:STRIP]
        strips.append(f"<h3>{escape(_plain(label))}</h3>{_strip([(_open(path), '') for path in paths])}")
    matrix = zeroshot.report.files.get("confusion")
    picture = ""
    if matrix is not None:
        uri = data_uri(Path(matrix).read_bytes(), "image/png")
        picture = f'<img style="max-width:720px" src="{uri}" alt="confusion matrix">'
    return f"<h2>Zero-shot classes of held-out tiles</h2><p>{escape(text)}</p>{picture}{''.join(strips)}"


def _retrieval(summary: dict[str, Any]) -> str:
    names = {"image_to_text": "caption of a picture", "text_to_image": "picture of a caption"}
    rows = []
    for way, name in names.items():
        recall = summary["retrieval"][way]
        rows += [(name, k, f"{recall[k]:.1%}", f"{recall['random'][k]:.1%}") for k in ("R@1", "R@10")]
    return (
        "<h2>Retrieval</h2><p>The test split of the dataset: pictures and captions found by each other. "
        "Captions name one of eight tissues, so the right class can be found, the one right picture of it "
        "hardly.</p>"
        f"{_table(('search for the', 'recall', 'found', 'at random'), rows, numbers=(2, 3))}"
    )


def _slide(summary: dict[str, Any], slide: SlideResult) -> str:
    label = slide.truth.label
    pictures = (
        (painted_regions(slide), "what was painted"),
        (named_tiles(slide), f"the tissue each tile is named, right for {slide.tissue_accuracy:.0%} of them"),
        (probability_map(slide.diagnosis, label), f"probability of {_plain(label)} among the diagnoses"),
    )
    figures = "".join(
        f'<figure><img src="{picture_uri(image)}" alt=""><figcaption>{escape(text)}</figcaption></figure>'
        for image, text in pictures
    )
    key = "".join(
        f'<span><i style="background:{css}"></i>{escape(_plain(name))}</span>' for name, css in LEGEND
    )
    pages = (("slide/diagnosis/slide.html", "by diagnosis"), ("slide/tissues/slide.html", "by tissue"))
    links = " and ".join(f'<a href="{href}">{text}</a>' for href, text in pages)
    asked = ", ".join(_plain(name) for name in slide.diagnosis.classes)
    text = (
        f"An Aperio file of several magnifications, {summary['slide']['tiles']} tiles of tissue. Asked for "
        f"{asked}, the model answers {_plain(slide.diagnosis.label)}; painted was {_plain(label)}. The "
        "diagnoses say nothing of the tissues around, which the second map names."
    )
    return (
        f"<h2>A whole slide</h2><p>{escape(text)} Pages to explore: {links}.</p>"
        f'<div class="pair">{figures}</div><p class="key">{key}</p>'
    )


def _search(index: Index, found: dict[str, list[Any]]) -> str:
    parts = [
        "<h2>Search by text</h2><p>The nearest of all pictures in the dataset, with what was posted.</p>"
    ]
    for query, hits in found.items():
        shown = [(index.picture(hit), hit.caption or "") for hit in hits]
        parts.append(f"<h3>“{escape(query)}”</h3>{_strip(shown)}")
    return "".join(parts)


def _next(summary: dict[str, Any]) -> str:
    commands = (
        "pathclip data report dataset",
        "pathclip classify heldout --model run --classes tissues.json",
        "pathclip evaluate --model run --benchmark folder --data heldout --classes tissues.json --out again",
        'pathclip search index "a lymphoid aggregate" --html found.html',
    )
    return f"<h2>Go on from here</h2><p>In this folder:</p><pre>{escape(chr(10).join(commands))}</pre>"


class _Row:
    """A row of the index, as `Index.picture` wants it."""

    def __init__(self, row: int) -> None:
        self.row = row


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _strip(pictures: Iterable[tuple[Image.Image, str]]) -> str:
    figures = "".join(
        f'<figure><img src="{picture_uri(image, 128)}" alt="">'
        f"{f'<figcaption>{escape(text)}</figcaption>' if text else ''}</figure>"
        for image, text in pictures
    )
    return f'<div class="strip">{figures}</div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)

    def line(cells: Sequence[Any], tag: str) -> str:
        marked = (
            f"<{tag}{' class=n' if k in right else ''}>{escape(str(c))}</{tag}>" for k, c in enumerate(cells)
        )
        return f"<tr>{''.join(marked)}</tr>"

    return (
        f'<div class="wide"><table>{line(head, "th")}{"".join(line(row, "td") for row in rows)}</table></div>'
    )


def _plain(label: str | None) -> str:
    return (label or "none").replace("_", " ")
