"""Does energy per token rise along methods, candidates, probability mass or temperature? Slopes within sittings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm

from inference_energy.tables import above_zero, conform
from inference_energy.tables.levers import DECODING_TREND

ENERGY = "energy_j_per_output_token"
#: The order in which the published text ranks the methods, the most frugal first.
ORDER = ("greedy", "multinomial", "top_k", "top_p")
STEPS = {
    "order of methods": "the next method of greedy, multinomial, top-k, top-p",
    "candidates": "doubling k of top-k",
    "probability mass": "0.1 more probability mass of top-p",
    "temperature": "0.2 more temperature, within a method",
    "step time": "10 % longer decoding steps, whatever the reason",
}


@dataclass(frozen=True)
class DecodingTrend:
    """Trends along orders of decoding settings.

    Attributes
    ----------
    trends : DataFrame
        One row a trend.
    confidence : float
        Level of the intervals.
    """

    trends: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Rows of ``decoding_trend``."""
        return conform(self.trends, DECODING_TREND)


def decoding_trend(runs: pd.DataFrame, *, study: str = "decoding", confidence: float) -> DecodingTrend:
    r"""Regress log energy per output token on the order, with a level for each model and sitting.

    :math:`\log E = \mu_g + \beta x`, by ordinary least squares, *g* a model in a sitting: host and
    model fall out, and only differences within a sitting count. *x* is the rank of the method (greedy 0,
    multinomial 1, top-k 2, top-p 3), :math:`\log_2 k`, *p* in tenths, the temperature in fifths, or
    :math:`\log_{1.1}` of the time of a decoding step: the last says whether runs that differ in energy
    differ in speed. For the temperature each method has a level of its own too. :math:`e^\beta` is reported with its t
    interval.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table. The settings of `study` count wherever they were measured; runs without
        energy are left out. A campaign without the study has an empty table.
    confidence : float
        Level of the intervals.

    Raises
    ------
    AnalysisError
        If an energy is not above 0.
    """
    settings = runs.loc[runs["study"] == study, "setting"].unique()
    known = runs[runs["setting"].isin(settings) & runs[ENERGY].notna()]
    above_zero(known, ENERGY, "table runs")
    sampled = known["decoding"] != "greedy"
    steps = {
        "order of methods": known["decoding"].map({name: rank for rank, name in enumerate(ORDER)}),
        "candidates": pd.Series(np.log2(known["top_k"].astype(float)), index=known.index),
        "probability mass": known["top_p"].astype(float) * 10,
        "temperature": known["sampling_temperature"].astype(float).where(sampled) * 5,
        "step time": np.log(known["duration_s_per_step"].astype(float)) / np.log(1.1),
    }
    rows = [
        {"trend": trend, "step": STEPS[trend], "confidence": confidence}
        | _trend(known, x.astype(float), confidence, by_method=trend == "temperature")
        for trend, x in steps.items()
        if len(known)
    ]
    return DecodingTrend(pd.DataFrame(rows, columns=DECODING_TREND.names), confidence)


def _trend(known: pd.DataFrame, x: pd.Series, confidence: float, *, by_method: bool) -> dict[str, object]:
    """Slope of log energy on `x` within groups; why there is none."""
    rows = known[x.notna()]
    group = rows["model"].astype(str) + " " + rows["sitting"].astype(str)
    levels = [pd.get_dummies(group, dtype=float)]
    if by_method:
        levels.append(pd.get_dummies(rows["decoding"].astype(str), dtype=float, drop_first=True))
    design = np.column_stack([x[x.notna()].to_numpy(dtype=float), *(each.to_numpy() for each in levels)])
    row: dict[str, object] = {
        "n_runs": len(rows),
        "n_settings": rows["setting"].nunique(),
        "n_groups": group.nunique(),
        "verdict": "undecided",
    }
    rank = int(np.linalg.matrix_rank(design)) if len(rows) else 0
    within = rank > (int(np.linalg.matrix_rank(design[:, 1:])) if len(rows) else 0)
    if not within:
        return row | {"note": "cannot be estimated, because no sitting holds two different steps of one model"}
    if len(rows) <= rank:
        return row | {"note": f"cannot be estimated, because {len(rows)} runs leave no degree of freedom"}
    fit = sm.OLS(np.log(rows[ENERGY].to_numpy(dtype=float)), design).fit()
    low, high = fit.conf_int(alpha=1 - confidence)[0]
    return row | {
        "per_step_ratio": float(np.exp(fit.params[0])),
        "per_step_ratio_low": float(np.exp(low)),
        "per_step_ratio_high": float(np.exp(high)),
        "p_value": float(fit.pvalues[0]),
        "verdict": "rises" if low > 0 else "falls" if high < 0 else "undecided",
    }
