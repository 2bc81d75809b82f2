"""Is a ratio as good as 1? Two one-sided tests of its logarithm."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def standard_error(logs: ArrayLike) -> tuple[float, int]:
    """Standard error of the mean of `logs`, missing of a single value, and its degrees of freedom."""
    values = np.asarray(logs, dtype=float)
    n = values.size
    return float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan, n - 1


def tost(
    name: str, log_ratio: float, error: float, n_freedom: float, confidence: float, margin_fraction: float
) -> dict[str, object]:
    r"""Two one-sided tests of a log ratio at :math:`\alpha = 1 -` `confidence`.

    *Equivalent* if the interval of level :math:`1 - 2\alpha` lies within 1 ± `margin_fraction`, *different* if outside,
    else *undecided*.

    Parameters
    ----------
    name : str
        What the ratio is called.
    log_ratio, error, n_freedom : float
        Estimate, its standard error (missing without repetition) and degrees of freedom.
    confidence, margin_fraction : float
        One less the level of each test, and what counts as equal.

    Returns
    -------
    dict
        `name` and its interval, ``p_value`` (the larger of two) and ``verdict``; missing what has no error.

    References
    ----------
    Schuirmann (1987), *J. Pharmacokinetics and Biopharmaceutics* 15, 657-680;
    ``statsmodels.stats.weightstats.DescrStatsW.ttost_mean`` gives the same p-value.
    """
    row: dict[str, object] = {name: math.exp(log_ratio), "verdict": "undecided"}
    row |= dict.fromkeys((f"{name}_low", f"{name}_high", "p_value"), math.nan)
    if math.isnan(error) or n_freedom <= 0:
        return row
    lower, upper = math.log1p(-margin_fraction), math.log1p(margin_fraction)
    half = float(stats.t.ppf(confidence, n_freedom)) * error
    low, high = log_ratio - half, log_ratio + half
    if error > 0:
        nearest = min(log_ratio - lower, upper - log_ratio)
        row["p_value"] = float(stats.t.sf(nearest / error, n_freedom))
    if lower < low and high < upper:
        row["verdict"] = "equivalent"
    elif high < lower or upper < low:
        row["verdict"] = "different"
    return row | {f"{name}_low": math.exp(low), f"{name}_high": math.exp(high)}
