from __future__ import annotations

from pathlib import Path

import pytest
from spoiled import drawn, spoil


@pytest.fixture(scope="session")
def spoiled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    root = tmp_path_factory.mktemp("spoiled") / "digits"
    drawn(root)
    spoil(root)
    return root
