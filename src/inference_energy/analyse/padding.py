"""What larger static batches cost or save per token, padding and all, and what sorting prompts saves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.phases import DRAWN, OF_PADDING
from inference_energy.models.repetitions import paired_ends, pooled
from inference_energy.pairs import RATIO, paired
from inference_energy.tables import conform
from inference_energy.tables.phases import PADDING

N_SMALLER_MIN = 3  # of fewer batch sizes the lowest may be no more than the end of a curve
_ENDS = ("estimate", "estimate_low", "estimate_high")


@dataclass(frozen=True)
class Padding:
    """Estimates of batches with padding.

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
        """Rows of ``padding``."""
        return conform(self.estimates, PADDING)


def padding(padding_runs: pd.DataFrame, *, confidence: float) -> Padding:
    """Average each quantity over cycles at every batch size and order, and compare it with three baselines.

    Baselines are the smallest batch; the *lowest* of the smaller batches, by geometric means, where there are
    :data:`N_SMALLER_MIN` of them; and at the same batch size prompts in the order drawn. A run is compared within its
    sitting where that has the baseline (:func:`inference_energy.pairs.paired`). The lowest batch is chosen from the
    runs that are then compared: such a ratio is rather too large than too small. Intervals are Student's with a spread
    pooled over the settings (:mod:`inference_energy.models.repetitions`).

    Parameters
    ----------
    padding_runs : DataFrame
        The table of that name.
    confidence : float
        Level of the intervals.

    Raises
    ------
    AnalysisError
        If a value is not above 0.
    """
    rows: list[dict[str, object]] = []
    for (model, precision, phase), part in padding_runs.groupby(["model", "precision", "phase"], sort=True):
        for quantity in OF_PADDING[str(phase)]:
            about = {"quantity": quantity, "phase": phase, "model": model, "precision": precision}
            known = part[part[quantity].notna()]
            rows += [about | row for row in (*_levels(known, quantity, confidence), *_all(known, quantity, confidence))]
    return Padding(pd.DataFrame(rows, columns=PADDING.names), confidence)


def _levels(part: pd.DataFrame, quantity: str, confidence: float) -> Iterator[dict[str, object]]:
    spread = pooled(part, quantity)
    for (batch, order), runs in part.groupby(["batch_size", "batch_order"], sort=True):
        mean = float(np.log(runs[quantity].astype(float)).mean())
        ends = dict(zip(_ENDS, spread.ends(mean, len(runs), confidence), strict=True))
        how = {"interval_by": "t over sittings"} if spread.known else {"note": spread.why_none()}
        counts = {"n_settings": runs["setting"].nunique(), "n_pairs": len(runs)}
        yield {"batch_size": batch, "batch_order": order} | ends | counts | how


def _all(part: pd.DataFrame, quantity: str, confidence: float) -> Iterator[dict[str, object]]:
    """Ratios to the smallest batch, to the lowest of the smaller ones, and to the order drawn."""
    drawn = part[part["batch_order"] == DRAWN]
    batches = drawn["batch_size"]
    means = drawn[quantity].astype(float).map(np.log).groupby(batches).mean()
    first = means.index.min()
    over_first = _paired(drawn, "batch_size", "batch_size", first, quantity)
    over_drawn = _paired(part, "batch_order", "batch_order", DRAWN, quantity)
    lowest = {batch: means[means.index < batch].idxmin() for batch in means.index[N_SMALLER_MIN:]}
    over_lowest = [
        _paired(drawn[batches.eq(best) | batches.map(lowest).eq(best)], "lowest", "batch_size", best, quantity)
        for best in sorted(set(lowest.values()))
    ]
    every, runs = (
        pd.concat([over_first, over_drawn]),
        part[["setting", quantity]],
    )  # the others' pairs are of the same runs
    for pairs in (over_first, *over_lowest, over_drawn):
        for (batch, order), of_setting in pairs.groupby(["batch_size", "batch_order"], sort=True):
            three, how = paired_ends(of_setting, every, runs, quantity, confidence)
            yield {
                "batch_size": batch,
                "batch_order": order,
                "factor": of_setting["factor"].iloc[0],
                "baseline": of_setting["baseline"].iloc[0],
                **dict(zip(_ENDS, three, strict=True)),
                "n_settings": 1,
                "n_pairs": len(of_setting),
                "n_sitting_pairs": int((of_setting["matched"] == "sitting").sum()),
                **how,
            }


def _paired(part: pd.DataFrame, factor: str, differs: str, baseline: object, quantity: str) -> pd.DataFrame:
    """Runs over their baseline; a setting is named with the factor, since it has a ratio to more than one baseline."""
    pairs = paired(part, (differs,), part[differs] == baseline, quantity)
    named = pairs.assign(factor=factor, baseline=str(baseline), setting=factor + " " + pairs["setting"])
    names = ["factor", "baseline", "setting", "sitting", "batch_size", "batch_order"]
    return named[[*names, RATIO, "n_baseline_runs", "matched"]]
