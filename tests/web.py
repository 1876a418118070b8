"""A plain web server on this machine that can be told to fail."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Web:
    """What it serves and how it fails.

    Attributes:
        url: Of its folder.
        cut: Name -> how many of the next answers break off in the middle.
        refused: Name -> how many of the next answers are 503.
        forbidden: Names that are answered with 403.
        asked: How often each name was asked for.
    """

    url: str = ""
    cut: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    forbidden: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args, web: Web, **options) -> None:
        self.web = web
        super().__init__(*args, **options)

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.web.asked[name] += 1
        if self.web.refused[name] > 0:
            self.web.refused[name] -= 1
            self.send_error(503)
        elif name in self.web.forbidden:
            self.send_error(403)
        else:
            super().do_GET()

    def copyfile(self, source, outputfile) -> None:
        name = self.path.rpartition("/")[2]
        data = source.read()
        if self.web.cut[name] > 0:
            self.web.cut[name] -= 1
            data = data[: len(data) // 2]
            self.close_connection = True
        outputfile.write(data)


@contextmanager
def serve(folder: Path) -> Iterator[Web]:
    """The folder at a port of its own."""
    web = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, web=web, directory=str(folder)))
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
