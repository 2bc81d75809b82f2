"""What does each level of each factor do to energy per output token, all others equal? Ratios, from one model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from inference_energy.models.deployments import BASELINES, LEVELS, baseline_of, deployments, order_of
from inference_energy.models.linear import Linear
from inference_energy.models.terms import fit_main
from inference_energy.tables import conform
from inference_energy.tables.effects import EFFECTS

_RATIO = "level_over_baseline_ratio"
#: Baselines beside the usual ones, because the published study compares with them.
_SECOND = {"precision": "float32"}


@dataclass(frozen=True)
class Effects:
    """Ratios of levels to their baselines.

    Attributes
    ----------
    levels : DataFrame
        One row a factor, level and baseline.
    """

    levels: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``effects``."""
        return conform(self.levels, EFFECTS)


def effects(runs: pd.DataFrame, *, confidence: float) -> Effects:
    r"""Estimate every level's ratio to its baseline from all deployment runs together.

    The model is :math:`\log e = \mu + \sum_f \beta_{f,\text{level}} + \text{sitting} + \varepsilon`
    with weight 1 for every setting. Ratios are :math:`\exp(\beta)`; intervals and p-values use the
    jackknife over settings and Student's t with n settings - 1 degrees of freedom; Holm's
    correction is over all rows with a p-value and the usual baseline.

    A level has a reason instead of a number if it was not measured, was measured in one setting only, or
    always comes together with a level of another factor.

    Raises
    ------
    AnalysisError
        If no run has an energy, or one is not above 0.

    References
    ----------
    Holm (1979), A simple sequentially rejective multiple test procedure, *Scand. J. Statist.* 6.
    """
    chosen = deployments(runs)
    model = fit_main(chosen)
    rows = []
    for factor in BASELINES:
        usual = baseline_of(factor, chosen[factor]) if len(chosen) else BASELINES[factor]
        known = sorted({*chosen[factor], *LEVELS.get(factor, ())}, key=order_of)
        for baseline in dict.fromkeys((usual, _SECOND.get(factor, usual))):
            rows += [_row(chosen, model, factor, level, baseline, confidence) for level in known if level != baseline]
    table = pd.DataFrame(rows, columns=EFFECTS.names)
    tested = table["p_value"].notna() & (table["baseline"] != table["factor"].map(_SECOND))
    table["holm_p_value"] = np.nan
    if tested.any():
        table.loc[tested, "holm_p_value"] = multipletests(table.loc[tested, "p_value"].astype(float), method="holm")[1]
    return Effects(table)


def _row(
    chosen: pd.DataFrame, model: Linear, factor: str, level: str, baseline: str, confidence: float
) -> dict[str, object]:
    of_level = chosen[chosen[factor] == level]
    row: dict[str, object] = {
        "factor": factor,
        "level": level,
        "baseline": baseline,
        "n_settings": of_level["setting"].nunique(),
        "n_runs": len(of_level),
        "confidence": confidence,
        "reason": _reason(chosen, model, factor, level, baseline),
    }
    if row["reason"]:
        return row
    estimate, low, high, p_value = model.contrast(_contrast(model, factor, level, baseline), confidence)
    ends = {_RATIO: estimate, f"{_RATIO}_low": low, f"{_RATIO}_high": high}
    return row | {name: float(np.exp(value)) for name, value in ends.items()} | {"p_value": p_value}


def _contrast(model: Linear, factor: str, level: str, baseline: str) -> np.ndarray:
    contrast = np.zeros(len(model.columns))
    for name, sign in ((level, 1.0), (baseline, -1.0)):
        if (factor, name) in model.columns:
            contrast[model.columns.index((factor, name))] = sign
    return contrast


def _reason(chosen: pd.DataFrame, model: Linear, factor: str, level: str, baseline: str) -> str | None:
    """Why a level has no ratio; nothing where it has one."""
    for name in (level, baseline):
        n = chosen.loc[chosen[factor] == name, "setting"].nunique()
        if not n:
            return f"{name} is not measured in this campaign"
        if name not in set(model.used[factor]):
            if n == 1:
                return f"{name} is measured in one setting only, so the level cannot be told from that setting"
            return f"each of its {n} settings is needed for another level too, so {name} alone cannot be told"
    if not model.enough:
        return f"{model.n_settings} settings are too few for {model.n_parameters} parameters"
    contrast = _contrast(model, factor, level, baseline)
    if not contrast.any():  # a level that lost its column: the only one left
        return f"{level} and {baseline} are not both in the model"
    if not model.estimable(contrast):
        return f"{level} was measured only together with certain levels of other factors"
    return None
