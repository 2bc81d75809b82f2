"""Intervals from few repetitions of many settings: Student's t with one spread pooled over the settings.

A setting has two or three runs, too few for a spread of its own. ASSUME: repetitions of all pooled settings scatter
alike on the logarithmic scale; where they do not, the interval is too narrow for some and too wide for others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

FREEDOM_MIN = 4  # with fewer the spread itself is hardly known
ONCE = "nothing was measured twice"


@dataclass(frozen=True)
class Spread:
    """How repetitions of a setting scatter: the standard deviation of a logarithm, and its degrees of freedom."""

    cv: float
    n_freedom: int

    @property
    def known(self) -> bool:
        """Whether there are degrees of freedom enough for an interval."""
        return self.n_freedom >= FREEDOM_MIN

    def half(self, share: float, confidence: float) -> float:
        """Half of the interval of a mean whose variance is `share` of one repetition's."""
        return float(stats.t.ppf(0.5 + confidence / 2, self.n_freedom)) * self.cv * float(np.sqrt(share))

    def ends(self, mean: float, n: int, confidence: float) -> tuple[float, float, float]:
        """Geometric mean of `n` repetitions from the mean of their logarithms, with its interval if there is one."""
        half = self.half(1 / n, confidence) if self.known else np.nan
        return float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half))

    def why_none(self) -> str:
        """Why there is no interval."""
        if self.n_freedom == 0:
            return f"no interval, because {ONCE}"
        repeat = "1 run repeats" if self.n_freedom == 1 else f"{self.n_freedom} runs repeat"
        return f"no interval, because {repeat} a setting, and it takes {FREEDOM_MIN}"


def pooled(runs: pd.DataFrame, name: str) -> Spread:
    """Spread of log `name` between the runs of a setting, pooled over the settings of `runs`; missing values aside."""
    known = runs[runs[name].notna()]
    logs = known.assign(log=np.log(known[name].astype(float)))
    freedom = len(known) - known["setting"].nunique()
    squares = float(((logs["log"] - logs.groupby("setting")["log"].transform("mean")) ** 2).sum())
    return Spread(float(np.sqrt(squares / freedom)) if freedom else np.nan, freedom)


def paired_ends(
    pairs: pd.DataFrame, every: pd.DataFrame, runs: pd.DataFrame, quantity: str, confidence: float
) -> tuple[tuple[float, float, float], dict[str, object]]:
    r"""Geometric mean of one setting's ratios to its baseline with its interval, and how that was made.

    The interval is :math:`\exp(\bar d \pm t_f\, s / \sqrt n)`. *s* is pooled from log ratios if all the setting's
    pairs are of one sitting each and enough settings have such pairs in several sittings, *n* of them; pairs of one
    sitting share its baseline and its error, so that they count as one. Else *s* is from the logarithms of
    `quantity` of repetitions, hosts included, with :math:`1/n + 1/n_\text{baseline}` in place of :math:`1/n`.

    Parameters
    ----------
    pairs : DataFrame
        Rows of one setting from :func:`inference_energy.pairs.paired`.
    every : DataFrame
        Rows of all settings of its kind.
    runs : DataFrame
        The runs they come from.

    Returns
    -------
    tuple
        Ratio, lower and upper end (missing without an interval); ``interval_by`` and, where there is none, ``note``.
    """
    mean, n = float(np.log(pairs["over_baseline_ratio"].astype(float)).mean()), len(pairs)
    spread, how = pooled(runs, quantity), "t over sittings"
    share = 1 / n + 1 / int(pairs["n_baseline_runs"].max())
    if (pairs["matched"] == "sitting").all():
        near = pooled(_of_sittings(every[every["matched"] == "sitting"]), "over_baseline_ratio")
        if near.known:
            own = np.log(_of_sittings(pairs)["over_baseline_ratio"])
            mean, spread, how, share = float(own.mean()), near, "t within sittings", 1 / len(own)
    half = spread.half(share, confidence) if spread.known else np.nan
    ends = float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half))
    made: dict[str, object] = {"interval_by": how}
    return ends, made if spread.known else made | {"note": spread.why_none()}


def _of_sittings(pairs: pd.DataFrame) -> pd.DataFrame:
    """The geometric mean of a setting's ratios in each sitting."""
    logs = pairs.assign(over_baseline_ratio=np.log(pairs["over_baseline_ratio"].astype(float)))
    means = logs.groupby(["setting", "sitting"])["over_baseline_ratio"].mean()
    ratios: pd.Series = np.exp(means)
    return ratios.reset_index()
