"""Image and text towers that end in one space: built, loaded, saved, fed with whatever holds a picture."""

from __future__ import annotations

from pathclip.encoders.architecture import Architecture, find_architecture, shipped_configs
from pathclip.encoders.encoder import DualEncoder, create
from pathclip.encoders.export import export
from pathclip.encoders.feed import BadPicture, encode_pictures
from pathclip.encoders.generate import GenerateConfig, Generated
from pathclip.encoders.known import KNOWN_MODELS, KnownModel
from pathclip.encoders.loading import load
from pathclip.encoders.pictures import PICTURE_SUFFIXES

__all__ = [
    "KNOWN_MODELS",
    "PICTURE_SUFFIXES",
    "Architecture",
    "BadPicture",
    "DualEncoder",
    "GenerateConfig",
    "Generated",
    "KnownModel",
    "create",
    "encode_pictures",
    "export",
    "find_architecture",
    "load",
    "shipped_configs",
]
