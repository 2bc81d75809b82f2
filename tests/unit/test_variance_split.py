"""Variance components against statsmodels' crossed mixed model, SciPy, and published values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import optimize, stats

from inference_energy.analyse.variance_split import Restricted, intraclass_correlation, variance_split
from inference_energy.errors import AnalysisError

TRUTH = {"setting": 1.0, "sitting": 0.1, "gpu": 0.03, "run": 0.02, "window": 0.01}


def _drawn(
    n_settings: int, n_sittings: int, n_gpus: int, n_runs: int, seed: int = 1, **sizes: float
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Tables runs, windows and boundaries: every setting in every sitting, on a GPU drawn anew for each run."""
    rng, sizes = np.random.default_rng(seed), TRUTH | sizes
    sitting_effect, setting_effect = rng.normal(size=n_sittings), rng.normal(size=n_settings)
    gpu_effect = rng.normal(size=(n_sittings, n_gpus))
    rows, windows = [], []
    for setting in range(n_settings):
        for sitting in range(n_sittings):
            for run in range(n_runs):
                gpu = int(rng.integers(n_gpus))
                level = (
                    setting_effect[setting] * sizes["setting"]
                    + sitting_effect[sitting] * sizes["sitting"]
                    + gpu_effect[sitting, gpu] * sizes["gpu"]
                    + rng.normal() * sizes["run"]
                )
                key = {"campaign": "c", "study": "s", "setting": f"{setting:03d}", "cycle": 10 * sitting + run}
                rows.append(key | {"sitting": f"h{sitting}", "gpu_uuid_hash": f"g{gpu}", "traffic": "none"})
                for window in range(5):
                    energy = np.exp(level + rng.normal() * sizes["window"])
                    windows.append(key | {"window": window, "energy_j_per_output_token": energy})
    runs = pd.DataFrame(rows).assign(gpu_utilisation_fraction=np.nan)
    return runs, pd.DataFrame(windows), runs.assign(deployment=True)


