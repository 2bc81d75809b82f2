"""Levels of settings that were measured side by side, and ratios of them that add up on the logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats

from inference_energy.models.repetitions import ONCE
from inference_energy.tables import above_zero

Floats = NDArray[np.float64]
Cell = tuple[Any, ...]
#: Cells above, and cells below: the geometric mean of the first over that of the second.
Contrast = tuple[Sequence[Cell], Sequence[Cell]]

WITHIN, OVER = "within sittings", "over sittings"


@dataclass(frozen=True)
class Cells:
    """Log levels of cells, with the sittings' own levels taken out where that can be done.

    Attributes
    ----------
    n_runs : dict
        Runs of each cell.
    coefficients : ndarray, shape (n_cells,)
        Log levels, in the order of `n_runs`.
    covariance : ndarray, shape (n_cells, n_cells)
        Of the log levels.
    n_freedom : int
        Degrees of freedom of the spread between repetitions.
    compared : str
        Whether ratios are within sittings or over sittings.
    """

    n_runs: dict[Cell, int]
    coefficients: Floats
    covariance: Floats
    n_freedom: int
    compared: str

    def ratio(self, contrast: Contrast, confidence: float) -> dict[str, object]:
        """Columns ``estimate`` with its interval, ``compared``, ``n_runs`` and ``note`` of a ratio.

        The interval is Student's; the spread between repetitions is pooled over all cells.
        """
        (value,), ((variance,),) = self._told([contrast])
        half = self._half(variance, confidence)
        return self._row(contrast) | {
            "estimate": float(np.exp(value)),
            "estimate_low": float(np.exp(value - half)),
            "estimate_high": float(np.exp(value + half)),
            "note": None if self.n_freedom else f"no interval, because {ONCE}",
        }

    def share(self, part: Contrast, whole: Contrast, confidence: float) -> dict[str, object]:
        """The same of the logarithm of one ratio over that of another, of which it is a part; by the delta method.

        Both logarithms are differences of the same levels: their errors are correlated, and the method knows. Missing
        where the whole may be no change at all.
        """
        (log_part, log_whole), covariance = self._told([part, whole])
        row = self._row(whole)
        if not abs(log_whole) > self._half(covariance[1, 1], confidence):
            return row | {"note": "the whole change may be nil" if self.n_freedom else ONCE}
        gradient = np.array([1.0, -log_part / log_whole]) / log_whole
        half = self._half(gradient @ covariance @ gradient, confidence)
        share = log_part / log_whole
        return row | {"estimate": share, "estimate_low": share - half, "estimate_high": share + half, "note": None}

    def _told(self, contrasts: Sequence[Contrast]) -> tuple[Floats, Floats]:
        """Log values of contrasts, and their covariance."""
        weights = np.array(
            [
                [above.count(name) / len(above) - below.count(name) / len(below) for name in self.n_runs]
                for above, below in contrasts
            ]
        )
        return weights @ self.coefficients, weights @ self.covariance @ weights.T

    def _half(self, variance: float, confidence: float) -> float:
        """Half the width of a Student interval; missing where nothing was repeated."""
        if self.n_freedom == 0:
            return float("nan")
        return float(stats.t.ppf(0.5 + confidence / 2, self.n_freedom) * np.sqrt(max(variance, 0.0)))

    def _row(self, contrast: Contrast) -> dict[str, object]:
        return {"compared": self.compared, "n_runs": sum(self.n_runs[name] for name in {*contrast[0], *contrast[1]})}


def cells(runs: pd.DataFrame, names: Sequence[str], quantity: str) -> Cells:
    r"""Fit :math:`\log y = \mu_\text{cell} + \lambda_\text{sitting}` by ordinary least squares.

    Ratios of cells are then the same whichever way round they are taken apart: from a to b times from b to c is from a
    to c. Hosts fall out of them where the sittings tie all cells together and leave a repetition; where they do not,
    all ratios are taken over sittings, without :math:`\lambda`, hosts included in their spread.

    Parameters
    ----------
    runs : DataFrame
        With ``sitting``, `names`, `quantity` and the key of a run; at least one row. Rows without `quantity` are left
        out.
    names : sequence of str
        Columns whose levels together name a cell.
    quantity : str
        Column to compare; above 0.

    Raises
    ------
    AnalysisError
        If a value is not above 0.
    """
    known = runs[runs[quantity].notna()]
    above_zero(known, quantity, "table runs")
    labels = pd.Series(list(known[list(names)].itertuples(index=False, name=None)), known.index, dtype=object)
    n_runs: dict[Any, int] = labels.value_counts(sort=False).to_dict()
    levels = np.array([[float(label == name) for name in n_runs] for label in labels])
    sittings = pd.get_dummies(known["sitting"], dtype=float).to_numpy()[:, 1:]
    both, logs = np.hstack([levels, sittings]), np.log(known[quantity].to_numpy(float))
    tied = np.linalg.matrix_rank(both) == both.shape[1] < len(known)
    fit = sm.OLS(logs, both if tied else levels).fit()
    n, n_freedom = len(n_runs), int(fit.df_resid)
    covariance = fit.cov_params()[:n, :n] if n_freedom else np.full((n, n), np.nan)
    compared = WITHIN if tied or sittings.shape[1] == 0 else OVER
    return Cells(n_runs, fit.params[:n], covariance, n_freedom, compared)
