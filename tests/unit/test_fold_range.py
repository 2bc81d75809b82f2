"""Fold ranges by hand; percentiles are those of R's default (type 7)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from inference_energy.analyse.fold_range import fold_range
from inference_energy.errors import AnalysisError

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 400, "seed": 1}


def _runs(energies: dict[str, list[float]], model: str = "m", study: str = "s") -> pd.DataFrame:
    rows = [
        (study, model, f"{model}-{setting}", cycle, energy)
        for setting, values in energies.items()
        for cycle, energy in enumerate(values, start=1)
    ]
    return pd.DataFrame(rows, columns=["study", "model", "setting", "cycle", "energy_j_per_output_token"])


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
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-12), name
        if name not in ("n_settings", "n_runs"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] * (1 + 1e-12), name


def test_settings_carry_the_interval_and_more_cycles_of_the_same_do_not_narrow_it() -> None:
    rng = np.random.default_rng(1)
    values = {f"{i:02d}": [value] for i, value in enumerate(rng.lognormal(0, 1, 30))}
    one = _row(_runs(values))
    many = _row(_runs({name: value * 10 for name, value in values.items()}))
    width = [
        row["energy_mean_j_per_output_token_high"] - row["energy_mean_j_per_output_token_low"] for row in (one, many)
    ]
    assert width[0] == pytest.approx(width[1], rel=0.15)
    # Large samples: width about 2 x 1.96 x sd / sqrt(n).
    assert width[0] == pytest.approx(2 * 1.96 * one["energy_sd_j_per_output_token"] / np.sqrt(30), rel=0.2)


def test_cycles_that_disagree_widen_the_interval() -> None:
    steady = _row(_runs({"a": [1.0, 1.0], "b": [1.1, 1.1], "c": [0.9, 0.9]}))
    noisy = _row(_runs({"a": [0.5, 1.5], "b": [0.6, 1.6], "c": [0.4, 1.4]}))
    width = [
        row["energy_mean_j_per_output_token_high"] - row["energy_mean_j_per_output_token_low"]
        for row in (steady, noisy)
    ]
    assert width[1] > 3 * width[0]


def test_one_setting_has_no_intervals_and_no_spread() -> None:
    row = _row(_runs({"a": [1.0, 3.0]}))
    assert row["energy_mean_j_per_output_token"] == 2.0
    assert row["max_over_min_fold"] == 1.0
    ends = [name for name in row.index if name.endswith(("_low", "_high"))]
    assert row[[*ends, "cv", "energy_sd_j_per_output_token"]].isna().all()


def test_all_models_of_a_study_together() -> None:
    runs = pd.concat(
        [
            _runs({"a": [1.0], "b": [2.0]}, "m1"),
            _runs({"a": [8.0], "b": [4.0]}, "m2"),
            _runs({"a": [5.0], "b": [6.0]}, "m1", study="t"),
        ]
    )
    table = fold_range(runs, **BOOTSTRAP).table()
    assert table[["study", "model"]].to_numpy().tolist() == [
        ["s", "m1"],
        ["s", "m2"],
        ["s", "all"],
        ["t", "m1"],
        ["t", "all"],
    ]
    assert table["max_over_min_fold"].tolist() == pytest.approx([2.0, 2.0, 8.0, 1.2, 1.2])
    assert table["n_settings"].tolist() == [2, 2, 4, 2, 2]


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
    with pytest.raises(AnalysisError, match="none of 1 runs has energy_j_per_output_token"):
        fold_range(_runs({"a": [np.nan]}), **BOOTSTRAP)
