"""The funnel: what came in, what was kept, and where the rest went. Counts only, so it may be shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathclip.core.errors import UserError
from pathclip.core.files import read_json
from pathclip.core.remote import Synced
from pathclip.ingest.codes import MEANING, STAGES, Code
from pathclip.ingest.plan import Planned, large_groups
from pathclip.pairs import SPLITS

__all__ = ["IngestReport", "make_report", "open_report", "recount"]

SCHEMA = "pathclip.report/1"


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        out: The dataset folder.
        data: ``report.json`` (schema ``pathclip.report/1``).
        state: ``new``, ``resumed``, ``rebuilt`` (from the plan or the shards), ``unchanged``, ``dry-run`` or
            ``share`` (of a job array: ``data`` is empty).
        messages: What a person should know about this run, one line each.
        published: What was copied to the store that ``publish`` names; None without one.
    """

    out: Path
    data: dict[str, Any]
    state: str = "new"
    messages: tuple[str, ...] = ()
    published: Synced | None = None

    @property
    def candidates(self) -> int:
        """What came in: one per picture of a post, post without one, table row, or line without a post."""
        return self.data["in"]

    @property
    def kept(self) -> int:
        """Candidates that became pairs."""
        return self.data["kept"]

    @property
    def rejected(self) -> int:
        """Candidates that did not."""
        return self.data["rejected"]

    @property
    def by_code(self) -> dict[str, int]:
        """Rejected candidates per code."""
        return self.data["by_code"]

    @property
    def splits(self) -> dict[str, int]:
        """Samples per split."""
        return self.data["splits"]

    def to_json(self) -> dict[str, Any]:
        """The report's keys plus ``out``, ``state``, ``messages`` and ``published``."""
        return {
            **self.data,
            "out": str(self.out),
            "state": self.state,
            "messages": list(self.messages),
            "published": self.published and self.published.to_json(),
        }

    def funnel(self) -> list[Any]:
        """What a terminal shows: the funnel, the splits, the hashtags (rich renderables)."""
        if not self.data:
            return []  # a share of a job array counts nothing
        return [_funnel_table(self.data), _splits_line(self.data), *_hashtag_table(self.data)]


def make_report(planned: Planned) -> dict[str, Any]:
    """Count the plan.

    Raises:
        AssertionError: If a candidate is neither kept nor rejected: a bug.
    """
    codes = planned.codes
    kept = sum(c.alive for c in planned.candidates)
    rejected = codes.total()
    assert len(planned.candidates) <= kept + rejected
    by_stage = {stage: sum(codes[code] for code in names) for stage, names in STAGES.items()}
    assert sum(by_stage.values()) == rejected
    pairs = [placed.pair for placed in planned.pairs]
    captions = [(pair.hashtag, caption.source) for pair in pairs for caption in pair.captions]
    splits = Counter(pair.split for pair in pairs)
    return {
        "schema": SCHEMA,
        "lines": planned.lines,
        "posts": planned.posts,
        "repeated": planned.repeated,
        "in": kept + rejected,
        "kept": kept,
        "rejected": rejected,
        "samples": len(pairs),
        "by_stage": {stage: count for stage, count in by_stage.items() if count},
        "by_code": {code: codes[code] for names in STAGES.values() for code in names if codes[code]},
        "by_hashtag": _by_hashtag(captions),
        "by_source": dict(sorted(Counter(source for _, source in captions).items())),
        "figures": sum(pair.panels > 0 for pair in pairs),
        "phi_suspects": sum(placed.candidate.phi is not None for placed in planned.pairs),
        "splits": {split: splits[split] for split in SPLITS if splits[split]},
        "groups": len({pair.group_id for pair in pairs}),
        "large_groups": planned.large_groups(),
    }


