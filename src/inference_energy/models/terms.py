"""The terms of the linear model: factors, the sitting as block, and three interactions."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.deployments import BASELINES, NO_TRAFFIC, TRAFFIC, baseline_of, order_of, waits
from inference_energy.models.linear import Linear, fit, indicators

BLOCK = "sitting"
INTERACTIONS: tuple[tuple[str, str], ...] = (
    ("batch_size", "parallelism"),
    ("batch_size", "precision"),
    ("precision", "traffic"),
)


def main_effects(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Columns of every factor with several levels, and of the sittings.

    A level is a column, batch sizes too: the curve over batch sizes is no straight line, and then each
    batch size has a ratio of its own.
    """
    terms = {}
    for factor in (*BASELINES, BLOCK):
        levels = sorted(runs[factor].unique(), key=order_of)
        if len(levels) > 1:
            baseline = levels[0] if factor == BLOCK else baseline_of(factor, runs[factor])
            terms[factor] = indicators(runs[factor], baseline, levels)
    return terms


def interaction(first: str, second: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Columns of an interaction: of batch size its slope by doubling, of traffic whether there is any.

    With every pair of levels a column of its own, most pairs would rest on one setting or none.
    """
    of_second = side(second, runs)
    if first == "batch_size":
        return of_second.mul(runs["log2_batch"], axis=0)
    of_first = side(first, runs)
    return pd.DataFrame(
        {f"{one}, {other}": of_first[one] * of_second[other] for one in of_first for other in of_second}, runs.index
    )


def side(factor: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Indicators of one side of an interaction; waiting of any kind is one level."""
    if factor == "traffic":
        return indicators(waits(runs), NO_TRAFFIC, (TRAFFIC,))
    levels = sorted(runs[factor].unique(), key=order_of)
    return indicators(runs[factor], baseline_of(factor, runs[factor]), levels)


def fit_main(runs: pd.DataFrame) -> Linear:
    """All main effects."""
    return fit(runs, main_effects)


def fit_with(runs: pd.DataFrame, first: str, second: str) -> Linear:
    """All main effects and one interaction, called ``first x second``."""
    return fit(runs, lambda chosen: main_effects(chosen) | {f"{first} x {second}": interaction(first, second, chosen)})
