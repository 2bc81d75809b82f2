"""The least, the median and the most costly setting of each model, with intervals from repeated runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from inference_energy.models.deployments import deployments
from inference_energy.tables import conform
from inference_energy.tables.report import COST_RANGE

ENERGY = "energy_j_per_output_token"
LEVELS = ["precision", "batch_size", "parallelism", "n_gpus", "traffic"]


@dataclass(frozen=True)
class CostRange:
    """Three settings of every model; see :data:`inference_energy.tables.report.COST_RANGE`."""

    rows: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Columns of the table ``cost_range``."""
        return conform(self.rows, COST_RANGE)


def cost_range(runs: pd.DataFrame, *, confidence: float) -> CostRange:
    """Rank the settings of each model by energy per output token.

    The logarithms of a setting's runs scatter with the standard deviation ``s``, pooled over all
    settings that were measured more than once: so a setting with a single run has an interval too,
    ``mean ± t s / sqrt(n_runs)`` of the logarithm. Runs of a setting lie in different sittings as a
    rule, so ``s`` holds hosts and GPUs.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table. Runs that ask about the method are left out
        (:func:`inference_energy.models.deployments.deployments`), and so are those without energy.
    confidence : float
        Level of the intervals.

    Returns
    -------
    CostRange
        Three rows per model. Of an even number of settings the median is the less costly of the two
        in the middle, so that it is a setting that was measured. Intervals are missing where no
        setting was repeated.

    Raises
    ------
    AnalysisError
        If an energy is not above 0.

    References
    ----------
    Pooled standard deviation with a t interval: NIST/SEMATECH e-Handbook of Statistical Methods, 2.3.3.3.
    """
    if runs[ENERGY].notna().sum() == 0:
        return CostRange(pd.DataFrame(columns=COST_RANGE.names))
    deployed = runs.loc[deployments(runs).index]
    logs = deployed.assign(log_value=np.log(deployed[ENERGY].astype(float)))
    settings = logs.groupby(["model", "setting"], as_index=False).agg(
        mean=("log_value", "mean"), n_runs=("log_value", "size"), **{name: (name, "first") for name in LEVELS}
    )
    n_repeats = len(logs) - len(settings)
    within = logs["log_value"] - logs.groupby("setting")["log_value"].transform("mean")
    scatter = float(np.sqrt((within**2).sum() / n_repeats)) if n_repeats else float("nan")
    rows = []
    for model, ranked in settings.sort_values(["mean", "setting"]).groupby("model"):
        for which, place in (("least", 0), ("median", (len(ranked) - 1) // 2), ("most", len(ranked) - 1)):
            row = ranked.iloc[place]
            half = (
                stats.t.ppf((1 + confidence) / 2, n_repeats) * scatter / np.sqrt(row["n_runs"]) if n_repeats else np.nan
            )
            rows.append(
                {
                    **row,
                    "model": model,
                    "which": which,
                    "n_settings": len(ranked),
                    ENERGY: np.exp(row["mean"]),
                    f"{ENERGY}_low": np.exp(row["mean"] - half),
                    f"{ENERGY}_high": np.exp(row["mean"] + half),
                    "repeat_cv": scatter,
                    "n_repeats": n_repeats,
                }
            )
    return CostRange(pd.DataFrame(rows, columns=COST_RANGE.names))
