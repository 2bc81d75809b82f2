"""The smallest effect that this design detects, from the noise that it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats

from inference_energy.tables import conform
from inference_energy.tables.spread import SMALLEST_EFFECTS

# ASSUME: an effect counts as detectable if a two-sided test at 5 % finds it in four of five repetitions of the study.
ALPHA_FRACTION, POWER_FRACTION = 0.05, 0.8

#: Settings times cycles of a comparison: two settings in few or many cycles, and a factor over several settings.
DESIGNS = ((1, 1), (1, 2), (1, 4), (4, 2), (12, 2), (48, 2))


@dataclass(frozen=True)
class SmallestEffects:
    """Smallest detectable effects.

    Attributes
    ----------
    rows : DataFrame
        One row a group of settings, way of matching and design.
    """

    rows: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``smallest_effects``."""
        return conform(self.rows, SMALLEST_EFFECTS)


def smallest_effects(variance_split: pd.DataFrame) -> SmallestEffects:
    r"""Turn the noise between runs into the smallest ratio of two levels that a comparison finds.

    The logarithm of the ratio of two runs of the same setting but for one level has the variance
    :math:`s^2 = 2 (\sigma_g^2 + \sigma_d^2 + \sigma_w^2 / n_w)` in one sitting, and
    :math:`2 \sigma_h^2` more where the levels were measured in different sittings. Over *k* settings
    and *n* cycles, the mean of :math:`nk` such logarithms is tested two-sided by *t*, with *s* and its
    degrees of freedom as estimated over all settings of the group. The smallest effect :math:`\delta`
    solves

    .. math:: 1 - F(t_\nu;\, \nu, \delta \sqrt{nk} / s) = 0.8

    (to find it in the right direction; the other adds less than 0.0001) with the non-central *t*
    distribution *F* and :math:`t_\nu` the quantile of 1 - 0.05 / 2, and is given as
    :math:`e^\delta - 1`. It supposes that the level acts alike in all *k* settings; where it
    does not, the spread of its effects adds to the noise. In different sittings the noise of
    sittings does not average out over settings, so there *k* is not used.

    Parameters
    ----------
    variance_split : DataFrame
        The table of this name.

    References
    ----------
    Cohen (1988), *Statistical Power Analysis for the Behavioral Sciences*, chapter 2.
    """
    rows = []
    for group, split in variance_split.groupby("settings", sort=False):
        by = split.set_index("component")
        for matched in ("sitting", "campaign"):
            pair_cv, freedom, reason = _noise(by, matched)
            for n_settings, n_cycles in DESIGNS if matched == "sitting" else DESIGNS[:3]:
                effect = np.nan if reason else smallest(n_settings * n_cycles, freedom) * pair_cv
                rows.append(
                    {
                        "settings": group,
                        "matched": matched,
                        "n_settings": n_settings,
                        "n_cycles": n_cycles,
                        "n_pairs": n_settings * n_cycles,
                        "pair_cv": pair_cv,
                        "n_freedom": freedom,
                        "alpha_fraction": ALPHA_FRACTION,
                        "power_fraction": POWER_FRACTION,
                        "smallest_effect_fraction": np.expm1(effect),
                        "reason": reason,
                    }
                )
    return SmallestEffects(pd.DataFrame(rows, columns=SMALLEST_EFFECTS.names))


def _noise(by: pd.DataFrame, matched: str) -> tuple[float, int, str | None]:
    """Standard deviation of the logarithm of a ratio of two runs, its degrees of freedom, or why there is none."""
    names = ["gpu", "run"] if matched == "sitting" else ["sitting", "gpu", "run"]
    cv, freedom = by["cv"].astype(float), by["n_freedom"].astype(int)
    for name in ("run", "sitting"):
        if name in names and np.isnan(cv[name]):
            return np.nan, 0, f"the noise of a {name} cannot be estimated: {by['reason'].astype(str)[name]}"
    window = cv["window"] ** 2 / float(by["n_windows_per_run"].iloc[0])
    variance = float((cv[names] ** 2).sum()) + (0.0 if np.isnan(window) else float(window))
    return float(np.sqrt(2 * variance)), int(freedom["sitting" if matched == "campaign" else "run"]), None


def smallest(n_pairs: int, freedom: int) -> float:
    """Smallest mean that a two-sided one-sample t test finds, over the standard deviation of one value."""
    critical = stats.t.ppf(1 - ALPHA_FRACTION / 2, freedom)

    def missing(shift: float) -> float:
        return float(stats.nct.sf(critical, freedom, shift)) - POWER_FRACTION

    above = critical + 1.0
    while missing(above) < 0:
        above *= 1.5
    return float(optimize.brentq(missing, 0.0, above) / np.sqrt(n_pairs))
