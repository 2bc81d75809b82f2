"""How well is each measured setting predicted by a model that has not seen it? Predictions, each setting left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.grid import fit_candidates
from inference_energy.tables import conform
from inference_energy.tables.effects import GRID_LEFT_OUT

_PREDICTED = "energy_predicted_j_per_output_token"


@dataclass(frozen=True)
class GridLeftOut:
    """Measured settings beside their predictions.

    Attributes
    ----------
    settings : DataFrame
        One row a measured setting.
    """

    settings: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``grid_left_out``."""
        return conform(self.settings, GRID_LEFT_OUT)


def grid_left_out(runs: pd.DataFrame, *, confidence: float) -> GridLeftOut:
    """Predict every measured setting by the chosen model fitted to all others.

    A setting that alone decides a coefficient has no such prediction.

    Raises
    ------
    AnalysisError
        If no run has an energy, or one is not above 0.
    """
    found = fit_candidates(runs)
    if found.chosen is None or found.chosen.fitted is None:
        return GridLeftOut(pd.DataFrame(columns=GRID_LEFT_OUT.names))
    fitted, settings = found.chosen.fitted, found.settings
    errors, deviations = fitted.left_out()
    logs, half = settings["log_energy"].to_numpy(float) - errors, fitted.quantile(confidence) * deviations
    return GridLeftOut(
        pd.DataFrame(
            {
                **{name: settings[name] for name in ("setting", "model", "precision", "n_runs", "of_grid")},
                "batch_size": settings["batch_size"].astype(int),
                "parallelism": settings["parallelism"],
                "traffic": settings["traffic"],
                "energy_measured_j_per_output_token": np.exp(settings["log_energy"]),
                _PREDICTED: np.exp(logs),
                f"{_PREDICTED}_low": np.exp(logs - half),
                f"{_PREDICTED}_high": np.exp(logs + half),
                "inside": pd.Series(np.abs(errors) <= half, dtype="boolean").where(np.isfinite(errors)),
                "confidence": confidence,
                "candidate": found.chosen.name,
            }
        )
    )
