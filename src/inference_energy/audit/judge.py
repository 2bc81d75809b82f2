"""Every check applied: how many cases were tested, how many fail, and the worst of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from inference_energy.audit.checks import AT_LEAST, AT_MOST, CHECKS, DIFFERENT, Check
from inference_energy.audit.records import Records

HOLDS, IN_PART, FAILS, NOT_TESTABLE = "holds", "fails in part", "fails", "not testable"


def judged(
    records: Records, reasons: Mapping[str, str] | None = None, checks: Sequence[Check] = CHECKS
) -> pd.DataFrame:
    """What each check finds.

    Parameters
    ----------
    records : Records
        Of any study.
    reasons : mapping, optional
        Why a check cannot be made of these records, by its name, where more can be said than that
        values are missing. Such a check is not made.
    checks : sequence of Check
        Those to make.

    Returns
    -------
    DataFrame
        A row a check, columns as of table ``audit_checks``.
    """
    return pd.DataFrame([_row(check, records, (reasons or {}).get(check.name)) for check in checks])


def _row(check: Check, records: Records, reason: str | None) -> dict[str, object]:
    row: dict[str, object] = {
        "records": records.name,
        "check": check.name,
        "kind": check.kind,
        "tested": check.tested,
        "relation": check.relation,
        "tolerance_fraction": check.tolerance_fraction,
        "counted_in": check.counted_in,
        "n_tested": 0,
        "n_failing": 0,
        "failing_fraction": np.nan,
        "found_over_expected_median_ratio": np.nan,
        "found_over_expected_worst_ratio": np.nan,
        "worst_found": None,
        "worst_expected": None,
        "worst_example": None,
        "verdict": NOT_TESTABLE,
        "reason": reason,
    }
    if reason is not None:
        return row
    found, expected, rows = (values.reset_index(drop=True) for values in check.cases(records))
    known = found.notna() & expected.notna()
    if not known.any():
        return row | {"reason": "the records do not hold what it needs"}
    found, expected, rows = (values[known].reset_index(drop=True) for values in (found, expected, rows))
    found, expected = found.astype(float), expected.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = pd.Series(np.where(found == expected, 1.0, found / expected), index=found.index)
    beyond = _beyond(ratio, check)
    n_failing = int((beyond > 0).sum())
    worst = int(beyond.to_numpy().argmax())
    verdict = HOLDS if n_failing == 0 else FAILS if n_failing == len(ratio) else IN_PART
    return row | {
        "n_tested": len(ratio),
        "n_failing": n_failing,
        "failing_fraction": n_failing / len(ratio),
        "found_over_expected_median_ratio": float(ratio.median()),
        "found_over_expected_worst_ratio": float(ratio[worst]),
        "worst_found": _said(found[worst], check.unit),
        "worst_expected": _said(expected[worst], check.unit),
        "worst_example": str(records.runs["run"].get(rows[worst])),
        "verdict": verdict,
    }


def _beyond(ratio: pd.Series, check: Check) -> pd.Series:
    """By how much each case breaks the relation; 0 and below where it holds."""
    rounding = 1e-9  # of the arithmetic: a value at its limit holds
    if check.relation == AT_MOST:
        over = ratio - 1
    elif check.relation == AT_LEAST:
        over = 1 - ratio
    else:
        over = (ratio - 1).abs()
    if check.relation == DIFFERENT:
        return check.tolerance_fraction - over
    return over - check.tolerance_fraction - rounding


def _said(value: float, unit: str) -> str:
    """A value with its unit; one of a kind is said so: ``1 cycle``."""
    if value == 1 and unit.endswith("s") and len(unit) > 1:
        unit = unit.removesuffix("s")
    return f"{value:,.0f} {unit}" if 1e3 <= abs(value) < 1e7 else f"{value:.4g} {unit}"
