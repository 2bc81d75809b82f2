"""Which factor explains most of the variance of log energy, and which work together? Type-II tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from inference_energy.errors import AnalysisError
from inference_energy.models.deployments import BASELINES, deployments, waits
from inference_energy.models.linear import Linear
from inference_energy.models.terms import BLOCK, INTERACTIONS, fit_main, fit_with
from inference_energy.tables import conform
from inference_energy.tables.effects import FACTOR_RANKING


@dataclass(frozen=True)
class FactorRanking:
    """Tests and shares of variance of factors and interactions.

    Attributes
    ----------
    terms : DataFrame
        One row a term, factors first, largest share first.
    """

    terms: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``factor_ranking``."""
        return conform(self.terms, FACTOR_RANKING)


#: How the published table calls what is a factor here.
_PUBLISHED = {
    "batch size": "batch_size",
    "tensor parallelism": "parallelism",
    "precision/quantisation": "precision",
    "decoding strategy": "decoding",
}
_FOLD = "levels_fold"


def factor_ranking(runs: pd.DataFrame, published: pd.DataFrame, *, confidence: float) -> FactorRanking:
    r"""Type-II tests and shares of explained variance of every factor and of three interactions.

    A factor's sum of squares is that by which residuals shrink when it is added to a model with all
    other factors and the sittings; an interaction's, when it is added to all main effects. Shares are of
    the total about the mean (:math:`SS_f / SS_\text{total}`), and partial:
    :math:`SS_f / (SS_f + SS_\text{residual})`. Settings are not balanced, so shares need not add up
    to 1. F is Wald's with the jackknife over settings; Holm's correction is over factors and
    interactions. The sitting is a block: shown, not tested.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table, of any studies.
    published : DataFrame
        ``baker_parameter_impact.csv``, as text.
    confidence : float
        Level of the interval of the fold between a factor's levels.

    Raises
    ------
    AnalysisError
        If no run has an energy, or one is not above 0; or if a published parameter is unknown.

    References
    ----------
    Fox and Weisberg (2019), *An R Companion to Applied Regression*, section 5.3 (type II).
    """
    chosen = deployments(runs)
    model, said = fit_main(chosen), _published(published)
    rows = [
        _row(model, factor, "factor", factor, None)
        | _fold(model, factor, confidence)
        | {"published_impact": said.get(factor), "confidence": confidence}
        for factor in BASELINES
    ]
    rows.append(_row(model, BLOCK, "block", BLOCK, None))
    for first, second in INTERACTIONS:
        term = f"{first} x {second}"
        joint = fit_with(chosen, first, second)
        rows.append(_row(joint, term, "interaction", first, second) | _cells(chosen, first, second))
    table = pd.DataFrame(rows, columns=FACTOR_RANKING.names)
    for kind in ("factor", "interaction"):
        ranked = table["explained_fraction"].where(table["kind"] == kind).rank(ascending=False, method="first")
        table["order"] = ranked if kind == "factor" else table["order"].fillna(ranked)
    tested = table["p_value"].notna()
    table["holm_p_value"] = np.nan
    if tested.any():
        table.loc[tested, "holm_p_value"] = multipletests(table.loc[tested, "p_value"].astype(float), method="holm")[1]
    place = table["kind"].map({"factor": 0, "interaction": 1, "block": 2})
    return FactorRanking(table.assign(place=place).sort_values(["place", "order"], kind="stable").drop(columns="place"))


def _row(model: Linear, term: str, kind: str, first: str, second: str | None) -> dict[str, object]:
    row: dict[str, object] = {
        "term": term,
        "kind": kind,
        "n_settings": model.n_settings,
        "n_runs": len(model.used),
        "reason": _reason(model, term, first, second),
    }
    if row["reason"]:
        return row
    rank, squares, wald, p_value = model.test(term)
    if not rank:
        return row | {"reason": "what was measured of it always comes together with levels of other factors"}
    residual = float(((model.response - model.design @ model.coefficients) ** 2).sum())
    return row | {
        "n_parameters": rank,
        "explained_fraction": squares / model.total,
        "partial_explained_fraction": squares / (squares + residual),
        "wald_f_ratio": wald if kind != "block" else np.nan,
        "p_value": p_value if kind != "block" else np.nan,
    }


def _reason(model: Linear, term: str, first: str, second: str | None) -> str | None:
    for factor in (first, second):
        if factor and model.used[factor].nunique() < 2:
            return f"fewer than two levels of {factor} are measured in more than one setting"
    if not model.enough:
        return f"{model.n_settings} settings are too few for {model.n_parameters} parameters"
    return None if model.places(term) else f"no level of {term} is measured in more than one setting"


def _cells(chosen: pd.DataFrame, first: str, second: str) -> dict[str, object]:
    """Pairs of levels, and those without a setting."""
    levels = {factor: waits(chosen) if factor == "traffic" else chosen[factor] for factor in (first, second)}
    cells = pd.crosstab(levels[first], levels[second])
    missing = [f"{one} with {other}" for one, row in cells.iterrows() for other, n in row.items() if not n]
    return {"n_cells": cells.size, "n_missing_cells": len(missing), "missing_cells": "; ".join(missing) or None}


def _fold(model: Linear, factor: str, confidence: float) -> dict[str, float]:
    """Highest over lowest level of a factor, of those that the model can tell from the baseline."""
    contrasts = [np.zeros(len(model.columns))]
    contrasts += [row for row in np.eye(len(model.columns))[model.places(factor)] if model.estimable(row)]
    if len(contrasts) < 2 or not model.enough:
        return {}
    effects = [float(contrast @ model.coefficients) for contrast in contrasts]
    ends = model.contrast(contrasts[int(np.argmax(effects))] - contrasts[int(np.argmin(effects))], confidence)[:3]
    return {
        name: float(np.exp(value)) for name, value in zip((_FOLD, f"{_FOLD}_low", f"{_FOLD}_high"), ends, strict=True)
    }


def _published(published: pd.DataFrame) -> dict[str, str]:
    """What the published table says of each factor."""
    unknown = set(published["parameter"]) - set(_PUBLISHED)
    if unknown:
        raise AnalysisError(
            "resources/published/baker_parameter_impact.csv",
            f"unknown parameters {sorted(unknown)}",
            ", ".join(_PUBLISHED),
            "Restore it: git checkout resources",
        )
    units = {"x": "×", "pct": " %", "": ""}
    said = {}
    for _, row in published.iterrows():
        impact = f"{row['energy_impact_label']}: {row['energy_impact_value']}{units[row['energy_impact_unit']]}"
        said[_PUBLISHED[str(row["parameter"])]] = impact
    return said
