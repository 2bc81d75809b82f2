"""Fold ranges by hand; percentiles are those of R's default (type 7)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from inference_energy.analyse.fold_range import fold_range
from inference_energy.errors import AnalysisError

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 400, "seed": 1}


def _runs(energies: dict[str, list[float]], model: str = "m", study: str = "s") -> pd.DataFrame:
    rows = [
        (study, model, f"{model}-{setting}", cycle, energy)
        for setting, values in energies.items()
        for cycle, energy in enumerate(values, start=1)
    ]
    found = pd.DataFrame(rows, columns=["study", "model", "setting", "cycle", "energy_j_per_output_token"])
    return found.assign(accounting="taking_part_gross", deployment=True)


def _row(runs: pd.DataFrame, model: str = "m") -> pd.Series:
    table = fold_range(runs, **BOOTSTRAP).table()
    return table[table["model"] == model].iloc[0]


def test_by_hand() -> None:
    # Means of cycles: 1, 2, 3, 10. In R: x <- c(1, 2, 3, 10); mean(x) 4; sd(x) 4.082483;
    # quantile(x, c(.05, .25, .5, .75, .95)) 1.15 1.75 2.50 4.75 8.95
    row = _row(_runs({"a": [0.9, 1.1], "b": [2.0, 2.0], "c": [3.5, 2.5], "d": [9.0, 11.0]}))
    expected = {
        "n_settings": 4,
        "n_runs": 8,
        "energy_mean_j_per_output_token": 4.0,
        "energy_sd_j_per_output_token": np.sqrt(50 / 3),
        "cv": np.sqrt(50 / 3) / 4,
        "energy_p05_j_per_output_token": 1.15,
        "energy_p25_j_per_output_token": 1.75,
        "energy_p50_j_per_output_token": 2.5,
        "energy_p75_j_per_output_token": 4.75,
        "energy_p95_j_per_output_token": 8.95,
        "max_over_min_fold": 10.0,
        "p95_over_p5_fold": 8.95 / 1.15,
        "max_over_min_reduction_fraction": 0.9,
        "p95_over_p5_reduction_fraction": 1 - 1.15 / 8.95,
        "p95_over_p50_fold": 8.95 / 2.5,
        "p50_over_p5_fold": 2.5 / 1.15,
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-12), name
        if name not in ("n_settings", "n_runs"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] * (1 + 1e-12), name


def test_skewness_by_hand_and_as_scipy_has_it() -> None:
    # 1, 2, 3, 10: deviations -3, -2, -1, 6; cubes sum to 180; squares to 50: 45 / 12.5^1.5.
    row = _row(_runs({"a": [1.0], "b": [2.0], "c": [3.0], "d": [10.0]}))
    assert row["skewness_ratio"] == pytest.approx(45 / 12.5**1.5, rel=1e-12)
    values = np.random.default_rng(1).lognormal(0, 1, 40)
    row = _row(_runs({f"{i:02d}": [value] for i, value in enumerate(values)}))
    assert row["skewness_ratio"] == pytest.approx(stats.skew(values), rel=1e-9)
    assert row["log_skewness_ratio"] == pytest.approx(stats.skew(np.log(values)), rel=1e-9)
    alike = _row(_runs({"a": [2.0], "b": [2.0]}))
    assert np.isnan(alike["skewness_ratio"])
    assert np.isnan(alike["skewness_ratio_low"])


def test_settings_carry_the_interval_and_more_cycles_of_the_same_do_not_narrow_it() -> None:
    rng = np.random.default_rng(1)
    values = {f"{i:02d}": [value] for i, value in enumerate(rng.lognormal(0, 1, 30))}
    one = _row(_runs(values))
    many = _row(_runs({name: value * 10 for name, value in values.items()}))
    width = [
        row["energy_mean_j_per_output_token_high"] - row["energy_mean_j_per_output_token_low"] for row in (one, many)
    ]
    assert width[0] == pytest.approx(width[1], rel=0.15)
    # Large samples: width about 2 x 1.96 x sd / sqrt(n); smoothing adds to it.
    normal = 2 * 1.96 * one["energy_sd_j_per_output_token"] / np.sqrt(30)
    assert normal < width[0] < 1.6 * normal


def test_cycles_that_disagree_widen_the_interval() -> None:
    steady = _row(_runs({"a": [1.0, 1.0], "b": [1.1, 1.1], "c": [0.9, 0.9]}))
    noisy = _row(_runs({"a": [0.5, 1.5], "b": [0.6, 1.6], "c": [0.4, 1.4]}))
    width = [
        row["energy_mean_j_per_output_token_high"] - row["energy_mean_j_per_output_token_low"]
        for row in (steady, noisy)
    ]
    assert width[1] > 2 * width[0]


def test_one_setting_has_no_intervals_and_no_spread() -> None:
    row = _row(_runs({"a": [1.0, 3.0]}))
    assert row["energy_mean_j_per_output_token"] == 2.0
    assert row["max_over_min_fold"] == 1.0
    ends = [name for name in row.index if name.endswith(("_low", "_high"))]
    assert row[[*ends, "cv", "energy_sd_j_per_output_token", "skewness_ratio"]].isna().all()
    assert row["max_over_min_reduction_fraction"] == 0.0


def test_all_models_of_a_study_together_and_every_setting_of_the_campaign_once() -> None:
    runs = pd.concat(
        [
            _runs({"a": [1.0], "b": [2.0]}, "m1"),
            _runs({"a": [8.0], "b": [4.0]}, "m2"),
            _runs({"c": [5.0], "d": [6.0]}, "m1", study="t"),
        ]
    )
    table = fold_range(runs, **BOOTSTRAP).table()
    assert table[["study", "model"]].to_numpy().tolist() == [
        ["s", "m1"],
        ["s", "m2"],
        ["s", "all"],
        ["t", "m1"],
        ["t", "all"],
        ["all_deployments", "m1"],
        ["all_deployments", "m2"],
        ["all_deployments", "all"],
    ]
    assert table["max_over_min_fold"].tolist() == pytest.approx([2.0, 2.0, 8.0, 1.2, 1.2, 6.0, 2.0, 8.0])
    assert table["n_settings"].tolist() == [2, 2, 4, 2, 2, 4, 2, 6]


def test_a_setting_of_several_studies_has_all_its_runs_in_each_and_counts_once() -> None:
    runs = pd.concat([_runs({"a": [1.0], "b": [8.0]}), _runs({"a": [3.0], "c": [4.0]}, study="t")])
    table = fold_range(runs, **BOOTSTRAP).table()
    together = table[table["model"] == "all"].set_index("study")
    assert together.loc["s", "max_over_min_fold"] == pytest.approx(4.0)  # a is 2 everywhere
    assert together.loc["t", "max_over_min_fold"] == pytest.approx(2.0)
    assert together.loc["all_deployments", ["n_settings", "n_runs"]].tolist() == [3, 4]
    assert together.loc["all_deployments", "energy_mean_j_per_output_token"] == pytest.approx(14 / 3)


def test_accountings_are_kept_apart_and_what_is_no_deployment_is_left_out() -> None:
    runs = _runs({"a": [1.0], "b": [8.0], "c": [100.0]})
    runs["deployment"] = runs["setting"] != "m-c"
    net = runs.assign(accounting="taking_part_net", energy_j_per_output_token=runs["energy_j_per_output_token"] / 2)
    table = fold_range(pd.concat([runs, net]), **BOOTSTRAP).table()
    means = table[table["study"] == "s"].groupby("accounting")["energy_mean_j_per_output_token"].first()
    assert means.to_dict() == {"taking_part_gross": 4.5, "taking_part_net": 2.25}
    with pytest.raises(AnalysisError, match="none of 3 rows has energy_j_per_output_token of a deployed setting"):
        fold_range(runs.assign(deployment=False), **BOOTSTRAP)


def test_energies_that_are_not_above_zero_are_named() -> None:
    with pytest.raises(AnalysisError, match=r"s/m-b in cycle 2 is -1: expected a value above 0|m-b in cycle 2 is -1"):
        fold_range(_runs({"a": [1.0, 1.0], "b": [2.0, -1.0]}), **BOOTSTRAP)


def test_a_large_campaign_takes_seconds() -> None:
    rng = np.random.default_rng(1)
    base = _runs({f"{i:03d}": list(rng.lognormal(0, 1, 2)) for i in range(500)})
    runs = pd.concat([base.assign(accounting=name) for name in ("x", "y", "z")])
    before = time.process_time()
    fold_range(runs, confidence=0.95, n_bootstrap=2000, seed=1)
    assert time.process_time() - before < 15  # about 3 s where nothing else runs


def test_a_groups_interval_depends_on_nothing_else_and_the_seed_fixes_it() -> None:
    runs = _runs({"a": [1.0, 1.2], "b": [2.0, 2.1], "c": [5.0, 4.0]})
    alone = _row(runs)
    beside = _row(pd.concat([_runs({"x": [7.0], "y": [9.0]}, "l"), runs]))
    pd.testing.assert_series_equal(alone, beside, check_names=False)
    other = fold_range(runs, **(BOOTSTRAP | {"seed": 2})).table().iloc[0]
    assert (
        other["cv_low"] != alone["cv_low"]
        or other["energy_mean_j_per_output_token_low"] != alone["energy_mean_j_per_output_token_low"]
    )


def test_runs_without_energy_are_left_out() -> None:
    row = _row(_runs({"a": [1.0, np.nan], "b": [3.0, 5.0], "c": [np.nan, np.nan]}))
    assert (row["n_settings"], row["n_runs"]) == (2, 3)
    assert row["energy_mean_j_per_output_token"] == 2.5
    with pytest.raises(AnalysisError, match="none of 1 rows has energy_j_per_output_token"):
        fold_range(_runs({"a": [np.nan]}), **BOOTSTRAP)
