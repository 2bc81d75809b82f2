"""Lengths of prompts and answers where they differ: quantiles of a lognormal, the same for every seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtri

from inference_energy.config import Setting


def input_lengths(levels: Setting) -> npt.NDArray[np.int64]:
    """Tokens of each different prompt of a pass, ascending where they differ."""
    return spread(levels.n_input_tokens, levels.input_length_cv, levels.n_prompts_per_pass)


def output_lengths(levels: Setting) -> npt.NDArray[np.int64]:
    """Tokens asked for each different prompt of a pass, ascending where they differ."""
    return spread(levels.n_output_tokens, levels.output_length_cv, levels.n_prompts_per_pass)


def longest(levels: Setting) -> tuple[int, int]:
    """Tokens of the longest prompt and of the longest answer."""
    return int(input_lengths(levels).max()), int(output_lengths(levels).max())


def spread(mean: int, cv: float, n: int) -> npt.NDArray[np.int64]:
    r"""`n` lengths whose mean is exactly `mean`.

    The quantiles of a lognormal at :math:`(i + 1/2) / n`, scaled to the total ``n * mean``, none below 1. They are
    rounded as running totals, so that the total is kept and each length is less than 1 from its quantile. Few
    quantiles hold little of the long tail: the spread of `n` lengths is somewhat below `cv`.

    Parameters
    ----------
    mean : int
        At least 1.
    cv : float
        Standard deviation over mean of the lognormal; 0: all lengths are `mean`.
    n : int
        How many.

    References
    ----------
    A lognormal's logarithm has the variance :math:`\ln(1 + \mathrm{cv}^2)`.
    """
    if cv == 0:
        return np.full(n, mean, dtype=np.int64)
    quantiles = np.exp(np.sqrt(np.log1p(cv**2)) * ndtri((np.arange(n) + 0.5) / n))
    total = n * mean
    scale = brentq(lambda factor: np.maximum(quantiles * factor, 1).sum() - total, 0, 2 * total / quantiles.sum())
    running = np.floor(np.cumsum(np.maximum(quantiles * scale, 1)) + 0.5)
    return np.sort(np.diff(running, prepend=0).astype(np.int64))
