"""Do two levels of one factor give the same energy? Equivalence within a margin, not absence of proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.errors import AnalysisError
from inference_energy.models.tost import standard_error, tost
from inference_energy.tables import EQUIVALENCE, FACTORS, conform

Floats = NDArray[np.float64]

QUANTITIES = ("energy_j_per_output_token", "throughput_tokens_per_s")
_SHOWN = ("model", "precision", "batch_size", "attention", "launcher", "warmup")


@dataclass(frozen=True)
class Comparison:
    """Two levels of one factor within a study."""

    study: str
    factor: str
    level: str
    baseline: str


#: The method's own questions: is a fork as good as a cold start, three forward passes as a steady
#: state, and what does cuDNN's attention change?
COMPARISONS = (
    Comparison("launcher", "launcher", "fork", "cold"),
    Comparison("warmup", "warmup", "forward_passes", "steady"),
    Comparison("warmup", "attention", "sdpa", "sdpa_no_cudnn"),
)


@dataclass(frozen=True)
class Equivalence:
    """Ratios of two levels with their intervals and verdicts.

    Attributes
    ----------
    ratios : DataFrame
        One row a comparison, quantity and assignment of all other factors.
    confidence : float
        One less the level of each one-sided test.
    margin_fraction : float
        What counts as equal.
    """

    ratios: pd.DataFrame
    confidence: float
    margin_fraction: float

    def table(self) -> pd.DataFrame:
        """Rows of ``equivalence``."""
        return conform(self.ratios, EQUIVALENCE)


def equivalence(
    runs: pd.DataFrame,
    *,
    comparisons: Sequence[Comparison] = COMPARISONS,
    confidence: float,
    margin_fraction: float,
    quantities: Sequence[str] = QUANTITIES,
) -> Equivalence:
    r"""Compare levels of a factor, all else equal, by two one-sided tests on paired log ratios.

    Runs of the same cycle and the same other levels are paired: :math:`d_c = \log(x_c / y_c)`. With
    *n* cycles and :math:`\alpha = 1 -` `confidence`, the interval is

    .. math:: \exp\left(\bar d \pm t_{1 - \alpha, n - 1}\, s_d / \sqrt n\right),

    of level :math:`1 - 2 \alpha`. The verdict is *equivalent* if it lies within
    1 ± `margin_fraction` (then both one-sided tests reject at :math:`\alpha`), *different* if it
    lies wholly outside, and else *undecided*. Two cycles leave one degree of freedom and
    :math:`t_{0.95, 1} = 6.3`, so only pairs that agree very well are called equivalent.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table. Runs without numbers are left out, and so is a run without its partner.
    comparisons : sequence of Comparison
        Those of which the campaign has no pair, or not yet, give no rows.
    confidence, margin_fraction
        See above; fractions.
    quantities : sequence of str
        Columns of `runs` to compare.

    Raises
    ------
    AnalysisError
        If there are no runs.

    References
    ----------
    Schuirmann (1987), *J. Pharmacokinetics and Biopharmaceutics* 15, 657–680;
    ``statsmodels.stats.weightstats.ttost_paired`` gives the same p-value.
    """
    if runs.empty:
        raise AnalysisError("table runs", "no runs", "at least one", "Measure first: snakemake --cores all")
    rows: list[dict[str, object]] = []
    for comparison in comparisons:
        of_study = runs[runs["study"] == comparison.study]
        for quantity in quantities if len(of_study) else ():
            rows += _compared(of_study[of_study[quantity].notna()], comparison, quantity, confidence, margin_fraction)
    return Equivalence(pd.DataFrame(rows, columns=EQUIVALENCE.names), confidence, margin_fraction)


def _compared(
    known: pd.DataFrame, comparison: Comparison, quantity: str, confidence: float, margin_fraction: float
) -> list[dict[str, object]]:
    """One row for every assignment of the other factors that has a pair."""
    others = [column.name for column in FACTORS if column.name != comparison.factor]
    pairs = known[known[comparison.factor] == comparison.level].merge(
        known[known[comparison.factor] == comparison.baseline], on=[*others, "cycle"], suffixes=("", "_baseline")
    )
    rows = []
    for _, group in pairs.groupby(others, sort=True, dropna=False):
        ratios = np.log((group[quantity] / group[f"{quantity}_baseline"]).to_numpy(dtype=float))
        shown = {name: group[name].iloc[0] if name != comparison.factor else None for name in _SHOWN}
        rows.append(
            {
                "study": comparison.study,
                "factor": comparison.factor,
                "level": comparison.level,
                "baseline": comparison.baseline,
                "quantity": quantity,
                "n_cycles": len(ratios),
            }
            | shown
            | _tested(ratios, confidence, margin_fraction)
        )
    return rows


def _tested(log_ratios: Floats, confidence: float, margin_fraction: float) -> dict[str, object]:
    """Ratio, interval, p-value and verdict of paired log ratios."""
    about = {"confidence": 2 * confidence - 1, "margin_fraction": margin_fraction}
    found = (float(log_ratios.mean()), *standard_error(log_ratios))
    return about | tost("level_over_baseline_ratio", *found, confidence, margin_fraction)
