"""Every run with all factors but one or two brought to their baselines: the points behind effects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.deployments import BASELINES, deployments, waits
from inference_energy.models.linear import Linear
from inference_energy.models.terms import INTERACTIONS, fit_main
from inference_energy.tables import conform
from inference_energy.tables.effects import ADJUSTED_RUNS


@dataclass(frozen=True)
class AdjustedRuns:
    """Partial residuals.

    Attributes
    ----------
    points : DataFrame
        One row a term and run.
    """

    points: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``adjusted_runs``."""
        return conform(self.points, ADJUSTED_RUNS)


def adjusted_runs(runs: pd.DataFrame) -> AdjustedRuns:
    r"""Take from every run what the linear model says of all other factors and of the sitting.

    What is left, over the model's energy at the baseline, is
    :math:`\exp(\beta_{f,\text{level}} + \hat\varepsilon)`, for an interaction with the main effects of
    both factors: where factors work together, residuals show it. Runs whose levels the model cannot
    tell are left out.

    Raises
    ------
    AnalysisError
        If no run has an energy, or one is not above 0.

    References
    ----------
    Larsen and McCleary (1972), The use of partial residual plots in regression analysis,
    *Technometrics* 14.
    """
    model = fit_main(deployments(runs))
    if not model.enough:
        return AdjustedRuns(pd.DataFrame(columns=ADJUSTED_RUNS.names))
    points = [_points(model, (factor,)) for factor in BASELINES] + [_points(model, pair) for pair in INTERACTIONS]
    return AdjustedRuns(pd.concat(points, ignore_index=True))


def _points(model: Linear, factors: tuple[str, ...]) -> pd.DataFrame:
    own = np.array([term in factors for term, _ in model.columns])
    weights = model.design[:, 0]  # the intercept's column: roots of the weights
    contrasts = np.where(own, model.design / weights[:, None], 0.0)
    residuals = (model.response - model.design @ model.coefficients) / weights
    used = model.used
    points = pd.DataFrame(
        {
            "term": " x ".join(factors),
            "first_level": used[factors[0]],
            "second_level": None if len(factors) == 1 else waits(used) if factors[1] == "traffic" else used[factors[1]],
            "setting": used["setting"],
            "sitting": used["sitting"],
            "over_baseline_ratio": np.exp(contrasts @ model.coefficients + residuals),
        }
    )
    return points[[model.estimable(contrast) for contrast in contrasts]]
