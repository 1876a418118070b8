"""Generated data that looks like the real thing: H&E-like tiles, tweet dumps, pyramidal slides.

Everything is seeded: equal arguments give equal pixels. The demo and the tests live on it.
"""

from __future__ import annotations

from pathclip.synthetic.classes import CLASSES, WORDS
from pathclip.synthetic.dump import write_dump
from pathclip.synthetic.layout import Region, SlideTruth
from pathclip.synthetic.slide import write_slide
from pathclip.synthetic.stain import Stain
from pathclip.synthetic.tiles import paint_region, paint_tile, write_tile_folder
from pathclip.synthetic.truth import Decision, DumpTruth

__all__ = [
    "CLASSES",
    "WORDS",
    "Decision",
    "DumpTruth",
    "Region",
    "SlideTruth",
    "Stain",
    "paint_region",
    "paint_tile",
    "write_dump",
    "write_slide",
    "write_tile_folder",
]
