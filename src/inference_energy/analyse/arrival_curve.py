"""Energy and latency of requests against how fast and in which pattern they arrive, and the best point under limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.repetitions import pooled
from inference_energy.tables import above_zero, conform
from inference_energy.tables.arrivals import ARRIVAL_CURVE

ENERGY = "energy_j_per_request"
_WITH_INTERVAL = (
    ENERGY,
    "time_to_first_token_p95_s",
    "inter_token_latency_p95_s",
    "latency_p95_s",
    "answered_requests_per_s",
    "n_running_mean",
    "power_mean_w",
)
_MEDIANS = ("time_to_first_token_median_s", "inter_token_latency_median_s")
_LEVELS = ("model", "precision", "arrival", "arrival_requests_per_s", "arrival_cv", "kv_cache_tokens", "setting")


@dataclass(frozen=True)
class ArrivalCurve:
    """One row a setting with arrivals."""

    points: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``arrival_curve``."""
        return conform(self.points, ARRIVAL_CURVE)


def arrival_curve(
    arrival_runs: pd.DataFrame,
    *,
    confidence: float,
    time_to_first_token_max_s: float,
    inter_token_latency_max_s: float,
) -> ArrivalCurve:
    """Average the runs of every setting, and name the one that takes least energy within limits on latency.

    Geometric means over runs, with Student's interval whose spread is pooled over settings
    (:mod:`inference_energy.models.repetitions`). The limits are held against the 95th percentiles of each run.

    Parameters
    ----------
    arrival_runs : DataFrame
        The table of that name; a campaign without arrivals has no rows.
    confidence : float
        Level of the intervals.
    time_to_first_token_max_s, inter_token_latency_max_s : float
        Limits.

    Raises
    ------
    AnalysisError
        If an energy is not above 0.
    """
    known = arrival_runs[arrival_runs[ENERGY].notna()]
    above_zero(known, ENERGY, "table arrival_runs")
    # ASSUME: a mean of no sequences running (a pass too short for a sample) is no information.
    known = known.assign(n_running_mean=known["n_running_mean"].where(known["n_running_mean"] > 0))
    limits = {
        "time_to_first_token_max_s": time_to_first_token_max_s,
        "inter_token_latency_max_s": inter_token_latency_max_s,
    }
    spreads = {name: pooled(known, name) for name in _WITH_INTERVAL}
    rows = []
    for _, of_setting in known.groupby("setting", sort=True):
        row: dict[str, object] = {name: of_setting[name].iloc[0] for name in _LEVELS} | limits
        for name in _WITH_INTERVAL:
            logs = np.log(of_setting[name].dropna().astype(float))
            ends = spreads[name].ends(float(logs.mean()), len(logs), confidence) if len(logs) else (np.nan,) * 3
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
        row |= {name: np.exp(np.log(of_setting[name].astype(float)).mean()) for name in _MEDIANS}
        within = (of_setting["time_to_first_token_p95_s"] <= time_to_first_token_max_s) & ~(
            of_setting["inter_token_latency_p95_s"] > inter_token_latency_max_s
        )  # answers of one token have no gaps
        row |= {
            "n_failed_requests": of_setting["n_failed_requests"].sum(),
            "meets_limits": bool(within.all() and of_setting["n_failed_requests"].eq(0).all()),
            "n_cycles": of_setting["cycle"].nunique(),
            "n_runs": len(of_setting),
            "note": None if spreads[ENERGY].known else spreads[ENERGY].why_none(),
        }
        rows.append(row)
    points = pd.DataFrame(rows, columns=[name for name in ARRIVAL_CURVE.names if name != "best"])
    within_limits = points.loc[points["meets_limits"].astype(bool), ENERGY]
    least = within_limits.groupby(points["model"]).transform("min").reindex(points.index)
    return ArrivalCurve(points.assign(best=points[ENERGY].eq(least)))
