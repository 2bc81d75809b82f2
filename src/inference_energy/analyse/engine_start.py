"""What does an engine's start cost, and when have CUDA graphs paid theirs back? Seconds, joules, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from inference_energy.models.curves import of_study
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
from inference_energy.models.repetitions import Spread, pooled
from inference_energy.tables import KEY, conform
from inference_energy.tables.engines import ENGINE_START

_KEYS = [column.name for column in KEY]
_STARTED = ["model", "precision", "n_gpus", "words"]
_ENDS = ("estimate", "estimate_low", "estimate_high")


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


def engine_start(runs: pd.DataFrame, devices: pd.DataFrame, *, study: str = "engine", confidence: float) -> EngineStart:
    r"""Seconds and energy of loading, and the tokens after which CUDA graphs have paid for their start.

    A start is the loading of a run that started an engine: weights, compilation, capture of graphs; energy is that of
    the GPUs that take part. Of the runs that share an engine only the first loads.

    Graphs have paid their start back against eager mode after

    .. math:: N = \frac{S_\text{graphs} - S_\text{eager}}{e_\text{eager} - e_\text{graphs}}

    output tokens, *S* the energy of a start and *e* that of a token at one batch size, and after *N* over the
    throughput of graphs in seconds. All means are geometric, since hosts differ by factors. Costs of starts have
    Student's interval, with a spread pooled over the starts of the same engine. That of *N* is Student's for its
    logarithm, by the delta method: starts and runs have two or three repetitions each, so the spread of starts is
    pooled over all starts of both kinds, those of energy and throughput over all settings
    (:mod:`inference_energy.models.repetitions`), and degrees of freedom are Welch and Satterthwaite's. It is missing
    where one of the differences may be nil.

    Parameters
    ----------
    runs, devices : DataFrame
        The tables; runs without a measured loading count as no start. Starts of any study count.
    study : str
        Where eager mode and graphs are compared.
    confidence : float
        Of the intervals.

    References
    ----------
    Satterthwaite (1946), *Biometrics Bulletin* 2, 110-114.
    """
    runs = runs[runs["status"] == "ok"].sort_values("cycle").assign(words=engine_words(runs))
    loaded = devices[devices["participates"].astype(bool)].groupby(_KEYS)[START_ENERGY].sum().reset_index()
    starts = runs[runs[START_S].notna()].drop(columns=START_ENERGY).merge(loaded, on=_KEYS)
    starts["compile_cache"] = starts["compile_cache"].fillna("none")
    rows = [*_costs(starts, confidence), *_paybacks(starts, of_study(runs, study, ENERGY), confidence)]
    return EngineStart(pd.DataFrame(rows, columns=ENGINE_START.names), confidence)


def _costs(starts: pd.DataFrame, confidence: float) -> Iterator[dict[str, object]]:
    """Mean of every quantity, by engine, model and state of the compile cache."""
    names = ["model", "precision", "n_gpus", "engine", "compile_cache"]
    kinds = starts.assign(engine=starts["words"]).groupby(names, sort=True)
    by_engine = starts.assign(setting=kinds.ngroup()).groupby("words")
    for quantity in (START_S, START_ENERGY, FIRST_ITERATION_S):
        spreads = {str(words): pooled(alike, quantity) for words, alike in by_engine}
        for levels, alike in kinds:
            values, about = alike[quantity].dropna().astype(float), dict(zip(names, levels, strict=True))
            if values.empty:
                continue
            spread = spreads[str(about["engine"])]
            ends = dict(zip(_ENDS, spread.ends(float(np.log(values).mean()), len(values), confidence), strict=True))
            note = None if spread.known else spread.why_none()
            yield about | {"quantity": quantity, "n_starts": len(values), "note": note} | ends


def _paybacks(starts: pd.DataFrame, runs: pd.DataFrame, confidence: float) -> Iterator[dict[str, object]]:
    """Of every model and batch size that was measured both ways, by state of the compile cache."""
    kinds, alike = [EAGER, GRAPHS], ["model", "precision", "n_gpus"]
    known, started = runs[runs["words"].isin(kinds)], starts[starts["words"].isin(kinds)]
    one_kind = started.groupby([*_STARTED, "compile_cache"]).ngroup()
    spreads = {name: pooled(known, name) for name in (ENERGY, THROUGHPUT)}
    spreads[START_ENERGY] = pooled(started.assign(setting=one_kind), START_ENERGY)
    eager, graphs = (known[known["words"] == words].groupby([*alike, "batch_size"]) for words in kinds)
    of_kind = dict(list(started.groupby(_STARTED)))
    both: set[Any] = set(eager.groups) & set(graphs.groups)
    for levels in sorted(both):
        eager_starts, graph_starts = (of_kind.get((*levels[:3], words)) for words in kinds)
        if eager_starts is None or graph_starts is None:
            continue
        less = _Difference.of(eager.get_group(levels), graphs.get_group(levels), ENERGY, spreads)
        speed = _Difference.of(graphs.get_group(levels), None, THROUGHPUT, spreads)
        for cache, of_cache in graph_starts.groupby("compile_cache", sort=True):
            about = dict(zip([*alike, "batch_size"], levels, strict=True)) | {"engine": GRAPHS, "compile_cache": cache}
            about["n_starts"] = len(of_cache)
            more = _Difference.of(of_cache, eager_starts, START_ENERGY, spreads)
            for quantity, per in ((PAYBACK_TOKENS, [less]), (PAYBACK_S, [less, speed])):
                yield about | {"quantity": quantity} | _payback(more, per, confidence)


@dataclass(frozen=True)
class _Difference:
    """A geometric mean, or the difference of two; the standard error of its logarithm, and the spread behind that."""

    value: float
    error_fraction: float
    spread: Spread

    @classmethod
    def of(cls, above: pd.DataFrame, below: pd.DataFrame | None, name: str, spreads: dict[str, Spread]) -> _Difference:
        """Of column `name`, whose spread is the same above and below."""
        parts = [np.log(part[name].to_numpy(float)) for part in (above, below) if part is not None]
        means = np.exp([part.mean() for part in parts])
        value = float(means[0] - means[1:].sum())
        share = float((means**2 / [len(part) for part in parts]).sum()) / value**2 if value else np.inf
        return cls(value, float(np.sqrt(share)) * spreads[name].cv, spreads[name])

    def clear(self, confidence: float) -> bool:
        """Whether it is above 0 beyond its error."""
        return bool(stats.t.ppf(0.5 + confidence / 2, self.spread.n_freedom) * self.error_fraction < 1)


def _payback(more: _Difference, per: list[_Difference], confidence: float) -> dict[str, object]:
    """What the start costs more over what a token costs less; per second if `per` has a throughput."""
    if per[0].value <= 0:
        return {"note": "graphs save nothing here, so they never pay their start back"}
    if more.value <= 0:
        return {"note": "the start with graphs cost no more than that in eager mode"}
    parts = [more, *per]
    estimate = more.value / float(np.prod([part.value for part in per]))
    unknown = [part.spread.why_none() for part in parts if not part.spread.known]
    if unknown:
        return {"estimate": estimate, "note": unknown[0]}
    unclear = [what for part, what in ((more, "costs"), (per[0], "saves")) if not part.clear(confidence)]
    if unclear:
        return {"estimate": estimate, "note": f"no interval, because what it {unclear[0]} may be nil"}
    variances = np.array([part.error_fraction**2 for part in parts])
    squares = (variances**2 / [part.spread.n_freedom for part in parts]).sum()
    freedom = variances.sum() ** 2 / squares if squares > 0 else np.inf
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom) * variances.sum() ** 0.5)
    return {"estimate": estimate} | dict(zip(_ENDS[1:], estimate * np.exp([-half, half]), strict=True))