def _split(tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> pd.DataFrame:
    return variance_split(*tables, confidence=0.95).table().set_index("component")


def test_statsmodels_agrees_on_crossed_and_unbalanced_data() -> None:
    runs, windows, boundaries = _drawn(12, 5, 2, 1, seed=4, sitting=0.4, gpu=0.2, run=0.1)
    dropped = np.random.default_rng(2).random(len(runs)) < 0.25
    runs, boundaries = runs[~dropped], boundaries[~dropped]
    found = _split((runs, windows, boundaries))
    means = windows.assign(log=np.log(windows["energy_j_per_output_token"]))
    means = means.groupby(["setting", "cycle"], as_index=False)["log"].mean().merge(runs, on=["setting", "cycle"])
    means = means.assign(place=means["sitting"] + means["gpu_uuid_hash"], one=1)
    model = smf.mixedlm(
        "log ~ C(setting)",
        means,
        groups="one",
        re_formula="0",
        vc_formula={"sitting": "0 + C(sitting)", "place": "0 + C(place)"},
    )
    fitted = model.fit(reml=True, method="lbfgs")
    reml = dict(zip(model.exog_vc.names, fitted.vcomp, strict=True))
    share = found.loc["window", "cv"] ** 2 / 5
    np.testing.assert_allclose(found.loc["sitting", "cv"] ** 2, reml["sitting"], rtol=2e-3)
    np.testing.assert_allclose(found.loc["gpu", "cv"] ** 2, reml["place"], rtol=2e-3)
    np.testing.assert_allclose(found.loc["run", "cv"] ** 2 + share, fitted.scale, rtol=2e-3)


def test_slopes_are_those_of_the_deviance() -> None:
    rng = np.random.default_rng(1)
    root = rng.normal(size=(8, 5))
    likelihood = Restricted(root.T @ root, rng.normal(size=5), 40.0, 12, np.array([0, 0, 1, 1, 1]), 2)
    at = np.array([0.4, 0.8, 0.6])
    slopes = optimize.approx_fprime(at, lambda sds: likelihood.deviance(sds)[0], 1e-7)
    np.testing.assert_allclose(likelihood.deviance(at)[1], slopes, rtol=1e-4)


def test_windows_by_hand_and_their_interval_from_chi_square() -> None:
    tables = _drawn(3, 2, 1, 1)
    found = _split(tables).loc["window"]
    logs = np.log(tables[1]["energy_j_per_output_token"])
    pooled = logs.groupby([tables[1]["setting"], tables[1]["cycle"]]).var().mean()  # equal numbers
    assert found["n_freedom"] == 3 * 2 * 4
    np.testing.assert_allclose(found["cv"], np.sqrt(pooled), rtol=1e-9)
    ends = np.sqrt(24 * pooled / stats.chi2.ppf([0.975, 0.025], 24))
    np.testing.assert_allclose(found[["cv_low", "cv_high"]].to_numpy(float), ends, rtol=1e-9)


def test_what_was_put_in_comes_out_with_intervals_as_wide_as_theory_has_them() -> None:
    found = _split(_drawn(40, 16, 2, 2, seed=2))
    truth = np.array(list(TRUTH.values()))
    assert ((found["cv_low"] < truth) & (truth < found["cv_high"])).all()
    np.testing.assert_allclose(found["variance_fraction"].sum(), 1.0, rtol=1e-12)
    # 16 sittings, nearly without error: the interval of a standard deviation by chi-square, 15 d.f.
    ends = found.loc["sitting", "cv"] * np.sqrt(15 / stats.chi2.ppf([0.975, 0.025], 15))
    np.testing.assert_allclose(found.loc["sitting", ["cv_low", "cv_high"]].to_numpy(float), ends, rtol=0.08)
    assert found["n_levels"].tolist() == [40, 16, 32, 1280, 6400]
    assert found["n_freedom"].tolist() == [39, 15, 16, 1280 - 40 - 31, 1280 * 4]


def test_settings_by_hand() -> None:
    # Without noise the variance between settings is that of their values.
    tables = _drawn(8, 2, 1, 1, sitting=0.0, gpu=0.0, run=0.0, window=0.0)
    found = _split(tables)
    values = np.log(tables[1].groupby("setting")["energy_j_per_output_token"].first())
    np.testing.assert_allclose(found.loc["setting", "cv"], values.std(ddof=1), rtol=1e-9)
    freedom = 2 / (2 / 7 + stats.kurtosis(values) / 8)
    ends = values.std(ddof=1) * np.sqrt(freedom / stats.chi2.ppf([0.975, 0.025], freedom))
    np.testing.assert_allclose(found.loc["setting", ["cv_low", "cv_high"]].to_numpy(float), ends, rtol=1e-9)
    np.testing.assert_allclose(found["cv"].iloc[1:].dropna(), 0.0, atol=1e-7)
    assert found.loc["setting", "intraclass_correlation"] == 1.0


def test_shrout_and_fleiss() -> None:
    # Six targets, four judges: ICC(1,1) = .17, interval -.13 to .72. SOURCE: Shrout and Fleiss (1979), *Psychological
    # Bulletin* 86, tables 2 and 4; the interval as R's psych::ICC prints it.
    scores = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    settings = pd.Series(np.repeat(np.arange(6), 4))
    found = intraclass_correlation(settings, pd.Series(np.ravel(scores)), 0.95)
    np.testing.assert_allclose(found, [0.17, -0.13, 0.72], atol=0.005)


def test_a_setting_measured_once_says_nothing_on_the_correlation() -> None:
    settings, logs = pd.Series(list("aabbc")), pd.Series([1.0, 1.2, 3.0, 3.1, 9.0])
    assert intraclass_correlation(settings, logs, 0.95) == intraclass_correlation(settings[:4], logs[:4], 0.95)
    assert np.isnan(intraclass_correlation(settings[[0, 2, 4]], logs[[0, 2, 4]], 0.95)).all()


def test_what_cannot_be_told_is_missing_with_its_reason() -> None:
    once = _split(_drawn(6, 1, 1, 1))
    assert once["cv"].isna().tolist() == [False, True, True, True, False]
    assert "often enough" in once.loc["run", "reason"]
    assert once["variance_fraction"].isna().all()
    one_sitting = _split(_drawn(6, 1, 2, 3))
    assert one_sitting["cv"].isna().tolist() == [False, True, False, False, False]
    assert one_sitting.loc["sitting", "reason"] == "no setting was measured in two sittings"
    one_gpu = _split(_drawn(6, 3, 1, 1))
    assert "sittings differ in their GPUs" in one_gpu.loc["gpu", "reason"]
    assert one_gpu.loc["sitting", "reason"].startswith("each sitting was another cycle")
    single = _split(_drawn(1, 2, 2, 3))
    assert np.isnan(single.loc["setting", "cv"])
    assert single.loc["setting", "reason"] == "a single setting"


def test_groups_by_what_limits_them_and_waiting_apart() -> None:
    runs, windows, boundaries = _drawn(9, 2, 2, 2)
    number = runs["setting"].astype(int)
    runs["gpu_utilisation_fraction"] = np.where(number < 3, 0.95, 0.3)
    runs["traffic"] = np.where(number > 6, "constant", "none")
    found = variance_split(runs, windows, boundaries, confidence=0.95).table()
    settings = found[found["component"] == "setting"].set_index("settings")["n_levels"]
    assert settings.to_dict() == {"all": 9, "GPU-bound": 3, "host-bound": 4, "with waiting": 2}
    waiting = found[(found["settings"] == "with waiting") & (found["component"] == "window")].iloc[0]
    assert np.isnan(waiting["cv"])
    assert "unlike by design" in waiting["reason"]


def test_bad_input_is_refused() -> None:
    runs, windows, boundaries = _drawn(2, 2, 1, 1)
    with pytest.raises(AnalysisError, match="of a deployed setting"):
        variance_split(runs, windows, boundaries.assign(deployment=False), confidence=0.95)
    windows.loc[7, "energy_j_per_output_token"] = -1.0
    with pytest.raises(AnalysisError, match="s/000 in cycle 10 is -1"):
        variance_split(runs, windows, boundaries, confidence=0.95)
