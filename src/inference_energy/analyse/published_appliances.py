"""A published comparison with appliances, held against its own numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.tables import conform
from inference_energy.tables.report import PUBLISHED_APPLIANCES

#: A printed energy that rounds its derivation differs by less.
ENERGY_TOLERANCE_FRACTION = 0.05
RESPONSES_TOLERANCE_FRACTION = 0.02


@dataclass(frozen=True)
class PublishedAppliances:
    """One row per appliance; see :data:`inference_energy.tables.report.PUBLISHED_APPLIANCES`."""

    rows: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Columns of the table ``published_appliances``."""
        return conform(self.rows, PUBLISHED_APPLIANCES)


def published_appliances(energies: pd.DataFrame, responses: pd.DataFrame) -> PublishedAppliances:
    """Compare printed values with what the same publication derives them from.

    An energy must agree with the last energy of its justification (``battery ~13.7 Wh; … ~0.015
    kWh``). Numbers of responses must agree with one energy per response for all rows, its median.

    Parameters
    ----------
    energies, responses : DataFrame
        ``baker_appliance_energy.csv`` and ``baker_appliance_responses.csv``, all columns text, the
        same appliances in the same order.

    Raises
    ------
    AnalysisError
        If the files hold different appliances, or a justification names no energy.
    """
    printed = energies["energy_kwh"].astype(float)
    of_responses = responses["appliance_energy_kwh"].astype(float)
    if len(energies) != len(responses) or not np.allclose(printed, of_responses, rtol=1e-9):
        raise AnalysisError(
            "resources/published: baker_appliance_energy.csv and baker_appliance_responses.csv",
            f"their energies are {list(printed)} and {list(of_responses)} kWh",
            "the same appliances in the same order",
            "Restore them: git checkout resources",
        )
    derived = energies["justification_as_printed"].map(last_energy_kwh)
    rows = energies[["appliance", "usage"]].assign(
        justification=energies["justification_as_printed"],
        printed_energy_kwh=printed,
        derived_energy_kwh=derived,
        energy_follows=(printed / derived - 1).abs() <= ENERGY_TOLERANCE_FRACTION,
    )
    follow = pd.Series(True, index=rows.index)
    for which in ("least", "most"):
        as_printed = responses[f"responses_{which}_efficient"]
        found = as_printed.astype(float)
        expected = printed / (printed / found).median()
        rounding = as_printed.map(lambda value: 0.5 * 10.0 ** -len(value.partition(".")[2]))
        follow &= (found - expected).abs() <= rounding + RESPONSES_TOLERANCE_FRACTION * expected
        rows[f"n_printed_{which}_responses"], rows[f"n_derived_{which}_responses"] = found, expected
    return PublishedAppliances(rows.assign(responses_follow=follow))


def last_energy_kwh(justification: str) -> float:
    """The last energy that a text names, kWh: ``6 W x 24 h = 144 Wh`` is 0.144.

    Raises
    ------
    AnalysisError
        If it names none.
    """
    found = re.findall(r"(\d+(?:\.\d+)?)\s*(k?)Wh\b", justification)
    if not found:
        raise AnalysisError("baker_appliance_energy.csv", f"{justification!r} names no energy", "a value in Wh or kWh")
    value, kilo = found[-1]
    return float(value) * (1.0 if kilo else 1e-3)
