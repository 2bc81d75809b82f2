"""What a table and a column are."""

from __future__ import annotations

from dataclasses import dataclass

from inference_energy.units import unit_of

STRING, INTEGER, FLOAT, BOOLEAN = "string", "Int64", "float64", "boolean"


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    dtype: str
    description: str

    @property
    def unit(self) -> str:
        """Symbol of the unit; empty for text, counts and ratios."""
        return unit_of(self.name) if self.dtype in (INTEGER, FLOAT) else ""


@dataclass(frozen=True)
class Table:
    """A table: what a row is, and its columns in order."""

    name: str
    row: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """Names of the columns in order."""
        return [column.name for column in self.columns]


def text(name: str, description: str) -> Column:
    """A column of text."""
    return Column(name, STRING, description)


def integer(name: str, description: str) -> Column:
    """A column of whole numbers."""
    return Column(name, INTEGER, description)


def number(name: str, description: str) -> Column:
    """A column of numbers."""
    return Column(name, FLOAT, description)


def boolean(name: str, description: str) -> Column:
    """A column of truth values."""
    return Column(name, BOOLEAN, description)


def with_interval(name: str, description: str) -> tuple[Column, Column, Column]:
    """An estimate and both ends of its interval."""
    return (
        number(name, description),
        number(f"{name}_low", f"lower end of the interval of {name}"),
        number(f"{name}_high", f"upper end of the interval of {name}"),
    )
