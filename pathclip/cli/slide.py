"""``pathclip slide``: classify, embed and look at whole slides."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathclip.cli.app import JsonOption, Outcome, SetOption, app, verb

if TYPE_CHECKING:
    from pathclip.slides import SlideConfig, SlideRun

group = typer.Typer(
    help="Whole slides: zero-shot label, heatmap, QuPath tiles, features.", no_args_is_help=True
)
app.add_typer(group, name="slide")


class Engine(StrEnum):
    """Where the slides are worked on."""

    serial = "serial"
    processes = "processes"
    ray = "ray"


SlidesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SLIDES...",
        help="Slides, patterns in quotes, or a CSV with columns slide[, mpp, patient, label].",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Run folder, model folder, checkpoint file or hub name.")
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that is written.")]
MppOption = Annotated[float | None, typer.Option("--mpp", help="Scale of the tiles, µm/px. [default: 0.5]")]
SlideMppOption = Annotated[
    float | None,
    typer.Option("--slide-mpp", help="Scale of the slides' full size, µm/px, instead of what the files say."),
]
TilePxOption = Annotated[
    int | None, typer.Option("--tile-px", help="Side of a tile at that scale. [default: 256]")
]
UpsampleOption = Annotated[
    bool, typer.Option("--allow-upsample", help="Permit tiles finer than 1.2x the slide's own scale.")
]
MaskOption = Annotated[
    Path | None,
    typer.Option(
        "--mask", help="Tissue mask: PNG over the slide, GeoJSON, or a folder of them named as the slides."
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Do finished slides again.")]
EngineOption = Annotated[Engine, typer.Option("--engine", help="How slides are spread over the machine.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes. [default: one per core]")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file with these settings and more.")
]


@verb(group, "classify")
def classify(
    slides: SlidesArgument = None,
    model: ModelOption = ...,  # type: ignore[assignment]
    classes: Annotated[
        str, typer.Option("--classes", "-c", help="Prompt file, shipped set, or names separated by commas.")
    ] = ...,  # type: ignore[assignment]
    out: OutOption = ...,  # type: ignore[assignment]
    mpp: MppOption = None,
    slide_mpp: SlideMppOption = None,
    tile_px: TilePxOption = None,
    top_k: Annotated[
        str | None, typer.Option("--top-k", help="Numbers of best tiles pooled. [default: 1,5,10,50,100]")
    ] = None,
    allow_upsample: UpsampleOption = False,
    mask: MaskOption = None,
    features: Annotated[
        list[Path] | None,
        typer.Option(
            "--features", help="Cached features (h5) to score instead of reading slides; may be repeated."
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    engine: EngineOption = Engine.serial,
    workers: WorkersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> Outcome:
    """Zero-shot classify whole slides: a label, a heatmap, a page and QuPath tiles for each.

    Example: pathclip slide classify "slides/*.svs" --model run --classes nsclc.json --out result

    OUT/results.csv holds the labels and scores, OUT/status.jsonl how each slide ended, OUT/NAME.html what to
    look at. A damaged slide does not stop the others; running the same command again resumes.
    """
    from pathclip.slides import run_slides

    options = {"mpp": mpp, "slide_mpp": slide_mpp, "tile_px": tile_px, "mask": mask, "top_k": _numbers(top_k)}
    run = run_slides(
        slides or [],
        model,
        _classes(classes),
        _config(config, set_, allow_upsample, options),
        out,
        features=features or [],
        overwrite=overwrite,
        engine=engine.value,
        workers=workers,
    )
    return _outcome(run)


@verb(group, "embed")
def embed(
    slides: SlidesArgument = None,
    model: ModelOption = ...,  # type: ignore[assignment]
    out: OutOption = ...,  # type: ignore[assignment]
    mpp: MppOption = None,
    slide_mpp: SlideMppOption = None,
    tile_px: TilePxOption = None,
    allow_upsample: UpsampleOption = False,
    mask: MaskOption = None,
    overwrite: OverwriteOption = False,
    engine: EngineOption = Engine.serial,
    workers: WorkersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> Outcome:
    """Encode the tiles of whole slides to OUT/NAME.h5, for prompts that come later.

    Example: pathclip slide embed "slides/*.svs" --model run --out features
    """
    from pathclip.slides import run_slides

    options = {"mpp": mpp, "slide_mpp": slide_mpp, "tile_px": tile_px, "mask": mask}
    run = run_slides(
        slides or [],
        model,
        None,
        _config(config, set_, allow_upsample, options),
        out,
        overwrite=overwrite,
        engine=engine.value,
        workers=workers,
    )
    return _outcome(run)


@verb(group, "info")
def info(
    slides: SlidesArgument = None, slide_mpp: SlideMppOption = None, json: JsonOption = False
) -> Outcome:
    """Show format, size, levels, scale with its source, attached pictures and tissue of slides.

    Example: pathclip slide info a.svs b.tif
    """
    from pathclip.core.errors import PathclipError, UserError
    from pathclip.slides import read_inputs, slide_info

    rows: list[dict[str, Any]] = []
    codes: list[int] = []
    for item in read_inputs(slides or []):
        try:
            rows.append(slide_info(item.path, slide_mpp=slide_mpp, row_mpp=item.mpp).to_dict())
        except PathclipError as error:
            rows.append({"slide": item.given, "error": str(error)})
            codes.append(2 if isinstance(error, UserError) else 1)
    failed = 2 if len(codes) == len(rows) and set(codes) == {2} else 1
    faults = [f"{row['slide']}: {row['error']}" for row in rows if "error" in row]
    return Outcome({"slides": rows}, [_info_table(rows), *faults], exit_code=failed if codes else 0)


def _config(
    path: Path | None, overrides: list[str] | None, allow_upsample: bool, options: dict[str, Any]
) -> SlideConfig:
    """The config file, then ``--set``, then the options: what is typed last and closest wins."""
    from pydantic import ValidationError

    from pathclip.core.config import load_config
    from pathclip.core.errors import UserError
    from pathclip.slides import SlideConfig

    config = load_config(SlideConfig, path, overrides or [])
    given = {key: value for key, value in options.items() if value is not None}
    if allow_upsample:
        given["allow_upsample"] = True
    try:
        return config.replace(**given)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "label_k"
        told = SlideConfig.model_fields[key].description
        problem = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        name, value = f"--{key.replace('_', '-')}", given.get(key, "")
        raise UserError(f"{name} {value}: {problem} ({told})") from None


def _numbers(text: str | None) -> tuple[int, ...] | None:
    from pathclip.core.errors import UserError

    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--top-k {text}: expected whole numbers separated by commas, such as 1,5,10"
        ) from None


def _classes(text: str) -> Any:
    """Names separated by commas, as a list; anything else is a file or a shipped set."""
    if "," in text and not Path(text).exists():
        return [name.strip() for name in text.split(",") if name.strip()]
    return text


def _outcome(run: SlideRun) -> Outcome:
    rows = [
        {
            **record.status(),
            "label": record.label,
            "agreement": record.agreement,
            "scores": record.scores,
            "means": record.means,
            "class_tiles": record.class_tiles,
            "segment": record.segment,
            "patient": record.patient,
            "truth": record.truth,
            "files": list(record.files),
            "skipped": record.name in run.skipped,
        }
        for record in run.records
    ]
    data = {
        "out": str(run.out),
        "slides": rows,
        **{state: run.count(state) for state in ("done", "failed", "empty")},
        "elsewhere": list(run.elsewhere),
    }
    reasons = "; reasons in status.jsonl" if any(record.reason for record in run.records) else ""
    shown = run.out / "index.html"
    scored = any(record.scores for record in run.records)
    told = f"look at {shown}" if scored and shown.is_file() else f"written to {run.out}"
    return Outcome(data, [_run_table(run), f"{told}{reasons}"], exit_code=run.exit_code)


def _run_table(run: SlideRun) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None)
    table.add_column("slide", overflow="fold")
    for heading in ("state", "label", "K agree", "tiles", "unreadable", "seconds"):
        table.add_column(heading)
    for record in run.records:
        agree = "" if record.agreement is None else f"{record.agreement:.0%}"
        numbers = (agree, str(record.tiles), str(record.unreadable), f"{record.seconds:.1f}")
        name = escape(Path(record.slide).name)
        table.add_row(name, record.state, escape(record.label or ""), *numbers)
    return table


def _info_table(rows: list[dict[str, Any]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table("slide", "vendor", "size", "levels", "µm/px", "source", "tissue", "attached", box=None)
    for row in rows:
        if "error" in row:
            table.add_row(escape(Path(row["slide"]).name), "unreadable")
            continue
        levels = ", ".join(f"{level['downsample']:g}x" for level in row["levels"])
        tissue = (
            "" if row["tissue_share"] is None else f"{row['tissue_share']:.0%}, {row['tissue_mm2']:.2f} mm²"
        )
        scale = "unknown (--slide-mpp)" if row["mpp"] is None else f"{row['mpp']:g}"
        size = f"{row['width']} x {row['height']}"
        attached = ", ".join(row["associated"])
        table.add_row(
            escape(Path(row["slide"]).name),
            row["vendor"],
            size,
            levels,
            scale,
            row["mpp_source"] or "",
            tissue,
            attached,
        )
    return table
