"""Which campaign the tests in this folder look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_synthetic_tables import main as make_synthetic_tables


@pytest.fixture(scope="session")
def campaign_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = request.config.getoption("--campaign-folder")
    if given is not None:
        return Path(given)
    folder = tmp_path_factory.mktemp("synthetic")
    make_synthetic_tables(folder / "tables")
    return folder
