"""Does a run in a shared engine agree with the same in an engine of its own? Equivalence, and drift with its place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.curves import of_study
from inference_energy.models.engines import ENERGY, LAST_OVER_FIRST, SHARED_OVER_OWN, THROUGHPUT
from inference_energy.models.tost import standard_error, tost
from inference_energy.pairs import RATIO, grounds, paired
from inference_energy.tables import conform
from inference_energy.tables.engines import SHARING

FREEDOM_MIN = 4  # with fewer the spread about a drift is hardly known


@dataclass(frozen=True)
class Sharing:
    """Ratios of shared engines with their intervals and verdicts.

    Attributes
    ----------
    ratios : DataFrame
        One row a comparison, quantity and setting, or all settings.
    confidence, margin_fraction : float
        One less the level of each one-sided test, and what counts as equal.
    """

    ratios: pd.DataFrame
    confidence: float
    margin_fraction: float

    def table(self) -> pd.DataFrame:
        """Rows of ``sharing``."""
        return conform(self.ratios, SHARING)


def sharing(runs: pd.DataFrame, *, study: str = "sharing", confidence: float, margin_fraction: float) -> Sharing:
    r"""Compare shared engines with own ones, and runs early and late in a shared engine.

    Two one-sided tests at :math:`\alpha = 1 -` `confidence`: the verdict is *equivalent* if the interval of level
    :math:`1 - 2\alpha` lies within 1 ± `margin_fraction`, *different* if it lies outside, else *undecided*.

    ``shared over own``
        Of `study`: each run in a shared engine over those equal in all else in an engine of their own, in its own
        sitting where there are any. For a setting the values are its pairs. Over all settings pairs err together in two
        ways: those of a setting share what is peculiar to it, those of a shared process its GPU and all else that this
        process has of its own, which would look like the effect. So the interval is the wider of two, over the means of
        settings and over those of processes. Simulated at 90 % with three settings and two processes, it covers 90 to
        98 %; that over settings alone covers 50 % if processes differ by twice the scatter of runs. With one shared
        process there is none.
    ``last over first place``
        Of every run in a shared engine: :math:`\log x_{sp} = a_s + b_p + d\,k`, with settings *s*, processes *p* and
        the place *k* of the run in its process, from 0, by least squares. What a setting and what a process (its host,
        its GPU) have of their own is thus taken out, and the drift *d* rests on settings that were measured at several
        places, because each cycle is shuffled anew. The ratio is :math:`e^{d K}`, *K* the last place of the longest
        process.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; runs without energy are left out.
    study : str
        Which holds shared engines against own ones.
    confidence, margin_fraction
        See above.

    Raises
    ------
    AnalysisError
        If a value is not above 0.

    References
    ----------
    Schuirmann (1987), *J. Pharmacokinetics and Biopharmaceutics* 15, 657-680;
    ``statsmodels.stats.weightstats.DescrStatsW.ttost_mean`` gives the same p-value.
    """
    rows: list[dict[str, object]] = []
    for quantity in (ENERGY, THROUGHPUT):
        known = of_study(runs, study, quantity)
        own = known["engine_process"] == "own"
        pairs = paired(known, ("engine_process",), own, quantity) if own.any() else known.iloc[:0]
        found = [*_shared_over_own(pairs, confidence, margin_fraction)] if len(pairs) else []
        found += [
            *_drift(runs[runs["process"].notna() & runs[quantity].notna()], quantity, confidence, margin_fraction)
        ]
        rows += [{"quantity": quantity} | row for row in found]
    about = {"confidence": 2 * confidence - 1, "margin_fraction": margin_fraction}
    return Sharing(pd.DataFrame([row | about for row in rows], columns=SHARING.names), confidence, margin_fraction)


def _shared_over_own(pairs: pd.DataFrame, confidence: float, margin_fraction: float) -> Iterator[dict[str, object]]:
    """Of each setting, and of all."""
    logs = pairs[RATIO].astype(float).map(math.log)
    for _, of_setting in pairs.groupby("setting", sort=True):
        shown = {name: of_setting[name].iloc[0] for name in ("model", "batch_size")}
        found = _tested(logs[of_setting.index], confidence, margin_fraction)
        yield {"comparison": SHARED_OVER_OWN} | shown | grounds(of_setting) | found
    means = logs.groupby(pairs["setting"]).mean()
    process = pairs["process"].astype("string").fillna("cycle " + pairs["cycle"].astype("string"))
    of_process = logs.groupby(process).mean()
    few = "one shared process" if len(of_process) == 1 else "one setting" if len(means) == 1 else None
    spreads = [standard_error(part) for part in ((logs.iloc[:1],) if few else (means, of_process))]
    tests = [tost("estimate", float(means.mean()), *spread, confidence, margin_fraction) for spread in spreads]
    reason = f"no interval, because it takes several and there is {few}" if few else None
    yield {"comparison": SHARED_OVER_OWN, "model": "all"} | grounds(pairs, reason) | max(tests, key=_width)


def _drift(runs: pd.DataFrame, quantity: str, confidence: float, margin_fraction: float) -> Iterator[dict[str, object]]:
    """Change from the first place of a process to the last one of the longest."""
    if runs.empty:
        return
    place = runs["process_position"].to_numpy(float)
    others = pd.get_dummies(runs[["setting", "process"]].astype(str), dtype=float).to_numpy()
    design = np.column_stack([others, place])
    freedom = len(runs) - int(np.linalg.matrix_rank(design))
    row: dict[str, object] = {
        "comparison": LAST_OVER_FIRST,
        "model": "all",
        "n_settings": runs["setting"].nunique(),
        "n_pairs": len(runs),
        "n_places": int(place.max()) + 1,
        "verdict": "undecided",
    }
    aside = place - others @ np.linalg.lstsq(others, place, rcond=None)[0]  # what settings and processes do not explain
    if (aside**2).sum() < 1e-9 or freedom < FREEDOM_MIN:
        yield row | {"note": "too few settings were measured at several places of a process"}
        return
    logs = np.log(runs[quantity].to_numpy(float))
    residual = logs - design @ np.linalg.lstsq(design, logs, rcond=None)[0]
    slope = float(aside @ logs / (aside**2).sum())
    error = math.sqrt(float((residual**2).sum()) / freedom / float((aside**2).sum()))
    change = place.max() * np.array([slope, error])
    yield row | tost("estimate", float(change[0]), float(change[1]), freedom, confidence, margin_fraction)


def _tested(logs: pd.Series, confidence: float, margin_fraction: float) -> dict[str, object]:
    """Ratio, interval, p-value and verdict of the mean of `logs`."""
    return tost("estimate", float(logs.mean()), *standard_error(logs), confidence, margin_fraction)


def _width(row: dict[str, object]) -> float:
    return float(str(row.get("estimate_high", 0.0)))
