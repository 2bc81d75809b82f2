"""Bootstrap resampling that respects how runs are nested: cycles within settings.

Windows of one run share its process, its clocks and its temperature. Resampling them would show
only how steady a run is, so what is resampled here are settings and cycles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_N_DRAWS_AT_ONCE = 4_000_000  # bounds memory to some hundred megabytes


def by_setting(settings: ArrayLike, values: ArrayLike) -> Floats:
    """Values of each setting's cycles as one row, padded with missing values at the end.

    Parameters
    ----------
    settings, values : array_like, shape (n_runs,)
        Name of the setting and value of every run; no missing values.

    Returns
    -------
    ndarray, shape (n_settings, n_cycles)
        Settings in order of name, cycles in the order given.
    """
    _, row, counts = np.unique(np.asarray(settings, dtype=str), return_inverse=True, return_counts=True)
    order = np.argsort(row, kind="stable")
    column = np.arange(row.size) - np.repeat(np.cumsum(counts) - counts, counts)
    matrix = np.full((counts.size, counts.max()), np.nan)
    matrix[row[order], column] = np.asarray(values, dtype=float)[order]
    return matrix


def setting_means(values: Floats, n_bootstrap: int, rng: np.random.Generator) -> Floats:
    """Means over cycles of resampled settings.

    Each resample draws as many settings as there are, with replacement, and then for every setting
    drawn as many of its cycles as it has, with replacement.

    Parameters
    ----------
    values : ndarray, shape (n_settings, n_cycles)
        From :func:`by_setting`.

    Returns
    -------
    ndarray, shape (n_bootstrap, n_settings)
    """
    n_settings, n_columns = values.shape
    n_cycles = np.isfinite(values).sum(axis=1)
    means = np.empty((n_bootstrap, n_settings))
    step = max(1, _N_DRAWS_AT_ONCE // values.size)
    for first in range(0, n_bootstrap, step):
        n = min(step, n_bootstrap - first)
        settings = rng.integers(n_settings, size=(n, n_settings))
        counts = n_cycles[settings]
        cycles = (rng.random((n, n_settings, n_columns)) * counts[..., None]).astype(int)
        drawn = values[settings[..., None], cycles]
        used = np.arange(n_columns) < counts[..., None]
        means[first : first + n] = np.where(used, drawn, 0.0).sum(axis=2) / counts
    return means


def interval(resamples: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Lower and upper end of the percentile interval over the first axis."""
    low, high = np.percentile(resamples, [50 * (1 - confidence), 50 * (1 + confidence)], axis=0)
    return low, high


def mean_over_settings(
    settings: ArrayLike, values: ArrayLike, confidence: float, n_bootstrap: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Mean over settings of the mean over their cycles, with the ends of its interval.

    Parameters
    ----------
    settings, values : array_like, shape (n_runs,)
        Name of the setting and value of every run, such as the logarithm of a ratio.

    Returns
    -------
    tuple of float
        Mean, lower and upper end. With a single setting the interval resamples its cycles only; with
        a single run it is missing.
    """
    matrix = by_setting(settings, values)
    estimate = float(np.nanmean(matrix, axis=1).mean())
    if np.isfinite(matrix).sum() < 2:
        return estimate, float("nan"), float("nan")
    low, high = interval(setting_means(matrix, n_bootstrap, rng).mean(axis=1), confidence)
    return estimate, float(low), float(high)
