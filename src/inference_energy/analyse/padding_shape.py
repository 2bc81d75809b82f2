"""Whether there is a best batch size, between sharing the cost of a step and padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats

from inference_energy.models.phases import DRAWN, OF_PADDING
from inference_energy.tables import above_zero, conform
from inference_energy.tables.phases import PADDING_SHAPE

Floats = NDArray[np.float64]

N_BATCH_SIZES_MIN = 4
FREEDOM_MIN = 4  # with fewer the spread itself is hardly known


@dataclass(frozen=True)
class PaddingShape:
    """Curves over batch sizes.

    Attributes
    ----------
    curves : DataFrame
        One row a quantity, phase, model and precision.
    confidence : float
        Level of the intervals, and of the shapes.
    """

    curves: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Rows of ``padding_shape``."""
        return conform(self.curves, PADDING_SHAPE)


def padding_shape(padding_runs: pd.DataFrame, *, confidence: float) -> PaddingShape:
    r"""Fit :math:`\log E = \lambda_\text{sitting} + b x + c x^2`, with x the binary logarithm of the batch size.

    By ordinary least squares, a level for each sitting. The slope after b + 2 c x says what a doubling does. A curve is
    a **U** if two tests say so at less than one minus the confidence; its p-value is the larger of theirs:

    - *the parabola* falls at the smallest batch and rises at the largest (Lind and Mehlum's intersection-union test:
      the larger of two one-sided p-values). A bend alone is not enough: a curve that falls ever more slowly bends;
    - *without a law*, an inner batch lies below both the smallest and the largest one: for each inner batch the larger
      of two one-sided p-values, of these the smallest times the number of inner batches. A parabola laid through a
      curve that falls to a plateau turns up at its end; this test does not.

    The batch size of the minimum, :math:`2^{-b / 2c}`, has an interval by the delta method, and is given for a U alone.

    Parameters
    ----------
    padding_runs : DataFrame
        The table of that name; prompts in the order drawn are taken.
    confidence : float
        Level of the intervals.

    Raises
    ------
    AnalysisError
        If a value is not above 0.

    References
    ----------
    Lind and Mehlum (2010), "With or without U?", *Oxford Bulletin of Economics and Statistics* 72, 109-118. Simonsohn
    (2018), "Two lines", *Advances in Methods and Practices in Psychological Science* 1, 538-555, on its limits.
    """
    rows = []
    drawn = padding_runs[padding_runs["batch_order"] == DRAWN]
    for (model, precision, phase), part in drawn.groupby(["model", "precision", "phase"], sort=True):
        for quantity in OF_PADDING[str(phase)]:
            known = part[part[quantity].notna()]
            if quantity.startswith("energy") and len(known):
                above_zero(known, quantity, "table padding_runs")
                about = {"quantity": quantity, "phase": phase, "model": model, "precision": precision}
                rows.append(about | _curve(known, quantity, confidence))
    return PaddingShape(pd.DataFrame(rows, columns=PADDING_SHAPE.names), confidence)


def _curve(known: pd.DataFrame, quantity: str, confidence: float) -> dict[str, object]:
    sizes, logs = known["batch_size"].to_numpy(float), np.log(known[quantity].to_numpy(float))
    means = pd.Series(logs).groupby(sizes).mean()
    row: dict[str, object] = {
        "n_batch_sizes": len(means),
        "n_runs": len(known),
        "n_prompts_smallest": int(sizes.min()),
        "n_prompts_lowest": int(means.index[int(means.argmin())]),
        "n_prompts_largest": int(sizes.max()),
    }
    sittings = pd.get_dummies(known["sitting"].astype(str), dtype=float).to_numpy()
    x = np.log2(sizes)
    design = np.column_stack([x, x**2, sittings])
    freedom = len(x) - int(np.linalg.matrix_rank(design))
    if len(means) < N_BATCH_SIZES_MIN:
        return row | {"note": f"a curve takes {N_BATCH_SIZES_MIN} batch sizes, and this one has {len(means)}"}
    if freedom < FREEDOM_MIN:
        return row | {"note": f"{len(x)} runs leave {freedom} degrees of freedom, and it takes {FREEDOM_MIN}"}
    found = sm.OLS(logs, design).fit()
    b, c = found.params[:2]
    covariance = found.cov_params()[:2, :2]
    slopes = [_slope(b, c, covariance, end, freedom, confidence) for end in (x.min(), x.max())]
    for name, slope in zip(("at_smallest_per_doubling_ratio", "at_largest_per_doubling_ratio"), slopes, strict=True):
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), np.exp(slope[:3]).tolist(), strict=True))
    parabola, inner = max(1 - slopes[0][3], slopes[1][3]), _inner(sizes, logs, sittings)
    u_p_value = float(np.maximum(parabola, inner))  # missing if one of the two tests is
    row |= {"curvature_p_value": float(found.pvalues[1]), "parabola_p_value": parabola}
    row |= {"inner_p_value": inner, "u_p_value": u_p_value}
    shape = _shape(slopes[0], slopes[1], u_p_value <= 1 - confidence)
    return row | {"shape": shape} | (_minimum(b, c, covariance, freedom, confidence) if shape == "U" else {})


def _slope(
    b: float, c: float, covariance: Floats, x: float, freedom: int, confidence: float
) -> tuple[float, float, float, float]:
    """Slope at `x` with its interval, and the one-sided p-value of its not being above 0."""
    gradient = np.array([1.0, 2 * x])
    slope, error = b + 2 * c * x, float(np.sqrt(gradient @ covariance @ gradient))
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
    return slope, slope - half, slope + half, float(stats.t.sf(slope / error, freedom))


def _inner(sizes: Floats, logs: Floats, sittings: Floats) -> float:
    """p-value of no inner batch size lying below both ends; missing where nothing was measured twice."""
    levels = pd.get_dummies(sizes, dtype=float).to_numpy()
    design = np.column_stack([levels, sittings[:, 1:]])
    if len(logs) - int(np.linalg.matrix_rank(design)) < FREEDOM_MIN:
        return float("nan")
    found, n = sm.OLS(logs, design).fit(), levels.shape[1]
    contrasts = np.zeros((2, n - 2, design.shape[1]))
    contrasts[0, :, 0] = contrasts[1, :, n - 1] = 1
    contrasts[:, np.arange(n - 2), np.arange(1, n - 1)] = -1
    p_values = [stats.t.sf(found.t_test(end).tvalue, found.df_resid) for end in contrasts]
    return float(min(1.0, np.max(p_values, axis=0).min() * (n - 2)))


def _shape(first: tuple[float, ...], last: tuple[float, ...], is_u: bool) -> str:
    """The curve in a word: by the intervals of its two end slopes."""
    if is_u:
        return "U"
    if first[2] < 0:
        return "falls" if last[2] < 0 else "levels off"
    if first[1] > 0 and last[1] > 0:
        return "rises"
    return "inverted U" if first[1] > 0 and last[2] < 0 else "undecided"


def _minimum(b: float, c: float, covariance: Floats, freedom: int, confidence: float) -> dict[str, float]:
    """Batch size at the vertex."""
    vertex = -b / (2 * c)
    gradient = np.array([-1 / (2 * c), b / (2 * c**2)])
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * float(np.sqrt(gradient @ covariance @ gradient))
    name = "n_prompts_at_minimum"
    return {name: 2.0**vertex, f"{name}_low": 2.0 ** (vertex - half), f"{name}_high": 2.0 ** (vertex + half)}
