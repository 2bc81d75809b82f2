"""What explains the energy of an output token: FLOP, bytes, throughput, utilisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.errors import AnalysisError
from inference_energy.models.curves import LENGTHS, of_commonest
from inference_energy.resample import by_setting, interval, setting_means
from inference_energy.tables import above_zero, conform
from inference_energy.tables.speed import EXPLAINED

Floats = NDArray[np.float64]

_ENERGY = "energy_j_per_output_token"
#: Predictors that stand beside one another in the joint model.
_JOINT = ("flop_per_output_token", "bytes_per_output_token", "gpu_throughput_tokens_per_s", "gpu_utilisation_fraction")
#: Those that stand alone, with the reason.
_ALONE = {
    "throughput_tokens_per_s": "alone only: throughput of all GPUs; the joint model takes that of one",
    "power_over_limit_fraction": "alone only: with the throughput of one GPU it makes up energy by definition",
    "mfu": "alone only: it is made of FLOP, throughput and the format's peak",
    "mbu": "alone only: it is made of bytes and throughput",
}
_LEAST_SETTINGS = 6  # the joint model has five coefficients


@dataclass(frozen=True)
class Explained:
    """Shares of the variance of log energy per output token.

    Attributes
    ----------
    shares : DataFrame
        One row a scope and predictor.
    confidence : float
        Level of the intervals.
    n_bootstrap : int
        Resamples behind them.
    """

    shares: pd.DataFrame
    confidence: float
    n_bootstrap: int

    def table(self) -> pd.DataFrame:
        """Rows of ``explained``."""
        return conform(self.shares, EXPLAINED)


def explained(utilisation: pd.DataFrame, *, confidence: float, n_bootstrap: int, seed: int) -> Explained:
    r"""Regress log energy per output token on the logarithm of each predictor, alone and jointly.

    Observations are settings (means of logarithms over their runs), within each model and over all
    models together, at the campaign's commonest lengths. With the joint predictors J:

    * ``variance_fraction``: R² of the predictor alone,
    * ``joint_fraction``: R² of all in J together,
    * ``unique_fraction``: R²(J) - R²(J without the predictor).

    A predictor with one value explains nothing: 0, without an interval's width. That is the case of
    FLOP per token within a model by design: no batch size, precision or number of GPUs changes it.
    Energy per token is power over throughput, so these two together explain all by definition; power
    is therefore kept out of J.

    Intervals are percentile bootstraps over settings and, within each, its runs.

    Parameters
    ----------
    utilisation : DataFrame
        The ``utilisation`` table.
    confidence, n_bootstrap, seed
        Of the bootstrap.

    Raises
    ------
    AnalysisError
        If there is no run, or an energy is not above 0.
    """
    if utilisation.empty:
        raise AnalysisError("table utilisation", "holds no run", "at least one", "Run: inference-energy analyse")
    above_zero(utilisation, _ENERGY, "table utilisation")
    shown = of_commonest(utilisation, LENGTHS)
    n_in, n_out = shown[LENGTHS].iloc[0]
    scopes = [(str(model), runs) for model, runs in shown.groupby("model", sort=True)]
    if len(scopes) > 1:
        scopes.append(("all", shown))
    rows = []
    for scope, runs in scopes:
        for row in _scope(runs, confidence, n_bootstrap, seed):
            rows.append({"scope": scope, "n_input_tokens": n_in, "n_output_tokens": n_out, **row})
    return Explained(pd.DataFrame(rows, columns=EXPLAINED.names), confidence, n_bootstrap)


def _scope(runs: pd.DataFrame, confidence: float, n_bootstrap: int, seed: int) -> list[dict[str, object]]:
    """One row a predictor."""
    names = [*_JOINT, *_ALONE]
    n_settings = int(runs["setting"].nunique())
    rows: dict[str, dict[str, object]] = {
        name: {"n_settings": n_settings, "n_runs": len(runs), "predictor": name, "note": _ALONE.get(name)}
        for name in names
    }
    usable = []
    for name in names:
        means = runs.groupby("setting")[name].mean().astype(float)
        rows[name]["n_values"] = len({f"{value:.6g}" for value in means.dropna()})
        reason = _reason(runs[name].astype(float), n_settings)
        if reason:
            rows[name]["note"] = f"cannot be estimated, because {reason}"
        else:
            usable.append(name)
    if not usable:
        return list(rows.values())
    logs = np.log(runs[[_ENERGY, *usable]].to_numpy(dtype=float))
    constant = np.array([False] + [rows[name]["n_values"] == 1 for name in usable])
    logs[:, constant] = 0.0  # to the last digit: no variance from rounding
    draws = _draws(runs["setting"].to_numpy(), logs, n_bootstrap, seed)

    def put(row: dict[str, object], name: str, values: Floats) -> None:
        low, high = interval(values[1:], confidence)
        row.update({name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)})

    place = {name: index + 1 for index, name in enumerate(usable)}
    joint = [place[name] for name in _JOINT if name in place]
    together = r_squared(draws, joint)
    for name in usable:
        put(rows[name], "variance_fraction", r_squared(draws, [place[name]]))
        if place[name] in joint:
            put(rows[name], "joint_fraction", together)
            rest = [index for index in joint if index != place[name]]
            put(rows[name], "unique_fraction", together - r_squared(draws, rest))
            if rows[name]["n_values"] == 1:
                rows[name]["note"] = "takes one value, so it explains nothing"
    return list(rows.values())


def _reason(values: pd.Series, n_settings: int) -> str:
    """Why a predictor's share cannot be estimated; empty if it can."""
    if n_settings < _LEAST_SETTINGS:
        return f"{n_settings} settings are too few: at least {_LEAST_SETTINGS} are needed"
    if values.isna().any():
        return f"{int(values.isna().sum())} of {len(values)} runs have no value"
    if (values <= 0).any():
        return f"{int((values <= 0).sum())} of {len(values)} runs have a value that is not above 0, without a logarithm"
    return ""


