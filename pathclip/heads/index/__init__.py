"""An embedding folder in clip-retrieval's layout: built from pictures, searched by text or picture."""

from __future__ import annotations

from pathclip.heads.index.hits import Hit
from pathclip.heads.index.index import Index
from pathclip.heads.index.sheet import contact_sheet
from pathclip.heads.index.takedown import remover

__all__ = ["Hit", "Index", "contact_sheet", "remover"]
