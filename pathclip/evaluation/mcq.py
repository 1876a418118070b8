"""Multiple-choice questions about pictures, in PathMMU's and PathVQA's JSON: read, answered, scored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathclip.core.errors import FaultError, UserError
from pathclip.core.files import read_json, sha256_file
from pathclip.encoders import BadPicture, DualEncoder, encode_pictures
from pathclip.evaluation.config import EvaluateConfig
from pathclip.evaluation.report import EvaluateReport
from pathclip.heads.choice import LETTER, choose_answers, plain_option
from pathclip.heads.metrics import mean_interval

__all__ = ["Question", "Questions", "evaluate_mcq", "read_mcq"]

YES_NO = ("yes", "no")
FOLDERS = ("", "images", "imgs", "img")


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        name: Its number in the file.
        subset: PathMMU's (PubMed, Atlas, ...); None where there is none.
        picture: The file.
        text: The question.
        options: Two answers or more, without letters.
        answer: Place of the right one.
    """

    name: str
    subset: str | None
    picture: Path
    text: str
    options: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class Questions:
    """A file of questions.

    Attributes:
        name: Of the data set.
        path: The file.
        split: What was selected; None where there was nothing to select.
        questions: Those with answers to choose from.
        ignored: How many have none, such as PathVQA's open questions.
    """

    name: str
    path: Path
    split: str | None
    questions: tuple[Question, ...]
    ignored: int


def read_mcq(data: Path, split: str | None = None) -> Questions:
    """Read a JSON file of records, or of records by subset and split.

    A record has ``img`` or ``image``, ``question``, ``answer`` and, for a choice, ``options``; an answer is
    one of these, or its letter. Without options, answers of yes and no are a choice of the two and others are
    ignored. Pictures lie beside the file or in its folder ``images``.

    Raises:
        UserError: If the file cannot be read, a record lacks a key, or an answer is not among the options.
    """
    if not data.is_file():
        raise UserError(f"{data} is no file; benchmark 'mcq' expects a JSON file of questions")
    found = list(_records(read_json(data), ()))
    splits = sorted({name for path, _ in found for name in path if _is_split(name)})
    if split is None:
        split = "test" if "test" in splits else None
    if split is not None and split not in splits:
        raise UserError(f"{data} has no split {split!r}; it has {', '.join(splits) or 'none'}")
    questions, ignored = [], 0
    for number, (path, record) in enumerate(found):
        if split is not None and split not in path:
            continue
        question = _question(data, number, path, record)
        questions += [question] if question else []
        ignored += question is None
    if not questions:
        raise UserError(f"{data} holds no question with answers to choose from ({ignored} without)")
    return Questions("/".join(filter(None, (data.stem, split))), data, split, tuple(questions), ignored)


def _is_split(name: str) -> bool:
    return name.startswith(("train", "val", "test"))  # PathMMU has test_tiny too


