"""Which model predicts energy best in settings that were left out? Errors of all candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.grid import Candidate, GridModel, fit_candidates
from inference_energy.tables import conform
from inference_energy.tables.effects import GRID_MODELS

_POWER = "waiting_power_w"


@dataclass(frozen=True)
class GridModels:
    """Errors of every candidate.

    Attributes
    ----------
    candidates : DataFrame
        One row a candidate.
    """

    candidates: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``grid_models``."""
        return conform(self.candidates, GRID_MODELS)


def grid_models(runs: pd.DataFrame, *, confidence: float) -> GridModels:
    r"""Fit every candidate, leave each setting out in turn, and compare.

    All candidates model :math:`\log e` of a setting, the mean over its runs. Errors are those of a
    prediction without the setting (:math:`e/(1-h)`), over the settings that every candidate can
    predict so; the candidate with the smallest root mean square is chosen. Differences between
    sittings and hosts are part of the residual: a new sitting may be another host.

    Raises
    ------
    AnalysisError
        If no run has an energy, or one is not above 0.

    References
    ----------
    Allen (1974), The relationship between variable selection and data augmentation and a method for
    prediction, *Technometrics* 16 (PRESS).
    """
    found = fit_candidates(runs)
    idle = (
        runs["idle_loaded_power_w"].astype(float) / runs["n_gpus"].astype("Float64").fillna(1).astype(float)
    ).median()
    rows = [_row(found, one, confidence) | {"idle_loaded_power_w": idle} for one in found.candidates]
    return GridModels(pd.DataFrame(rows, columns=GRID_MODELS.names))


def _row(found: GridModel, one: Candidate, confidence: float) -> dict[str, object]:
    row: dict[str, object] = {
        "candidate": one.name,
        "description": one.words,
        "chosen": found.chosen is not None and one.name == found.chosen.name,
        "n_settings": len(found.settings),
        "n_left_out": int(found.held_out.sum()),
        "confidence": confidence,
        "reason": one.reason or None,
    }
    if one.fitted is None:
        return row
    fitted = one.fitted
    row |= {"n_parameters": fitted.n_parameters, "residual_cv": float(np.sqrt(fitted.variance))}
    errors, deviations = fitted.left_out()
    if found.held_out.any():
        left = errors[found.held_out]
        grid = errors[found.held_out & found.settings["of_grid"].to_numpy(bool)]
        inside = np.abs(left) <= fitted.quantile(confidence) * deviations[found.held_out]
        row |= {
            "error_left_out_cv": float(np.sqrt((left**2).mean())),
            "error_left_out_median_fraction": float(np.median(np.abs(np.expm1(left)))),
            "error_grid_median_fraction": float(np.median(np.abs(np.expm1(grid)))) if len(grid) else np.nan,
            "interval_coverage_fraction": float(inside.mean()),
        }
    if len(fitted.encoder.parts) > 1 and (found.settings["batch_wait_s"] > 0).any():  # waiting is the last part
        estimate, error = fitted.coefficients[-1], np.sqrt(fitted.covariance[-1, -1])
        half = fitted.quantile(confidence) * error
        ends = {_POWER: estimate, f"{_POWER}_low": estimate - half, f"{_POWER}_high": estimate + half}
        row |= {name: float(np.exp(value)) for name, value in ends.items()}
    return row
