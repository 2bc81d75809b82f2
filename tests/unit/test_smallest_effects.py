"""Smallest detectable effects against statsmodels' power and by simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.power import TTestPower

from inference_energy.analyse.smallest_effects import smallest, smallest_effects

SPLIT = pd.DataFrame(
    {
        "settings": "all",
        "component": ["setting", "sitting", "gpu", "run", "window"],
        "cv": [1.0, 0.1, 0.03, 0.02, 0.05],
        "n_freedom": [50, 3, 8, 30, 400],
        "n_windows_per_run": 5.0,
        "reason": None,
    }
)


def _row(found: pd.DataFrame, matched: str, n_settings: int, n_cycles: int) -> pd.Series:
    chosen = (found["matched"] == matched) & (found["n_settings"] == n_settings) & (found["n_cycles"] == n_cycles)
    return found[chosen].iloc[0]


@pytest.mark.parametrize(("n_pairs", "freedom"), [(2, 30), (24, 30), (1, 1), (4, 3)])
def test_statsmodels_finds_the_same_power(n_pairs: int, freedom: int) -> None:
    power = TTestPower().power(smallest(n_pairs, freedom), nobs=n_pairs, alpha=0.05, df=freedom)
    assert power == pytest.approx(0.8, abs=2e-4)


def test_with_as_many_pairs_as_degrees_of_freedom_it_is_the_paired_t_test() -> None:
    size = TTestPower().solve_power(nobs=12, alpha=0.05, power=0.8)
    assert smallest(12, 11) == pytest.approx(size, rel=1e-3)


def test_noise_by_hand() -> None:
    found = smallest_effects(SPLIT).table()
    within = _row(found, "sitting", 1, 2)
    assert within["pair_cv"] == pytest.approx(np.sqrt(2 * (0.03**2 + 0.02**2 + 0.05**2 / 5)), rel=1e-12)
    assert within["n_freedom"] == 30
    assert within["smallest_effect_fraction"] == pytest.approx(np.expm1(smallest(2, 30) * within["pair_cv"]), rel=1e-9)
    apart = _row(found, "campaign", 1, 2)
    assert apart["pair_cv"] == pytest.approx(np.sqrt(within["pair_cv"] ** 2 + 2 * 0.1**2), rel=1e-12)
    assert apart["n_freedom"] == 3
    assert _row(found, "sitting", 12, 2)["smallest_effect_fraction"] < within["smallest_effect_fraction"] / 3
    assert set(found.loc[found["matched"] == "campaign", "n_settings"]) == {1}


def test_four_of_five_studies_find_it() -> None:
    # A pooled standard deviation with 30 degrees of freedom, 4 pairs, the smallest effect put in.
    rng = np.random.default_rng(1)
    n, freedom, sd = 4, 30, 0.05
    means = smallest(n, freedom) * sd + rng.normal(0, sd / np.sqrt(n), 40_000)
    estimated = sd * np.sqrt(rng.chisquare(freedom, 40_000) / freedom)
    assert (np.abs(means) > 2.0423 * estimated / np.sqrt(n)).mean() == pytest.approx(0.8, abs=0.01)


def test_without_repetitions_it_cannot_be_estimated() -> None:
    unknown = SPLIT.assign(cv=[1.0, np.nan, np.nan, np.nan, 0.05], reason=[None, "once", "once", "measured once", None])
    found = smallest_effects(unknown).table()
    assert found["smallest_effect_fraction"].isna().all()
    assert (found["reason"] == "the noise of a run cannot be estimated: measured once").all()
    one_sitting = SPLIT.assign(cv=[1.0, np.nan, 0.03, 0.02, 0.05], reason=[None, "one sitting", None, None, None])
    found = smallest_effects(one_sitting).table().set_index("matched")
    assert found.loc["sitting", "smallest_effect_fraction"].notna().all()
    assert found.loc["campaign", "smallest_effect_fraction"].isna().all()
    assert smallest_effects(SPLIT.iloc[:0]).table().empty
