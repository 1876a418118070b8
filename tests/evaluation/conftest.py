from __future__ import annotations

import pytest
from colour_model import ColourModel, colour_model


@pytest.fixture(scope="package")
def model() -> ColourModel:
    """A model that knows colours."""
    return colour_model()
