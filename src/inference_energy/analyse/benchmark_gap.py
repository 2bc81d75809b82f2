"""An ideal test as a share of realistic use, with an interval from the scatter of all repeated runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from inference_energy.tables import conform
from inference_energy.tables.report import BENCHMARK_GAP

ENERGY, IDEAL = "energy_j_per_output_token", "A1"
SHARE = "ideal_over_realistic_mean_ratio"


@dataclass(frozen=True)
class BenchmarkGap:
    """One row per version, accounting and model; see :data:`inference_energy.tables.report.BENCHMARK_GAP`."""

    rows: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Columns of the table ``benchmark_gap``."""
        return conform(self.rows, BENCHMARK_GAP)


def benchmark_gap(scenarios: pd.DataFrame, cost_range: pd.DataFrame, *, confidence: float) -> BenchmarkGap:
    r"""Divide the energy per token of scenario A1 by the mean over the realistic scenarios.

    Scenarios have one or two runs each, too few for a scatter of their own. So every run's logarithm
    is taken to scatter with the campaign's pooled standard deviation *s* (``cost_range``), and the
    ratio's logarithm, by propagation of errors, with

    .. math:: s \sqrt{1 / n_A + \sum_j w_j^2 / n_j}, \quad w_j = e_j / \sum_i e_i

    over realistic scenarios *j* with energies :math:`e_j` of :math:`n_j` runs. Runs of one sitting
    share part of their scatter, which cancels in the ratio: the interval is rather too wide.

    Parameters
    ----------
    scenarios : DataFrame
        The table; a campaign without A1 or without realistic scenarios has no rows here.
    cost_range : DataFrame
        The table, for the scatter and its degrees of freedom.
    confidence : float
        Level of the interval (Student's t).

    References
    ----------
    Propagation of errors: NIST/SEMATECH e-Handbook of Statistical Methods, 2.5.5.
    """
    scatter, n_repeats = float("nan"), 0
    if len(cost_range):
        scatter, n_repeats = float(cost_range["repeat_cv"].iloc[0]), int(cost_range["n_repeats"].iloc[0])
    known = scenarios[(scenarios["quantity"] == ENERGY) & scenarios["estimate"].notna()]
    rows = []
    for (version, accounting, model), group in known.groupby(["version", "accounting", "model"]):
        is_ideal = (group["scenario"] == IDEAL).astype(bool)
        realistic = group[~is_ideal & group["scenario"].str.startswith("R")]
        if not is_ideal.any() or realistic.empty:
            continue
        ideal, energies = group[is_ideal].iloc[0], realistic["estimate"].to_numpy(float)
        weights = energies / energies.sum()
        log_share = np.log(float(ideal["estimate"]) / energies.mean())
        variance = 1 / float(ideal["n_runs"]) + float((weights**2 / realistic["n_runs"].to_numpy(float)).sum())
        t = stats.t.ppf((1 + confidence) / 2, n_repeats) if n_repeats else np.nan
        half = t * scatter * np.sqrt(variance)
        rows.append(
            {
                "version": version,
                "accounting": accounting,
                "model": model,
                "n_scenarios": len(realistic),
                "n_runs": int(ideal["n_runs"]) + int(realistic["n_runs"].sum()),
                SHARE: np.exp(log_share),
                f"{SHARE}_low": np.exp(log_share - half),
                f"{SHARE}_high": np.exp(log_share + half),
            }
        )
    return BenchmarkGap(pd.DataFrame(rows, columns=BENCHMARK_GAP.names))
