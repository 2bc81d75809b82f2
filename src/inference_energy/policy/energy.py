"""What does a token cost? Sentences on the distribution, the batch size, throughput and the variance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    change,
    counted,
    estimate,
    fold,
    known,
    level,
    listed,
    not_measured,
    percent,
    quantity,
    row_with,
    span,
    table,
)

ENERGY = "energy_j_per_output_token"


def summary(evidence: Evidence) -> pd.DataFrame:
    """Rows of `energy_summary` for the study with most settings, one per model (and 'all' for several)."""
    rows = evidence.energy_summary
    rows = rows[rows["accounting"] == "taking_part_gross"]
    if rows.empty:
        return rows
    study = "batching" if "batching" in set(rows["study"]) else row_with(rows, "n_settings")["study"]
    chosen = rows[rows["study"] == study]
    named = chosen[chosen["model"] != "all"]
    return pd.concat([named, chosen[chosen["model"] == "all"]]) if len(named) > 1 else (named if len(named) else chosen)


def distribution(evidence: Evidence) -> Finding:
    """How far settings lie apart, per model."""
    rows = summary(evidence)
    if rows.empty:
        return not_measured("energy per output token over settings")
    parts = [f"{fold(row['max_over_min_fold'])} for {_whose(row)}" for _, row in rows.iterrows()]
    confidence = evidence.assumptions.confidence
    details = [
        f"{_whose(row)} ({row['n_settings']} settings): largest over smallest"
        f" {estimate(row, 'max_over_min_fold', '×', confidence)}, 95th over 5th percentile"
        f" {estimate(row, 'p95_over_p5_fold', '×', confidence)}, median"
        f" {estimate(row, 'energy_p50_j_per_output_token', 'J', confidence)}"
        for _, row in rows.iterrows()
    ]
    return Finding(
        f"Between the settings measured, the energy of an output token differs {listed(parts)}.", bullets(details)
    )


def _whose(row: pd.Series) -> str:
    return "all models together" if row["model"] == "all" else str(row["model"])


def summary_table(evidence: Evidence) -> Prose:
    """Mean, CV, percentiles and both fold ranges with intervals, per model."""
    rows = summary(evidence)
    if rows.empty:
        return Prose(not_measured("energy per output token over settings").title)
    confidence = evidence.assumptions.confidence
    columns = {
        "mean": ("energy_mean_j_per_output_token", "J"),
        "CV": ("cv", ""),
        "5th percentile": ("energy_p05_j_per_output_token", "J"),
        "median": ("energy_p50_j_per_output_token", "J"),
        "95th percentile": ("energy_p95_j_per_output_token", "J"),
        "max/min": ("max_over_min_fold", "×"),
        "95/5": ("p95_over_p5_fold", "×"),
    }
    cells = [
        {
            "model": _whose(row),
            "settings": row["n_settings"],
            **{head: _cell(row, name, unit) for head, (name, unit) in columns.items()},
        }
        for _, row in rows.iterrows()
    ]
    return Prose(
        f"{table(pd.DataFrame(cells))}\n\nIn brackets: {level(confidence)} bootstrap intervals that resample the"
        " settings measured; they say nothing of settings that are not, nor of other cycles."
    )


def _cell(row: pd.Series, name: str, unit: str) -> str:
    value = quantity(row[name], unit).strip() if unit != "×" else fold(row[name])
    if not known(row[f"{name}_low"]):
        return value
    return f"{value} ({span(row[f'{name}_low'], row[f'{name}_high'], unit, row[name])})"


def _ends(evidence: Evidence) -> list[tuple[str, pd.Series, pd.Series]]:
    """Per model and precision: its name, and its rows at the smallest and at the largest batch size."""
    found = []
    curve = evidence.batch_curve.dropna(subset=[ENERGY])
    for (model, precision), rows in curve.groupby(["model", "precision"]):
        ordered = rows.sort_values("batch_size")
        if len(ordered) > 1:
            found.append((f"{model} {precision}", ordered.iloc[0], ordered.iloc[-1]))
    return found


def batch_size(evidence: Evidence) -> Finding:
    """Energy per output token against batch size."""
    ends = _ends(evidence)
    if not ends:
        return not_measured("more than one batch size of a model and precision")
    confidence = evidence.assumptions.confidence
    details = [
        f"{name}: {estimate(first, ENERGY, 'J', confidence)} at batch {first['batch_size']},"
        f" {estimate(last, ENERGY, 'J', confidence)} at batch {last['batch_size']}"
        for name, first, last in ends
    ]
    return Finding(_said(ends, "the energy of an output token", ENERGY), f"{once(evidence)}{bullets(details)}")


def throughput(evidence: Evidence) -> Finding:
    """Throughput against batch size."""
    name = "throughput_tokens_per_s"
    ends = _ends(evidence)
    if not ends:
        return not_measured("more than one batch size of a model and precision")
    best = row_with(evidence.batch_curve, name)
    return Finding(
        _said(ends, "throughput", name),
        f"The fastest setting measured is {best['model']} {best['precision']} at batch {best['batch_size']}:"
        f" {estimate(best, name, 'tokens/s', evidence.assumptions.confidence)}. {once(evidence)}".strip(),
    )


def once(evidence: Evidence) -> str:
    """That settings measured in one cycle only have no interval; nothing where there are none."""
    curve = evidence.batch_curve.dropna(subset=[ENERGY])
    n = int(curve[f"{ENERGY}_low"].isna().sum())
    if not n:
        return ""
    which = "Every setting was" if n == len(curve) else f"{n} of {counted(len(curve), 'setting')} were"
    return f"{which} measured in one cycle only: no interval, and a repetition may differ."


def _said(ends: list[tuple[str, pd.Series, pd.Series]], what: str, name: str) -> str:
    """How `name` changes with the batch size; curves over different ranges are not compared with one another."""
    smallest = min(first["batch_size"] for _, first, _ in ends)
    largest = max(last["batch_size"] for _, _, last in ends)
    ratios = {each: last[name] / first[name] for each, first, last in ends}
    whole = {
        each: ratios[each]
        for each, first, last in ends
        if (first["batch_size"], last["batch_size"]) == (smallest, largest)
    }
    if whole:
        others = f"; {len(ends) - len(whole)} other curves span less" if len(whole) < len(ends) else ""
        everywhere = _changes(whole).replace("in every", "in all these of") if others else _changes(whole)
        return f"From batch {smallest} to {largest} {what} {everywhere}{others}."
    each, first, last = max(ends, key=lambda end: end[2]["batch_size"] / end[1]["batch_size"])
    return (
        f"Over the widest range measured of one curve ({each}, batch {first['batch_size']} to {last['batch_size']})"
        f" {what} {change(ratios[each])}."
    )


def _changes(ratios: dict[str, float]) -> str:
    """Direction and range of changes: ``falls 24× (b) to 34× (a)``; each alone if directions differ."""
    least, most = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    if change(ratios[least]) == change(ratios[most]):
        return change(ratios[least]) + (f" for {least}" if len(ratios) == 1 else " in every model and precision")
    if ratios[most] < 0.98:
        return f"falls {fold(1 / ratios[most])} ({most}) to {fold(1 / ratios[least])} ({least})"
    if ratios[least] > 1.02:
        return f"rises {fold(ratios[least])} ({least}) to {fold(ratios[most])} ({most})"
    return f"{change(ratios[least])} for {least} and {change(ratios[most])} for {most}"


def energy_against_throughput(evidence: Evidence) -> Finding:
    """Whether the faster of two settings also needs less energy."""
    name = "throughput_tokens_per_s"
    pairs = [_faster_is_frugal(rows, name) for _, rows in evidence.batch_curve.dropna(subset=[ENERGY]).groupby("model")]
    compared = np.concatenate(pairs) if pairs else np.array([])
    if not len(compared):
        return not_measured("two settings of one model")
    return Finding(
        f"Of any two settings of one model, the faster one also used less energy per output token in"
        f" {percent(float(compared.mean()))} of {len(compared):,} pairs.",
        "Speed and frugality need not go together: where points rise to the right, a faster setting costs"
        " more energy per token.",
    )


def _faster_is_frugal(rows: pd.DataFrame, name: str) -> np.ndarray:
    speed, energy = rows[name].to_numpy(float), rows[ENERGY].to_numpy(float)
    first, second = np.triu_indices(len(rows), k=1)
    distinct = speed[first] != speed[second]
    opposite: np.ndarray = ((speed[first] - speed[second]) * (energy[first] - energy[second])) < 0
    compared: np.ndarray = opposite[distinct]
    return compared


def variance(evidence: Evidence) -> Finding:
    """How much of the spread lies between settings, between cycles and between windows."""
    rows = variance_rows(evidence)
    if rows.empty:
        return not_measured("the split of the variance")
    by = {str(row["component"]): row for _, row in rows.iterrows()}
    if not all(known(row["variance_fraction"]) for row in by.values()):
        n = {name: int(row["n_levels"]) for name, row in by.items()}
        return Finding(
            "Not measured in this campaign yet: how much of the spread lies between settings, cycles and windows.",
            f"That takes several settings, and some of them in several cycles; here are {n.get('cycle', 0)} runs of"
            f" {counted(n.get('setting', 0), 'setting')}.",
        )
    parts = {
        "setting": "lies between settings",
        "cycle": "between cycles of one setting",
        "window": "between windows of one run",
    }
    shares = [f"{percent(by[key]['variance_fraction'])} {words}" for key, words in parts.items() if key in by]
    confidence = evidence.assumptions.confidence
    sizes = [
        f"{words.removeprefix('lies ')}: {percent(by[key]['cv'])} ({_percent_interval(by[key], confidence)})"
        for key, words in parts.items()
        if key in by
    ]
    return Finding(
        f"Of the variance of energy per token (its logarithm) {listed(shares)}.",
        f"As coefficients of variation: {bullets(sizes)}",
    )


def variance_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `variability` of the study on batch size, or of the first study there is."""
    rows = evidence.variability
    if rows.empty:
        return rows
    study = "batching" if "batching" in set(rows["study"]) else rows.iloc[0]["study"]
    return rows[rows["study"] == study]


def _percent_interval(row: pd.Series, confidence: float) -> str:
    if not known(row["cv_low"]):
        return "no interval"
    return f"{level(confidence)} interval {percent(row['cv_low'])} to {percent(row['cv_high'])}"
