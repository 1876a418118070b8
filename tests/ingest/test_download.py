"""Downloads without a network: the guard's table, the fetches, the store, and the dataset made of them."""

from __future__ import annotations

import itertools
import json
import socket
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from looking import kept, rejects

from pathclip.core.errors import UserError
from pathclip.ingest import IngestConfig, ingest, takedown
from pathclip.ingest import download as module
from pathclip.ingest.download import DownloadConfig, download
from pathclip.ingest.guard import BlockedError, check, is_public
from pathclip.ingest.ledger import Ledger
from pathclip.ingest.requests import Requests

httpx = pytest.importorskip("httpx")
HOSTS = ("pbs.twimg.com", "*.example.org")
PUBLIC = "104.244.43.131"
CONFIG = DownloadConfig(enabled=True, per_second=1e6, tries=3)


def stands_for(*addresses: str):
    return lambda host: list(addresses)


BAD_URLS = [
    ("file:///etc/passwd", "only https"),
    ("data:image/png;base64,AAAA", "only https"),
    ("ftp://pbs.twimg.com/a.jpg", "only https"),
    ("http://pbs.twimg.com/a.jpg", "only https"),
    ("//pbs.twimg.com/a.jpg", "only https"),
    ("https://127.1/a.jpg", "no plain host name"),
    ("https://127.0.0.1/a.jpg", "no plain host name"),
    ("https://0x7f.0.0.1/a.jpg", "no plain host name"),
    ("https://2130706433/a.jpg", "no plain host name"),
    ("https://0177.0.0.01/a.jpg", "no plain host name"),
    ("https://[::1]/a.jpg", "no plain host name"),
    ("https://[::ffff:7f00:1]/a.jpg", "no plain host name"),
    ("https://169.254.169.254/latest/meta-data", "no plain host name"),
    ("https://localhost/a.jpg", "no plain host name"),
    ("https:///a.jpg", "no plain host name"),
    ("https://user:secret@pbs.twimg.com/a.jpg", "credentials"),
    ("https://pbs.twimg.com@evil.example.com/a.jpg", "credentials"),
    ("https://pbs.twimg.com:8443/a.jpg", "port 8443"),
    ("https://pbs.twimg.com:99999/a.jpg", "no URL"),
    ("https://evil.com/pbs.twimg.com/a.jpg", "not among the allowed"),
    ("https://pbs.twimg.com.evil.com/a.jpg", "not among the allowed"),
    ("https://notpbs.twimg.com/a.jpg", "not among the allowed"),
    ("https://example.org/a.jpg", "not among the allowed"),
    ("https://pbs.twimg.com\\@evil.com/a.jpg", "backslashes"),
    ("https://pbs.twimg.com/a.jpg\r\nHost: evil.com", "control characters"),
    ("https://pbs.twimg.\u0441om/a.jpg", "no plain host name"),
    ("https://pbs.twimg.com/" + "a" * 3000, "too long"),
]


@pytest.mark.parametrize(("url", "reason"), BAD_URLS)
def test_a_url_that_leads_elsewhere_is_refused_before_any_name_is_asked(url: str, reason: str) -> None:
    def never(host: str) -> list[str]:
        raise AssertionError(host)

    with pytest.raises(BlockedError, match=reason):
        check(url, HOSTS, never)


NOT_PUBLIC = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
]
NOT_PUBLIC += [
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "ff02::1",
    "2001:db8::1",
]
NOT_PUBLIC += [
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "2002:7f00:1::",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "what",
]


NOT_PUBLIC += ["64:ff9b:1:a00:0:100:808:808", "2001:0:4136:e378:8000:63bf:f7f7:f7f7", "2002:808:808::1"]
NOT_PUBLIC += ["fec0::1", "3fff::1", "192.88.99.1"]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_a_host_that_stands_for_no_public_address_is_refused(address: str) -> None:
    with pytest.raises(BlockedError, match="which is not public"):
        check("https://pbs.twimg.com/a.jpg", HOSTS, stands_for(PUBLIC, address))


def test_a_good_url_is_pinned_to_the_address_that_was_checked() -> None:
    target = check("https://PBS.twimg.com./media/a.jpg?x=1", HOSTS, stands_for(PUBLIC))
    assert (target.host, target.address) == ("pbs.twimg.com", PUBLIC)
    assert check("https://a.b.example.org/x", HOSTS, stands_for("2606:4700::1111")).host == "a.b.example.org"
    assert is_public("64:ff9b::808:808")
    with pytest.raises(BlockedError, match="has no address"):
        check("https://pbs.twimg.com/a.jpg", HOSTS, stands_for())


class Server:
    """Answers by path; counts and keeps what was asked."""

    def __init__(self, **answers: object) -> None:
        self.answers, self.seen = answers, []
        self.transport = httpx.MockTransport(self)

    def __call__(self, request: object) -> object:
        self.seen.append(request)
        answer = self.answers[request.url.path.strip("/").partition(".")[0]]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return answer
        if isinstance(answer, bytes):
            return httpx.Response(200, content=answer, headers={"content-type": "image/jpeg"})
        status, headers = answer
        return httpx.Response(status, headers=headers)


