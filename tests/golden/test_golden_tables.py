"""Tables of two small SYNTHETIC campaigns, kept as CSV: one of deployments, one of the studies of serving.

They change only when a number's definition changes. Then look at what changed and keep it with::

    UPDATE_GOLDEN=1 pytest tests/golden && git diff tests/golden
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
import synthetic
import synthetic_serving
from make_synthetic_tables import all_tables

from inference_energy import tables
from inference_energy.questions import QUESTIONS, RECORD_TABLES

GOLDEN = Path(__file__).parent / "tables"
#: Tables of laws that are fitted step by step: the last digits depend on the steps.
FITTED = ("length_fits", "model_size", "prompts_curve")
RESOLVED = synthetic.small_campaign(studies={"batching": synthetic.BATCHING, "launcher": synthetic.LAUNCHER})
FAILING = synthetic.expand(RESOLVED)[2].run_id
FOUND = all_tables(RESOLVED, synthetic.campaign_records(RESOLVED, out_of_memory=[FAILING]), n_bootstrap=200)

SERVED = synthetic_serving.serving_campaign()
OF_SERVING: list[str] = []
for question, asked in QUESTIONS.items():
    if asked.studies == "serving" or (asked.inputs and set(asked.inputs) <= set(OF_SERVING)):
        OF_SERVING.append(question)
_served = all_tables(SERVED, synthetic_serving.serving_records(SERVED), n_bootstrap=200, questions=OF_SERVING)
FOUND |= {name: _served[name] for name in (*OF_SERVING, "requests", "engine_samples")}


def test_no_table_of_serving_is_empty() -> None:
    assert OF_SERVING
    assert [name for name in (*OF_SERVING, "requests", "engine_samples") if FOUND[name].empty] == []


@pytest.mark.parametrize("name", [*RECORD_TABLES, *QUESTIONS])
def test_the_table_is_the_golden_one(name: str, tmp_path: Path) -> None:
    tables.write(FOUND[name], tables.TABLES[name], tmp_path)
    path = GOLDEN / f"{name}.csv"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        GOLDEN.mkdir(exist_ok=True)
        path.write_bytes((tmp_path / path.name).read_bytes())
    found, golden = pd.read_csv(tmp_path / path.name), pd.read_csv(path)
    rtol = 1e-6 if name in FITTED else 1e-9
    pd.testing.assert_frame_equal(found, golden, check_exact=False, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("name", [*RECORD_TABLES, *QUESTIONS])
def test_a_table_comes_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    tables.write(FOUND[name], tables.TABLES[name], tmp_path)
    pd.testing.assert_frame_equal(tables.read(name, tmp_path), FOUND[name])
