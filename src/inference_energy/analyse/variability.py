"""Where the variance of energy per output token comes from: settings, cycles or windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.errors import AnalysisError
from inference_energy.resample import interval
from inference_energy.tables import VARIABILITY, conform

Floats = NDArray[np.float64]

_ENERGY = "energy_j_per_output_token"
COMPONENTS = ("setting", "cycle", "window")


@dataclass(frozen=True)
class Variability:
    """Variance components of the logarithm of energy per output token.

    Attributes
    ----------
    components : DataFrame
        One row a study and component.
    confidence : float
        Level of the intervals.
    n_bootstrap : int
        Resamples behind them.
    """

    components: pd.DataFrame
    confidence: float
    n_bootstrap: int

    def table(self) -> pd.DataFrame:
        """Rows of ``variability``."""
        return conform(self.components, VARIABILITY)


def variability(windows: pd.DataFrame, *, confidence: float, n_bootstrap: int, seed: int) -> Variability:
    r"""Split the variance of log energy per output token, study by study.

    The model is nested, with random effects: window *k* of cycle *j* of setting *i* has

    .. math:: \log e_{ijk} = \mu + s_i + c_{ij} + w_{ijk},

    with variances :math:`\sigma_s^2, \sigma_c^2, \sigma_w^2`. They are estimated by the method of
    moments: the three mean squares of the nested analysis of variance equal their expectations,
    which hold for unequal numbers too. A negative estimate is set to 0. The square root of a
    variance of the logarithm is about a CV, and has no unit.

    Method of moments rather than REML (statsmodels ``MixedLM``): the two agree where the numbers are
    equal and no estimate is negative, and the moments need no optimiser, which stops short of an
    answer when one component is many orders of magnitude smaller than another, as here.

    Intervals resample settings, each with all that was measured in it.

    Parameters
    ----------
    windows : DataFrame
        The ``windows`` table.
    confidence, n_bootstrap, seed
        Of the bootstrap.

    Raises
    ------
    AnalysisError
        If no window has an energy, or one is not above 0.

    References
    ----------
    Searle, Casella and McCulloch (1992), *Variance Components*, chapter 3 and appendix F.
    """
    known = windows[windows[_ENERGY].notna()]
    if known.empty:
        raise AnalysisError(
            "table windows",
            f"none of {len(windows)} windows has {_ENERGY}",
            "at least one measured window",
            "See the column status of table runs",
        )
    if (known[_ENERGY] <= 0).any():
        worst = known[known[_ENERGY] <= 0].iloc[0]
        raise AnalysisError(
            "table windows",
            f"{_ENERGY} of {worst['study']}/{worst['setting']} in cycle {worst['cycle']} is {worst[_ENERGY]:g}",
            "a value above 0: its logarithm is split",
            "Look at that record's counter and tail",
        )
    rows = []
    for study, group in known.groupby("study", sort=True):
        sums = _sums_by_setting(group)
        rng = np.random.default_rng(seed)
        drawn = rng.integers(len(sums), size=(n_bootstrap, len(sums)))
        estimate = _variances(sums[None])[0]
        resampled = _variances(sums[drawn])
        n_levels = (len(sums), int(sums[:, _N_CYCLES].sum()), len(group))
        for index, component in enumerate(COMPONENTS):
            row: dict[str, object] = {"study": study, "component": component, "n_levels": n_levels[index]}
            row |= _with_interval("cv", np.sqrt(estimate), np.sqrt(resampled), index, confidence)
            row |= _with_interval("variance_fraction", _shares(estimate), _shares(resampled), index, confidence)
            rows.append(row)
    return Variability(pd.DataFrame(rows), confidence, n_bootstrap)


_N_CYCLES, _N_WINDOWS, _MEAN, _WITHIN, _BETWEEN, _WEIGHT, _SQUARES = range(7)


def _sums_by_setting(group: pd.DataFrame) -> Floats:
    """What a setting adds to the analysis of variance; one row a setting.

    Columns: cycles b_i; windows n_i; mean; sum of squares within cycles; and between them; the sum
    over cycles of n_ij^2 / n_i; n_i^2.
    """
    logs = np.log(group[_ENERGY].astype(float))
    logs = logs - logs.mean()  # of no effect on variances, and keeps digits
    cycles = logs.groupby([group["setting"], group["cycle"]]).agg(["count", "mean", "var"]).reset_index()
    within = cycles["var"].fillna(0.0) * (cycles["count"] - 1)
    per_cycle = pd.DataFrame(
        {
            "setting": cycles["setting"],
            "n_cycles": 1,
            "n": cycles["count"],
            "total": cycles["count"] * cycles["mean"],
            "within": within,
            "squares": cycles["count"] * cycles["mean"] ** 2,
            "n_squared": cycles["count"] ** 2,
        }
    )
    sums = per_cycle.groupby("setting", sort=True).sum()
    mean = sums["total"] / sums["n"]
    between = (sums["squares"] - sums["n"] * mean**2).clip(lower=0.0)
    return np.column_stack(
        [sums["n_cycles"], sums["n"], mean, sums["within"], between, sums["n_squared"] / sums["n"], sums["n"] ** 2]
    ).astype(float)


def _variances(sums: Floats) -> Floats:
    """Variances between settings, cycles and windows.

    Parameters
    ----------
    sums : ndarray, shape (n_resamples, n_settings, 7)
        From :func:`_sums_by_setting`.

    Returns
    -------
    ndarray, shape (n_resamples, 3)
        Missing where there are no degrees of freedom.
    """
    n_settings = sums.shape[1]
    n_cycles, n_windows = sums[..., _N_CYCLES].sum(axis=1), sums[..., _N_WINDOWS].sum(axis=1)
    weight, squares = sums[..., _WEIGHT].sum(axis=1), sums[..., _SQUARES].sum(axis=1)
    grand_mean = (sums[..., _N_WINDOWS] * sums[..., _MEAN]).sum(axis=1) / n_windows
    between_settings = (sums[..., _N_WINDOWS] * (sums[..., _MEAN] - grand_mean[:, None]) ** 2).sum(axis=1)
    n_squared = (sums[..., _WEIGHT] * sums[..., _N_WINDOWS]).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        window = _mean_square(sums[..., _WITHIN].sum(axis=1), n_windows - n_cycles)
        mean_square_cycle = _mean_square(sums[..., _BETWEEN].sum(axis=1), n_cycles - n_settings)
        mean_square_setting = _mean_square(between_settings, np.full_like(n_cycles, n_settings - 1))
        windows_per_cycle = (n_windows - weight) / (n_cycles - n_settings)
        cycle = np.maximum((mean_square_cycle - window) / windows_per_cycle, 0)
        cycle_in_setting = (weight - n_squared / n_windows) / (n_settings - 1)
        windows_per_setting = (n_windows - squares / n_windows) / (n_settings - 1)
        setting = (mean_square_setting - window - cycle_in_setting * cycle) / windows_per_setting
    return np.column_stack([np.maximum(setting, 0), cycle, window])


def _mean_square(sum_of_squares: Floats, degrees_of_freedom: Floats) -> Floats:
    return np.asarray(np.where(degrees_of_freedom > 0, sum_of_squares / degrees_of_freedom, np.nan))


def _shares(variances: Floats) -> Floats:
    total = variances.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(variances, total, out=np.full_like(variances, np.nan), where=total > 0))


def _with_interval(name: str, estimate: Floats, resampled: Floats, index: int, confidence: float) -> dict[str, float]:
    """One component's estimate and interval; missing where a single setting cannot be resampled."""
    known = np.isfinite(estimate[0]) and np.isfinite(resampled[:, index]).all()  # index 0: more than one setting
    low, high = interval(resampled[:, index], confidence) if known else (np.nan, np.nan)
    return {name: float(estimate[index]), f"{name}_low": float(low), f"{name}_high": float(high)}
