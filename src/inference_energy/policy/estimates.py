"""Rows of tables whose every row is an estimate: said in words, or why there is none."""

from __future__ import annotations

from typing import Any

import pandas as pd

from inference_energy.policy.wording import estimate, fold, known, percent, quantity, span

#: The three accountings as columns and lists name them.
ACCOUNTINGS = {
    "generated": "per generated token",
    "answered": "per answered token",
    "published": "as published",
}


def rows_with(frame: pd.DataFrame, **levels: Any) -> pd.DataFrame:
    """Rows of `frame` with these levels."""
    for name, level in levels.items():
        frame = frame[frame[name].eq(level).fillna(False).astype(bool)]
    return frame


def said(row: pd.Series, unit: str, confidence: float) -> str:
    """``2.3× (95 % interval 2.1 to 2.5×)``, or ``cannot be estimated, because …``."""
    if not known(row["estimate"]):
        return f"cannot be estimated, because {row['note']}"
    return estimate(row, "estimate", unit, confidence)


def cell(row: pd.Series, unit: str) -> str:
    """An estimate with its interval for a table: ``2.3× (2.1 to 2.5×)``; a dash where there is none.

    The unit ``%`` is that of a fraction.
    """
    if not known(row["estimate"]):
        return "–"
    ends = row["estimate_low"], row["estimate_high"]
    if unit == "%":
        return percent(row["estimate"]) + (f" ({percent(ends[0])} to {percent(ends[1])})" if known(ends[0]) else "")
    value = fold(row["estimate"], *ends) if unit == "×" else quantity(row["estimate"], unit).strip()
    return value + (f" ({span(*ends, unit, row['estimate'])})" if known(ends[0]) else "")


def reasons(rows: pd.DataFrame) -> str:
    """The notes of `rows`, each once."""
    return "; ".join(sorted(set(rows["note"].dropna())))


def without_interval(rows: pd.DataFrame) -> str:
    """`` There are no intervals, because …`` if no row has one, with a space before it; else nothing."""
    if rows.empty or rows["estimate_low"].notna().any():
        return ""
    notes = rows["note"].dropna().map(lambda note: note.removeprefix("no interval, because ").partition(": no int")[0])
    why = "; ".join(sorted(set(notes)))
    return f" There are no intervals{f', because {why}' if why else ''}."


def behind(row: pd.Series) -> str:
    """``6 pairs of 4 settings, 5 within a sitting``."""
    n_pairs, n_settings = int(row["n_pairs"]), int(row["n_settings"])
    pairs = f"{n_pairs} pair{'s' if n_pairs != 1 else ''} of {n_settings} setting{'s' if n_settings != 1 else ''}"
    return f"{pairs}, {int(row['n_sitting_pairs'])} within a sitting"
