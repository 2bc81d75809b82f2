"""What frugality costs in responsiveness: settings that no other beats in both energy and latency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.models.curves import LENGTHS, of_commonest
from inference_energy.resample import by_setting, interval
from inference_energy.tables import above_zero, conform
from inference_energy.tables.speed import PARETO

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

_QUANTITIES = ("energy_j_per_output_token", "latency_s")
_LEVELS = (
    *("model", "setting", "precision", "batch_size", "decoding", "parallelism", "n_gpus", "traffic"),
    *("n_input_tokens", "n_output_tokens"),
)


@dataclass(frozen=True)
class Pareto:
    """Energy and latency of every deployment setting, and which of them no other beats in both.

    Attributes
    ----------
    settings : DataFrame
        One row a setting.
    confidence : float
        Level of the intervals.
    n_bootstrap : int
        Resamples behind them.
    """

    settings: pd.DataFrame
    confidence: float
    n_bootstrap: int

    def table(self) -> pd.DataFrame:
        """Rows of ``pareto``."""
        return conform(self.settings, PARETO)


def pareto(utilisation: pd.DataFrame, *, confidence: float, n_bootstrap: int, seed: int) -> Pareto:
    """Set energy per output token (J) beside the latency of a query (s), by model.

    The latency of a query is the time for its batch's whole answer; simulated waiting is not part of it
    and stands in a column of its own. Settings are compared at the campaign's commonest lengths.
    Duplicated replicas are left out: they answer each prompt several times, which is no deployment.

    A setting is on the front if no other setting of its model has both less energy and less
    latency. Values are means over a setting's runs. Their uncertainty comes from the scatter of runs
    around their setting, which is pooled over the model (many settings have a single run): each
    resample moves every setting's means by as many pairs of these residuals as it has runs. It is
    missing where no setting of the model was run twice.

    Parameters
    ----------
    utilisation : DataFrame
        The ``utilisation`` table.
    confidence, n_bootstrap, seed
        Of the resamples.

    Raises
    ------
    AnalysisError
        If an energy or a latency is not above 0.

    References
    ----------
    Davison and Hinkley (1997), *Bootstrap Methods and their Application*, section 3.8 (residuals
    between and within groups).
    """
    shown = utilisation[utilisation["parallelism"].fillna("none") != "replicas_duplicated"]
    for name in _QUANTITIES:
        above_zero(shown, name, "table utilisation")
    shown = of_commonest(shown, LENGTHS)
    shown = shown[shown["latency_s"].notna()]
    found = [
        _model(runs, confidence, n_bootstrap, np.random.default_rng(seed))
        for _, runs in shown.groupby("model", sort=True)
    ]
    settings = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=PARETO.names)
    return Pareto(settings, confidence, n_bootstrap)


def _model(runs: pd.DataFrame, confidence: float, n_bootstrap: int, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of one model, from the fastest answer to the slowest."""
    rows = runs.groupby("setting", sort=True)[list(_LEVELS)].first()  # the order of `by_setting`
    settings = runs["setting"].to_numpy(dtype=str)
    values = [by_setting(settings, runs[name]) for name in _QUANTITIES]
    counts = np.isfinite(values[0]).sum(axis=1)
    means = np.stack([np.nanmean(matrix, axis=1) for matrix in values])
    rows = rows.assign(
        n_runs=counts,
        waiting_s=np.nanmean(by_setting(settings, runs["waiting_s"]), axis=1),
        throughput_tokens_per_s=np.nanmean(by_setting(settings, runs["throughput_tokens_per_s"]), axis=1),
        on_front=on_front(*means[:, None, :])[0],
        front_fraction=np.nan,
    )
    for name, mean in zip(_QUANTITIES, means, strict=True):
        rows[[name, f"{name}_low", f"{name}_high"]] = np.stack([mean, mean * np.nan, mean * np.nan], axis=1)
    if (counts > 1).any():
        drawn = means[:, None, :] * np.exp(_scatter(np.stack(values), counts, n_bootstrap, rng))
        rows["front_fraction"] = on_front(*drawn).mean(axis=0)
        for name, one in zip(_QUANTITIES, drawn, strict=True):
            rows[f"{name}_low"], rows[f"{name}_high"] = interval(one, confidence)
    return rows.rename_axis(None).sort_values(["latency_s", "setting"])


def _scatter(values: Floats, counts: NDArray[np.int_], n_bootstrap: int, rng: np.random.Generator) -> Floats:
    """Resampled deviations of log means, (n_quantities, n_bootstrap, n_settings), in pairs of quantities."""
    logs = np.log(values[:, counts > 1])
    n = counts[counts > 1][None, :, None]
    off = (logs - np.nanmean(logs, axis=2, keepdims=True)) * np.sqrt(n / (n - 1))
    pairs = off[:, np.isfinite(off[0])]
    drawn = rng.integers(pairs.shape[1], size=(n_bootstrap, len(counts), counts.max()))
    used = np.arange(counts.max()) < counts[:, None]
    found: Floats = (pairs[:, drawn] * used).sum(axis=-1) / counts
    return found


def on_front(energy: Floats, latency: Floats) -> Booleans:
    """Which points of each row no other point beats: less or equal in both, and less in one.

    Parameters
    ----------
    energy, latency : ndarray, shape (n_draws, n_points)

    Returns
    -------
    ndarray of bool, shape (n_draws, n_points)
    """
    order = np.lexsort((energy, latency), axis=1)
    ordered = np.take_along_axis(energy, order, axis=1)
    best_before = np.minimum.accumulate(ordered, axis=1)[:, :-1]
    first = np.ones((len(energy), 1), dtype=bool)
    found = np.zeros_like(energy, dtype=bool)
    np.put_along_axis(found, order, np.hstack([first, ordered[:, 1:] < best_before]), axis=1)
    return found
