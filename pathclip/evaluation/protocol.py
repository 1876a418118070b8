"""How a published number was made, and how it should be: the presets ``plip-compat`` and ``corrected``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from pathclip.evaluation.datasets import LabelledImages
from pathclip.evaluation.pictures import PlipResized

__all__ = ["HEADLINES", "QUIRKS", "ProtocolName", "as_plip_resized", "protocol_record"]

ProtocolName = Literal["corrected", "plip-compat"]
HEADLINES: dict[ProtocolName, str] = {"corrected": "balanced_accuracy", "plip-compat": "weighted_f1"}
QUIRKS = {
    "one_prompt": "one name in one sentence per class, no ensemble",
    "weighted_f1": "the figure is F1 averaged by class size, which large classes rule",
    "resize_then_crop": "short side to 224 px, then a crop centred by the size before scaling, black beyond",
    "patch_split": "70 of 100 pictures at random train (seed 1); one slide lies on both sides",
    "listing_order": "the published order was the file system's; ours is by name, so other pictures test",
    "background_counts_as_nucleus": "nuclei were counted over all six mask channels, the background's too",
    "ids_modulo_256": "nucleus ids were cut to 8 bits before they were counted",
    "tumour_from_30_percent": "malignant from 30 % tumour on, as the loader has it; the script says 50 %",
    "border_crops_left_out": "a crop that ends with the picture's last row or column was left out",
    "stroma_is_normal": "whatever holds no tumour counts as normal, stroma alone too",
    "row_to_row": "a caption's only right picture is its own row; equal captions are misses",
    "self_counted": "the query itself is in the gallery and counts as found",
    "probe_alpha_on_test": "the penalty of four with the best score on the TEST pictures was kept",
    "probe_macro_called_wf1": "the probe's figure is macro F1, stored under the key WF1",
}
"""What PLIP's published evaluation does that a reader would not expect, by name.

Source: Huang et al. 2023 (doi 10.1038/s41591-023-02504-3), published code, f010f3d.
"""


def as_plip_resized(data: LabelledImages) -> LabelledImages:
    """The same pictures as PLIP's ``resizeimg`` stored them."""
    return replace(
        data,
        pictures=tuple(map(PlipResized, data.pictures)),
        quirks=(*data.quirks, "resize_then_crop"),
    )


def protocol_record(name: ProtocolName, quirks: Iterable[str], how: Iterable[str] = ()) -> dict[str, Any]:
    """The protocol as it stands in the provenance: its headline and every quirk by name."""
    return {
        "name": name,
        "headline": HEADLINES[name],
        "quirks": {quirk: QUIRKS[quirk] for quirk in dict.fromkeys(quirks)},
        "how": list(how),
    }
