"""Typed tables: every column has a type and a description, and is checked when written and read.

A table is kept as Parquet (types) and CSV (for everyone). :func:`data_dictionary` lists every
column of every table with its unit, which follows from its name (:mod:`inference_energy.units`).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.tables import (
    answers,
    arrivals,
    audits,
    claims,
    effects,
    engines,
    lengths,
    levers,
    measured,
    phases,
    report,
    serving,
    sizes,
    speed,
    spread,
)
from inference_energy.tables.answers import (
    ANCHORS,
    BATCH_CURVE,
    CAMPAIGN_QUALITY,
    EQUIVALENCE,
    INTERFERENCE,
    SITTINGS,
)
from inference_energy.tables.columns import BOOLEAN, FLOAT, INTEGER, STRING, Column, Table
from inference_energy.tables.measured import (
    DEVICE_CHECKS,
    DEVICES,
    ENERGY_PER_TOKEN,
    ENGINE_SAMPLES,
    FACTORS,
    INTERVALS,
    ITERATIONS,
    KEY,
    QUALIFICATIONS,
    REQUESTS,
    RUNS,
    SAMPLES,
    WARNINGS,
    WINDOWS,
)
from inference_energy.tables.spread import ENERGY_SUMMARY

__all__ = [
    "ANCHORS",
    "BATCH_CURVE",
    "BOOLEAN",
    "CAMPAIGN_QUALITY",
    "DEVICES",
    "DEVICE_CHECKS",
    "ENERGY_PER_TOKEN",
    "ENERGY_SUMMARY",
    "ENGINE_SAMPLES",
    "EQUIVALENCE",
    "FACTORS",
    "FLOAT",
    "INTEGER",
    "INTERFERENCE",
    "INTERVALS",
    "ITERATIONS",
    "KEY",
    "QUALIFICATIONS",
    "REQUESTS",
    "RUNS",
    "SAMPLES",
    "SITTINGS",
    "STRING",
    "TABLES",
    "WARNINGS",
    "WINDOWS",
    "Column",
    "Table",
    "above_zero",
    "conform",
    "data_dictionary",
    "read",
    "write",
]

#: Every table by name.
TABLES: dict[str, Table] = {
    table.name: table
    for topic in (
        *(measured, answers, spread, effects, levers, serving, speed, claims, audits, report),
        *(arrivals, lengths, engines, sizes, phases),
    )
    for table in topic.TABLES
}


def conform(frame: pd.DataFrame, table: Table) -> pd.DataFrame:
    """`frame` with exactly the columns of `table`, in order and of their types.

    Raises
    ------
    AnalysisError
        If a column is missing or unknown, or a value does not fit its type.
    """
    missing, unknown = set(table.names) - set(frame.columns), set(frame.columns) - set(table.names)
    if missing or unknown:
        raise AnalysisError(
            f"table {table.name}",
            f"missing columns {sorted(missing)}, unknown columns {sorted(unknown)}",
            "its columns in inference_energy.tables",
        )
    try:
        return frame[table.names].astype({column.name: column.dtype for column in table.columns}).reset_index(drop=True)
    except (TypeError, ValueError) as error:
        raise AnalysisError(f"table {table.name}", str(error), "its types in inference_energy.tables") from error


def above_zero(frame: pd.DataFrame, quantity: str, where: str) -> None:
    """Refuse values of `quantity` that are not above 0: they are divided by, or their logarithm is taken.

    Parameters
    ----------
    frame : DataFrame
        Rows of a table that names study, setting and cycle; missing values pass.
    where : str
        The table, for the message.

    Raises
    ------
    AnalysisError
        Names the first such row.
    """
    wrong = frame[(frame[quantity] <= 0).fillna(value=False).astype(bool)]
    if len(wrong):
        row = wrong.iloc[0]
        raise AnalysisError(
            where,
            f"{quantity} of {row['study']}/{row['setting']} in cycle {row['cycle']} is {row[quantity]:g}",
            "a value above 0",
            "Look at that record's windows and warnings",
        )


def write(frame: pd.DataFrame, table: Table, folder: Path) -> None:
    """Write ``<folder>/<table>.parquet`` and ``.csv``; same frame, same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    conformed = conform(frame, table)
    conformed.to_parquet(folder / f"{table.name}.parquet", index=False)
    conformed.to_csv(folder / f"{table.name}.csv", index=False)


def read(name: str, folder: Path) -> pd.DataFrame:
    """Read table `name` from `folder`.

    Raises
    ------
    AnalysisError
        If the table is unknown, missing or of other columns.
    """
    path = folder / f"{name}.parquet"
    if name not in TABLES:
        raise AnalysisError(str(path), f"{name!r} is no table", f"one of {', '.join(TABLES)}")
    if not path.exists():
        raise AnalysisError(str(path), "no such table", "", "Make it: snakemake --cores all")
    return conform(pd.read_parquet(path), TABLES[name])


def data_dictionary() -> pd.DataFrame:
    """Every column of every table: table, row, column, type, unit, description."""
    return pd.DataFrame(
        [
            (table.name, table.row, column.name, column.dtype, column.unit, column.description)
            for table in TABLES.values()
            for column in table.columns
        ],
        columns=["table", "row", "column", "type", "unit", "description"],
    )