def recount(
    before: dict[str, Any],
    plan: Iterable[Mapping[str, Any]],
    rejects: Iterable[Mapping[str, Any]],
    *,
    kept: int,
    posts: int,
    repeated: int,
) -> dict[str, Any]:
    """The report of a dataset whose private tables were edited.

    Args:
        before: The report as it was.
        plan: Rows of ``plan``.
        rejects: Rows of ``rejects``.
        kept: Candidates that are kept.
        posts: Posts that are left, each counted once.
        repeated: Further records of these.
    """
    codes = Counter(row["code"] for row in rejects)
    captions: Counter[tuple[str | None, str]] = Counter()
    splits: Counter[str] = Counter()
    groups: Counter[tuple[str, str]] = Counter()
    figures = suspects = 0
    for row in plan:
        figures += row["panels"] > 0
        suspects += row["phi"] is not None
        splits[row["split"]] += 1
        groups[row["group_id"], row["split"]] += 1
        captions.update((row["hashtag"], caption["source"]) for caption in row["captions"])
    by_stage = {stage: sum(codes[code] for code in names) for stage, names in STAGES.items()}
    sources: Counter[str] = Counter()
    for (_, source), count in captions.items():
        sources[source] += count
    return {
        **before,
        "posts": posts,
        "repeated": repeated,
        "in": kept + codes.total(),
        "kept": kept,
        "rejected": codes.total(),
        "samples": splits.total(),
        "by_stage": {stage: count for stage, count in by_stage.items() if count},
        "by_code": {code: codes[code] for names in STAGES.values() for code in names if codes[code]},
        "by_hashtag": _by_hashtag(list(captions.elements())),
        "by_source": dict(sorted(sources.items())),
        "figures": figures,
        "phi_suspects": suspects,
        "splits": {split: splits[split] for split in SPLITS if splits[split]},
        "groups": len({group for group, _ in groups}),
        "large_groups": large_groups(groups),
    }


def open_report(out: str | Path) -> IngestReport:
    """The report of a dataset folder.

    Raises:
        UserError: If there is none.
    """
    path = Path(out) / "report.json"
    if not path.is_file():
        raise UserError(f"{out} is no dataset folder: {path} does not exist; make one with `pathclip ingest`")
    return IngestReport(Path(out), read_json(path), "unchanged")


def _by_hashtag(captions: list[tuple[str | None, str]]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for hashtag, source in captions:
        row = table.setdefault(hashtag or "none", {"tweets": 0, "replies": 0})
        row["replies" if source == "reply" else "tweets"] += 1
    return dict(sorted(table.items(), key=lambda item: item[0].lower()))


def _funnel_table(data: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=f"{data['lines']} lines, {data['posts']} posts", title_justify="left")
    for name, side in (("stage", "left"), ("reason", "left"), ("candidates", "right"), ("", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    table.add_row("in", "", str(data["in"]), "one per picture of a post, row or line")
    for stage, names in STAGES.items():
        for code in names:
            if count := data["by_code"].get(code):
                table.add_row(stage, code, f"-{count}", MEANING[Code(code)])
    table.add_section()
    table.add_row("kept", "", str(data["kept"]), f"{data['kept'] / max(1, data['in']):.1%} of the candidates")
    return table


def _splits_line(data: dict[str, Any]) -> str:
    splits = ", ".join(f"{split} {count}" for split, count in data["splits"].items()) or "none"
    sources = ", ".join(f"{source} {count}" for source, count in data["by_source"].items()) or "none"
    return f"samples: {data['samples']} ({splits}) in {data['groups']} groups; captions: {sources}"


def _hashtag_table(data: dict[str, Any]) -> list[Any]:
    from rich.table import Table

    if set(data["by_hashtag"]) <= {"none"}:
        return []
    table = Table(title="captions by hashtag", title_justify="left")
    for name, side in (("hashtag", "left"), ("tweets", "right"), ("replies", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for hashtag, row in data["by_hashtag"].items():
        table.add_row(hashtag, str(row["tweets"]), str(row["replies"]))
    return [table]
