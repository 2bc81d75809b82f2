"""Does the way the next token is chosen change energy per token by more than a margin? Two one-sided tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.tost import standard_error, tost
from inference_energy.pairs import DECODING, RATIO, paired
from inference_energy.tables import conform
from inference_energy.tables.levers import DECODING_EQUIVALENCE

QUANTITIES = ("energy_j_per_output_token", "duration_s_per_step")


@dataclass(frozen=True)
class DecodingEquivalence:
    """Sampling over greedy decoding, with verdicts.

    Attributes
    ----------
    ratios : DataFrame
        One row a family and quantity.
    confidence : float
        One less the level of each one-sided test.
    margin_fraction : float
        What counts as equal.
    """

    ratios: pd.DataFrame
    confidence: float
    margin_fraction: float

    def table(self) -> pd.DataFrame:
        """Rows of ``decoding_equivalence``."""
        return conform(self.ratios, DECODING_EQUIVALENCE)


def decoding_equivalence(
    runs: pd.DataFrame, *, study: str = "decoding", confidence: float, decoding_margin_fraction: float
) -> DecodingEquivalence:
    r"""Compare families of sampling settings with greedy decoding by two one-sided tests.

    Each sampling run is divided by greedy decoding of the same sitting, or of the campaign where its
    sitting has none; greedy decoding of equal levels counts in whatever study it was measured. Runs of
    one model and sitting share their baseline and their host, so their log ratios are averaged first,
    to one :math:`d_g` a group, and with *n* groups the interval is
    :math:`\exp(\bar d \pm t_{1 - \alpha, n - 1}\, s_d / \sqrt n)`, of level :math:`1 - 2 \alpha`,
    :math:`\alpha = 1 -` `confidence`. The verdict is *equivalent* if it lies within
    1 ± `decoding_margin_fraction`, *different* if it lies wholly outside, and else *undecided*.
    Groups matched over the campaign share its mean baseline, which the interval does not know.

    Families: all sampling, each method, each level of a method (such as top-k with 50), and each
    temperature; single runs stand beside them without a verdict. Families overlap and are not corrected
    for one another: each verdict stands alone. Quantities: energy per output token, and the time of a
    decoding step, which tells whether a difference is work of the GPU or waiting for the CPU that
    launches it.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; runs without energy are left out. A campaign without sampling in `study`,
        or without greedy decoding beside it, has an empty table.
    confidence, decoding_margin_fraction
        See above; fractions.

    Raises
    ------
    AnalysisError
        If an energy is not above 0.

    References
    ----------
    Schuirmann (1987), *J. Pharmacokinetics and Biopharmaceutics* 15, 657–680;
    ``statsmodels.stats.weightstats.DescrStatsW.ttost_mean`` gives the same p-value.
    """
    rows: list[dict[str, object]] = []
    for quantity in QUANTITIES:
        pairs = paired(runs, DECODING, runs["decoding"] == "greedy", quantity)
        pairs = pairs[pairs["study"] == study]
        for name, family in _families(pairs):
            rows.append(name | {"quantity": quantity} | _tested(family, confidence, decoding_margin_fraction))
        rows += [{"family": "run", "quantity": quantity} | _of_run(run) for _, run in pairs.iterrows()]
    return DecodingEquivalence(
        pd.DataFrame(rows, columns=DECODING_EQUIVALENCE.names), confidence, decoding_margin_fraction
    )


def _families(pairs: pd.DataFrame) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    if len(pairs):
        yield {"family": "all sampling"}, pairs
    for decoding, of_method in pairs.groupby("decoding", sort=True):
        yield {"family": "method", "decoding": decoding}, of_method
    for name in ("top_k", "top_p"):
        for level, of_level in pairs.groupby(name, sort=True):
            yield {"family": "level", "decoding": name, name: level}, of_level
    for temperature, of_temperature in pairs.groupby("sampling_temperature", sort=True):
        yield {"family": "temperature", "sampling_temperature": temperature}, of_temperature


def _of_run(run: pd.Series) -> dict[str, object]:
    """One run over its baseline."""
    shown = ("model", "sitting", "decoding", "top_k", "top_p", "sampling_temperature")
    counts = {"n_settings": 1, "n_pairs": 1, "n_same_sitting": int(run["matched"] == "sitting"), "n_groups": 1}
    return {name: run[name] for name in shown} | counts | {"sampling_over_greedy_ratio": run[RATIO]}


def _tested(pairs: pd.DataFrame, confidence: float, margin_fraction: float) -> dict[str, object]:
    """Ratio, interval, p-value and verdict of one family."""
    logs = pairs.assign(log_ratio=np.log(pairs[RATIO].astype(float)))
    groups = logs.groupby(["model", "sitting"])["log_ratio"].mean().to_numpy()
    row: dict[str, object] = {
        "n_settings": pairs["setting"].nunique(),
        "n_pairs": len(pairs),
        "n_same_sitting": int((pairs["matched"] == "sitting").sum()),
        "n_groups": len(groups),
        "confidence": 2 * confidence - 1,
        "margin_fraction": margin_fraction,
    }
    if len(groups) < 2:
        row["note"] = "no interval, because all runs are of one model in one sitting"
    found = (float(groups.mean()), *standard_error(groups))
    return row | tost("sampling_over_greedy_ratio", *found, confidence, margin_fraction)
