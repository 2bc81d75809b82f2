"""A linear model of log energy in which each setting counts once, with errors by the jackknife over settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Design = Callable[[pd.DataFrame], dict[str, pd.DataFrame]]

_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Linear:
    """A fitted model.

    Attributes
    ----------
    used : DataFrame
        The runs behind it; settings that alone decide a coefficient are not among them.
    columns : list of (str, str)
        Term and level of every coefficient; the first is the intercept.
    design : ndarray, shape (n_runs, n_columns)
        Weighted rows.
    response : ndarray, shape (n_runs,)
        Weighted.
    coefficients : ndarray, shape (n_columns,)
    covariance : ndarray, shape (n_columns, n_columns)
        Jackknife over settings (CR3).
    n_settings, n_parameters : int
    """

    used: pd.DataFrame
    columns: list[tuple[str, str]]
    design: Floats
    response: Floats
    coefficients: Floats
    covariance: Floats
    n_settings: int
    n_parameters: int

    @property
    def enough(self) -> bool:
        """Whether more settings than parameters are left, by at least two."""
        return self.n_settings - self.n_parameters >= 2

    @property
    def total(self) -> float:
        """Weighted sum of squares about the mean."""
        ones = self.design[:, 0]
        return _squares(self.response, ones[:, None])

    def places(self, term: str) -> list[int]:
        """Columns of `term`."""
        return [place for place, (name, _) in enumerate(self.columns) if name == term]

    def estimable(self, contrast: Floats) -> bool:
        """Whether the measured settings decide ``contrast @ coefficients``."""
        rest = contrast - contrast @ np.linalg.pinv(self.design, rcond=_TOLERANCE) @ self.design
        return bool(np.abs(rest).max() < 1e-6)

    def contrast(self, contrast: Floats, confidence: float) -> tuple[float, float, float, float]:
        """Estimate, both ends of its interval, and the p-value of its being 0 (t with n settings - 1)."""
        estimate = float(contrast @ self.coefficients)
        error = float(np.sqrt(contrast @ self.covariance @ contrast))
        freedom = self.n_settings - 1
        half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
        p_value = 2 * float(stats.t.sf(abs(estimate) / error, freedom)) if error > 0 else float("nan")
        return estimate, estimate - half, estimate + half, p_value

    def test(self, term: str) -> tuple[int, float, float, float]:
        """Rank, sum of squares, F and p-value of `term` beside all other terms of this model.

        The sum of squares is that by which residuals shrink when the term comes last (type II, in a
        model without higher terms); F is Wald's, with the jackknife's covariance.
        """
        own = self.places(term)
        others = np.delete(self.design, own, axis=1)
        projected = self.design[:, own] - others @ (np.linalg.pinv(others, rcond=_TOLERANCE) @ self.design[:, own])
        _, sizes, directions = np.linalg.svd(projected, full_matrices=False)
        rank = int((sizes > 1e-6).sum())
        if not rank:
            return 0, 0.0, float("nan"), float("nan")
        squares = _squares(self.response, others) - _squares(self.response, self.design)
        contrasts = np.zeros((rank, len(self.columns)))
        contrasts[:, own] = directions[:rank]
        values = contrasts @ self.coefficients
        spread = contrasts @ self.covariance @ contrasts.T
        wald = float(values @ np.linalg.pinv(spread) @ values) / rank
        return rank, squares, wald, float(stats.f.sf(wald, rank, self.n_settings - 1))


def fit(runs: pd.DataFrame, design: Design) -> Linear:
    r"""Fit log energy; every setting has weight 1, shared by its runs.

    Settings that alone decide a coefficient (a level measured in one setting only) are set aside, again
    and again until there are none: their residual is 0 whatever the truth, so no error could be told.
    The covariance is the jackknife over settings,
    :math:`\frac{G-1}{G}\sum_g(\hat\beta_{(g)}-\hat\beta)(\hat\beta_{(g)}-\hat\beta)^T`, which with one
    run a setting is HC3 times (G - 1) / G.

    Parameters
    ----------
    runs : DataFrame
        Of :func:`~inference_energy.models.deployments.deployments`.
    design : callable
        Gives, for runs, the columns of each term.

    References
    ----------
    MacKinnon, Nielsen and Webb (2023), Cluster-robust inference: a guide to empirical practice,
    *Journal of Econometrics* 232, equation 15.
    """
    used = runs
    while True:
        terms = design(used)
        columns = [("", "intercept")] + [(term, str(name)) for term, block in terms.items() for name in block]
        rows = np.hstack([np.ones((len(used), 1)), *[block.to_numpy(float) for block in terms.values()]])
        weights = 1 / used.groupby("setting")["setting"].transform("size").to_numpy(float)
        weighted = rows * np.sqrt(weights)[:, None]
        hat = weighted @ np.linalg.pinv(weighted, rcond=_TOLERANCE)
        groups = [np.flatnonzero((used["setting"] == name).to_numpy(bool)) for name in used["setting"].unique()]
        alone = [group for group in groups if _leverage(hat, group) > 1 - 1e-6]
        if not alone or len(alone) == len(groups):
            break
        used = used.drop(index=used.index[np.concatenate(alone)])
    response = used["log_energy"].to_numpy(float)
    observed = np.sqrt(weights) * response
    inverse = np.linalg.pinv(weighted.T @ weighted, rcond=_TOLERANCE)
    coefficients = inverse @ weighted.T @ observed
    residuals = observed - weighted @ coefficients
    changes = np.array([_left_out(weighted, residuals, hat, inverse, group) for group in groups])
    n = len(groups)
    return Linear(
        used=used,
        columns=columns,
        design=weighted,
        response=observed,
        coefficients=coefficients,
        covariance=(n - 1) / n * changes.T @ changes,
        n_settings=n,
        n_parameters=int(np.linalg.matrix_rank(weighted)),
    )


def indicators(values: pd.Series, baseline: str, order: Sequence[str]) -> pd.DataFrame:
    """A column of 0 and 1 for each of `order` but the baseline."""
    return pd.DataFrame({level: (values == level).astype(float) for level in order if level != baseline}, values.index)


def _leverage(hat: Floats, group: NDArray[np.intp]) -> float:
    return float(np.linalg.eigvalsh(hat[np.ix_(group, group)]).max())


def _left_out(design: Floats, residuals: Floats, hat: Floats, inverse: Floats, group: NDArray[np.intp]) -> Floats:
    """Change of the coefficients when the runs of one setting are left out."""
    block = np.eye(len(group)) - hat[np.ix_(group, group)]
    change: Floats = -inverse @ design[group].T @ np.linalg.lstsq(block, residuals[group], rcond=_TOLERANCE)[0]
    return change


def _squares(response: Floats, design: Floats) -> float:
    fitted = design @ np.linalg.lstsq(design, response, rcond=_TOLERANCE)[0]
    return float(((response - fitted) ** 2).sum())
