"""Which pictures a run downloads, and what becomes of those that do not come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pathclip.ingest.collect import Collected
from pathclip.ingest.config import IngestConfig
from pathclip.ingest.download import download
from pathclip.ingest.ledger import Fetched, Ledger
from pathclip.ingest.nominate import nominate
from pathclip.pairs import Drop

__all__ = ["fetcher"]

CODES = {
    "gone": "download_gone",
    "blocked": "download_blocked",
    "refused": "download_refused",
    "slow": "download_slow",
    "failed": "download_failed",
    "oversized": "image_oversized",
    "no_picture": "not_an_image",
}


def fetcher(config: IngestConfig, store: Path) -> Callable[[Collected], None]:
    """What `collect` calls between reading and looking: fetches pictures of posts that have a caption."""

    def fetch(collected: Collected) -> None:
        urls = _missing(collected, config)
        ledger = download(urls, store, config.download, retry_failed=config.retry_failed)
        collected.folders.add_store(store, {url: _outcome(ledger.get(url)) for url in urls})

    return fetch


def _missing(collected: Collected, config: IngestConfig) -> list[str]:
    """URLs of pictures that lack nothing but their file."""
    missing = {
        (c.tweet_id, c.media_key)
        for c in nominate(collected, config).candidates
        if c.drop is not None and c.drop.code == "image_missing"
    }
    return sorted(
        {
            media.url
            for tweet in collected.posts()
            for media in tweet.media
            if media.url and (tweet.id, media.key) in missing
        }
    )


def _outcome(fetched: Fetched | None) -> str | Drop:
    if fetched is None:
        return Drop("download_failed", "its file left the store while it was looked for")
    return Ledger.file(fetched) if fetched.state == "ok" else Drop(CODES[fetched.state], fetched.detail)
