"""What `load` does with files of other projects, whatever the layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pathclip.core.errors import UserError
from pathclip.encoders import KNOWN_MODELS, create, load, shipped_configs
from pathclip.encoders.architecture import Architecture, build_clip, find_architecture
from pathclip.encoders.export import export
from pathclip.encoders.formats import LAYOUTS, layout_of

SMALL = Path(__file__).with_name("small.json")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_told_by_its_mark(name: str) -> None:
    assert layout_of([LAYOUTS[name].mark, "logit_scale"]) == name


def test_no_mark_is_a_key_of_another_layout_or_of_open_clip() -> None:
    assert len({layout.mark for layout in LAYOUTS.values()}) == len(LAYOUTS)
    assert layout_of(create(SMALL).clip.state_dict()) is None


def first(name: str) -> dict[str, torch.Tensor]:
    """The weight that is looked at first, with one dimension."""
    keys = {
        "keep": "visual_head.2.weight",
        "conch": "text.positional_embedding",
        "musk": "beit3.vision_embed.proj.weight",
    }
    return {keys[name]: torch.zeros(1)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_cut_short_is_told_from_the_first_missing_size(name: str, tmp_path: Path) -> None:
    torch.save({LAYOUTS[name].mark: torch.zeros(1, 1)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w\.pt lacks .*; copy or download it again"):
        load(tmp_path / "w.pt")
    torch.save({LAYOUTS[name].mark: torch.zeros(1), **first(name)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"w\.pt: .* is \(1,\); expected [24] dimensions"):
        load(tmp_path / "w.pt")
    with pytest.raises(UserError, match=f"w.pt holds {LAYOUTS[name].name}, whose activation is fixed"):
        load(tmp_path / "w.pt", quick_gelu=True)


def test_an_image_tower_alone_is_refused(tmp_path: Path) -> None:
    torch.save(
        {"trunk.pos_embed": torch.zeros(1), "attn_pool_contrast.query": torch.zeros(1)}, tmp_path / "v15.bin"
    )
    with pytest.raises(UserError, match=r"v15\.bin holds an image tower alone \(CONCH v1\.5; .* two towers"):
        load(tmp_path)


@pytest.mark.parametrize("name", shipped_configs())
def test_what_is_built_without_drawing_differs_in_weights_alone(name: str) -> None:
    architecture = find_architecture(name)
    drawn, undrawn = (build_clip(architecture, draw=draw) for draw in (True, False))
    assert {k: v.shape for k, v in drawn.state_dict().items()} == {
        k: v.shape for k, v in undrawn.state_dict().items()
    }
    saved = drawn.state_dict().keys()
    rest = [key for key, _ in drawn.named_buffers() if key not in saved]
    assert all(torch.equal(drawn.get_buffer(key), undrawn.get_buffer(key)) for key in rest)


def test_its_sizes_are_those_of_its_weights_and_take_no_overrides() -> None:
    architecture = Architecture("MUSK", {}, {}, layout="musk")
    with pytest.raises(UserError, match="MUSK is built as its weights say; it takes no image_size"):
        architecture.overridden(image_size=224)


def test_there_is_no_export_to_open_clip_or_hugging_face(tmp_path: Path) -> None:
    model = create(SMALL)
    model.architecture = Architecture("MUSK", {}, {}, layout="musk")
    model.name = "MUSK"
    for format in ("open_clip", "hf"):
        with pytest.raises(
            UserError, match=r"MUSK has no form that open_clip .* reads; `model\.save\(folder\)`"
        ):
            export(model, tmp_path / format, format=format)


def test_every_layout_is_listed_among_the_published_models() -> None:
    listed = {known.format for known in KNOWN_MODELS}
    assert {layout.name for layout in LAYOUTS.values()} <= listed
