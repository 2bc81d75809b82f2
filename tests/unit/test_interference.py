"""Runs alone and beside neighbours: Welch's interval, the pooled one, and who counts as a neighbour."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn_campaign import conformed
from scipy import stats
from statsmodels.api import OLS, add_constant

from inference_energy.analyse.interference import TOGETHER, interference
from inference_energy.tables import DEVICE_CHECKS, RUNS

ENERGY = "energy_j_per_output_token"


def _frames(sides: dict[tuple[int, str], list[float]], n_busy: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs by (batch size, neighbours) with these energies; each beside neighbours sees `n_busy` busy GPUs."""
    runs, checks = [], []
    for (batch, neighbours), energies in sides.items():
        for cycle, energy in enumerate(energies, start=1):
            key = {"study": "interference", "setting": f"b{batch}-{neighbours}", "cycle": cycle}
            levels = {"model": "m", "precision": "float32", "batch_size": batch, "neighbours": neighbours}
            numbers = {ENERGY: energy, "throughput_tokens_per_s": 1 / energy, "gpu_utilisation_fraction": 0.95}
            runs.append(key | levels | numbers | {"status": "ok"})
            for gpu in range(4):
                busy = neighbours == "allowed" and 1 <= gpu <= n_busy
                state = {"metered": gpu == 0, "n_other_processes": int(busy), "power_w": 300.0 if busy else 78.0}
                checks.append(key | {"moment": "during", "gpu_uuid_hash": f"g{gpu}"} | state)
    return conformed(RUNS, runs), conformed(DEVICE_CHECKS, checks)


def _energy(frames: tuple[pd.DataFrame, pd.DataFrame]) -> pd.DataFrame:
    table = interference(*frames, confidence=0.95, margin_fraction=0.02).table()
    return table[table["quantity"] == ENERGY].set_index("setting")


SIDES = {
    (8, "none"): [1.0, 1.01, 0.99],
    (8, "allowed"): [1.02, 1.03],
    (64, "none"): [2.0, 2.02],
    (64, "allowed"): [2.1],
}


def test_one_setting_has_welchs_interval() -> None:
    row = _energy(_frames(SIDES)).loc["b8-allowed"]
    beside, alone = np.log(SIDES[8, "allowed"]), np.log(SIDES[8, "none"])
    expected = stats.ttest_ind(beside, alone, equal_var=False).confidence_interval(0.90)
    assert row["beside_over_alone_ratio"] == pytest.approx(np.exp(beside.mean() - alone.mean()), rel=1e-12)
    assert row["beside_over_alone_ratio_low"] == pytest.approx(np.exp(expected.low), rel=1e-9)
    assert row["beside_over_alone_ratio_high"] == pytest.approx(np.exp(expected.high), rel=1e-9)
    assert (row["n_alone"], row["n_beside"], row["n_neighbours"]) == (3, 2, 2.0)


def test_all_settings_together_are_a_least_squares_fit() -> None:
    row = _energy(_frames(SIDES)).loc[TOGETHER]
    logs = np.log(np.concatenate(list(SIDES.values())))
    beside = np.repeat([0, 1, 0, 1], [3, 2, 2, 1])
    other = np.repeat([0, 0, 1, 1], [3, 2, 2, 1])
    fit = OLS(logs, add_constant(np.column_stack([beside, other]))).fit()
    low, high = fit.conf_int(alpha=0.10)[1]
    assert row["beside_over_alone_ratio"] == pytest.approx(np.exp(fit.params[1]), rel=1e-9)
    assert row["beside_over_alone_ratio_low"] == pytest.approx(np.exp(low), rel=1e-9)
    assert row["beside_over_alone_ratio_high"] == pytest.approx(np.exp(high), rel=1e-9)


@pytest.mark.parametrize(
    ("beside", "verdict"), [([1.0005, 1.001], "equivalent"), ([1.1, 1.1005], "different"), ([1.02, 1.0], "undecided")]
)
def test_verdicts(beside: list[float], verdict: str) -> None:
    row = _energy(_frames({(8, "none"): [1.0, 1.0005], (8, "allowed"): beside})).loc["b8-allowed"]
    assert row["verdict"] == verdict


def test_one_run_a_side_has_no_interval() -> None:
    row = _energy(_frames({(8, "none"): [1.0], (8, "allowed"): [1.0]})).loc["b8-allowed"]
    assert row["verdict"] == "undecided"
    assert pd.isna(row["beside_over_alone_ratio_low"])


def test_a_run_that_had_no_neighbour_is_no_run_beside_neighbours() -> None:
    assert _energy(_frames(SIDES, n_busy=0)).empty


def test_a_campaign_without_the_study_has_an_empty_table() -> None:
    runs, checks = _frames(SIDES)
    assert interference(runs.assign(study="x"), checks, confidence=0.95, margin_fraction=0.02).table().empty
