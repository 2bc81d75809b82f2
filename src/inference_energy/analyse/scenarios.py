"""How far realistic scenarios lie apart, and how little an ideal one shows of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.models.scenarios import CV, ENERGY, FOLD, IDEAL, IDEAL_SHARE, REALISTIC, named
from inference_energy.resample import Bootstrap, interval
from inference_energy.tables import KEY, conform
from inference_energy.tables.serving import SCENARIOS

Floats = NDArray[np.float64]

_PUBLISHED = {FOLD: ("fold_x", 1.0), CV: ("cv_pct", 0.01), IDEAL_SHARE: ("ideal_a1_over_realistic_mean_pct", 0.01)}


@dataclass(frozen=True)
class Scenarios:
    """Spread of the scenarios.

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
        """Rows of ``scenarios``."""
        return conform(self.estimates, SCENARIOS)


def scenarios(
    runs: pd.DataFrame,
    accountings: pd.DataFrame,
    spread: pd.DataFrame,
    *,
    confidence: float,
    n_bootstrap: int,
    seed: int,
) -> Scenarios:
    r"""Fold and CV of R1 to R6, and A1 as a share of their mean, by version, model and accounting.

    With :math:`\bar e_s` the mean over cycles of a scenario's energy per token (J):
    ``max_over_min_fold`` is :math:`\max \bar e / \min \bar e` and ``cv`` the standard deviation
    (n - 1) over the mean, both over R1 to R6; ``ideal_over_realistic_mean_ratio`` is
    :math:`\bar e_{A1}` over the mean of R1 to R6: the smaller, the further a benchmark that runs A1
    falls short of what deployments take.

    Intervals resample cycles, the same ones for all scenarios, since a cycle's host is common to
    them. They need at least two cycles in which each scenario was measured, and with two they are
    the range of few distinct resamples: they show how well cycles agree, no more. Scenarios are not
    resampled: these six are the whole set.

    Parameters
    ----------
    runs, accountings : DataFrame
        The tables; a campaign without scenarios has no rows here.
    spread : DataFrame
        ``published/baker_scenario_spread.csv``, all columns text.
    confidence, n_bootstrap, seed
        Of the bootstrap.

    References
    ----------
    Efron and Tibshirani (1993), *An Introduction to the Bootstrap*, chapter 13.
    """
    keys = [column.name for column in KEY]
    known = named(runs)[[*keys, "model", "scenario"]].merge(accountings, on=keys)
    published = spread["model"].str.lower()
    rows: list[dict[str, object]] = []
    for (version, model, accounting), group in known.groupby(["study", "model", "accounting"], sort=True):
        about = {"version": version, "accounting": accounting, "model": model}
        for row in _spread(group, Bootstrap(confidence, n_bootstrap, seed)):
            column, scale = _PUBLISHED.get(str(row["quantity"]), ("", 1.0))
            stated = dict(zip(published, spread[column], strict=True)) if column else {}
            said = float(stated.get(str(model), np.nan)) * scale
            rows.append(about | {"published_ratio": said} | row)
    return Scenarios(pd.DataFrame(rows).reindex(columns=SCENARIOS.names), confidence)


def _spread(group: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    """Energy of each scenario, then fold, CV and the share of A1."""
    cycles = group.pivot_table(index="scenario", columns="cycle", values=ENERGY, aggfunc="mean")
    n_runs = group["scenario"].value_counts()
    for scenario in cycles.index:
        yield _row(ENERGY, cycles.loc[[scenario]], [], n_runs, bootstrap) | {"scenario": scenario}
    realistic = cycles.loc[cycles.index.isin(REALISTIC)]
    for quantity in (FOLD, CV):
        yield _row(quantity, realistic, list(REALISTIC), n_runs, bootstrap)
    everyone = [IDEAL, *REALISTIC]
    yield _row(IDEAL_SHARE, cycles.loc[cycles.index.isin(everyone)], everyone, n_runs, bootstrap)


def _row(
    quantity: str, cycles: pd.DataFrame, wanted: list[str], n_runs: pd.Series, bootstrap: Bootstrap
) -> dict[str, object]:
    """An estimate over the scenarios of `cycles` (scenarios x cycles), with its interval."""
    ideal = np.asarray(cycles.index == IDEAL, dtype=bool)
    lacking = ", ".join(name for name in wanted if name not in cycles.index)
    n_realistic = int((~ideal).sum())
    whole = cycles.dropna(axis="columns").to_numpy(float)
    row: dict[str, object] = {
        "quantity": quantity,
        "n_scenarios": n_realistic,
        "n_cycles": whole.shape[1],
        "n_runs": int(n_runs[cycles.index].sum()),
    }
    enough = {FOLD: n_realistic > 1, CV: n_realistic > 1, IDEAL_SHARE: ideal.any() and n_realistic > 0}
    if not enough.get(quantity, True):
        return row | {"note": f"there is no {lacking}"}
    row["estimate"] = float(_statistic(quantity, np.nanmean(cycles.to_numpy(float), axis=1)[:, None], ideal)[0])
    notes = [f"without {lacking}"] if lacking else []
    if cycles.isna().to_numpy().any() or whole.shape[1] < 2:
        notes.append("measured in one cycle: no interval" if len(cycles) == 1 else "not all in two cycles: no interval")
    else:
        draws = bootstrap.draws(whole.shape[1])
        low, high = interval(_statistic(quantity, whole[:, draws].mean(axis=2), ideal), bootstrap.confidence)
        row |= {"estimate_low": float(low), "estimate_high": float(high)}
    return row | {"note": "; ".join(notes) or None}


def _statistic(quantity: str, energies: Floats, ideal: NDArray[np.bool_]) -> Floats:
    """`quantity` of each column of `energies` (scenarios x resamples)."""
    realistic = energies[~ideal]
    found: Floats
    if quantity == ENERGY:
        found = energies[0]
    elif quantity == FOLD:
        found = realistic.max(axis=0) / realistic.min(axis=0)
    else:
        found = (realistic.std(axis=0, ddof=1) if quantity == CV else energies[ideal][0]) / realistic.mean(axis=0)
    return found
