"""What would every setting of the published grid take? Measured where it was, predicted where it can be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.additive import Additive
from inference_energy.models.deployments import deployments
from inference_energy.models.grid import KEYS, GridModel, fit_candidates, identity, predictable, published_grid
from inference_energy.tables import conform
from inference_energy.tables.effects import GRID_PREDICTION

_MEASURED, _PREDICTED = "energy_measured_j_per_output_token", "energy_predicted_j_per_output_token"


@dataclass(frozen=True)
class GridPrediction:
    """Every setting of the grid.

    Attributes
    ----------
    settings : DataFrame
        One row a setting.
    """

    settings: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``grid_prediction``."""
        return conform(self.settings, GRID_PREDICTION)


def grid_prediction(
    runs: pd.DataFrame, configs: pd.DataFrame, axes: pd.DataFrame, latency: pd.DataFrame, *, confidence: float
) -> GridPrediction:
    """Put the measured energy of each grid setting, or its prediction, or a reason.

    The model is the one that ``grid_models`` chooses. A prediction interval is for one measured
    setting: it holds the uncertainty of the coefficients and the residual. A measured setting has
    beside its energy the prediction of the model fitted without it.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; every deployment run informs the model.
    configs, axes, latency : DataFrame
        The published grid, see :func:`~inference_energy.models.grid.published_grid`.

    Raises
    ------
    AnalysisError
        If no run has an energy, one is not above 0, or a published file is of other content.
    """
    grid, found = published_grid(configs, axes, latency), fit_candidates(runs)
    known = deployments(runs)
    known = known.assign(identity=identity(runs.loc[known.index]))
    measured = known.groupby("identity").agg(
        setting=("setting", "first"), n_runs=("setting", "size"), log_energy=("log_energy", "mean")
    )
    grid = grid.drop(columns=["setting", "log_energy"]).merge(
        measured, left_on="identity", right_index=True, how="left"
    )
    table = grid[[*KEYS, "setting", "n_runs", "batch_wait_s"]].assign(
        confidence=confidence, **{_MEASURED: np.exp(grid["log_energy"].astype(float))}
    )
    reasons = predictable(found, grid)
    here = grid["setting"].notna().to_numpy(bool)
    table["status"] = np.where(here, "measured", np.where(reasons == "", "predicted", "cannot be predicted"))
    table["reason"] = pd.Series(reasons, dtype="string").where(~here & (reasons != ""))
    table["candidate"] = found.chosen.name if found.chosen else None
    predictions = _predictions(found, grid, confidence)
    return GridPrediction(table.assign(**predictions)[GRID_PREDICTION.names])


def _predictions(found: GridModel, grid: pd.DataFrame, confidence: float) -> dict[str, np.ndarray]:
    """Prediction with its ends, and the share of waiting."""
    names = (_PREDICTED, f"{_PREDICTED}_low", f"{_PREDICTED}_high", "waiting_fraction")
    blank = np.full(len(grid), np.nan)
    if found.chosen is None or found.chosen.fitted is None:
        return dict.fromkeys(names, blank)
    fitted: Additive = found.chosen.fitted
    logs, slopes, shares = fitted.predict(grid)
    errors = fitted.errors(slopes)
    left, deviations = fitted.left_out()
    own = {name: place for place, name in enumerate(found.settings["setting"])}
    for row, setting in enumerate(grid["setting"]):
        if setting in own:  # measured: the prediction without it
            place = own[setting]
            logs[row] = found.settings["log_energy"].iloc[place] - left[place]
            errors[row] = deviations[place]
    usable = (predictable(found, grid) == "") | grid["setting"].notna().to_numpy(bool)
    logs = np.where(usable, logs, np.nan)
    half = fitted.quantile(confidence) * errors
    waiting = shares[:, -1] if len(fitted.encoder.parts) > 1 else blank
    values = (np.exp(logs), np.exp(logs - half), np.exp(logs + half), np.where(np.isfinite(logs), waiting, np.nan))
    return dict(zip(names, values, strict=True))
