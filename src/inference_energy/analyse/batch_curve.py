"""How energy, throughput and power change with the batch size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.errors import AnalysisError
from inference_energy.resample import interval
from inference_energy.tables import BATCH_CURVE, above_zero, conform

Floats = NDArray[np.float64]

_QUANTITIES = ("energy_j_per_output_token", "throughput_tokens_per_s", "power_mean_w")
_RATIO = "energy_over_batch_1_ratio"


@dataclass(frozen=True)
class BatchCurve:
    """Energy, throughput and power by model, precision and batch size.

    Attributes
    ----------
    points : DataFrame
        One row a model, precision and batch size.
    confidence : float
        Level of the intervals.
    n_bootstrap : int
        Resamples behind them.
    """

    points: pd.DataFrame
    confidence: float
    n_bootstrap: int

    def table(self) -> pd.DataFrame:
        """Rows of ``batch_curve``."""
        return conform(self.points, BATCH_CURVE)


def batch_curve(
    runs: pd.DataFrame, *, study: str = "batching", confidence: float, n_bootstrap: int, seed: int
) -> BatchCurve:
    """Average cycles at every batch size, and compare energy with that at the smallest one.

    Means over cycles of energy (J per output token), throughput (output tokens per s) and power (W).
    Intervals are percentile bootstraps that resample cycles, the same ones for all batch sizes with
    equally many cycles, so that a cycle's common drift cancels in the ratio. **With two cycles such
    an interval is their range** and covers less than its nominal level: it shows how well the two
    agree, no more. With one cycle it is missing. **Batch sizes of one cycle may lie in different
    sittings**, on other hosts; a mean over cycles is then a mean over hosts, and ratios within a sitting
    are those of :mod:`inference_energy.analyse.level_ratio`.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; runs without energy, such as those out of memory, are left out.
    study : str
        The study to take; within it a model, precision and batch size must be one setting. A
        campaign without it has no curve: an empty table.
    confidence, n_bootstrap, seed
        Of the bootstrap.

    Raises
    ------
    AnalysisError
        If the study has no run with numbers, something else varies in it as well, or an energy is not
        above 0.

    References
    ----------
    Efron and Tibshirani (1993), *An Introduction to the Bootstrap*, chapter 13.
    """
    of_study = runs[runs["study"] == study]
    known = of_study[of_study[_QUANTITIES[0]].notna()]
    other = len(runs[(runs["study"] != study) & runs[_QUANTITIES[0]].notna()])
    if known.empty and other:  # a campaign need not ask this question, or has not come to it yet
        return BatchCurve(pd.DataFrame(columns=BATCH_CURVE.names), confidence, n_bootstrap)
    if known.empty:
        raise AnalysisError(
            "table runs",
            f"no measured run of study {study!r}",
            f"one of {sorted(runs['study'].unique())}",
            "Name a study that varies batch_size",
        )
    above_zero(known, _QUANTITIES[0], f"table runs, study {study}")
    _refuse_other_factors(known, study)
    uniform = np.random.default_rng(seed).random((n_bootstrap, int(known["cycle"].nunique())))
    rows = []
    for (model, precision), curve in known.groupby(["model", "precision"], sort=True):
        smallest: tuple[float, Floats] | None = None
        for batch_size, cycles in curve.groupby("batch_size", sort=True):
            ordered = cycles.sort_values("cycle")
            row = {"model": model, "precision": precision, "batch_size": batch_size, "n_cycles": len(ordered)}
            drawn = (uniform[:, : len(ordered)] * len(ordered)).astype(int)
            for quantity in _QUANTITIES:
                values = ordered[quantity].to_numpy(dtype=float)
                row |= _with_interval(
                    quantity, float(values.mean()), values[drawn].mean(axis=1), len(values), confidence
                )
            energies = ordered[_QUANTITIES[0]].to_numpy(dtype=float)
            mean, resampled = float(energies.mean()), energies[drawn].mean(axis=1)
            smallest = smallest or (mean, resampled)
            row |= _with_interval(_RATIO, mean / smallest[0], resampled / smallest[1], len(ordered), confidence)
            rows.append(row)
    return BatchCurve(pd.DataFrame(rows), confidence, n_bootstrap)


def _refuse_other_factors(known: pd.DataFrame, study: str) -> None:
    settings = known.groupby(["model", "precision", "batch_size"])["setting"].nunique()
    if (settings > 1).any():
        point = settings[settings > 1].index[0]
        model, precision, batch_size = point
        raise AnalysisError(
            f"table runs, study {study}",
            f"{settings[point]} settings of {model}, {precision}, batch size {batch_size}",
            "one setting for each model, precision and batch size",
            "Pass a study, or rows, in which nothing else varies",
        )


def _with_interval(name: str, estimate: float, resampled: Floats, n_cycles: int, confidence: float) -> dict[str, float]:
    low, high = interval(resampled, confidence) if n_cycles > 1 else (np.nan, np.nan)
    return {name: estimate, f"{name}_low": float(low), f"{name}_high": float(high)}
