"""How energy per prompt falls with the prompts that an engine is given at once, and where it flattens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.curves import of_study, shared_cost
from inference_energy.tables import FACTORS, conform
from inference_energy.tables.lengths import PROMPTS_CURVE

ENERGY, STUDY = "energy_j_per_prompt", "prompts_at_once"
N_SIZES_MIN = 4  # two parameters, and something left to see how well they fit
_NEAR_FRACTION = 0.1  # of the plateau: where it is called flat


@dataclass(frozen=True)
class PromptsCurve:
    """A shared cost and a plateau, by model.

    Attributes
    ----------
    fits : DataFrame
        One row a model.
    confidence : float
        Level of the intervals.
    """

    fits: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Rows of ``prompts_curve``."""
        return conform(self.fits, PROMPTS_CURVE)


def prompts_curve(runs: pd.DataFrame, *, confidence: float) -> PromptsCurve:
    r"""Fit :math:`E = a + b / n` to energy per prompt E (J) of n prompts at once.

    The law is that of a cost *b* which all prompts of a step share, reading the weights, beside one *a* that each of
    them has. It is fitted by least squares of log E to the geometric means of each number of prompts, whose
    scatter around the law counts, and not that of their runs: :func:`inference_energy.models.curves.shared_cost`. It
    knows neither an engine that lets prompts wait beyond ``n_sequences_limit`` nor arithmetic that becomes the limit;
    ``shared_cv`` says how far off it is.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; the settings of study ``prompts_at_once`` count wherever they were measured. Runs without
        energy are left out.
    confidence : float
        Level of the intervals.

    Raises
    ------
    AnalysisError
        If an energy is not above 0.
    """
    same = [column.name for column in FACTORS if column.name not in ("batch_size", "n_prompts")]
    rows = []
    for _, curve in of_study(runs, STUDY, ENERGY).groupby(same, sort=True, dropna=False):
        sizes, place = np.unique(curve["batch_size"].to_numpy(float), return_inverse=True)
        means = np.bincount(place, np.log(curve[ENERGY].to_numpy(float))) / np.bincount(place)
        limits = curve["n_sequences_limit"].dropna()
        row: dict[str, object] = {
            "model": curve["model"].iloc[0],
            "precision": curve["precision"].iloc[0],
            "n_batch_sizes": len(sizes),
            "n_runs": len(curve),
            "n_prompts_most": int(sizes.max()),
            "n_sequences_limit": int(limits.max()) if len(limits) else None,
        }
        if len(sizes) < N_SIZES_MIN:
            row["note"] = (
                f"the curve cannot be fitted, because it takes {N_SIZES_MIN} numbers of prompts at once, and"
                f" has {len(sizes)}"
            )
        else:
            names = ("plateau_energy_j_per_prompt", "shared_energy_j")
            found, rss = shared_cost(sizes, means, confidence, *names)
            plateau, shared = (float(str(found[name])) for name in names)
            row |= found | {
                "n_prompts_near_plateau": shared / plateau / _NEAR_FRACTION if plateau > 0 else np.inf,
                "shared_cv": float(np.sqrt(rss / (len(sizes) - 2))),
                "note": None if "n_prompts_at_equal_parts" in found else "the plateau may be nil",
            }
        rows.append(row)
    return PromptsCurve(pd.DataFrame(rows, columns=PROMPTS_CURVE.names), confidence)
