"""What does an engine's start cost, and when have CUDA graphs paid theirs back? Seconds, joules, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.models.engines import (
    EAGER,
    ENERGY,
    FIRST_ITERATION_S,
    GRAPHS,
    PAYBACK_S,
    PAYBACK_TOKENS,
    START_ENERGY,
    START_S,
    THROUGHPUT,
    engine_words,
)
from inference_energy.resample import Bootstrap, interval
from inference_energy.tables import KEY, conform
from inference_energy.tables.engines import ENGINE_START

_KEYS = [column.name for column in KEY]
_STARTED = ["model", "precision", "n_gpus", "words"]


@dataclass(frozen=True)
class EngineStart:
    """Costs of starts, and what pays them back.

    Attributes
    ----------
    estimates : DataFrame
        One row an estimate.
    confidence : float
        Level of the intervals.
    """

    estimates: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Rows of ``engine_start``."""
        return conform(self.estimates, ENGINE_START)


def engine_start(
    runs: pd.DataFrame, devices: pd.DataFrame, *, study: str = "engine", confidence: float, n_bootstrap: int, seed: int
) -> EngineStart:
    r"""Seconds and energy of loading, and the tokens after which CUDA graphs have paid for their start.

    A start is the loading of a run that started an engine: weights, compilation, capture of graphs; energy is that of
    the GPUs that take part. Of the runs that share an engine only the first loads.

    Graphs have paid their start back against eager mode after

    .. math:: N = \frac{S_\text{graphs} - S_\text{eager}}{e_\text{eager} - e_\text{graphs}}

    output tokens, *S* the energy of a start and *e* that of a token at one batch size, and after *N* over the
    throughput of graphs in seconds. Means of starts are arithmetic, with the interval of
    :func:`inference_energy.resample.mean_over_settings` for a single setting; *N* has a percentile interval over
    resampled cycles. **With two of each such an interval is their range.** It is missing where a resample
    saves nothing.

    Parameters
    ----------
    runs, devices : DataFrame
        The tables; runs without a measured loading count as no start. Starts of any study count.
    study : str
        Where eager mode and graphs are compared.
    confidence, n_bootstrap, seed
        Of the intervals.
    """
    bootstrap = Bootstrap(confidence, n_bootstrap, seed)
    runs = runs[runs["status"] == "ok"].sort_values("cycle").assign(words=engine_words(runs))
    loaded = devices[devices["participates"].astype(bool)].groupby(_KEYS)[START_ENERGY].sum().reset_index()
    starts = runs[runs[START_S].notna()].drop(columns=START_ENERGY).merge(loaded, on=_KEYS)
    starts["compile_cache"] = starts["compile_cache"].fillna("none")
    rows = [*_costs(starts, bootstrap), *_paybacks(starts, runs[runs["study"] == study], bootstrap)]
    return EngineStart(pd.DataFrame(rows, columns=ENGINE_START.names), confidence)


def _costs(starts: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    """Mean of every quantity, by engine, model and state of the compile cache."""
    names = ["model", "precision", "n_gpus", "engine", "compile_cache"]
    for levels, alike in starts.assign(engine=starts["words"]).groupby(names, sort=True):
        about: dict[str, object] = dict(zip(names, levels, strict=True))
        for quantity in (START_S, START_ENERGY, FIRST_ITERATION_S):
            values = alike[quantity].dropna().astype(float)
            if len(values):
                note = "one start: no interval" if len(values) == 1 else None
                mean = bootstrap.arithmetic(["start"] * len(values), values)
                yield about | {"quantity": quantity, "n_starts": len(values), "note": note} | mean


def _paybacks(starts: pd.DataFrame, runs: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    """Of every model and batch size that was measured both ways, by state of the compile cache."""
    known = runs[runs[ENERGY].notna()]
    alike = ["model", "precision", "n_gpus"]
    eager = known[known["words"] == EAGER].groupby([*alike, "batch_size"])
    graphs = known[known["words"] == GRAPHS].groupby([*alike, "batch_size"])
    started = dict(list(starts.groupby(_STARTED)))
    both: set[Any] = set(eager.groups) & set(graphs.groups)
    for levels in sorted(both):
        eager_starts, graph_starts = (started.get((*levels[:3], words)) for words in (EAGER, GRAPHS))
        if eager_starts is None or graph_starts is None:
            continue
        for cache, of_cache in graph_starts.groupby("compile_cache", sort=True):
            about = dict(zip([*alike, "batch_size"], levels, strict=True)) | {"engine": GRAPHS, "compile_cache": cache}
            about["n_starts"] = len(of_cache)
            values = (of_cache[START_ENERGY], eager_starts[START_ENERGY])
            tokens = (eager.get_group(levels)[ENERGY], graphs.get_group(levels)[ENERGY])
            speed = graphs.get_group(levels)[THROUGHPUT]
            for quantity, per in ((PAYBACK_TOKENS, None), (PAYBACK_S, speed)):
                yield about | {"quantity": quantity} | _payback(values, tokens, per, bootstrap)


def _payback(
    starts: tuple[pd.Series, pd.Series],
    tokens: tuple[pd.Series, pd.Series],
    speed: pd.Series | None,
    bootstrap: Bootstrap,
) -> dict[str, object]:
    """What the start costs more over what a token costs less; per second if `speed` is given."""
    means = [_resampled(values, bootstrap) for values in (*starts, *tokens)]
    per = 1.0 if speed is None else _resampled(speed, bootstrap)
    more, less = means[0] - means[1], means[2] - means[3]
    if less[0] <= 0:
        return {"note": "graphs save nothing here, so they never pay their start back"}
    if more[0] <= 0:
        return {"note": "the start with graphs cost no more than that in eager mode"}
    ratio = more / less / per
    few = min(len(values) for values in (*starts, *tokens))
    if few < 2 or (less[1:] <= 0).any():
        reason = "one start or run of a kind" if few < 2 else "a resample of the runs saves nothing"
        return {"estimate": ratio[0], "note": f"no interval, because {reason}"}
    low, high = interval(ratio[1:], bootstrap.confidence)
    return {"estimate": ratio[0], "estimate_low": float(low), "estimate_high": float(high)}


def _resampled(values: pd.Series, bootstrap: Bootstrap) -> NDArray[np.float64]:
    """The mean of `values`, then those of the resamples."""
    array = values.to_numpy(float)
    return np.concatenate([[array.mean()], array[bootstrap.draws(len(array))].mean(axis=1)])
