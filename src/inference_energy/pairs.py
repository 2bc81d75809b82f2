"""Each run beside its baseline, all else equal, measured in the same sitting where there is one.

Sittings differ in host and GPUs, and where the CPU is the limit hosts differ by tens of percent
(:mod:`inference_energy.analyse.anchors`), so a level is compared with its baseline within a sitting
first, and over the whole campaign only where its own sitting has no baseline.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.tables import FACTORS, above_zero

#: Factors that belong together: a level of the first decides which of the others have a value.
DECODING = ("decoding", "sampling_temperature", "top_k", "top_p")
PARALLELISM = ("parallelism", "n_gpus")
TRAFFIC = ("traffic", "delay_min_s", "delay_max_s", "delay_every", "burst_interval_s", "burst_size")

ENERGY = "energy_j_per_output_token"
RATIO = "over_baseline_ratio"


def paired(runs: pd.DataFrame, factors: Sequence[str], is_baseline: pd.Series, quantity: str = ENERGY) -> pd.DataFrame:
    """Divide every run by the geometric mean of its baseline runs.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table, of any studies: the same setting counts wherever it was measured. Runs
        without `quantity` are left out.
    factors : sequence of str
        Columns in which a run may differ from its baseline; all other factors are equal.
    is_baseline : Series of bool
        Which rows of `runs` are baselines.
    quantity : str
        Column to compare; above 0.

    Returns
    -------
    DataFrame
        The rows of `runs` that are no baseline and have one, with ``over_baseline_ratio``,
        ``n_baseline_runs`` and ``matched``: ``sitting`` if the baseline was measured in the same
        sitting, else ``campaign``.

    Raises
    ------
    AnalysisError
        If a factor is unknown, or a value is not above 0.
    """
    names = [column.name for column in FACTORS]
    for factor in factors:
        if factor not in names:
            raise AnalysisError("pairs", f"{factor!r} is no factor", f"one of {', '.join(names)}")
    known = runs[runs[quantity].notna()]
    above_zero(known, quantity, "table runs")
    # A factor with one level pairs everything; joining by few columns takes a fraction of the time.
    n_levels = known[names].nunique(dropna=False)
    others = [name for name in names if name not in factors and n_levels[name] > 1] or ["model"]
    chosen = is_baseline.reindex(known.index).fillna(False).astype(bool)
    logs = known.assign(log_value=np.log(known[quantity].astype(float)))
    baseline, rest = logs[chosen], logs[~chosen]
    near = _matched(rest, baseline, [*others, "sitting"])
    far = _matched(rest, baseline, others)
    best = near.where(near["n_baseline_runs"].notna(), far)
    found = rest.drop(columns="log_value").assign(
        over_baseline_ratio=np.exp(rest["log_value"] - best["level"]),
        n_baseline_runs=best["n_baseline_runs"].astype("Int64"),
        matched=pd.Series(np.where(near["n_baseline_runs"].notna(), "sitting", "campaign"), index=rest.index),
    )
    return found[found["n_baseline_runs"].notna()]


def _matched(rest: pd.DataFrame, baseline: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean and number of the baseline's logarithms with the same `keys`, for every row of `rest`."""
    means = baseline.groupby(keys, dropna=False)["log_value"].agg(level="mean", n_baseline_runs="count").reset_index()
    merged = rest[keys].merge(means, on=keys, how="left")
    return merged[["level", "n_baseline_runs"]].set_axis(rest.index)


def grounds(pairs: pd.DataFrame, reason: str | None = None, *, pooled: bool = False) -> dict[str, object]:
    """What an estimate rests on, and why it or its interval is missing; if `pooled`, one pair has an interval."""
    return {
        "n_settings": pairs["setting"].nunique(),
        "n_pairs": len(pairs),
        "n_sitting_pairs": int((pairs["matched"] == "sitting").sum()),
        "note": reason or ("one pair: no interval" if len(pairs) == 1 and not pooled else None),
    }


def difference(runs: pd.DataFrame, factors: Sequence[str], is_baseline: pd.Series, quantity: str) -> pd.DataFrame:
    """What every run takes more than its baseline, paired as :func:`paired` does.

    Returns
    -------
    DataFrame
        A row for each row of `runs` that is no baseline: ``more``, missing where it is not above 0 or there is no
        baseline; ``matched``; and a ``note`` that says why something is missing.
    """
    pairs = paired(runs, factors, is_baseline, quantity)
    rest = runs.index[~is_baseline]
    more = (pairs[quantity].astype(float) * (1 - 1 / pairs[RATIO])).reindex(rest)
    matched = pairs["matched"].reindex(rest)
    note = pd.Series(pd.NA, index=rest, dtype="string").mask(matched.isna(), "what it is compared with is not measured")
    note = note.mask(more <= 0, "what it is compared with took as much or more")
    return pd.DataFrame({"more": more.where(more > 0), "matched": matched, "note": note})
