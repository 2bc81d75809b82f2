"""Numbers in words: significant digits, SI prefixes, intervals, and sentences that are findings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_WITH_PREFIX = frozenset({"J", "W", "s"})


class Prose(str):
    """Markdown text that a notebook shows as such."""

    def _repr_markdown_(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Finding:
    """What was found: one sentence for a figure's title, and what else a reader needs."""

    title: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.title} {self.detail}".strip()

    def _repr_markdown_(self) -> str:
        return f"**{self.title}** {self.detail}".strip()

    @property
    def answer(self) -> Prose:
        """What stands below a figure that already says the title."""
        return Prose(self.detail.strip() or self.title)


def not_measured(what: str) -> Finding:
    """The honest answer where a campaign holds no data on a question."""
    return Finding(f"Not measured in this campaign: {what}.")


def known(value: object) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float | np.number) and math.isfinite(float(value))


def number(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and a thin separation of thousands: ``52,000``."""
    if not known(value):
        return "unknown"
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))  # 9.996 rounds up to the next decade
    return f"{rounded:,.{max(decimals, 0)}f}"


def quantity(value: float, unit: str, digits: int = 3) -> str:
    """`value` with its unit, and an SI prefix where the unit takes one: ``16.2 mJ``."""
    if not known(value):
        return "unknown"
    scale, prefix = _prefix(value) if unit in _WITH_PREFIX else (1.0, "")
    return f"{number(value / scale, digits)} {prefix}{unit}"


def interval(low: float, high: float, unit: str, confidence: float, like: float | None = None) -> str:
    """``95 % interval 16.0 to 16.4 mJ``, or that there is none."""
    if not (known(low) and known(high)):
        return "no interval"
    return f"{level(confidence)} interval {span(low, high, unit, like)}"


def span(low: float, high: float, unit: str, like: float | None = None) -> str:
    """``16.0 to 16.4 mJ``: two values with one prefix, that of `like` if given; far apart, each its own."""
    if unit in _WITH_PREFIX and like is None and low > 0 and high / low > 20:
        return f"{quantity(low, unit)} to {quantity(high, unit)}"
    scale, prefix = _prefix(high if like is None else like) if unit in _WITH_PREFIX else (1.0, "")
    return f"{number(low / scale)} to {number(high / scale)}{_joined(prefix + unit)}"


def level(confidence: float) -> str:
    """``95 %``: the level of an interval."""
    return f"{number(confidence * 100)} %".replace(".0 ", " ")


def estimate(row: pd.Series, name: str, unit: str, confidence: float) -> str:
    """The estimate `name` of `row` with its interval, if any: ``16.2 mJ (95 % interval 16.0 to 16.4 mJ)``."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    value = fold(row[name], low, high) if unit == "×" else quantity(row[name], unit)
    if not (known(low) and known(high)):
        return value
    return f"{value} ({interval(low, high, unit, confidence, row[name])})"


def fold(value: float, low: float = float("nan"), high: float = float("nan")) -> str:
    """``34×``, ``2.3×``; a third digit from 100 on, and where two lie outside the interval from `low` to `high`."""
    if not known(value):
        return "unknown"
    two = number(value, 2)
    rounded = float(two.replace(",", ""))
    outside = rounded < low or rounded > high
    return f"{number(value) if outside or value >= 100 else two}×"


def percent(fraction: float, digits: int = 2) -> str:
    """``2.1 %`` from a fraction; whole percent from 10 to 99, two decimals next to 100."""
    if not known(fraction):
        return "unknown"
    size = abs(fraction)
    if 0.99 < size < 1:
        return f"{fraction * 100:.2f} %"
    if size >= 0.1:
        return f"{fraction * 100:.0f} %"
    if size < 0.0001:
        return "0 %" if size == 0 else "less than 0.01 %"
    return f"{number(fraction * 100, digits if size >= 0.001 else 1)} %"


def plain(value: float) -> str:
    """A value from a file as it stands there: ``0.3943``, ``396,000``."""
    return f"{value:,.10g}"


def duration(seconds: float) -> str:
    """``1 h 52 min``, ``4 min 10 s`` or ``12.3 s``."""
    if not known(seconds):
        return "unknown"
    if seconds < 60:
        return quantity(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def counted(n: int, word: str) -> str:
    """``1 run``, ``56 runs``."""
    plural = word[:-1] + "ies" if word.endswith("y") else word + "s"
    return f"{n:,} {word if n == 1 else plural}"


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def change(ratio: float, more: str = "rises", less: str = "falls") -> str:
    """Direction and size of a change, from the data: ``falls 28×``, ``stays the same (within 2 %)``."""
    if not known(ratio) or ratio <= 0:
        return "changes by an unknown factor"
    if abs(ratio - 1) < 0.02:
        return "stays the same (within 2 %)"
    return f"{more} {fold(ratio)}" if ratio > 1 else f"{less} {fold(1 / ratio)}"


def difference(ratio: float) -> str:
    """``3.1 % more``, ``2 % less``, ``2.5×``."""
    if ratio >= 2:
        return fold(ratio)
    return f"{percent(abs(ratio - 1))} {'more' if ratio >= 1 else 'less'}"


def setting_words(row: pd.Series) -> str:
    """``llama-3.2-1b float16, batch 8``: a setting by its first factors."""
    return f"{row['model']} {row['precision']}, batch {row['batch_size']}"


def bullets(points: Sequence[str]) -> str:
    """A Markdown list, set off from what precedes it."""
    return "\n\n" + "\n".join(f"- {point}" for point in points)


def row_with(frame: pd.DataFrame, name: str, largest: bool = True) -> pd.Series:
    """The row of `frame` with the largest (or smallest) value of `name`; missing values stand aside."""
    values = frame[name].to_numpy(float, na_value=np.nan)
    return frame.iloc[int(np.nanargmax(values) if largest else np.nanargmin(values))]


def furthest_from_one(frame: pd.DataFrame, name: str) -> pd.Series:
    """The row of `frame` whose ratio `name` is furthest from one."""
    return frame.iloc[int(np.nanargmax(np.abs(frame[name].to_numpy(float, na_value=np.nan) - 1)))]


def table(frame: pd.DataFrame) -> Prose:
    """`frame` as a Markdown table, values as they are."""
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.astype(str).to_numpy().tolist()]
    return Prose("\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows))


def _prefix(value: float) -> tuple[float, str]:
    size = abs(value)
    for scale, prefix in _PREFIXES:
        if size >= scale * 0.9995:
            return scale, prefix
    return (1.0, "") if size == 0 else _PREFIXES[-1]


def _joined(unit: str) -> str:
    return unit if unit in ("×", "") else f" {unit}"
