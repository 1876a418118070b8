"""``pathclip slide view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pathclip.cli.app import JsonOption, Outcome, verb
from pathclip.cli.slide import SlideMppOption, SlidesArgument, group


@verb(group, "view")
def view(
    slides: SlidesArgument = None,
    scores: Annotated[
        Path | None, typer.Option("--scores", help="Folder of `slide classify`; its tiles are laid over.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    slide_mpp: SlideMppOption = None,
    json: JsonOption = False,
) -> Outcome:
    """Look at slides in the browser: deep zoom, and the classes of their tiles over it.

    Serves this machine alone (127.0.0.1), until interrupted with Ctrl-C.

    Example: pathclip slide view a.svs --scores out
    """
    from pathclip.slides import Viewer, read_inputs

    viewer = Viewer(read_inputs(slides or []), scores=scores, port=port, slide_mpp=slide_mpp)
    typer.echo(f"look at {viewer.url} (Ctrl-C ends it)", err=True)
    if browser:
        import webbrowser

        webbrowser.open(viewer.url)
    viewer.serve()
    return Outcome({"url": viewer.url, "slides": viewer.names}, [])