def fetch(server: Server, store: Path, *names: str, resolver=None, config=CONFIG, **more):
    waits: list[float] = []
    urls = [f"https://pbs.twimg.com/{name}.jpg" for name in names]
    ledger = download(
        urls,
        store,
        config,
        transport=server.transport,
        resolver=resolver or stands_for(PUBLIC),
        sleep=waits.append,
        **more,
    )
    return [ledger.get(url) for url in urls], waits


def test_a_picture_is_fetched_once_from_the_checked_address_under_its_own_name(tmp_path: Path) -> None:
    server = Server(a=b"\xff\xd8 one", b=b"\xff\xd8 one")
    (a, b), _ = fetch(server, tmp_path, "a", "b")
    assert a == b
    assert (tmp_path / Ledger.file(a)).read_bytes() == b"\xff\xd8 one"
    request = server.seen[0]
    assert (request.url.host, request.headers["host"]) == (PUBLIC, "pbs.twimg.com")
    assert request.extensions["sni_hostname"] == "pbs.twimg.com"
    (again,), _ = fetch(server, tmp_path, "a")
    assert again == a
    assert len(server.seen) == 2
    (tmp_path / Ledger.file(a)).unlink()  # a file that was lost is fetched again
    fetch(server, tmp_path, "a")
    assert len(server.seen) == 3
    assert "twimg" not in (tmp_path / "ledger.jsonl").read_text()


def test_a_redirect_is_checked_like_the_first_url(tmp_path: Path) -> None:
    inside = {"location": "https://169.254.169.254/latest"}
    server = Server(
        inward=(302, inside),
        plain=(302, {"location": "http://pbs.twimg.com/a.jpg"}),
        fine=(302, {"location": "/a.jpg"}),
        loop=(302, {"location": "/loop.jpg"}),
        a=b"\xff\xd8",
    )
    (inward, plain, fine, loop), _ = fetch(server, tmp_path, "inward", "plain", "fine", "loop")
    assert [f.state for f in (inward, plain, fine, loop)] == ["blocked", "blocked", "ok", "blocked"]
    assert loop.detail == "more than 3 redirects"


def test_a_name_that_is_bound_anew_between_requests_is_caught(tmp_path: Path) -> None:
    answers = [[PUBLIC], ["127.0.0.1"]]
    server = Server(a=(302, {"location": "/b.jpg"}), b=b"\xff\xd8")
    (found,), _ = fetch(server, tmp_path, "a", resolver=lambda host: answers.pop(0))
    assert found.state == "blocked"
    assert [request.url.host for request in server.seen] == [PUBLIC]


def test_a_redirect_to_no_url_is_a_reject_and_no_crash(tmp_path: Path) -> None:
    (found,), _ = fetch(Server(a=(302, {"location": "https://[x/a.jpg"})), tmp_path, "a")
    assert found.state == "blocked"


def test_a_name_server_that_is_away_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    def away(host: str) -> list[str]:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    server = Server(a=b"\xff\xd8")
    (found,), waits = fetch(server, tmp_path, "a", resolver=away)
    assert (found.state, len(waits)) == ("failed", 2)
    (again,), _ = fetch(server, tmp_path, "a", retry_failed=True)
    assert again.state == "ok"


def test_errors_that_pass_are_tried_again_and_others_are_not(tmp_path: Path) -> None:
    server = Server(
        slow=[(503, {"retry-after": "7"}), b"\xff\xd8"],
        never=(500, {}),
        cut=[httpx.ReadTimeout("late"), b"\xff\xd8 2"],
        gone=(404, {}),
        shut=(403, {}),
        later=(429, {"retry-after": "99999"}),
    )
    found, waits = fetch(server, tmp_path, "slow", "never", "cut", "gone", "shut", "later")
    assert [f.state for f in found] == ["ok", "failed", "ok", "gone", "refused", "failed"]
    assert found[1].detail == "HTTP 500"
    assert len(server.seen) == 2 + 3 + 2 + 1 + 1 + 1
    assert 7 <= max(waits) < 8
    server.answers["never"] = b"\xff\xd8 3"
    (known, _), _ = fetch(server, tmp_path, "never", "gone")
    assert known.state == "failed"  # not asked again unless told to
    (now, gone), _ = fetch(server, tmp_path, "never", "gone", retry_failed=True)
    assert (now.state, gone.state) == ("ok", "gone")


def test_what_is_too_large_or_no_picture_is_given_up(tmp_path: Path) -> None:
    server = Server(big=b"x" * 4000, page=(200, {"content-type": "text/html"}))
    config = DownloadConfig(enabled=True, max_bytes=1000, per_second=1e6)
    (big, page), _ = fetch(server, tmp_path, "big", "page", config=config)
    assert (big.state, page.state) == ("oversized", "no_picture")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["ledger.jsonl"]


