"""Laws of energy against length: exact ones recovered, intervals and AICc beside SciPy and statsmodels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize, stats

from inference_energy.analyse.length_fits import length_fits
from inference_energy.errors import AnalysisError
from inference_energy.tables import RUNS, conform

LENGTHS = np.array([16.0, 64, 256, 1024, 2048])


def _runs(lengths: Any, energies: Any, model: str = "m", study: str = "output_length") -> pd.DataFrame:
    """Runs of `study`: every column of `energies` is a cycle."""
    varied = "n_output_tokens" if study == "output_length" else "n_input_tokens"
    rows = [
        {
            "study": study,
            "setting": f"{model}_{varied}_{length:g}",
            "cycle": cycle,
            "model": model,
            "precision": "bfloat16",
        }
        | {"batch_size": 32, "n_input_tokens": 128, "n_output_tokens": 128, "energy_j_per_prompt": energy}
        | {varied: int(length)}
        for length, of_length in zip(lengths, np.atleast_2d(np.transpose(energies)).T, strict=True)
        for cycle, energy in enumerate(np.atleast_1d(of_length), start=1)
    ]
    return conform(pd.DataFrame(rows, columns=RUNS.names), RUNS)


def _published(*rows: tuple[float, float]) -> pd.DataFrame:
    names = ("model", "avg_output_tokens", "energy_wh_per_10k_prompts", "avg_input_tokens")
    return pd.DataFrame([("w", str(n), str(wh), "100") for n, wh in rows], columns=names, dtype="string")


def _table(*runs: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
    rows = _published() if published is None else published
    return length_fits(pd.concat(runs), rows, confidence=0.95).table()


def _noisy(seed: int, cv: float = 0.05) -> np.ndarray:
    """One cycle along 2 + 30 n + 5 n² (n in thousands)."""
    thousands = LENGTHS / 1000
    return (2 + 30 * thousands + 5 * thousands**2) * np.exp(
        cv * np.random.default_rng(seed).standard_normal(len(LENGTHS))
    )


def test_an_exact_square_is_found_with_its_parts() -> None:
    lengths = np.array([250, 500, 1000, 2000])
    x = lengths / 1000
    row = _table(_runs(lengths, np.array([1 + 2 * x + x**2, 1 + 2 * x + x**2]).T)).iloc[0]
    assert row["quadratic_fixed_energy_j_per_prompt"] == pytest.approx(1)
    assert row["quadratic_slope_energy_j_per_prompt"] == pytest.approx(2)
    assert row["quadratic_square_energy_j_per_prompt"] == pytest.approx(1)
    assert row["square_part_fraction"] == pytest.approx(4 / 9)  # 4 of 1 + 4 + 4 at two thousand tokens
    assert row["short_square_part_fraction"] == pytest.approx(0.128**2 / 1.128**2)
    assert (row["bend"], row["predicts_best"], row["n_runs"], row["n_freedom"]) == ("up", "quadratic", 8, 1)
    assert row["quadratic_left_out_fraction"] == pytest.approx(0, abs=1e-9)
    assert row["linear_residual_fraction"] > 0.02
    assert (row["shortest_tokens"], row["longest_tokens"], row["other_length_tokens"]) == (250, 2000, 128)


@pytest.mark.parametrize("law", ["linear", "power"])
def test_a_line_and_a_power_are_found(law: str) -> None:
    x = LENGTHS / 1000
    energy = 3 + 7 * x if law == "linear" else 5 * x**0.8
    rng = np.random.default_rng(2)
    row = _table(_runs(LENGTHS, energy[:, None] * np.exp(0.001 * rng.standard_normal((5, 2))))).iloc[0]
    assert row["fits_best"] == law
    if law == "linear":
        assert row["linear_fixed_energy_j_per_prompt"] == pytest.approx(3, rel=0.01)
        assert row["linear_slope_energy_j_per_prompt"] == pytest.approx(7, rel=0.01)
        assert row["bend"] == "undecided"
    else:
        assert row["power_thousand_energy_j_per_prompt"] == pytest.approx(5, rel=0.01)
        assert row["power_elasticity_ratio"] == pytest.approx(0.8, rel=0.01)


def test_intervals_are_those_of_scipy_on_the_lengths_means() -> None:
    cycles = np.array([_noisy(1), _noisy(2)]).T
    row = _table(_runs(LENGTHS, cycles)).iloc[0]
    means = np.log(cycles).mean(axis=1)

    def square(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return np.log(a + b * x + c * x**2)

    found, covariance = optimize.curve_fit(square, LENGTHS / 1000, means, p0=(2, 30, 5), xtol=1e-14, ftol=1e-14)
    half = stats.t.ppf(0.975, 2) * np.sqrt(covariance[2, 2])
    assert row["quadratic_square_energy_j_per_prompt"] == pytest.approx(found[2], rel=1e-5)
    assert row["quadratic_square_energy_j_per_prompt_low"] == pytest.approx(found[2] - half, rel=1e-4)
    assert row["quadratic_p_value"] == pytest.approx(2 * stats.t.sf(found[2] / np.sqrt(covariance[2, 2]), 2), rel=1e-4)

    def part(at: np.ndarray) -> float:
        return float(at[2] * 2.048**2 / (at[0] + at[1] * 2.048 + at[2] * 2.048**2))

    gradient = optimize.approx_fprime(found, part, 1e-7)
    half = stats.t.ppf(0.975, 2) * np.sqrt(gradient @ covariance @ gradient)
    assert row["square_part_fraction_high"] == pytest.approx(part(found) + half, rel=1e-3)
    power = sm.OLS(means, sm.add_constant(np.log(LENGTHS / 1000))).fit()
    assert row["power_elasticity_ratio"] == pytest.approx(power.params[1])
    assert row[["power_elasticity_ratio_low", "power_elasticity_ratio_high"]].tolist() == pytest.approx(
        power.conf_int(0.05)[1].tolist()
    )
    assert row["power_residual_fraction"] == pytest.approx(np.sqrt((power.resid**2).mean()))


def test_aicc_is_that_of_the_likelihood_of_all_runs() -> None:
    cycles = np.array([_noisy(1), _noisy(2)]).T
    row = _table(_runs(LENGTHS, cycles)).iloc[0]
    design = sm.add_constant(np.log(np.repeat(LENGTHS, 2) / 1000))
    fitted = sm.OLS(np.log(cycles).ravel(), design).fit()
    n, k = 10, 3
    corrected = -2 * fitted.llf + 2 * k + 2 * k * (k + 1) / (n - k - 1)
    assert row["power_aicc"] == pytest.approx(corrected - n * (1 + np.log(2 * np.pi)))
    scores = np.array([row[f"{law}_aicc"] for law in ("linear", "quadratic", "power")])
    weights = np.exp((scores.min() - scores) / 2)
    shown = [row[f"{law}_weight_fraction"] for law in ("linear", "quadratic", "power")]
    assert shown == pytest.approx((weights / weights.sum()).tolist())
    assert row["fits_best"] == "quadratic"


def test_the_error_of_a_length_left_out_is_worked_by_hand() -> None:
    """The power law is a line of logarithms: NumPy fits it without each length in turn."""
    energies = _noisy(4, cv=0.2)
    row = _table(_runs(LENGTHS, energies[:, None])).iloc[0]
    x, y = np.log(LENGTHS), np.log(energies)
    errors = [
        np.exp(np.polyval(np.polyfit(np.delete(x, i), np.delete(y, i), 1), x[i]) - y[i]) - 1 for i in range(len(x))
    ]
    assert row["power_left_out_fraction"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_the_spread_is_pooled_over_the_models_of_a_study_and_over_nothing_else() -> None:
    one, other = _runs(LENGTHS, _noisy(1)[:, None]), _runs(LENGTHS[:4], _noisy(2)[:4, None], model="n")
    alone = [_table(runs).iloc[0] for runs in (one, other)]
    both = _table(one, other, _runs(LENGTHS, _noisy(3, 0.5)[:, None], study="input_length"))
    both = both[both["varied"] == "output"].set_index("model")
    squares = [row["quadratic_residual_fraction"] ** 2 * row["n_lengths"] for row in alone]
    assert [row["n_freedom"] for row in alone] == [2, 1]
    assert both["n_freedom"].tolist() == [3, 3]
    name = "quadratic_square_energy_j_per_prompt"
    for row, own, freedom in zip(alone, squares, (2, 1), strict=True):
        half = row[f"{name}_high"] - row[name]
        error = half / stats.t.ppf(0.975, freedom) / np.sqrt(own / freedom)
        expected = stats.t.ppf(0.975, 3) * np.sqrt(sum(squares) / 3) * error
        found = both.loc[row["model"]]
        assert found[f"{name}_high"] - found[name] == pytest.approx(expected)


def test_published_watt_hours_become_joules_of_a_prompt() -> None:
    rows = _published(*((n, 1 + 2 * n / 1000) for n in (100, 200, 400, 800, 1600)))
    row = _table(_runs([], np.empty((0, 1))), published=rows).iloc[0]
    assert row["linear_slope_energy_j_per_prompt"] == pytest.approx(2 * 3600 / 10_000)
    assert row["linear_fixed_energy_j_per_prompt"] == pytest.approx(3600 / 10_000)
    assert row["source"].startswith("Wetzel")
    assert row["varied"] == "output"


def test_what_cannot_be_told_is_said() -> None:
    few = _table(_runs(LENGTHS[:3], _noisy(1)[:3, None])).iloc[0]
    assert few["note"] == "laws cannot be fitted, because 3 lengths are measured and 4 are needed"
    assert pd.isna(few["linear_slope_energy_j_per_prompt"])
    once = _table(_runs(LENGTHS, _noisy(1)[:, None])).iloc[0]
    assert once["note"] == "AICc cannot compare, because 5 runs are measured and 6 are needed"
    assert pd.isna(once["fits_best"])
    assert pd.notna(once["predicts_best"])
    assert _table(_runs(LENGTHS, _noisy(1)[:, None], study="phases")).empty
    with pytest.raises(
        AnalysisError, match="energy_j_per_prompt of output_length/m_n_output_tokens_16 in cycle 1 is 0"
    ):
        _table(_runs(LENGTHS[:1], [[0.0]]))


def test_a_law_that_would_cross_0_is_kept_above_it() -> None:
    """The square of least relative errors, from which the fit starts, is below 0 at the last of these points."""
    energies = np.array([1.5, 0.35, 0.45, 0.01, 37])
    row = _table(_runs(LENGTHS, energies[:, None])).iloc[0]
    x = LENGTHS / 1000
    for law, names in (("linear", ("fixed", "slope")), ("quadratic", ("fixed", "slope", "square"))):
        fitted = sum(row[f"{law}_{name}_energy_j_per_prompt"] * x**power for power, name in enumerate(names))
        assert (fitted > 0).all()
        residuals = np.log(energies) - np.log(fitted)
        assert row[f"{law}_residual_fraction"] == pytest.approx(np.sqrt((residuals**2).mean()))
