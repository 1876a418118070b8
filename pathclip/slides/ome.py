"""What an OME-TIFF says of its channels."""

from __future__ import annotations

import re
from pathlib import Path

from pathclip.core.errors import FaultError

__all__ = ["refuse_planes"]


def refuse_planes(path: Path, description: str) -> None:
    """Stop at a picture whose channels are planes: readers show the first one as if it were all, in grey.

    Args:
        path: The slide, for the message.
        description: Its ImageDescription tag; other files than OME-TIFF pass.

    Raises:
        FaultError: If there are several planes, or not 8 bits.
    """
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", description)
    if pixels is None or "<OME" not in description:
        return
    channels = _attribute(pixels[0], "SizeC", "1")
    kind = _attribute(pixels[0], "Type", "uint8").lower()
    samples = _attribute(description, "SamplesPerPixel", "1")
    if (channels != "1" and samples not in ("3", "4")) or kind != "uint8":
        raise FaultError(
            f"slide {path} is an OME-TIFF of {channels} planes of {kind}, such as fluorescence; expected RGB "
            "of 8 bits, colours together; bright-field pictures can be converted with: bfconvert -merge"
        )


def _attribute(text: str, name: str, default: str) -> str:
    found = re.search(rf'\b{name}="(\w+)"', text)
    return found[1] if found else default
