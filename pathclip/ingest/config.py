"""`IngestConfig`: a section per step of the road, presets, and the hashes that decide what is redone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pathclip.core.config import Config
from pathclip.core.engine import EngineName
from pathclip.core.errors import UserError
from pathclip.core.files import sha256_file
from pathclip.core.remote import check_url
from pathclip.ingest.download import DownloadConfig
from pathclip.pairs import (
    CaptionConfig,
    DedupConfig,
    FilterConfig,
    LanguageConfig,
    PackConfig,
    SelectConfig,
    SplitConfig,
    TextConfig,
)

__all__ = ["PRESETS", "CardConfig", "CollectConfig", "ImageConfig", "IngestConfig", "PrivacyConfig", "preset"]

COLLECT_VERSION = 4
PLAN_VERSION = 3
PACK_VERSION = 2


class CollectConfig(Config):
    """What is read and which pictures are decoded; changing it starts over (``--force-new``)."""

    referenced: bool = Field(
        default=True, description="also take posts that only stand inside others or in includes"
    )
    max_pixels: int = Field(
        default=64_000_000, ge=1, le=178_000_000, description="larger pictures are refused before decoding"
    )
    max_bytes: int = Field(default=25_000_000, ge=1, description="larger files are refused before opening")
    phash: bool = Field(
        default=True, description="hash what pictures look like; near duplicates are found by it alone"
    )
    scores: bool = Field(default=True, description="score what pictures are; the picture filter needs them")
    panels: bool = Field(
        default=False, description="find the panels of figures; on where image.panels needs them"
    )
    scorer: str | None = Field(
        default=None, description="checkpoint that says by words how likely a picture is a micrograph"
    )


class ImageConfig(Config):
    """Which of the decoded pictures are good enough."""

    min_side_px: int = Field(default=128, ge=1, description="shortest side a picture may have")
    max_aspect: float = Field(default=6.0, ge=1, description="long side over short side")
    panels: Literal["off", "flag", "split"] = Field(
        default="off",
        description="figures of several panels: leave as they are, mark them, or make each panel a sample",
    )


class PrivacyConfig(Config):
    """What becomes of pictures that may name a patient."""

    phi: Literal["off", "flag", "quarantine"] = Field(
        default="quarantine",
        description="burnt-in letters, labels, codes: not minded, marked in the private plan, or left out",
    )
    cleared: Path | None = Field(
        default=None,
        description="a list of suspects that a person has looked at and found clean: a candidate id or media "
        "key a line",
    )

    def cleared_names(self) -> frozenset[str]:
        """What the list names.

        Raises:
            UserError: If it cannot be read.
        """
        if self.cleared is None:
            return frozenset()
        try:
            lines = self.cleared.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"privacy.cleared {self.cleared} cannot be read: {error}") from None
        return frozenset(line.strip() for line in lines) - {""}


class CardConfig(Config):
    """What only a person can say of the dataset; it changes the card and nothing else."""

    legal_basis: str | None = Field(
        default=None, min_length=3, description="why the posts may be used and shared; there is no default"
    )
    name: str = Field(default="Image-text pairs in pathology", min_length=1, description="title of the card")
    license: str = Field(default="other", min_length=1, description="licence, as Hugging Face spells it")
    creator: str | None = Field(default=None, min_length=1, description="who made the dataset")
    url: str | None = Field(default=None, min_length=1, description="where the dataset can be found")


class IngestConfig(Config):
    """Everything `pathclip.ingest` needs.

    The sections follow the road. ``collect`` is fixed once a dataset folder exists; ``select`` to ``split``
    are the plan and ``pack`` the shards: changing those redoes only what follows from them.
    """

    sources: tuple[Path, ...] = Field(default=(), description="dumps, archive folders and tables")
    out: Path = Field(default=Path("dataset"), description="the dataset folder")
    media: Path | None = Field(
        default=None, description="folder with the picture files; tables default to their own folder"
    )
    ids: Path | None = Field(
        default=None, description="a list of post ids (text, CSV, parquet): only these posts are taken"
    )
    media_table: Path | None = Field(
        default=None,
        description="attachments by media_key with url or file, type, alt_text (JSON, CSV, parquet), for "
        "posts that were saved without",
    )
    key_file: Path | None = Field(
        default=None, description="key of the ids; by default OUT/private/key, made when absent"
    )
    engine: EngineName = Field(default="serial", description="serial, processes or ray")
    workers: int | None = Field(
        default=None, ge=1, description="processes; all cores (with ray: the whole cluster) by default"
    )
    ahead: bool = Field(
        default=True,
        description="encode a picture when it is looked at, which saves the second decode and needs room for "
        "the shards twice",
    )
    rank: int = Field(default=0, ge=0, description="which of the runs of a job array this is, from 0")
    world_size: int = Field(
        default=1, ge=1, description="runs of a job array; above 1 a run collects its share and plans nothing"
    )
    force_new: bool = Field(default=False, description="start over where OUT was made from other input")
    retry_failed: bool = Field(
        default=False, description="look again at pictures that were missing or could not be read"
    )
    dry_run: bool = Field(default=False, description="read and plan, write nothing to OUT")
    publish: str = Field(
        default="",
        description="url (s3://bucket/folder) where a copy of the public files is kept in step, by later "
        'runs and takedowns too; "off" ends it',
    )
    collect: CollectConfig = Field(default_factory=CollectConfig)
    download: DownloadConfig = Field(default_factory=DownloadConfig)
    select: SelectConfig = Field(default_factory=SelectConfig)
    language: LanguageConfig = Field(default_factory=LanguageConfig)
    text: TextConfig = Field(default_factory=TextConfig)
    caption: CaptionConfig = Field(default_factory=CaptionConfig)
    image: ImageConfig = Field(default_factory=ImageConfig)
    filter: FilterConfig = Field(default_factory=FilterConfig)
    privacy: PrivacyConfig = Field(default_factory=PrivacyConfig)
    dedup: DedupConfig = Field(default_factory=DedupConfig)
    split: SplitConfig = Field(default_factory=SplitConfig)
    pack: PackConfig = Field(default_factory=PackConfig)
    card: CardConfig = Field(default_factory=CardConfig)

    @field_validator("sources", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("publish")
    @classmethod
    def _a_url_or_nothing(cls, value: str) -> str:
        return value if value in ("", "off") else check_url(value)

    @model_validator(mode="before")
    @classmethod
    def _panels_where_needed(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        image, collect = data.get("image", {}), data.get("collect", {})
        asked = image.get("panels", "off") if isinstance(image, Mapping) else image.panels
        if asked == "off" or not isinstance(collect, Mapping):
            return data
        return {**data, "collect": {"panels": True, **collect}}

    @model_validator(mode="after")
    def _looked_at_what_is_judged(self) -> IngestConfig:
        if not self.collect.scores and (self.filter.pictures == "reject" or self.filter.model):
            raise ValueError(
                'collect.scores is off, so no picture can be judged: set filter.pictures to "keep" and no '
                "filter.model"
            )
        if self.image.panels != "off" and not (self.collect.scores and self.collect.panels):
            raise ValueError(
                "collect.scores or collect.panels is off, so no panels are looked for: set both on, or "
                'image.panels to "off"'
            )
        if self.filter.scorer_min is not None and self.collect.scorer is None:
            raise ValueError("filter.scorer_min needs a checkpoint: set collect.scorer")
        if not self.collect.phash and self.dedup.tie_radius >= 0:
            raise ValueError(
                "collect.phash is off, so no near duplicates can be found: set dedup.drop_radius and "
                "dedup.tie_radius to -1"
            )
        return self

    @model_validator(mode="after")
    def _one_of_the_ranks(self) -> IngestConfig:
        if self.rank >= self.world_size:
            raise ValueError(
                f"rank {self.rank} must be below world_size {self.world_size} (ranks count from 0)"
            )
        return self

    def engine_for(self, tasks: Sequence[Any], *, apart: bool = False) -> dict[str, Any]:
        """Arguments of `engine.map`: no more processes than tasks, and none for a single task.

        ``apart`` are tasks that may kill their process: even a single one gets its own.
        """
        if self.engine == "ray":
            return {"engine": "ray", "workers": self.workers}  # by default as many as the cluster has
        if len(tasks) < 2 and not (apart and tasks):
            return {"engine": "serial"}
        return {"engine": self.engine, "workers": min(self.workers or os.cpu_count() or 1, len(tasks))}

    def hashes(self) -> dict[str, str]:
        """SHA-256 of what decides each phase: its sections and the version of its code."""
        plan = ("select", "language", "text", "caption", "image", "filter", "privacy", "dedup", "split")
        model = self.filter.model
        files = [path for path in (model, self.privacy.cleared) if path and path.is_file()]
        contents = " ".join(sha256_file(path) for path in files) or None
        return {
            "collect": self._hash(
                COLLECT_VERSION, "collect", more="download" if self.download.enabled else None
            ),
            "plan": self._hash(PLAN_VERSION, *plan, more=contents),
            "pack": self._hash(PACK_VERSION, "pack"),
        }

    def sections(self) -> dict[str, Any]:
        """The settings of all phases, without what only concerns this run."""
        run = {
            "sources",
            "out",
            "media",
            "ids",
            "media_table",
            "key_file",
            "engine",
            "workers",
            "ahead",
            "rank",
            "world_size",
            "force_new",
            "retry_failed",
            "dry_run",
        }
        return self.model_dump(mode="json", exclude=run)

    def _hash(self, version: int, *names: str, more: str | None = None) -> str:
        data = self.model_dump(mode="json", include=set(names))
        return hashlib.sha256(json.dumps([version, data, more], sort_keys=True).encode()).hexdigest()


PRESETS: dict[str, dict[str, Any]] = {
    # OpenPath as far as it is known (Huang et al. 2023, fig. 1): English by the platform's word, hashtags
    # deleted, the one most-liked reply that holds a medical word, texts with a question mark dropped after
    # that choice, one pair per caption, no duplicates removed, no alt text
    "plip": {
        "language": {"unknown": "drop"},
        "text": {"hashtags": "strip"},
        "caption": {
            "questions": "mark",
            "min_letters": 1,
            "max_replies": 1,
            "reply_choice": "most_liked",
            "alt_text": False,
            "pairs": "caption",
            "reply_min_words": 1,
        },
        "dedup": {"exact": False, "drop_radius": -1, "tie_radius": 8},
        "privacy": {"phi": "flag"},
    },
    # fewer and surer pairs: no bots, no unknown language, captions of three words, one reply of four,
    # pictures of 224 px, and a wider search for duplicates
    "strict": {
        "select": {"bots": "drop"},
        "language": {"unknown": "drop"},
        "caption": {
            "min_words": 3,
            "min_letters": 10,
            "max_replies": 1,
            "reply_min_words": 4,
            "max_continuations": 1,
            "positional": "drop",
            "labels": "drop",
        },
        "image": {"min_side_px": 224, "max_aspect": 4.0},
        "dedup": {"drop_radius": 8, "tie_radius": 10},
    },
    # everything that can be used, for filters applied later: flagged and withheld posts, replies without a
    # medical word, small and long pictures, charts; of alike pictures only those with equal hashes go
    "permissive": {
        "select": {"sensitive": "keep", "withheld": "keep"},
        "language": {"unknown": "keep", "min_letters": 20},
        "caption": {"reply_term": False, "max_replies": 8, "min_letters": 2},
        "image": {"min_side_px": 64, "max_aspect": 12.0},
        "filter": {"pictures": "keep"},
        "privacy": {"phi": "flag"},
        "dedup": {"drop_radius": 0, "tie_radius": 8},
    },
}


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset, to be laid below a config file.

    Raises:
        UserError: If there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return {section: dict(values) for section, values in PRESETS[name].items()}


Phase = Literal["collect", "plan", "pack"]
