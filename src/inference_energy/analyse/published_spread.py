"""The published spread of energy per token beside that of settings measured here."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.tables import conform
from inference_energy.tables.spread import PUBLISHED_SPREAD
from inference_energy.units import joules_from_kwh

#: Our columns by the published ones, and what a published number is multiplied by.
QUANTITIES: dict[str, tuple[str, float]] = {
    "mean_energy_per_token_kwh": ("energy_mean_j_per_output_token", joules_from_kwh(1.0)),
    "sd_energy_per_token_kwh": ("energy_sd_j_per_output_token", joules_from_kwh(1.0)),
    "cv_pct": ("cv", 0.01),
    "max_min_fold": ("max_over_min_fold", 1.0),
    "p95_p5_fold": ("p95_over_p5_fold", 1.0),
    "max_min_reduction_pct": ("max_over_min_reduction_fraction", 0.01),
    "p95_p5_reduction_pct": ("p95_over_p5_reduction_fraction", 0.01),
}

#: Where settings are chosen as the publication chose them, and all there are.
STUDIES = ("grid", "all_deployments")


@dataclass(frozen=True)
class PublishedSpread:
    """Published numbers beside ours.

    Attributes
    ----------
    rows : DataFrame
        One row a study of ours, model and quantity.
    """

    rows: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``published_spread``."""
        return conform(self.rows, PUBLISHED_SPREAD)


def published_spread(energy_summary: pd.DataFrame, published: pd.DataFrame) -> PublishedSpread:
    """Set each published number on the spread of a model beside ours; models that we did not measure are left out.

    Parameters
    ----------
    energy_summary : DataFrame
        The table of this name.
    published : DataFrame
        ``published/baker_energy_stats.csv``, all columns text.

    Raises
    ------
    AnalysisError
        If the file lacks a column, or a value is no number.
    """
    missing = sorted({"model", "source", *QUANTITIES} - set(published.columns))
    if missing:
        raise AnalysisError(_FILE, f"no columns {missing}", "the columns of the published table", _RESTORE)
    ours = energy_summary[
        energy_summary["study"].isin(STUDIES) & (energy_summary["accounting"] == "taking_part_gross")
    ].assign(key=energy_summary["model"].str.lower())
    rows = []
    for _, theirs in published.iterrows():
        for _, row in ours[ours["key"] == str(theirs["model"]).lower()].iterrows():
            for column, (name, scale) in QUANTITIES.items():
                value = _number(theirs[column], column) * scale
                rows.append(
                    {
                        "study": row["study"],
                        "model": row["model"],
                        "quantity": name,
                        "n_settings": row["n_settings"],
                        "published_ratio": value / row[name] if row[name] else float("nan"),
                        "value": value,
                        "estimate": row[name],
                        "low": row[f"{name}_low"],
                        "high": row[f"{name}_high"],
                        "source": theirs["source"],
                    }
                )
    return PublishedSpread(pd.DataFrame(rows, columns=PUBLISHED_SPREAD.names))


_FILE, _RESTORE = "resources/published/baker_energy_stats.csv", "Restore it: git checkout resources"


def _number(value: object, column: str) -> float:
    try:
        return float(str(value))
    except ValueError:
        raise AnalysisError(f"{_FILE}: {column}", f"{value!r} is no number", "a number", _RESTORE) from None
