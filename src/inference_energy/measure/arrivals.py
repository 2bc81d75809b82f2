"""When requests of an open loop arrive: planned before a pass begins, whatever the server does.

The first request arrives at once and a gap precedes each other one, so that a pass begins with work.
Gaps are drawn with mean 1 and divided by the rate: at every rate the same pattern comes faster or slower.

References
----------
Schroeder, Wierman and Harchol-Balter (2006), Open versus closed: a cautionary tale. NSDI.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference_energy.config import Setting

#: Sets the arrivals apart from everything else that is drawn from the campaign's seed.
_STREAM = 91


def planned_s(levels: Setting, seed: int, pass_: int) -> npt.NDArray[np.float64]:
    """Planned arrival of every request of a pass, in seconds after its start.

    Parameters
    ----------
    levels : Setting
        Its `arrival`, with the mean rate and, for gamma, the CV of the gaps.
    seed : int
        The campaign's.
    pass_ : int
        Number of the pass in its run: each has arrivals of its own, alike in every cycle.

    Returns
    -------
    float64 array, requests
        Ascending, the first 0. A burst is 0 throughout.

    Raises
    ------
    ValueError
        If the setting has no arrivals.
    """
    n = levels.n_prompts_per_pass
    if levels.arrival == "burst":
        return np.zeros(n)
    if levels.arrival_requests_per_s is None:
        raise ValueError(f"arrival {levels.arrival!r} has no rate")
    gaps = _gaps(levels, np.random.default_rng([seed, pass_, _STREAM]), n - 1)
    return np.concatenate([[0.0], np.cumsum(gaps / levels.arrival_requests_per_s)])


def _gaps(levels: Setting, rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    """`n` gaps of mean 1."""
    if levels.arrival == "fixed":
        return np.ones(n)
    if levels.arrival == "uniform":
        return rng.uniform(0.0, 2.0, n)
    if levels.arrival == "poisson":
        return rng.exponential(1.0, n)
    if levels.arrival == "gamma" and levels.arrival_cv is not None:
        shape = levels.arrival_cv**-2  # CV of a gamma distribution: shape ** -0.5
        return rng.gamma(shape, 1 / shape, n)
    raise ValueError(f"arrival {levels.arrival!r} has no gaps")
