"""JPEGs decoded, cut, resized and augmented where the model is: by nvJPEG on a GPU, through torchvision.

The same code runs on a CPU, with libjpeg in nvJPEG's place, so that all but nvJPEG itself is tested anywhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from torch import Tensor

from pathclip.batches.augment import DENSITY, FLAT, Change
from pathclip.batches.decode import MAX_PIXELS, Box, whole_pixels
from pathclip.core.errors import UserError

__all__ = ["DeviceDecoder", "Encoded", "jpeg_size", "unsuited"]

START, END = b"\xff\xd8", b"\xff\xd9"
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # the markers that start a frame
SEQUENTIAL = frozenset({0xC0, 0xC1})
RGB = 3  # torchvision.io.ImageReadMode.RGB
TOGETHER = 128  # pictures whose pixels, in full, are in the device's memory at a time


@dataclass(frozen=True, slots=True)
class Encoded:
    """A JPEG that suits the device, and what is to be made of it.

    Attributes:
        data: The file.
        box: The crop, in its pixels.
        change: What happens to the crop.
    """

    data: bytes
    box: Box
    change: Change


def unsuited(data: memoryview) -> str | None:
    """Why a picture is not for the device: anything but a whole sequential JPEG in YCbCr of a usual size.

    Only its headers are read: damage in its middle is not seen.
    """
    if bytes(data[:2]) != START:
        return "no JPEG"
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return "damaged header"
    if space != "YCbCr":
        return f"colours in {space}"
    if bytes(data[-2:]) != END:
        return "no end mark"
    if width * height > MAX_PIXELS:
        return "too many pixels"
    return None if _frame(data) in SEQUENTIAL else "progressive"


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    return int(width), int(height)


def _frame(data: memoryview) -> int | None:
    """The marker that says how a JPEG is coded."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in FRAMES:
            return marker
        filled = marker == 0xFF
        at += 1 if filled else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