def _draws(settings: NDArray[np.object_], logs: Floats, n_bootstrap: int, seed: int) -> Floats:
    """Means over runs of every setting, then of resampled ones: (1 + n_bootstrap, n_settings, n_columns)."""
    columns = []
    for values in logs.T:  # the same seed: the same settings and runs are drawn for every column
        matrix = by_setting(settings, values)
        resampled = setting_means(matrix, n_bootstrap, np.random.default_rng(seed))
        columns.append(np.vstack([np.nanmean(matrix, axis=1), resampled]))
    return np.stack(columns, axis=-1)


def r_squared(draws: Floats, predictors: list[int]) -> Floats:
    """R² of column 0 on the columns `predictors`, with an intercept, of each draw.

    Parameters
    ----------
    draws : ndarray, shape (n_draws, n_observations, n_columns)

    Returns
    -------
    ndarray, shape (n_draws,)
        0 without a predictor that varies; missing where column 0 does not vary.
    """
    centred = draws - draws.mean(axis=1, keepdims=True)
    size = np.sqrt((centred**2).sum(axis=1))
    scaled = np.divide(centred, size[:, None, :], out=np.zeros_like(centred), where=size[:, None, :] > 0)
    chosen, energy = scaled[:, :, predictors], scaled[:, :, 0]
    with_energy = np.einsum("nop,no->np", chosen, energy)
    among = np.einsum("nop,noq->npq", chosen, chosen)
    # The generalised inverse leaves out what other predictors say already, and what does not vary.
    inverse = np.linalg.pinv(among, rcond=1e-9, hermitian=True)
    share = np.einsum("np,npq,nq->n", with_energy, inverse, with_energy)
    return np.where(size[:, 0] > 0, np.clip(share, 0.0, 1.0), np.nan)