def test_a_server_that_trickles_is_left_and_may_be_asked_again(tmp_path: Path, monkeypatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(sys.modules[download.__module__], "time", SimpleNamespace(monotonic=clock.__next__))

    def trickle():
        for _ in range(100):
            yield b"\xff"

    server = Server(drip=httpx.Response(200, content=trickle(), headers={"content-type": "image/jpeg"}))
    config = DownloadConfig(enabled=True, max_s=20, per_second=1e6)
    (found,), waits = fetch(server, tmp_path, "drip", config=config)
    assert (found.state, found.detail) == ("slow", "21 bytes in 20 s")
    assert len(server.seen) == 1
    assert not waits
    server.answers["drip"] = b"\xff\xd8"
    (again,), _ = fetch(server, tmp_path, "drip", config=config, retry_failed=True)
    assert again.state == "ok"
    assert server.seen[-1].headers["accept-encoding"] == "identity"


def test_requests_keep_the_pace(tmp_path: Path) -> None:
    server = Server(**{f"p{n}": b"\xff\xd8" for n in range(5)})
    slow = DownloadConfig(enabled=True, per_second=0.5, connections=1)
    _, waits = fetch(server, tmp_path, *(f"p{n}" for n in range(5)), config=slow)
    assert len(waits) == 4
    assert max(waits) > 7  # the clock stands still here, so the fifth is due eight seconds on


def test_a_torn_line_costs_itself(tmp_path: Path) -> None:
    server = Server(a=b"\xff\xd8", b=b"\xff\xd8 2")
    fetch(server, tmp_path, "a", "b")
    path = tmp_path / "ledger.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(lines[0] + "\n" + lines[1][:20])
    fetch(server, tmp_path, "a", "b")
    assert len(server.seen) == 3


@pytest.fixture
def online(dump, monkeypatch):
    """A dump of three posts: one picture at hand, one to be fetched, one that is gone."""
    at_hand, remote = dump.picture("a.jpg", 1), dump.picture("b.jpg", 2)
    (dump.media / "b.jpg").unlink()
    dump.post("1", "Melanoma of the skin", "a")
    dump.post("2", "Mucinous carcinoma of the ovary", "b")
    dump.post("3", "Seminoma of the testis", "c")
    dump.post("4", "What is this?", "d")  # not worth a request
    server = Server(**{"media/b": remote, "media/c": (404, {})})
    plain = module._fetch

    def download_here(urls, store, config, **more):
        return download(
            urls, store, config, transport=server.transport, resolver=stands_for(PUBLIC), sleep=lambda s: None
        )

    monkeypatch.setattr("pathclip.ingest.fetch.download", download_here)
    assert plain is module._fetch
    return dump, server, at_hand


def run(dump, out, **more):
    return ingest(IngestConfig(sources=(dump.tweets,), media=dump.media, out=out, **more))


def test_a_dataset_takes_in_what_was_fetched_and_names_what_was_not(online, tmp_path: Path) -> None:
    dump, server, _ = online
    offline = run(dump, tmp_path / "off").data
    assert (offline["kept"], offline["by_code"]["image_missing"], len(server.seen)) == (1, 2, 0)
    report = run(dump, tmp_path / "on", download={"enabled": True}).data
    assert report["kept"] == 2
    assert report["by_code"] == {"download_gone": 1, "question": 1}
    assert report["in"] == report["kept"] + report["rejected"]
    assert sorted(r.url.path for r in server.seen) == ["/media/b.jpg", "/media/c.jpg"]
    assert {row["detail"] for row in rejects(tmp_path / "on")} >= {"HTTP 404"}
    assert stat.S_IMODE((tmp_path / "on" / "private").stat().st_mode) == 0o700
    run(dump, tmp_path / "on", download={"enabled": True}, force_new=True)
    assert len(server.seen) == 2  # a new generation keeps the store
    assert len(kept(tmp_path / "on")) == 2


def test_switching_downloads_on_later_is_another_input(online, tmp_path: Path) -> None:
    dump, _, _ = online
    run(dump, tmp_path / "d")
    with pytest.raises(UserError, match=r"download\.enabled is True now"):
        run(dump, tmp_path / "d", download={"enabled": True})


def test_takedown_purges_the_store_of_the_picture_and_keeps_the_others(online, tmp_path: Path) -> None:
    dump, server, _ = online
    server.answers["media/c"] = dump.picture("other.jpg", 3)
    (dump.media / "other.jpg").unlink()
    run(dump, tmp_path / "d", download={"enabled": True})
    store = tmp_path / "d" / "private" / "media"
    assert len([p for p in store.rglob("*") if p.is_file()]) == 3
    takedown(tmp_path / "d", Requests(posts={"2": "request"}))
    assert len([p for p in store.rglob("*") if p.is_file()]) == 2
    assert len((store / "ledger.jsonl").read_text().splitlines()) == 1
    again = run(dump, tmp_path / "d", download={"enabled": True}, force_new=True)
    assert again.data["kept"] == 2
    assert len(server.seen) == 2
    row = json.loads((store / "ledger.jsonl").read_text().splitlines()[0])
    assert sorted(row) == ["detail", "sha256", "state", "url"]
