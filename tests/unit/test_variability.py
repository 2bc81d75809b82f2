"""Variance components by hand, from lme4, from matrix algebra and from statsmodels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from inference_energy.analyse.variability import variability
from inference_energy.errors import AnalysisError

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 400, "seed": 1}

#: Strength of a chemical paste: ten batches x three casks x two tests. SOURCE: Davies and Goldsmith
#: (1972), *Statistical Methods in Research and Production*, table 6.5; data set Pastes of lme4.
PASTES = [
    [[62.8, 62.6], [60.1, 62.3], [62.7, 63.1]],
    [[60.0, 61.4], [57.5, 56.9], [61.1, 58.9]],
    [[58.7, 57.5], [63.9, 63.1], [65.4, 63.7]],
    [[57.1, 56.4], [56.9, 58.6], [64.7, 64.5]],
    [[55.1, 55.1], [54.7, 54.2], [58.8, 57.5]],
    [[63.4, 64.9], [59.3, 58.1], [60.5, 60.0]],
    [[62.5, 62.6], [61.0, 58.7], [56.9, 57.7]],
    [[59.2, 59.4], [65.2, 66.0], [64.8, 64.1]],
    [[54.8, 54.8], [64.0, 64.0], [57.7, 56.8]],
    [[58.3, 59.3], [59.2, 59.2], [58.9, 56.6]],
]


def _windows(logs: list[list[list[float]]]) -> pd.DataFrame:
    """Windows with given logarithms of energy: settings x cycles x windows."""
    rows = [
        ("s", f"{i:03d}", j + 1, np.exp(value))
        for i, cycles in enumerate(logs)
        for j, values in enumerate(cycles)
        for value in values
    ]
    return pd.DataFrame(rows, columns=["study", "setting", "cycle", "energy_j_per_output_token"])


def _variances(windows: pd.DataFrame) -> np.ndarray:
    return variability(windows, **BOOTSTRAP).table()["cv"].to_numpy(dtype=float) ** 2


def test_by_hand() -> None:
    # Two settings x two cycles x two windows; logarithms:
    #   setting 1: (0, 2), (2, 4); means 1, 3; 2      setting 2: (6, 8), (12, 14); means 7, 13; 10
    # Grand mean 6. Sums of squares: windows 4 x 2 = 8, 4 d.f.; cycles 2 (1+1) + 2 (9+9) = 40, 2 d.f.;
    # settings 4 (16 + 16) = 128, 1 d.f. Mean squares 2, 20, 128.
    # Variances: windows 2; cycles (20 - 2) / 2 = 9; settings (128 - 20) / 4 = 27.
    windows = _windows([[[0, 2], [2, 4]], [[6, 8], [12, 14]]])
    table = variability(windows, **BOOTSTRAP).table()
    assert table["component"].tolist() == ["setting", "cycle", "window"]
    assert table["n_levels"].tolist() == [2, 4, 8]
    np.testing.assert_allclose(table["cv"].astype(float) ** 2, [27, 9, 2], rtol=1e-9)
    np.testing.assert_allclose(table["variance_fraction"], np.array([27, 9, 2]) / 38, rtol=1e-9)


def test_lme4s_answer_for_the_pastes() -> None:
    # lmer(strength ~ 1 + (1 | batch) + (1 | sample), Pastes): Variance of sample 8.434, batch 1.657,
    # residual 0.678 (Bates, *lme4: Mixed-effects modeling with R*, section 2.2). For balanced data and
    # positive estimates REML is the method of moments.
    np.testing.assert_allclose(_variances(_windows(PASTES)), [1.657, 8.434, 0.678], atol=6e-4, rtol=0)


def test_statsmodels_reml_agrees_on_balanced_data() -> None:
    rng = np.random.default_rng(3)
    logs = (rng.normal(0, 0.5, (12, 1, 1)) + rng.normal(0, 0.2, (12, 3, 1)) + rng.normal(0, 0.1, (12, 3, 4))).tolist()
    windows = _windows(logs)
    windows["log"] = np.log(windows["energy_j_per_output_token"])
    fitted = smf.mixedlm("log ~ 1", windows, groups="setting", re_formula="1", vc_formula={"c": "0 + C(cycle)"}).fit()
    reml = [float(fitted.cov_re.iloc[0, 0]), float(fitted.vcomp[0]), float(fitted.scale)]
    np.testing.assert_allclose(_variances(windows), reml, rtol=1e-3)


def test_unequal_numbers_against_matrix_algebra() -> None:
    # The mean squares are quadratic forms y'Ay with E = tr(A V); solving the three equations directly
    # with matrices derives nothing from the formulas under test.
    rng = np.random.default_rng(4)
    shape = [[2, 5], [3], [1, 1, 4], [2, 2]]
    logs = [[(rng.normal(i, 0.3) + rng.normal(0, 0.1, n)).tolist() for n in cycles] for i, cycles in enumerate(shape)]
    windows = _windows(logs)
    y = np.log(windows["energy_j_per_output_token"].to_numpy())
    settings = pd.get_dummies(windows["setting"]).to_numpy(dtype=float)
    cycles = pd.get_dummies(windows["setting"] + "/" + windows["cycle"].astype(str)).to_numpy(dtype=float)
    ones = np.ones((len(y), 1))

    def projection(design: np.ndarray) -> np.ndarray:
        return design @ np.linalg.pinv(design)

    forms = [
        projection(settings) - projection(ones),
        projection(cycles) - projection(settings),
        np.eye(len(y)) - projection(cycles),
    ]
    covariances = [settings @ settings.T, cycles @ cycles.T, np.eye(len(y))]
    expectations = [[np.trace(form @ covariance) for covariance in covariances] for form in forms]
    expected = np.linalg.solve(expectations, [y @ form @ y for form in forms])
    assert (expected > 0).all()
    np.testing.assert_allclose(_variances(windows), expected, rtol=1e-9)


def test_the_intervals_cover_what_was_put_in() -> None:
    rng = np.random.default_rng(5)
    truth = np.array([0.5, 0.2, 0.1])
    logs = (
        rng.normal(0, truth[0], (200, 1, 1))
        + rng.normal(0, truth[1], (200, 2, 1))
        + rng.normal(0, truth[2], (200, 2, 5))
    )
    table = variability(_windows(logs.tolist()), **BOOTSTRAP).table()
    assert ((table["cv_low"] < truth) & (truth < table["cv_high"])).all()
    # Large samples: the standard error of the setting's sd is near sd / sqrt(2 (n - 1)).
    width = (table["cv_high"] - table["cv_low"]).iloc[0]
    assert width == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(2 * 199), rel=0.3)


def test_a_negative_estimate_is_zero() -> None:
    # Cycle means equal, windows not: mean square of cycles 0, of windows 2; (0 - 2) / 2 < 0.
    variances = _variances(_windows([[[0, 2], [0, 2]], [[10, 12], [10, 12]]]))
    assert variances[1] == 0.0
    np.testing.assert_allclose(variances[[0, 2]], [(200 - 2) / 4, 2.0], rtol=1e-9)


def test_settings_that_differ_less_than_their_cycles_have_variance_zero() -> None:
    # Setting means 1 and 1; cycle means 0 and 2: mean square of settings 0, below that of cycles.
    variances = _variances(_windows([[[0, 0], [2, 2]], [[2, 2], [0, 0]]]))
    np.testing.assert_allclose(variances, [0.0, 2.0, 0.0], rtol=1e-9, atol=1e-12)


def test_what_cannot_be_told_is_missing() -> None:
    one_setting = variability(_windows([[[0, 1], [2, 3]]]), **BOOTSTRAP).table()
    assert one_setting["cv"].isna().tolist() == [True, False, False]
    assert one_setting[["cv_low", "cv_high", "variance_fraction", "variance_fraction_low"]].isna().all(axis=None)
    one_cycle = variability(_windows([[[0, 1]], [[5, 6]]]), **BOOTSTRAP).table()
    assert one_cycle["cv"].isna().tolist() == [True, True, False]
    with pytest.raises(AnalysisError, match="none of 0 windows"):
        variability(_windows([]), **BOOTSTRAP)
    bad = _windows([[[0, 1], [2, 3]]])
    bad.loc[2, "energy_j_per_output_token"] = 0.0
    with pytest.raises(AnalysisError, match="s/000 in cycle 2 is 0"):
        variability(bad, **BOOTSTRAP)
