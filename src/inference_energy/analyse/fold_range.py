"""How far do settings spread? Mean, CV, percentiles and fold ranges of energy per output token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.errors import AnalysisError
from inference_energy.resample import by_setting, interval, setting_means
from inference_energy.tables import ENERGY_SUMMARY, conform

Floats = NDArray[np.float64]

_ENERGY = "energy_j_per_output_token"
_PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class FoldRange:
    """Spread of energy per output token between settings.

    Attributes
    ----------
    groups : DataFrame
        One row a study and model, and one for all models of a study.
    confidence : float
        Level of the intervals.
    n_bootstrap : int
        Resamples behind them.
    """

    groups: pd.DataFrame
    confidence: float
    n_bootstrap: int

    def table(self) -> pd.DataFrame:
        """Rows of ``energy_summary``."""
        return conform(self.groups, ENERGY_SUMMARY)


def fold_range(runs: pd.DataFrame, *, confidence: float, n_bootstrap: int, seed: int) -> FoldRange:
    r"""Summarise energy per output token over settings, by study and model.

    A setting's value is the mean over its cycles, :math:`\bar e_s` in J per output token. Over the
    settings: mean, standard deviation (n - 1), CV = sd / mean, percentiles (linear interpolation),
    :math:`\max \bar e / \min \bar e` and :math:`P_{95} / P_5`.

    Intervals are percentile bootstraps that resample settings, and within each its cycles; never
    windows. They answer: what if other settings of the same kind had been chosen? A
    resample holds no setting more extreme than those measured, so the interval of
    ``max_over_min_fold`` lies almost wholly below its estimate: read it as a lower bound.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; runs without energy are left out.
    confidence, n_bootstrap, seed
        Of the bootstrap.

    Raises
    ------
    AnalysisError
        If no run has an energy.

    References
    ----------
    Davison and Hinkley (1997), *Bootstrap Methods and their Application*, section 3.8
    (hierarchical data).
    """
    known = runs[runs[_ENERGY].notna()]
    if known.empty:
        raise AnalysisError(
            "table runs",
            f"none of {len(runs)} runs has {_ENERGY}",
            "at least one measured run",
            "See the column status",
        )
    rows = []
    for study, of_study in known.groupby("study", sort=True):
        models: list[tuple[object, pd.DataFrame]] = list(of_study.groupby("model", sort=True))
        for model, group in [*models, ("all", of_study)]:
            rng = np.random.default_rng(seed)  # anew: a group's interval does not depend on other groups
            numbers = _summary(by_setting(group["setting"], group[_ENERGY]), confidence, n_bootstrap, rng)
            rows.append(
                {"study": study, "model": model, "n_settings": group["setting"].nunique(), "n_runs": len(group)}
                | numbers
            )
    return FoldRange(pd.DataFrame(rows), confidence, n_bootstrap)


def _summary(values: Floats, confidence: float, n_bootstrap: int, rng: np.random.Generator) -> dict[str, float]:
    """Estimates and intervals of one group; with a single setting there are no intervals."""
    estimates = _statistics(np.nanmean(values, axis=1)[None, :])
    resampled = _statistics(setting_means(values, n_bootstrap, rng)) if len(values) > 1 else {}
    summary: dict[str, float] = {}
    for name, estimate in estimates.items():
        low, high = interval(resampled[name], confidence) if resampled else (np.nan, np.nan)
        summary |= {name: float(estimate[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return summary


def _statistics(settings: Floats) -> dict[str, Floats]:
    """Every statistic over the last axis of an array of resamples x settings."""
    mean = settings.mean(axis=1)
    sd = settings.std(axis=1, ddof=1) if settings.shape[1] > 1 else np.full_like(mean, np.nan)
    percentiles = np.percentile(settings, _PERCENTILES, axis=1)
    statistics = {"energy_mean_j_per_output_token": mean, "energy_sd_j_per_output_token": sd, "cv": sd / mean}
    for percent, values in zip(_PERCENTILES, percentiles, strict=True):
        statistics[f"energy_p{percent:02d}_j_per_output_token"] = values
    statistics["max_over_min_fold"] = settings.max(axis=1) / settings.min(axis=1)
    statistics["p95_over_p5_fold"] = percentiles[-1] / percentiles[0]
    return statistics
