"""An ideal test beside realistic scenarios, with an interval worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_campaign import conformed

from inference_energy import tables
from inference_energy.analyse.benchmark_gap import SHARE, benchmark_gap

#: Student's t with ten degrees of freedom at 0.975, from the tables.
T = 2.228139


def _scenarios(*rows: tuple[str, float, int], **others: Any) -> pd.DataFrame:
    about = {
        "quantity": "energy_j_per_output_token",
        "version": "scenarios_code",
        "accounting": "generated",
        "model": "m",
    }
    made = [about | {"scenario": name, "estimate": value, "n_runs": n} | others for name, value, n in rows]
    return conformed(tables.TABLES["scenarios"], made)


def _scatter(cv: float, n: int) -> pd.DataFrame:
    return conformed(tables.TABLES["cost_range"], [{"model": "m", "which": "least", "repeat_cv": cv, "n_repeats": n}])


DRAWN = (("A1", 0.2, 2), ("R1", 1.0, 1), ("R2", 3.0, 2))


def test_the_share_and_its_interval_by_hand() -> None:
    row = benchmark_gap(_scenarios(*DRAWN), _scatter(0.1, 10), confidence=0.95).table().iloc[0]
    half = T * 0.1 * math.sqrt(1 / 2 + 0.25**2 / 1 + 0.75**2 / 2)  # weights are 1/4 and 3/4
    assert row[SHARE] == pytest.approx(0.1, rel=1e-12)
    assert math.log(row[f"{SHARE}_low"] / 0.1) == pytest.approx(-half, abs=1e-6)
    assert math.log(row[f"{SHARE}_high"] / 0.1) == pytest.approx(half, abs=1e-6)
    assert (row["n_scenarios"], row["n_runs"]) == (2, 5)


def test_the_interval_covers_what_propagation_promises() -> None:
    rng, s, n = np.random.default_rng(1), 0.08, 4000
    ideal = 0.2 * np.exp(rng.normal(0, s, (n, 2))).mean(axis=1)
    realistic = np.stack([np.exp(rng.normal(0, s, n)), 3 * np.exp(rng.normal(0, s, (n, 2))).mean(axis=1)])
    spread = np.log(ideal / realistic.mean(axis=0)).std()
    assert spread == pytest.approx(s * math.sqrt(1 / 2 + 0.25**2 / 1 + 0.75**2 / 2), rel=0.05)


def test_versions_accountings_and_models_stand_apart() -> None:
    both = pd.concat([_scenarios(*DRAWN), _scenarios(*DRAWN, model="n"), _scenarios(*DRAWN, accounting="answered")])
    rows = benchmark_gap(both, _scatter(0.1, 10), confidence=0.95).table()
    assert sorted(zip(rows["accounting"], rows["model"], strict=True)) == [
        ("answered", "m"),
        ("generated", "m"),
        ("generated", "n"),
    ]


def test_without_repetitions_there_is_a_share_and_no_interval() -> None:
    rows = benchmark_gap(_scenarios(*DRAWN), _scatter(float("nan"), 0), confidence=0.95).table()
    assert rows[SHARE].notna().all()
    assert rows[f"{SHARE}_low"].isna().all()


@pytest.mark.parametrize("rows", [(), DRAWN[:1], DRAWN[1:], (("A1", 0.2, 1), ("other", 1.0, 1))])
def test_without_an_ideal_or_a_realistic_scenario_there_is_no_row(rows: tuple[tuple[str, float, int], ...]) -> None:
    assert benchmark_gap(_scenarios(*rows), _scatter(0.1, 10), confidence=0.95).table().empty


def test_unfinished_scenarios_are_left_out() -> None:
    rows = (*DRAWN, ("R3", float("nan"), 0))
    found = benchmark_gap(_scenarios(*rows), _scatter(0.1, 10), confidence=0.95).table()
    assert found["n_scenarios"].tolist() == [2]
