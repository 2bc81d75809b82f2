"""Which runs lie on one curve, a cost that a batch shares, and how fits are compared."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from inference_energy.models.engines import OF_BATCH, OF_ENGINE
from inference_energy.tables import FACTORS, above_zero

Floats = NDArray[np.float64]

LENGTHS = ["n_input_tokens", "n_output_tokens"]


def alike(utilisation: pd.DataFrame) -> pd.DataFrame:
    """Runs that differ in model, precision and batch size only: one GPU, no waiting, commonest decoding and lengths."""
    shown = utilisation[utilisation["n_gpus"].eq(1) & utilisation["traffic"].fillna("none").eq("none")]
    return of_commonest(of_commonest(shown, ["decoding"]), LENGTHS)


#: Factors that a study varies: settings that differ in these alone from one of its measured ones count as its own, so
#: that a level is not missing that only another study measured so far.
_VARIED = {
    "engine": OF_ENGINE,
    "prompts_at_once": OF_BATCH,
    "quantisation": ("precision", "parallelism", "n_gpus"),
}
#: Studies whose varied factors must stand together as in one of their own runs, whatever else they are free to be.
_TOGETHER = frozenset({"engine"})


def of_study(runs: pd.DataFrame, study: str, quantity: str) -> pd.DataFrame:
    """Runs with `quantity` of the settings of `study`, in whatever study they were measured; each once in a cycle.

    Where studies share a setting each measures it, often in one process, and such runs are no repetitions of each
    other: of a setting, cycle and sitting the run of `study` counts, and one of another study only where it has none.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table.
    study, quantity : str
        Whose settings are taken, and the column that must have a value, above 0.

    Raises
    ------
    AnalysisError
        If a value is not above 0.
    """
    varied = list(_VARIED.get(study, ()))
    same = [column.name for column in FACTORS if column.name not in varied] if varied else ["setting"]
    own, asked = runs["study"] == study, runs[quantity].notna()
    for names in (same, varied) if study in _TOGETHER else (same,):
        key = runs.groupby(names, sort=False, dropna=False).ngroup()
        asked &= key.isin(key[own])
    known = runs[asked].reset_index(drop=True)
    above_zero(known, quantity, "table runs")
    own_first = known.assign(other=known["study"] != study).sort_values("other", kind="stable")
    return known[known.index.isin(own_first.drop_duplicates(["setting", "cycle", "sitting"]).index)]


def of_commonest(runs: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Runs with the levels of `names` that most settings have together."""
    tried = runs.groupby(names)["setting"].nunique()
    if tried.empty:
        return runs
    commonest: Any = tried.idxmax()
    wanted = list(commonest) if isinstance(commonest, tuple) else [commonest]
    return runs[runs[names].eq(wanted).fillna(False).all(axis=1)]


def aicc(rss: float, n: int, k: int) -> float:
    """Corrected AIC of a least-squares fit to `n` values with `k` parameters, the variance among them.

    Infinite where there are too few values for it, and minus infinity where the fit passes through all of them.

    References
    ----------
    Hurvich and Tsai (1989), *Biometrika* 76, 297-307.
    """
    if n - k - 1 <= 0:
        return float("inf")
    if rss <= 0:
        return float("-inf")
    return n * float(np.log(rss / n)) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def shared_cost(
    sizes: Floats,
    log_energy: Floats,
    confidence: float,
    plateau: str = "plateau_energy_j_per_output_token",
    shared: str = "shared_energy_j_per_step",
) -> tuple[dict[str, object], float]:
    """Fit E = a + b / size by least squares of log E: a cost that each prompt has, and one that a batch shares.

    Parameters
    ----------
    sizes, log_energy : ndarray, shape (n_points,)
        Prompts of a batch, and the logarithm of the energy of each of them.
    confidence : float
        Level of the intervals: Student's t on n - 2 times the standard error of the linearised law.
    plateau, shared : str
        What the row calls *a* and *b*.

    Returns
    -------
    dict and float
        *a*, *b* and ``n_prompts_at_equal_parts`` (b / a) with intervals, the last one missing where *a* may be 0; and
        the sum of squared residuals.
    """

    def law(size: Floats, a: float, b: float) -> Floats:
        found: Floats = np.log(a + b / size)
        return found

    energy = np.exp(log_energy)
    start = (energy.min() / 2, float(np.median(energy * sizes)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optimize.OptimizeWarning)  # a perfect fit has no covariance to speak of
        (a, b), covariance = optimize.curve_fit(
            law, sizes, log_energy, p0=start, bounds=(0, np.inf), x_scale=start, xtol=1e-12
        )
    t = float(stats.t.ppf(0.5 + confidence / 2, len(sizes) - 2))
    error_a, error_b = np.sqrt(np.diag(covariance))
    row: dict[str, object] = {}
    for name, value, error in ((plateau, a, error_a), (shared, b, error_b)):
        row |= {name: value, f"{name}_low": max(0.0, value - t * error), f"{name}_high": value + t * error}
    if a - t * error_a > 0:  # otherwise the plateau may be nil, and no batch size is large enough
        gradient = np.array([-1 / a, 1 / b])
        half = t * float(np.sqrt(gradient @ covariance @ gradient))
        row |= from_logs("n_prompts_at_equal_parts", np.log(b / a), half)
    return row, float(((log_energy - law(sizes, a, b)) ** 2).sum())


def from_logs(name: str, log_value: float, half_width: float) -> dict[str, object]:
    """A value and its interval from their logarithms."""
    return {
        name: float(np.exp(log_value)),
        f"{name}_low": float(np.exp(log_value - half_width)),
        f"{name}_high": float(np.exp(log_value + half_width)),
    }