def _records(content: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Records with the names of the tables they lie in."""
    if isinstance(content, list):
        for record in content:
            yield path, record
    elif isinstance(content, Mapping) and "question" in content:
        yield path, content
    elif isinstance(content, Mapping):
        for name, part in content.items():
            yield from _records(part, (*path, str(name)))


def _question(data: Path, number: int, path: tuple[str, ...], record: Any) -> Question | None:
    place = f"{data}, record {number}"
    if not isinstance(record, Mapping):
        raise UserError(f"{place} is {type(record).__name__}; expected an object with question and answer")
    image = record.get("img", record.get("image"))
    for name, value in (
        ("img", image),
        ("question", record.get("question")),
        ("answer", record.get("answer")),
    ):
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{place} has no {name}; it has {', '.join(record) or 'nothing'}")
    given, answer = record.get("options"), str(record["answer"])
    if given is None:
        if answer.strip().lower() not in YES_NO:
            return None
        given, answer = YES_NO, answer.strip().lower()
    options = tuple(given.values()) if isinstance(given, Mapping) else tuple(given)
    if len(options) < 2:
        raise UserError(f"{place} has {len(options)} options; a choice needs two or more")
    name = str(record.get("No", record.get("id", number)))
    subset = next((part for part in path if not _is_split(part)), None)
    right = _place_of(answer, options, place)
    plain = tuple(plain_option(str(option)) for option in options)
    return Question(name, subset, _picture(data.parent, str(image)), str(record["question"]), plain, right)


def _place_of(answer: str, options: tuple[Any, ...], place: str) -> int:
    """The place of the right answer, given in full, without its letter, or as the letter alone."""
    plain = [plain_option(str(option)).casefold() for option in options]
    letters = [match[1] if (match := LETTER.match(str(option).strip())) else "" for option in options]
    if answer in options:
        return options.index(answer)
    if plain_option(answer).casefold() in plain:
        return plain.index(plain_option(answer).casefold())
    letter = answer.strip().strip("().:").upper()
    if letter in letters and letter:
        return letters.index(letter)
    if len(letter) == 1 and not any(letters) and 0 <= ord(letter) - ord("A") < len(options):
        return ord(letter) - ord("A")
    raise UserError(f"{place}: answer {answer!r:.60} is not among the options {json.dumps(options)[:200]}")


def _picture(folder: Path, name: str) -> Path:
    places = [folder / sub / name for sub in FOLDERS]
    return next((path for path in places if path.is_file()), places[0])


def evaluate_mcq(model: DualEncoder, data: Questions, config: EvaluateConfig) -> EvaluateReport:
    """Accuracy with its interval (whole pictures are resampled), beside chance and the most frequent place.

    Raises:
        FaultError: If no picture can be read, or the model's features are not finite.
    """
    asked = data.questions
    paths = list(dict.fromkeys(question.picture for question in asked))
    features, failed = encode_pictures(
        model, paths, batch_size=config.batch_size, progress=True, cache=config.cache
    )
    reasons = {paths[item.index]: item.reason for item in failed}
    bad = tuple(
        BadPicture(i, q.name, reasons[q.picture]) for i, q in enumerate(asked) if q.picture in reasons
    )
    good = [question for question in asked if question.picture not in reasons]
    if not good:
        raise FaultError(f"{data.path}: no picture could be read; the first is {paths[0]}: {bad[0].reason}")
    row = {path: i for i, path in enumerate(paths)}
    own = features[[row[question.picture] for question in good]]
    if not own.isfinite().all():
        raise FaultError("the model gives features that are not finite; its weights are damaged")
    texts, options = [q.text for q in good], [q.options for q in good]
    right = np.array([question.answer for question in good])
    metrics: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    for name, with_question in (("accuracy", True), ("accuracy_answers_alone", False)):
        found = choose_answers(model, own, texts, options, with_question=with_question, cache=config.cache)
        answers[name], hits = found.chosen, found.chosen == right
        metrics[name], intervals[name] = float(hits.mean()), _interval(hits, good, config)
    return EvaluateReport(
        dataset=data.name,
        task="multiple_choice",
        metrics=metrics,
        intervals=intervals,
        baselines=_baselines(good, metrics),
        counts={"total": len(asked), "scored": len(good), "bad": len(bad), "ignored": data.ignored},
        bad=bad,
        provenance={
            **model.provenance(),
            "data": {
                "path": str(data.path),
                "split": data.split,
                "sha256": sha256_file(data.path),
                "benchmark": config.benchmark,
            },
            "text": "question answer",
            "seed": config.seed,
            "num_resamples": config.num_resamples,
            "resampled": f"{len({q.picture for q in good})} pictures",
        },
        predictions=_table(good, answers["accuracy"]),
        extra={"subsets": _by_subset(good, answers["accuracy"] == right, config)},
    )


def _interval(
    hits: Any, questions: list[Question], config: EvaluateConfig
) -> tuple[float | None, float | None]:
    groups = [str(question.picture) for question in questions]
    return mean_interval(hits, groups, seed=config.seed, num_resamples=config.num_resamples)


def _baselines(questions: list[Question], metrics: dict[str, Any]) -> dict[str, Any]:
    chance = float(np.mean([1 / len(question.options) for question in questions]))
    place, count = Counter(question.answer for question in questions).most_common(1)[0]
    constant = {"label": f"answer {place + 1}", "accuracy": count / len(questions)}
    return {"chance": dict.fromkeys(metrics, chance), "constant_class": constant}


def _by_subset(questions: list[Question], hits: Any, config: EvaluateConfig) -> list[dict[str, Any]]:
    rows = []
    for name in sorted({q.subset for q in questions if q.subset is not None}):
        places = [i for i, question in enumerate(questions) if question.subset == name]
        own = [questions[i] for i in places]
        values = {"subset": name, "scored": len(own), "accuracy": float(hits[places].mean())}
        values |= {"interval": _interval(hits[places], own, config)}
        rows.append(values | {"chance": float(np.mean([1 / len(q.options) for q in own]))})
    return rows


def _table(questions: list[Question], chosen: Any) -> Any:
    import polars as pl

    return pl.DataFrame(
        {
            "question": [q.name for q in questions],
            "subset": pl.Series([q.subset for q in questions], dtype=pl.String),
            "image": [str(q.picture) for q in questions],
            "truth": [q.options[q.answer] for q in questions],
            "label": [q.options[c] for q, c in zip(questions, chosen.tolist(), strict=True)],
        }
    )
