"""Laws of energy against batch size: exact ones recovered, intervals beside statsmodels and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize, stats

from inference_energy.analyse.batch_knee import batch_knee
from inference_energy.errors import AnalysisError
from inference_energy.tables import RUNS, conform

KNOBS: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 199, "seed": 1}
SIZES = np.array([1.0, 2, 4, 8, 16, 32, 64])


def _runs(batch: Any, energy: Any, study: str = "batching", **levels: object) -> pd.DataFrame:
    rows = [
        {"study": study, "setting": f"b{b:g}", "cycle": i, "model": "m", "precision": "float16"}
        | {"batch_size": int(b), "energy_j_per_output_token": e}
        | levels
        for i, (b, e) in enumerate(zip(batch, energy, strict=True))
    ]
    return conform(pd.DataFrame(rows, columns=RUNS.names), RUNS)


def _fit(batch: Any, energy: Any, **knobs: Any) -> pd.Series:
    return batch_knee(_runs(batch, energy), **KNOBS | knobs).table().iloc[0]


def _noisy(law: Any, cv: float = 0.03, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    batch = np.repeat(SIZES, 2)
    return batch, law(batch) * np.exp(cv * np.random.default_rng(seed).standard_normal(len(batch)))


def test_a_plateau_and_a_shared_cost_are_recovered() -> None:
    row = _fit(SIZES, 0.1 + 2 / SIZES)
    assert row["plateau_energy_j_per_output_token"] == pytest.approx(0.1, rel=1e-6)
    assert row["shared_energy_j_per_step"] == pytest.approx(2.0, rel=1e-6)
    assert row["n_prompts_at_equal_parts"] == pytest.approx(20.0, rel=1e-6)
    assert row["fits_best"] == "shared cost"
    assert row["shared_weight_fraction"] == pytest.approx(1.0)


def test_a_knee_and_both_slopes_are_recovered() -> None:
    def law(batch: np.ndarray) -> np.ndarray:  # halves up to batch 8, then a doubling leaves 90 %
        x = np.log2(batch)
        return np.exp(np.log(0.5) * np.minimum(x, 3) + np.log(0.9) * np.maximum(x - 3, 0))

    row = _fit(*_noisy(law, cv=0.002))
    assert row["n_prompts_at_knee"] == pytest.approx(8.0, rel=0.03)
    assert row["n_prompts_at_knee_low"] <= 8 <= row["n_prompts_at_knee_high"]
    assert row["below_knee_per_doubling_ratio"] == pytest.approx(0.5, rel=0.01)
    assert row["above_knee_per_doubling_ratio"] == pytest.approx(0.9, rel=0.01)
    assert row["broken_p_value"] == pytest.approx(1 / 200)
    assert row["fits_best"] == "broken line"
    assert pd.isna(row["note"])


def test_one_line_has_no_knee_and_its_slope_is_that_of_statsmodels() -> None:
    batch, energy = _noisy(lambda b: 2 * b**-0.8)
    row = _fit(batch, energy)
    fit = sm.OLS(np.log(energy), sm.add_constant(np.log2(batch))).fit()
    assert row[["line_per_doubling_ratio_low", "line_per_doubling_ratio_high"]].tolist() == pytest.approx(
        np.exp(fit.conf_int()[1]).tolist(), rel=1e-9
    )
    assert row["line_cv"] == pytest.approx(np.sqrt(fit.mse_resid), rel=1e-9)
    assert row.filter(like="knee").isna().all()
    assert "the knee cannot be estimated, because one line fits as well (p = " in row["note"]


def test_intervals_of_plateau_and_shared_cost_are_those_of_the_linearised_law() -> None:
    batch, energy = _noisy(lambda b: 0.1 + 2 / b)
    row = _fit(batch, energy)
    a, b = row["plateau_energy_j_per_output_token"], row["shared_energy_j_per_step"]
    law = a + b / batch
    jacobian = np.column_stack([1 / law, 1 / batch / law])
    fit = sm.OLS(np.log(energy / law), jacobian).fit()  # at the optimum the steps are 0, their errors those of a and b
    assert fit.params == pytest.approx([0, 0], abs=1e-6)
    for name, value, error in zip(
        ("plateau_energy_j_per_output_token", "shared_energy_j_per_step"), (a, b), fit.bse, strict=True
    ):
        half = stats.t.ppf(0.975, len(batch) - 2) * error
        assert row[f"{name}_low"] == pytest.approx(value - half, rel=1e-4)
        assert row[f"{name}_high"] == pytest.approx(value + half, rel=1e-4)


def test_the_broken_line_is_that_of_a_free_least_squares_fit() -> None:
    batch, energy = _noisy(lambda b: 0.1 + 2 / b)
    x, y = np.log2(batch), np.log(energy)
    row = _fit(batch, energy)

    def residuals(theta: np.ndarray) -> np.ndarray:
        return theta[0] + theta[1] * x + theta[2] * np.maximum(x - theta[3], 0) - y

    best = min(
        (optimize.least_squares(residuals, [0.7, -0.7, 0.3, knee]) for knee in (2.3, 3.3, 4.3)),
        key=lambda fit: fit.cost,
    )
    assert np.log2(row["n_prompts_at_knee"]) == pytest.approx(best.x[3], abs=0.03)  # the grid's step is 0.05
    rss, n = 2 * best.cost, len(x)
    covariance = np.linalg.inv(best.jac.T @ best.jac) * rss / (n - 4)
    half = stats.t.ppf(0.975, n - 4) * np.sqrt(covariance[1, 1])
    assert row["below_knee_per_doubling_ratio"] == pytest.approx(np.exp(best.x[1]), rel=0.01)
    assert row["below_knee_per_doubling_ratio_low"] == pytest.approx(np.exp(best.x[1] - half), rel=0.02)
    limit = rss * (1 + stats.f.ppf(0.95, 1, n - 4) / (n - 4))
    for end in ("low", "high"):  # at the ends of the interval the profile reaches its limit
        knee = np.log2(row[f"n_prompts_at_knee_{end}"])
        step = 0.06 if end == "high" else -0.06
        inside, outside = (
            sm.OLS(y, np.column_stack([np.ones(n), x, np.maximum(x - at, 0)])).fit().ssr for at in (knee, knee + step)
        )
        assert inside <= limit * 1.001 < outside * 1.002


def test_akaike_weights_are_those_of_the_likelihoods() -> None:
    batch, energy = _noisy(lambda b: 0.1 + 2 / b, cv=0.1)
    row = _fit(batch, energy)
    x, y, n = np.log2(batch), np.log(energy), len(batch)
    knees = np.unique(np.append(np.arange(1, 5, 0.05), [1, 2, 3, 4, 5]))
    broken = max(sm.OLS(y, np.column_stack([np.ones(n), x, np.maximum(x - k, 0)])).fit().llf for k in knees)
    line = sm.OLS(y, sm.add_constant(x)).fit().llf
    corrected = [2 * k - 2 * llf + 2 * k * (k + 1) / (n - k - 1) for k, llf in ((3, line), (5, broken))]
    expected = np.exp((corrected[1] - corrected[0]) / 2)
    assert row["line_weight_fraction"] / row["broken_weight_fraction"] == pytest.approx(expected, rel=1e-6)
    weights = row[["line_weight_fraction", "broken_weight_fraction", "shared_weight_fraction"]]
    assert weights.sum() == pytest.approx(1.0)


def test_a_knee_is_found_where_there_is_none_no_more_often_than_it_should() -> None:
    found = 0
    for seed in range(200):
        batch, energy = _noisy(lambda b: 2 * b**-0.8, cv=0.1, seed=seed)
        found += _fit(batch, energy, seed=seed)["broken_p_value"] <= 0.05
    assert 2 <= found <= 19  # binomial with 200 draws at 0.05: outside once in a hundred


def test_too_few_batch_sizes_or_runs_say_so() -> None:
    row = _fit(SIZES[:4], 2 / SIZES[:4])
    assert row["note"] == "knee and plateau cannot be estimated, because 4 batch sizes are measured and 5 are needed"
    assert pd.isna(row["fits_best"])
    row = _fit(SIZES[:5], 0.1 + 2 / SIZES[:5])
    assert row["note"] == "the knee cannot be estimated, because 5 runs leave too few degrees of freedom"
    assert row["shared_energy_j_per_step"] == pytest.approx(2.0, rel=1e-6)
    one = _fit(SIZES[:1], [1.0])
    assert one["n_batch_sizes"] == 1


def test_the_same_setting_counts_wherever_it_was_measured_and_others_do_not() -> None:
    runs = pd.concat(
        [
            _runs(SIZES, 0.1 + 2 / SIZES),
            _runs([8], [0.4], study="anchors"),
            _runs([8], [9.9], study="warmup", setting="other"),
            _runs([4], [np.nan]),
        ]
    )
    row = batch_knee(runs, **KNOBS).table().iloc[0]
    assert (row["n_runs"], row["n_batch_sizes"]) == (8, 7)
    assert batch_knee(runs, study="grid", **KNOBS).table().empty
    assert batch_knee(runs.iloc[:0], **KNOBS).table().empty


@pytest.mark.parametrize("energy", [0.0, -1.0])
def test_an_energy_that_is_not_above_0_is_refused(energy: float) -> None:
    with pytest.raises(AnalysisError, match="table runs: energy_j_per_output_token of batching/b2 in cycle 1 is"):
        _fit(SIZES, [1.0, energy, 1, 1, 1, 1, 1])
