"""A small SYNTHETIC campaign's tables, kept as CSV.

They change only when a number's definition changes. Then look at what changed and keep it with::

    UPDATE_GOLDEN=1 pytest tests/golden && git diff tests/golden
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
import synthetic
from make_synthetic_tables import all_tables

from inference_energy import tables
from inference_energy.questions import QUESTIONS, RECORD_TABLES

GOLDEN = Path(__file__).parent / "tables"
RESOLVED = synthetic.small_campaign(studies={"batching": synthetic.BATCHING, "launcher": synthetic.LAUNCHER})
FAILING = synthetic.expand(RESOLVED)[2].run_id
FOUND = all_tables(RESOLVED, synthetic.campaign_records(RESOLVED, out_of_memory=[FAILING]), n_bootstrap=200)


@pytest.mark.parametrize("name", [*RECORD_TABLES, *QUESTIONS])
def test_the_table_is_the_golden_one(name: str, tmp_path: Path) -> None:
    tables.write(FOUND[name], tables.TABLES[name], tmp_path)
    path = GOLDEN / f"{name}.csv"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        GOLDEN.mkdir(exist_ok=True)
        path.write_bytes((tmp_path / path.name).read_bytes())
    found, golden = pd.read_csv(tmp_path / path.name), pd.read_csv(path)
    pd.testing.assert_frame_equal(found, golden, check_exact=False, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*RECORD_TABLES, *QUESTIONS])
def test_a_table_comes_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    tables.write(FOUND[name], tables.TABLES[name], tmp_path)
    pd.testing.assert_frame_equal(tables.read(name, tmp_path), FOUND[name])
