"""How large the demo is. The tests run a small one; people run the default."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "DemoPlan"]


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """Sizes of every stage, chosen so that the whole takes about 130 seconds of processor time.

    Attributes:
        pictures: Painted pictures of the dump that end as samples.
        tile_px: Side of painted tiles.
        tile_mpp: Their scale: 160 pixels show 128 micrometres.
        heldout: Held-out tiles per class.
        model: Shipped config of the dual encoder.
        model_px: Side of the pictures it sees.
        steps: Training steps.
        batch: Samples per step.
        lr: Peak learning rate.
        watch_every: Steps between looks at the held-out tiles, for the curve; nothing is chosen by them.
        slide_px: (width, height) of the slide.
        slide_mpp: Its scale at level 0.
        workers: Processes that paint and ingest. One, so that a plain script may call `run_demo` (spawned
            processes would run the script again); more would gain only seconds.
    """

    pictures: int = 900
    tile_px: int = 160
    tile_mpp: float = 0.8
    heldout: int = 30
    model: str = "tiny-resnet-96"
    model_px: int = 96
    steps: int = 160
    batch: int = 64
    lr: float = 2e-3
    watch_every: int = 40
    slide_px: tuple[int, int] = (4096, 3072)
    slide_mpp: float = 1.0
    workers: int = 1

    @property
    def field_um(self) -> float:
        """Side of the tissue that a tile shows, in micrometres; tiles of the slide show as much."""
        return self.tile_px * self.tile_mpp


FULL = DemoPlan()
