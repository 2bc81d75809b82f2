"""Which campaign the tests in this folder look at: the one given, or SYNTHETIC ones of deployments and of serving."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import campaign_records, resolved_campaign
from synthetic_serving import serving_campaign, serving_records

from inference_energy import tables
from inference_energy.aggregate import aggregate


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test looks at the given campaign, or at both synthetic ones."""
    given = metafunc.config.getoption("--campaign-folder")
    metafunc.parametrize("campaign_folder", [given] if given else ["deployments", "serving"], indirect=True)


@pytest.fixture(scope="session")
def campaign_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.config.getoption("--campaign-folder") is not None:
        return Path(request.param)
    folder = tmp_path_factory.mktemp("synthetic")
    campaign = resolved_campaign() if request.param == "deployments" else serving_campaign()
    records = campaign_records(campaign) if request.param == "deployments" else serving_records(campaign)
    for name, frame in aggregate(campaign, records).items():
        tables.write(frame, tables.TABLES[name], folder / "tables")
    return folder
