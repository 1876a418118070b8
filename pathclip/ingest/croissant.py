"""``croissant.json``: the dataset described for machines, Croissant 1.0 with its RAI vocabulary."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pathclip._version import __version__
from pathclip.core.files import read_json
from pathclip.ingest.config import CardConfig
from pathclip.shards import ShardInfo

__all__ = ["croissant"]

CROISSANT, RAI = "http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"
_TERMS = (
    *("citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes"),
    *("isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "separator", "source", "subField", "transform"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _TERMS},
}
MEMBERS = {
    "images": ("jpg", "image/jpeg", "sc:ImageObject", "The pictures."),
    "captions": ("txt", "text/plain", "sc:Text", "The best caption of each picture."),
    "samples": ("json", "application/json", "sc:Text", "What is known of each picture, pathclip.sample/1."),
}
"""Record set to the ending, type and meaning of its files in the shards."""


def croissant(
    report: dict[str, Any],
    splits: dict[str, list[ShardInfo]],
    config: CardConfig,
    settings: dict[str, Any],
    standing: Path,
) -> dict[str, Any]:
    """The description of a dataset, from counts and checksums only.

    Args:
        report: ``report.json``.
        splits: The shards, whose checksums it names.
        config: What a person states.
        settings: The sections of the ingest's config.
        standing: The file it will replace, whose date is kept where nothing else changes.
    """
    shards = [shard for infos in splits.values() for shard in infos]
    shares = ", ".join(f"{split} {count}" for split, count in report["splits"].items())
    data: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [CROISSANT, RAI],
        "name": config.name,
        "description": (
            f"{report['samples']} pictures of pathology with captions, from {report['posts']} posts, as "
            f"webdataset shards ({shares or 'empty'})."
        ),
        "license": config.license,
        "usageInfo": f"Legal basis: {config.legal_basis or 'NOT STATED'}",
        "version": f"{__version__.split('+')[0].split('.dev')[0]}",
        **({"creator": {"@type": "sc:Organization", "name": config.creator}} if config.creator else {}),
        **({"url": config.url} if config.url else {}),
        "distribution": [*map(_shard, shards), *(_file_set(name, shards) for name in MEMBERS if shards)],
        "recordSet": [_record_set(name) for name in MEMBERS if shards],
        **_responsible(report, config, settings),
    }
    before = read_json(standing) if standing.is_file() else {}
    date = before.pop("datePublished", None)
    data["datePublished"] = date if date and before == data else datetime.now(UTC).date().isoformat()
    return data


def _shard(shard: ShardInfo) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": shard.path,
        "name": shard.path,
        "contentUrl": shard.path,
        "contentSize": f"{shard.bytes} B",
        "encodingFormat": "application/x-tar",
        "sha256": shard.sha256,
    }


def _file_set(name: str, shards: list[ShardInfo]) -> dict[str, Any]:
    ending, mime, _, _ = MEMBERS[name]
    return {
        "@type": "cr:FileSet",
        "@id": f"{name}-files",
        "name": f"{name}-files",
        "containedIn": [{"@id": shard.path} for shard in shards],
        "encodingFormat": mime,
        "includes": f"*.{ending}",
    }


def _record_set(name: str) -> dict[str, Any]:
    """Files of one ending: the sample id is their name. In this form mlcroissant 1.1 reads every record."""
    ending, _, kind, meaning = MEMBERS[name]
    files = {"fileSet": {"@id": f"{name}-files"}}
    sample_id = {
        **files,
        "extract": {"fileProperty": "filename"},
        "transform": {"regex": rf"^(.+)\.{ending}$"},
    }
    content = {**files, "extract": {"fileProperty": "content"}}
    fields = (("sample_id", "sc:Text", sample_id), ("content", kind, content))
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": meaning,
        "key": {"@id": f"{name}/sample_id"},
        "field": [
            {"@type": "cr:Field", "@id": f"{name}/{field}", "name": field, "dataType": data, "source": source}
            for field, data, source in fields
        ],
    }


def _responsible(report: dict[str, Any], config: CardConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """The RAI fields: where it comes from, what it lacks, whom it concerns, how it is kept in step."""
    reasons = ", ".join(f"{code} {count}" for code, count in report["by_code"].items()) or "none"
    tags = sorted(report["by_hashtag"].items(), key=lambda item: (-sum(item[1].values()), item[0]))[:5]
    most = ", ".join(f"{name} {sum(row.values())}" for name, row in tags) or "none"
    languages = ", ".join(settings.get("language", {}).get("languages") or ["en"])
    return {
        "rai:dataCollection": (
            f"Posts and tables that the maintainers held ({report['lines']} lines, {report['posts']} posts); "
            f"nothing was scraped by the tool. Legal basis: {config.legal_basis or 'NOT STATED'}."
        ),
        "rai:dataPreprocessingProtocol": [
            f"{report['in']} candidates, {report['kept']} kept, {report['rejected']} rejected: {reasons}.",
            "Captions: entities, links, names, emoji and trailing hashtags removed. Pictures: upright, sRGB, "
            "no metadata. Duplicates removed by bytes and perceptual hash; groups never straddle splits.",
        ],
        "rai:dataBiases": (
            f"Captions in {languages} only. Captions by hashtag, the most frequent: {most}. Posts show what "
            "pathologists find worth posting: rare, striking and teaching cases more than everyday ones."
        ),
        "rai:dataLimitations": (
            "Captions are informal and unverified; stain, magnification and scanner are mostly unknown. Not "
            "for diagnosis."
        ),
        "rai:dataUseCases": (
            "Research on image-text models in pathology: training, retrieval, zero-shot classification."
        ),
        "rai:personalSensitiveInformation": (
            "No names of accounts, no post or user ids, no EXIF or GPS; ids are keyed hashes. Pictures may "
            "rarely show text of the laboratory; such pictures are to be reported and taken down."
        ),
        "rai:dataReleaseMaintenancePlan": (
            "Deleted, protected and withheld posts are taken down from shards, tables and indexes, and stay "
            "out of later versions. Users replace older versions."
        ),
    }