class DeviceDecoder:
    """Encoded pictures to a batch on a device.

    Args:
        size_px: Side of the results.
        device: A GPU, or the CPU.

    Raises:
        UserError: If torchvision cannot decode there.
    """

    def __init__(self, size_px: int, device: torch.device) -> None:
        self.size_px, self.device = size_px, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        try:
            decode([simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))], device)
        except (ImportError, AttributeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f'batch.decode = "gpu": this torchvision does not decode JPEGs on {device} ({reason}); '
                'set batch.decode = "cpu"'
            ) from None

    def __call__(self, pictures: Sequence[Encoded | None]) -> tuple[Tensor, list[int]]:
        """Decode, cut, resize and change.

        Args:
            pictures: Of a batch; None where a picture comes by `put`.

        Returns:
            uint8 (B, 3, S, S) on the device, channels last, and the numbers of those that did not decode.
        """
        shape = (len(pictures), self.size_px, self.size_px, 3)
        there = [(number, picture) for number, picture in enumerate(pictures) if picture is not None]
        failed: list[int] = []
        with self._own_stream():
            images = torch.zeros(shape, dtype=torch.uint8, device=self.device).permute(0, 3, 1, 2)
            for start in range(0, len(there), TOGETHER):
                part = there[start : start + TOGETHER]
                self._finish()  # nvJPEG writes into memory that a queue may still read: pytorch/vision#9606
                found = _decoded([picture for _, picture in part], self.device)
                both = list(zip(part, found, strict=True))
                done = [(*each, pixels) for each, pixels in both if pixels is not None]
                failed += [number for (number, _), pixels in both if pixels is None]
                if done:
                    crops = torch.stack([_crop(pixels, picture, self.size_px) for _, picture, pixels in done])
                    coloured = _coloured(crops, [picture.change for _, picture, _ in done])
                    images[[number for number, *_ in done]] = coloured
        return images, failed

    def put(self, images: Tensor, numbers: Sequence[int], pictures: np.ndarray) -> None:
        """Copy pictures that were decoded elsewhere, uint8 (n, S, S, 3), to their numbers in a batch."""
        if numbers:
            with self._own_stream():
                images[list(numbers)] = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2)

    @contextlib.contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Work beside the step, on a stream of its own, done when the block ends."""
        with contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            yield
            self._finish()

    def _finish(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()


def decode(files: Sequence[bytes], device: torch.device) -> list[Tensor]:
    """JPEGs in full, uint8 (3, H, W) each; all of them or a RuntimeError."""
    import torchvision.io  # noqa: F401  (brings the operators; its own functions warn that they will go)

    data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    if device.type == "cuda":
        decoded: list[Tensor] = torch.ops.image.decode_jpegs_cuda(data, RGB, device)
        return decoded
    return [torch.ops.image.decode_jpeg(each, RGB, False) for each in data]


def _decoded(pictures: Sequence[Encoded], device: torch.device) -> list[Tensor | None]:
    """All at once; one by one where that fails, with None for those that do."""
    try:
        return list(decode([picture.data for picture in pictures], device))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        if len(pictures) == 1:
            return [None]
        return [_decoded([picture], device)[0] for picture in pictures]


def _crop(pixels: Tensor, picture: Encoded, size_px: int) -> Tensor:
    """uint8 (3, H, W) -> the crop, resized, turned and mirrored, uint8 (3, S, S)."""
    left, upper, right, lower = whole_pixels(picture.box, 1, *pixels.shape[1:])
    crop = pixels[:, upper:lower, left:right]
    if crop.shape[1:] != (size_px, size_px):
        size = (size_px, size_px)
        resized = F.interpolate(crop[None].float(), size, mode="bicubic", antialias=True)
        crop = resized[0].clamp_(0, 255).round_().byte()
    turned = torch.rot90(crop, picture.change.turns, (1, 2))
    return turned.flip(2) if picture.change.mirror else turned


def _coloured(images: Tensor, changes: Sequence[Change]) -> Tensor:
    """What is drawn for colours and stains, on uint8 (n, 3, S, S)."""
    recoloured = [i for i, change in enumerate(changes) if change.colours is not None]
    if recoloured:
        colours = np.stack([change.colours for change in changes if change.colours is not None])
        images[recoloured] = _restained(images[recoloured], torch.from_numpy(colours).to(images.device))
    stains = [change.stain for change in changes if change.stain is not None]
    if not stains:  # of all pictures of a run or of none
        return images
    mix, shift = (torch.from_numpy(np.stack(each)).to(images.device) for each in zip(*stains, strict=True))
    return _stained(images, mix, shift)


def _restained(images: Tensor, colours: Tensor) -> Tensor:
    """`augment.restain` with means and deviations (n, 2, 3) that were drawn."""
    mean, deviation = colours.transpose(0, 1)[..., None]  # each (n, 3, 1)
    pixels = images.flatten(2)
    exact = pixels.double()
    own_mean = exact.mean(2, keepdim=True)
    own_deviation = (exact.square().mean(2, keepdim=True) - own_mean.square()).clamp_(min=0).sqrt_()
    values = torch.arange(256, device=images.device)
    moved = (values - own_mean) * (deviation / (own_deviation + FLAT)) + mean
    table = (moved + 0.5).clamp_(0, 255).byte()  # (n, 3, 256)
    return table.gather(2, pixels.long()).unflatten(2, images.shape[2:])


def _stained(images: Tensor, mix: Tensor, shift: Tensor) -> Tensor:
    """`augment.jitter_stain` with matrices (n, 3, 3) and shifts (n, 3) that were drawn."""
    density = torch.from_numpy(DENSITY).to(images.device)[images.long()]
    mixed = shift[..., None, None].expand_as(density).clone()
    for stain in range(3):  # no matrix product: that might run in TF32
        mixed.addcmul_(density[:, stain, None], mix[:, stain, :, None, None])
    return mixed.neg_().exp_().mul_(256).sub_(0.5).clamp_(0, 255).byte()
