"""Fetch the pictures that posts name and no folder holds: off unless asked, guarded, each once."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from pydantic import Field

from pathclip.core.config import Config
from pathclip.core.extras import require
from pathclip.core.progress import track
from pathclip.ingest.guard import BlockedError, Resolve, Target, check, resolve
from pathclip.ingest.ledger import Fetched, Ledger

__all__ = ["DownloadConfig", "download"]

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
GONE = frozenset({404, 410})
MAY_PASS = frozenset({"failed", "slow"})
MAX_REDIRECTS = 3
MAX_WAIT_S = 300.0
AGENT = "pathclip (research; https://pypi.org/project/pathclip)"


class DownloadConfig(Config):
    """Fetching of pictures that are not at hand. The platform's terms bind whoever switches it on."""

    enabled: bool = Field(False, description="fetch pictures that posts name and no media folder holds")
    hosts: tuple[str, ...] = Field(
        ("pbs.twimg.com",), description="allowed hosts; *.example.org allows all below"
    )
    max_bytes: int = Field(25_000_000, ge=1, description="a larger file is given up while it comes")
    timeout_s: float = Field(20.0, gt=0, description="without a byte")
    max_s: float = Field(120.0, gt=0, description="for the bytes of one file; a server that trickles is left")
    tries: int = Field(4, ge=1, description="attempts in all, for errors that pass")
    per_second: float = Field(10.0, gt=0, description="requests, over all connections")
    connections: int = Field(4, ge=1, description="at once")


def download(
    urls: Iterable[str],
    store: Path,
    config: DownloadConfig,
    *,
    retry_failed: bool = False,
    transport: Any = None,
    resolver: Resolve = resolve,
    sleep: Callable[[float], None] = time.sleep,
) -> Ledger:
    """Fetch what the ledger does not know yet.

    Args:
        urls: Of pictures.
        store: ``private/media``.
        config: Hosts, limits, pace.
        retry_failed: Ask again for those whose failure may have passed.
        transport: An ``httpx`` transport, for tests.
        resolver: Host to addresses.
        sleep: Waits.

    Raises:
        UserError: If httpx is not installed.
    """
    httpx = require("httpx", extra="download", why="downloading pictures (download.enabled)")
    ledger = Ledger(store)
    wanted = [url for url in sorted(set(urls)) if _is_open(ledger.get(url), retry_failed)]
    if not wanted:
        return ledger
    pace = _Pace(config.per_second, sleep)
    with closing(httpx.Client(transport=transport, timeout=config.timeout_s, trust_env=False)) as client:

        def one(url: str) -> None:
            ledger.add(url, *_fetch(client, url, config, pace, resolver, sleep))

        with ThreadPoolExecutor(config.connections) as pool:
            for _ in track(pool.map(one, wanted), "downloads", len(wanted)):
                pass
    return ledger


def _is_open(known: Fetched | None, retry_failed: bool) -> bool:
    return known is None or (retry_failed and known.state in MAY_PASS)


def _fetch(
    client: Any,
    url: str,
    config: DownloadConfig,
    pace: _Pace,
    resolver: Resolve,
    sleep: Callable[[float], None],
) -> tuple[Fetched, bytes | None]:
    """One URL with its redirects and repeated attempts."""
    import httpx

    trouble = ""
    for attempt in range(config.tries):
        wait = _backoff(attempt)
        try:
            answer = _attempt(client, url, config, pace, resolver)
        except BlockedError as error:
            return Fetched("blocked", detail=str(error)), None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            trouble = f"{type(error).__name__}: {error}"
        else:
            if isinstance(answer, tuple):
                return answer
            trouble, asked = answer.trouble, answer.wait_s
            wait = max(wait, asked) if asked is not None else wait
            if wait > MAX_WAIT_S:
                break
        if attempt + 1 < config.tries:
            sleep(wait)
    return Fetched("failed", detail=trouble[:200]), None


@dataclass(frozen=True, slots=True)
class _Again:
    """An answer that may be better next time."""

    trouble: str
    wait_s: float | None


def _attempt(
    client: Any, url: str, config: DownloadConfig, pace: _Pace, resolver: Resolve
) -> tuple[Fetched, bytes | None] | _Again:
    for _ in range(MAX_REDIRECTS + 1):
        target = check(url, config.hosts, resolver)
        pace.wait()
        with _open(client, target) as response:
            if response.is_redirect:
                url = _redirected(url, response.headers.get("location", ""))
                continue
            status = response.status_code
            if status in RETRIED:
                return _Again(f"HTTP {status}", _retry_after(response.headers.get("retry-after")))
            if status != 200:
                return Fetched("gone" if status in GONE else "refused", detail=f"HTTP {status}"), None
            return _body(response, config)
    raise BlockedError(f"more than {MAX_REDIRECTS} redirects")


def _redirected(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise BlockedError(f"redirected to no URL: {error}") from None


def _open(client: Any, target: Target) -> Any:
    """A stream from the address that was checked, under the host's own name and certificate."""
    import httpx

    checked = httpx.URL(target.url)
    return client.stream(
        "GET",
        checked.copy_with(host=target.address),
        headers={
            "Host": target.host,
            "User-Agent": AGENT,
            "Accept": "image/*",
            "Accept-Encoding": "identity",  # what is packed may unfold to anything
        },
        extensions={"sni_hostname": target.host},
        follow_redirects=False,
    )


def _body(response: Any, config: DownloadConfig) -> tuple[Fetched, bytes | None]:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/"):
        return Fetched("no_picture", detail=f"content type {kind or 'missing'}"), None
    too_large = Fetched("oversized", detail=f"more than {config.max_bytes} bytes")
    stated = response.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > config.max_bytes:
        return too_large, None
    data, end = bytearray(), time.monotonic() + config.max_s
    for piece in response.iter_bytes():  # as they come: in pieces of a size, a trickle would not be seen
        data += piece
        if len(data) > config.max_bytes:
            return too_large, None
        if time.monotonic() > end:
            return Fetched("slow", detail=f"{len(data)} bytes in {config.max_s:g} s"), None
    return Fetched("ok", sha256=hashlib.sha256(data).hexdigest()), bytes(data)


class _Pace:
    """At most so many requests a second, over all threads."""

    def __init__(self, per_second: float, sleep: Callable[[float], None]) -> None:
        self._gap, self._sleep = 1 / per_second, sleep
        self._next, self._lock = 0.0, threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        if start > now:
            self._sleep(start - now)


def _backoff(attempt: int) -> float:
    """Full jitter below 1, 2, 4, ... seconds."""
    return random.uniform(0, 2.0**attempt)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a server asked to wait, given in seconds or as a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
