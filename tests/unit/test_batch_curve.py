"""Batch curves by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from inference_energy.analyse.batch_curve import batch_curve
from inference_energy.errors import AnalysisError

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 500, "seed": 1}


def _runs(energies: dict[int, list[float]], study: str = "batching") -> pd.DataFrame:
    rows = [
        (study, "m", "float16", batch_size, f"b{batch_size}", cycle, energy, 100.0 * cycle, 50.0 * cycle)
        for batch_size, values in energies.items()
        for cycle, energy in enumerate(values, start=1)
    ]
    return pd.DataFrame(
        rows,
        columns=[
            "study",
            "model",
            "precision",
            "batch_size",
            "setting",
            "cycle",
            "energy_j_per_output_token",
            "throughput_tokens_per_s",
            "power_mean_w",
        ],
    )


def test_with_two_cycles_the_interval_is_their_range() -> None:
    table = batch_curve(_runs({8: [2.0, 2.4], 1: [10.0, 12.0]}), **BOOTSTRAP).table()
    assert table["batch_size"].tolist() == [1, 8]
    row = table.iloc[1]
    assert row[
        ["energy_j_per_output_token", "energy_j_per_output_token_low", "energy_j_per_output_token_high"]
    ].tolist() == pytest.approx([2.2, 2.0, 2.4])
    assert row[
        ["throughput_tokens_per_s", "throughput_tokens_per_s_low", "power_mean_w_high"]
    ].tolist() == pytest.approx([150.0, 100.0, 100.0])
    assert row["n_cycles"] == 2


def test_the_ratio_pairs_cycles_so_a_common_drift_cancels() -> None:
    table = batch_curve(_runs({1: [10.0, 12.0], 8: [2.0, 2.4]}), **BOOTSTRAP).table()
    ratio = ["energy_over_batch_1_ratio", "energy_over_batch_1_ratio_low", "energy_over_batch_1_ratio_high"]
    assert table.iloc[0][ratio].tolist() == [1.0, 1.0, 1.0]
    assert table.iloc[1][ratio].tolist() == pytest.approx([0.2, 0.2, 0.2])


def test_more_cycles_give_a_bootstrap_interval() -> None:
    values = np.random.default_rng(1).normal(10, 1, 40)
    row = batch_curve(_runs({4: values.tolist()}), **BOOTSTRAP).table().iloc[0]
    width = row["energy_j_per_output_token_high"] - row["energy_j_per_output_token_low"]
    assert width == pytest.approx(2 * 1.96 * values.std() / np.sqrt(40), rel=0.15)


def test_one_cycle_has_no_interval_and_a_failed_run_no_row() -> None:
    table = batch_curve(_runs({1: [10.0, np.nan], 8: [np.nan, np.nan]}), **BOOTSTRAP).table()
    assert table["batch_size"].tolist() == [1]
    row = table.iloc[0]
    assert row["energy_j_per_output_token"] == 10.0
    assert row.filter(regex="_(low|high)$").isna().all()


def test_other_studies_are_left_out_and_other_factors_refused() -> None:
    runs = pd.concat([_runs({1: [1.0, 1.0]}), _runs({1: [9.0, 9.0]}, study="warmup")])
    assert batch_curve(runs, **BOOTSTRAP).table()["energy_j_per_output_token"].tolist() == [1.0]
    assert batch_curve(runs, study="warmup", **BOOTSTRAP).table()["energy_j_per_output_token"].tolist() == [9.0]
    twice = pd.concat([_runs({1: [1.0]}), _runs({1: [2.0]}).assign(setting="another")])
    with pytest.raises(AnalysisError, match="2 settings of m, float16, batch size 1"):
        batch_curve(twice, **BOOTSTRAP)
    assert batch_curve(runs, study="grid", **BOOTSTRAP).table().empty  # a campaign need not have the study
    nothing = runs.assign(energy_j_per_output_token=float("nan"))
    with pytest.raises(AnalysisError, match=r"no measured run of study 'batching'.*\['batching', 'warmup'\]"):
        batch_curve(nothing, **BOOTSTRAP)


@pytest.mark.parametrize("energy", [0.0, -1.0])
def test_an_energy_that_is_not_above_0_is_refused(energy: float) -> None:
    with pytest.raises(AnalysisError, match="energy_j_per_output_token of batching/b8 in cycle 2 is"):
        batch_curve(_runs({1: [1.0, 1.0], 8: [1.0, energy]}), **BOOTSTRAP)
