"""How far do the settings of the published grid spread, those measured and those predicted? Medians and folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.models.deployments import ENERGY, deployments
from inference_energy.models.grid import (
    N_PUBLISHED_GPUS,
    GridModel,
    all_waiting,
    fit_candidates,
    identity,
    predictable,
    published_grid,
)
from inference_energy.resample import by_setting, interval, setting_means
from inference_energy.tables import conform
from inference_energy.tables.effects import GRID_FOLDS

Floats = NDArray[np.float64]

AS_PUBLISHED = "predicted, published accounting"

_NAMES = ("energy_p50_j_per_output_token", "max_over_min_fold", "p95_over_p5_fold")
_FEWEST = 10  # settings that have a 5th and a 95th percentile to speak of


@dataclass(frozen=True)
class GridFolds:
    """Median and folds, measured and predicted apart.

    Attributes
    ----------
    groups : DataFrame
        One row a source and model.
    """

    groups: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``grid_folds``."""
        return conform(self.groups, GRID_FOLDS)


def grid_folds(
    runs: pd.DataFrame,
    configs: pd.DataFrame,
    axes: pd.DataFrame,
    latency: pd.DataFrame,
    published: pd.DataFrame,
    *,
    confidence: float,
    n_bootstrap: int,
    seed: int,
) -> GridFolds:
    """Summarise the grid's measured settings, and apart from them its predicted ones.

    Measured: the settings' geometric means over runs; intervals resample settings, and within each its
    runs (:mod:`inference_energy.resample`). Predicted: medians and percentiles of draws from the
    predictive distribution, in which all settings share one draw of the coefficients and each has a
    residual of its own. A fold of single predictions would be too small: they lack the residual.

    The published folds count energy as the published code does: all four GPUs of the machine, once for
    each process, over the tokens of one. To be held against them on equal terms, folds are predicted in
    that accounting as well: the same candidates are fitted to the energy of four GPUs per generated token
    (those without work at their idle power), whose prediction for n processes is multiplied by n for the
    machine that counts n times, and by n for the answers that count once.

    Parameters
    ----------
    runs, configs, axes, latency : DataFrame
        As of ``grid_prediction``.
    published : DataFrame
        ``baker_energy_stats.csv``, as text: the folds that the published study found over its grid.
    confidence, n_bootstrap, seed
        Of the intervals.

    Raises
    ------
    AnalysisError
        If no run has an energy, one is not above 0, or a published file is of other content.
    """
    grid, found = published_grid(configs, axes, latency), fit_candidates(runs)
    as_published, counted = _as_published(runs, grid)
    known = deployments(runs)
    known = known.assign(identity=identity(runs.loc[known.index]))
    measured = known[known["identity"].isin(set(grid["identity"]))]
    rest = grid[~grid["identity"].isin(set(measured["identity"]))]
    rest = rest[predictable(found, rest) == ""]
    counted = counted.loc[rest.index]
    counted = counted[predictable(as_published, counted) == ""]
    theirs = published.set_index(published["model"].str.lower())[["max_min_fold", "p95_p5_fold"]].astype(float)
    rows = []
    for model in [*sorted(grid["model"].unique()), "all"]:
        whole = {"model": model, "confidence": confidence, "n_grid_settings": _of(model, grid).shape[0]}
        if model in theirs.index:
            for name, theirs_name in (("max_over_min_fold", "max_min_fold"), ("p95_over_p5_fold", "p95_p5_fold")):
                whole[f"published_{name}"] = float(theirs.loc[model, theirs_name])
        rng = np.random.default_rng(seed)  # anew: a group's interval does not depend on other groups
        rows.append({"source": "measured"} | whole | _measured(_of(model, measured), confidence, n_bootstrap, rng))
        for source, fitted, settings in (("predicted", found, rest), (AS_PUBLISHED, as_published, counted)):
            predicted = _predicted(fitted, _of(model, settings), confidence, n_bootstrap, rng)
            rows.append({"source": source} | whole | predicted)
    return GridFolds(pd.DataFrame(rows, columns=GRID_FOLDS.names).sort_values(["source", "model"]))


def _as_published(runs: pd.DataFrame, grid: pd.DataFrame) -> tuple[GridModel, pd.DataFrame]:
    """The model of the whole machine's energy, and `grid` with its waiting and how often a token's energy counts."""
    n = runs["n_gpus"].astype("Float64").fillna(1).astype(float)
    idle_w = runs["idle_power_w"].astype(float) / n * (N_PUBLISHED_GPUS - n).clip(lower=0)
    machine = runs[ENERGY].astype(float) + idle_w / runs["throughput_tokens_per_s"].astype(float)
    known = runs.assign(**{ENERGY: machine})
    counted = all_waiting(grid, grid["n_gpus"], N_PUBLISHED_GPUS)
    counted = counted.assign(log_counts=2 * np.log(grid["n_gpus"].astype(float)))
    if known[ENERGY].isna().all():
        return GridModel(grid.iloc[:0], [], np.zeros(0, dtype=bool), None), counted
    return fit_candidates(known, N_PUBLISHED_GPUS), counted


def _of(model: str, rows: pd.DataFrame) -> pd.DataFrame:
    return rows if model == "all" else rows[rows["model"] == model]


def _measured(runs: pd.DataFrame, confidence: float, n_bootstrap: int, rng: np.random.Generator) -> dict[str, object]:
    n = runs["setting"].nunique()
    if n < _FEWEST:
        return {"n_settings": n, "reason": f"{n} settings measured, {_FEWEST} are needed"}
    values = by_setting(runs["setting"], runs["log_energy"])
    estimates = _statistics(np.nanmean(values, axis=1)[None, :])
    return {"n_settings": n, **_row(estimates[0], _statistics(setting_means(values, n_bootstrap, rng)), confidence)}


def _predicted(
    found: GridModel, rest: pd.DataFrame, confidence: float, n_bootstrap: int, rng: np.random.Generator
) -> dict[str, object]:
    if len(rest) < _FEWEST or found.chosen is None or found.chosen.fitted is None:
        return {
            "n_settings": len(rest),
            "reason": f"{len(rest)} settings predicted, {_FEWEST} are needed",
        }
    fitted = found.chosen.fitted
    logs, slopes, _ = fitted.predict(rest)
    if "log_counts" in rest:
        logs = logs + rest["log_counts"].to_numpy(float)
    step = max(1, 1_000_000 // len(rest))  # bounds memory
    sizes = [min(step, n_bootstrap - first) for first in range(0, n_bootstrap, step)]
    drawn = np.concatenate([_statistics(logs + fitted.draws(slopes, n, rng)) for n in sizes])
    return {"n_settings": len(rest), **_row(np.median(drawn, axis=0), drawn, confidence)}


def _statistics(logs: Floats) -> Floats:
    """Median and both folds of each row of logarithms."""
    low, middle, high = np.percentile(logs, [5, 50, 95], axis=1)
    statistics: Floats = np.exp(np.stack([middle, logs.max(axis=1) - logs.min(axis=1), high - low], axis=1))
    return statistics


def _row(estimates: Floats, resamples: Floats, confidence: float) -> dict[str, object]:
    lows, highs = interval(resamples, confidence)
    row: dict[str, object] = {}
    for name, estimate, low, high in zip(_NAMES, estimates, lows, highs, strict=True):
        row |= {name: float(estimate), f"{name}_low": float(low), f"{name}_high": float(high)}
    return row
