"""One side of slides.py, in a process of its own: the tiles of a slide to features; prints one JSON line."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DIM = 512
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """The same network on both sides: 8 x 8 mean colours, projected (``mock``), or a vision transformer."""

    def __init__(self, what: str, size_px: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image_size, self.embed_dim, self.name, self.precision = size_px, DIM, what, "fp32"
        self.logit_scale = nn.Parameter(torch.zeros(()))
        if what == "small":
            from timm.models.vision_transformer import VisionTransformer

            self.net: nn.Module = VisionTransformer(
                img_size=size_px, patch_size=32, embed_dim=192, depth=6, num_heads=3, num_classes=DIM
            )
        else:
            self.net = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, DIM, bias=False))
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.logit_scale.device

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """It never trains."""
        yield

    def encode_pixels(self, images: Tensor, *, normalize: bool = True) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, D) unit length."""
        mean, std = (255 * torch.tensor(v)[:, None, None] for v in (MEAN, STD))
        return self.features(images.float().sub_(mean).div_(std))

    def provenance(self) -> dict[str, Any]:
        """What a job records."""
        return {"model": self.name, "checkpoint_sha256": "0" * 64, "transform": {"size": self.image_size}}

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalised -> (B, D) unit length."""
        return nn.functional.normalize(self.net(images), dim=-1)


def pathclip_side(spec: dict[str, Any], xy: np.ndarray) -> np.ndarray:
    """`pathclip.slides` from the open file to features in memory."""
    from pathclip.slides import open_slide
    from pathclip.slides.encode import encode_tiles, read_tiles
    from pathclip.slides.tiling import TilePlan

    slide = open_slide(spec["slide"])
    scale = spec["read_px"] / spec["tile_px"]
    plan = TilePlan(xy, spec["tile_px"], 0.5, 0, spec["read_px"], scale, float(spec["read_px"]))
    if spec["what"] == "read":
        tiles = read_tiles(slide, plan, spec["size_px"], threads=spec["workers"], ahead=3 * spec["batch"])
        return np.array([[float(tile[0, 0, 0])] for tile in tiles])
    model = Encoder(spec["what"], spec["size_px"])
    return encode_tiles(slide, plan, model, batch_size=spec["batch"], threads=spec["workers"]).values


def usual_transform(size_px: int) -> Any:
    """What encoders are published with."""
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize(size_px, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size_px),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def job_side(spec: dict[str, Any], xy: np.ndarray) -> np.ndarray:
    """``pathclip slide embed`` on a slide that is all tissue, finding that out included."""
    import tempfile
    from pathlib import Path

    from pathclip.slides import SlideConfig, read_features, run_slides

    if len(xy) < 10:
        return xy
    config = SlideConfig(threads=spec["workers"], batch_size=spec["batch"], max_unreadable=0)
    with tempfile.TemporaryDirectory(dir=Path(spec["out"]).parent) as out:
        run = run_slides(spec["slide"], Encoder("mock", spec["size_px"]), None, config, out)
        assert run.exit_code == 0, run.records
        spec["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # before they are read back
        return read_features(next(Path(out).glob("*.h5"))).features


class PatchDataset(torch.utils.data.Dataset):
    """Tiles as CLAM's and TRIDENT's datasets give them: read in full, shrunk to the tile, transformed."""

    def __init__(self, spec: dict[str, Any], xy: np.ndarray) -> None:
        self.spec, self.xy, self.slide = spec, xy, None
        self.transform = usual_transform(spec["size_px"])

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.xy)

    def __getitem__(self, index: int) -> Tensor:
        """(3, H, W) float32, normalised."""
        import openslide

        if self.slide is None:  # in the worker: handles do not survive being copied
            self.slide = openslide.OpenSlide(self.spec["slide"])
        side = self.spec["read_px"]
        x, y = self.xy[index].tolist()
        tile = self.slide.read_region((x, y), 0, (side, side)).convert("RGB")
        if side != self.spec["tile_px"]:
            tile = tile.resize((self.spec["tile_px"], self.spec["tile_px"]))
        return self.transform(tile)


@torch.inference_mode()
def openslide_side(spec: dict[str, Any], xy: np.ndarray) -> np.ndarray:
    """OpenSlide in a DataLoader's processes."""
    loader = torch.utils.data.DataLoader(
        PatchDataset(spec, xy), batch_size=spec["batch"], num_workers=spec["workers"]
    )
    if spec["what"] == "read":
        return np.concatenate([batch[:, 0, 0, :1].numpy() for batch in loader])
    model = Encoder(spec["what"], spec["size_px"])
    return np.concatenate([model.features(batch).numpy() for batch in loader])


def lazyslide_side(spec: dict[str, Any], xy: np.ndarray) -> np.ndarray:
    """LazySlide's extraction, on the first tiles of its own grid: it takes no coordinates."""
    import lazyslide
    from torchvision import transforms
    from wsidata import open_wsi

    wsi = open_wsi(spec["slide"], store=None)
    lazyslide.pp.find_tissues(wsi)
    lazyslide.pp.tile_tissues(wsi, spec["tile_px"], mpp=0.5)
    wsi.shapes["tiles"] = wsi.shapes["tiles"].iloc[: len(xy)].reset_index(drop=True)
    encoder = Encoder("mock" if spec["what"] == "read" else spec["what"], spec["size_px"])
    before, started = _cpu_s(), time.perf_counter()
    features = lazyslide.tl.feature_extraction(
        wsi,
        encoder.features,
        transform=transforms.Compose([transforms.ToPILImage(), usual_transform(spec["size_px"])]),
        device="cpu",
        batch_size=spec["batch"],
        num_workers=spec["workers"],
        pbar=False,
        return_features=True,
    )
    spec["measured"] = time.perf_counter() - started, _cpu_s() - before  # without finding tissue and tiles
    return features


def main() -> None:
    """Run the side that the specification names; measure it."""
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    xy = np.load(spec["xy"])
    sides = {"pathclip": pathclip_side, "openslide": openslide_side, "lazyslide": lazyslide_side}
    sides["job"] = job_side
    side = sides[spec["side"]]
    side(spec, xy[:2])  # imports, first touch of the file
    before, started = _cpu_s(), time.perf_counter()
    found = side(spec, xy)
    wall, cpu = spec.get("measured") or (time.perf_counter() - started, _cpu_s() - before)
    assert len(found) == len(xy) or spec["side"] == "lazyslide"
    np.save(spec["out"], found)
    peak = spec.get("peak") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"tiles": len(found), "wall_s": wall, "cpu_s": cpu, "peak_mib": peak / 1024}))


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


if __name__ == "__main__":
    main()
