"""Equivalence tests by hand and against statsmodels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from statsmodels.stats.weightstats import ttost_paired

from inference_energy.aggregate import aggregate
from inference_energy.analyse.equivalence import Comparison, equivalence
from inference_energy.errors import AnalysisError

RULES: dict[str, Any] = {"confidence": 0.95, "margin_fraction": 0.02}
RESOLVED = synthetic.small_campaign(studies={"launcher": synthetic.LAUNCHER})
RUNS = aggregate(RESOLVED, synthetic.campaign_records(RESOLVED))["runs"]
LAUNCHER = [Comparison("launcher", "launcher", "fork", "cold")]


def _runs(log_ratios: list[float]) -> pd.DataFrame:
    """Cold runs of 1 J per token and forked ones of exp(log ratio), a pair a cycle."""
    template = RUNS[RUNS["cycle"] == 1]
    cycles = []
    for cycle, log_ratio in enumerate(log_ratios, start=1):
        energy = np.where(template["launcher"] == "fork", np.exp(log_ratio), 1.0)
        cycles.append(template.assign(cycle=cycle, energy_j_per_output_token=energy))
    return pd.concat(cycles)


def _row(runs: pd.DataFrame) -> pd.Series:
    table = equivalence(runs, comparisons=LAUNCHER, quantities=["energy_j_per_output_token"], **RULES).table()
    assert len(table) == 1
    return table.iloc[0]


@pytest.mark.parametrize(
    ("log_ratios", "low", "high", "verdict"),
    [
        # Mean 0.002, standard error 0.001, t(0.95, 1) = 6.313752: 0.002 -+ 0.006314
        ([0.001, 0.003], -0.004313752, 0.008313752, "equivalent"),
        # Mean 0.02, standard error 0.01: 0.02 -+ 0.0631
        ([0.01, 0.03], -0.04313752, 0.08313752, "undecided"),
        # Mean 0.1, standard error 0.001: 0.1 -+ 0.0063
        ([0.099, 0.101], 0.093686248, 0.106313752, "different"),
        ([-0.099, -0.101], -0.106313752, -0.093686248, "different"),
        # Mean 0.015, standard error 0.001: 0.015 -+ 0.0063 crosses log 1.02 = 0.0198
        ([0.014, 0.016], 0.008686248, 0.021313752, "undecided"),
        # No spread: an interval of width 0
        ([0.01, 0.01], 0.01, 0.01, "equivalent"),
    ],
)
def test_by_hand(log_ratios: list[float], low: float, high: float, verdict: str) -> None:
    row = _row(_runs(log_ratios))
    assert row["verdict"] == verdict
    assert row["level_over_baseline_ratio"] == pytest.approx(np.exp(np.mean(log_ratios)), rel=1e-12)
    assert np.log(row["level_over_baseline_ratio_low"]) == pytest.approx(low, rel=1e-6)
    assert np.log(row["level_over_baseline_ratio_high"]) == pytest.approx(high, rel=1e-6)
    assert row["confidence"] == pytest.approx(0.9)
    assert row["n_cycles"] == 2


@pytest.mark.parametrize("log_ratios", [[0.001, 0.003], [0.01, 0.03, 0.02], [0.0, -0.01, 0.004, 0.02]])
def test_statsmodels_gives_the_same_p_value(log_ratios: list[float]) -> None:
    logs = np.array(log_ratios)
    expected = ttost_paired(logs, np.zeros_like(logs), np.log(0.98), np.log(1.02))[0]
    row = _row(_runs(log_ratios))
    assert row["p_value"] == pytest.approx(expected, rel=1e-9)
    assert (row["verdict"] == "equivalent") == (expected < 0.05)


def test_one_pair_decides_nothing() -> None:
    row = _row(_runs([0.001]))
    assert row["verdict"] == "undecided"
    assert row[["level_over_baseline_ratio_low", "level_over_baseline_ratio_high", "p_value"]].isna().all()


def test_a_run_without_its_partner_is_left_out() -> None:
    runs = _runs([0.001, 0.003, 0.5])
    alone = runs[~((runs["cycle"] == 3) & (runs["launcher"] == "cold"))]
    assert _row(alone)["n_cycles"] == 2
    failed = runs.assign(
        energy_j_per_output_token=runs["energy_j_per_output_token"].where(
            ~((runs["cycle"] == 3) & (runs["launcher"] == "fork"))
        )
    )
    assert _row(failed)["n_cycles"] == 2


def test_pairs_share_all_other_levels() -> None:
    other = _runs([0.3, 0.3]).assign(batch_size=16)
    table = equivalence(pd.concat([_runs([0.001, 0.003]), other]), comparisons=LAUNCHER, **RULES).table()
    energy = table[table["quantity"] == "energy_j_per_output_token"]
    assert energy["batch_size"].tolist() == [8, 16]
    assert energy["verdict"].tolist() == ["equivalent", "different"]
    assert energy["launcher"].isna().all()
    assert (energy["warmup"] == "steady").all()
    assert set(table["quantity"]) == {"energy_j_per_output_token", "throughput_tokens_per_s"}


def test_studies_and_levels_that_are_not_there_yet_give_no_rows() -> None:
    assert equivalence(RUNS.assign(study="batching"), **RULES).table().empty
    assert equivalence(RUNS[RUNS["launcher"] == "fork"], **RULES).table().empty
    with pytest.raises(AnalysisError, match="no runs"):
        equivalence(RUNS[:0], **RULES)
