"""The words for quantities: which suffix stands for which unit, and how an axis says it.

A numeric name reads *quantity first, unit last*: ``energy_j``, ``energy_j_per_output_token``,
``throughput_tokens_per_s``. Counts start with ``n_``; shares end in ``_fraction`` or are one of a
few well-known ratios. A test holds every record field, table column and numeric dataclass field
to :func:`unit_of`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """A unit as a suffix of names and as a symbol on axes."""

    suffix: str
    symbol: str


UNITS: dict[str, Unit] = {
    unit.suffix: unit
    for unit in (
        Unit("j", "J"),
        Unit("kwh", "kWh"),
        Unit("w", "W"),
        Unit("s", "s"),
        Unit("mhz", "MHz"),
        Unit("c", "°C"),
        Unit("bytes", "bytes"),
        Unit("bytes_per_s", "bytes/s"),
        Unit("flop", "FLOP"),
        Unit("flop_per_s", "FLOP/s"),
        Unit("tokens_per_s", "tokens/s"),
        Unit("tokens_per_j", "tokens/J"),
        Unit("runs_per_h", "runs/h"),
        Unit("requests_per_s", "requests/s"),
        Unit("g_per_kwh", "g CO₂e/kWh"),
        Unit("g", "g CO₂e"),
        Unit("eur_per_kwh", "€/kWh"),
        Unit("eur", "€"),
        Unit("fold", "×"),
        Unit("ratio", "ratio"),
        Unit("fraction", "fraction"),
        Unit("tokens", "tokens"),
        Unit("year", "year"),
    )
}

#: Suffixes that say "of what": ``energy_j_per_output_token`` is joules per output token.
PER: dict[str, str] = {
    "per_output_token": "output token",
    "per_input_token": "input token",
    "per_computed_token": "computed token",
    "per_effective_token": "effective token",
    "per_effective_input_token": "effective input token",
    "per_computed_input_token": "computed input token",
    "per_computed_output_token": "computed output token",
    "per_step": "decoding step",
    "per_prompt": "prompt",
    "per_request": "request",
    "per_window": "window",
    "per_run": "run",
    "per_million_output_tokens": "million output tokens",
}

#: Whole names that are dimensionless by their definition.
RATIOS: dict[str, str] = {
    "cv": "coefficient of variation",
    "mfu": "model FLOP utilisation",
    "mbu": "model bandwidth utilisation",
    "p_value": "p-value",
    "top_p": "top-p",
    "sampling_temperature": "sampling temperature",
    "pue": "power usage effectiveness",
    "confidence": "confidence level",
    "intraclass_correlation": "intraclass correlation",
    "aicc": "corrected Akaike information criterion",
}

#: Names that number, place or identify rather than measure.
ORDINALS: frozenset[str] = frozenset(
    {
        "cycle",
        "order",
        "window",
        "index",
        "seed",
        "schema_version",
        "batch_size",
        "top_k",
        "pid",
        "burst_size",
        "baseline_batch_size",
        "process_position",
        "request",
        "value",
        "estimate",
        "low",
        "high",
    }
)


#: Levels of factors in words, where their short names would puzzle a reader.
LEVELS: dict[str, str] = {
    "sdpa": "default attention",
    "sdpa_no_cudnn": "attention without cuDNN",
    "eager": "eager attention",
}


def level_words(level: str) -> str:
    """A level as a reader should see it."""
    return LEVELS.get(level, level)


def unit_of(name: str) -> str:
    """The symbol of the unit that `name` carries.

    Parameters
    ----------
    name : str
        A field or column name, such as ``"energy_j_per_output_token"``.

    Returns
    -------
    str
        Such as ``"J"``; ``""`` for counts, ordinals and dimensionless ratios.

    Raises
    ------
    KeyError
        If the name carries no unit that this module knows.
    """
    if name.startswith("n_") or name in ORDINALS or name in RATIOS:
        return ""
    for marker in ("_low", "_high", "_median", "_sd"):  # ends of an interval carry the estimate's unit
        if name.endswith(marker):
            return unit_of(name.removesuffix(marker))
    stem, of_what = _split_per(name)
    if of_what is None and any(name.endswith("_" + ratio) for ratio in RATIOS):
        return ""
    for suffix in sorted(UNITS, key=len, reverse=True):
        if stem == suffix or stem.endswith("_" + suffix):
            return UNITS[suffix].symbol if suffix not in ("fraction", "ratio") else ""
    raise KeyError(f"{name} carries no known unit; known suffixes: {', '.join(sorted(UNITS))}")


def axis_label(name: str) -> str:
    """An axis label built from a column name: ``Energy per output token (J)``."""
    if name in RATIOS:
        return RATIOS[name][0].upper() + RATIOS[name][1:]
    stem, of_what = _split_per(name)
    symbol = unit_of(name)
    if stem.startswith("n_"):
        quantity = "Number of " + stem[2:].replace("_", " ")
    else:
        quantity = stem
        for suffix in sorted(UNITS, key=len, reverse=True):
            if stem.endswith("_" + suffix):
                quantity = stem.removesuffix("_" + suffix)
                break
        quantity = quantity.replace("_", " ")
    label = quantity[0].upper() + quantity[1:]
    if of_what:
        label += f" per {of_what}"
    return f"{label} ({symbol})" if symbol else label


def _split_per(name: str) -> tuple[str, str | None]:
    for suffix in sorted(PER, key=len, reverse=True):
        if name.endswith("_" + suffix):
            return name.removesuffix("_" + suffix), PER[suffix]
    return name, None


def joules_from_kwh(energy_kwh: float) -> float:
    """Joules in `energy_kwh` kilowatt-hours (1 kWh = 3.6 MJ exactly)."""
    return energy_kwh * 3.6e6


def kwh_from_joules(energy_j: float) -> float:
    """Kilowatt-hours in `energy_j` joules."""
    return energy_j / 3.6e6
