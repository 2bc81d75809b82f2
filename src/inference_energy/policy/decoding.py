"""Decoding in words: is sampling as cheap as greedy decoding, and do its settings matter? Verdicts."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.evidence import Evidence, runs_of
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    interval,
    known,
    listed,
    not_measured,
    number,
    percent,
    table,
)

ENERGY, STEP_TIME = "energy_j_per_output_token", "duration_s_per_step"
RATIO = "sampling_over_greedy_ratio"
METHODS = {"multinomial": "multinomial", "top_k": "top-k", "top_p": "top-p"}


def decoding_rows_of(evidence: Evidence, quantity: str = ENERGY) -> pd.DataFrame:
    """Families of `decoding_equivalence` but temperatures, with labels, a method's levels below it."""
    rows = evidence.decoding_equivalence
    rows = rows[(rows["quantity"] == quantity) & rows["family"].isin(["all sampling", "method", "level"])]
    rows = rows.assign(label=pd.Series([_label(row) for _, row in rows.iterrows()], index=rows.index, dtype="string"))
    return rows.sort_values(["decoding", "family", "top_k", "top_p"], na_position="first", key=_place)


def decoding_runs(evidence: Evidence) -> pd.DataFrame:
    """Single runs over greedy decoding, with the label of their level and the name of their method."""
    rows = evidence.decoding_equivalence
    rows = rows[(rows["quantity"] == ENERGY) & (rows["family"] == "run")]
    labels = [_label(row) for _, row in rows.iterrows()]
    return rows.assign(
        label=pd.Series(labels, index=rows.index, dtype="string"), series=rows["decoding"].map(METHODS).astype("string")
    )


def decoding_verdict(evidence: Evidence) -> Finding:
    """Whether sampling takes the energy of greedy decoding, within the margin."""
    rows = decoding_rows_of(evidence)
    if rows.empty:
        return not_measured("sampling beside greedy decoding (study decoding)")
    overall = rows[rows["family"] == "all sampling"].iloc[0]
    margin = f"{overall['margin_fraction'] * 100:g} %"
    methods = rows[rows["family"] == "method"]
    words = {
        "equivalent": f"equivalent within ± {margin}",
        "different": f"different by more than {margin}",
        "undecided": f"undecided at ± {margin}",
    }
    levels = rows[rows["family"] == "level"]
    by_verdict = [f"{n} {verdict}" for verdict, n in levels["verdict"].value_counts().items()]
    runs = decoding_runs(evidence)
    return Finding(
        f"Sampling instead of greedy decoding changes energy per token by {_change(overall)}:"
        f" {words[overall['verdict']]}.",
        bullets([f"{METHODS[row['decoding']]}: {_change(row)}, {row['verdict']}" for _, row in methods.iterrows()])
        + f"\n\nSingle levels of k and p: {listed(by_verdict) if by_verdict else 'none'}. Two one-sided tests"
        f" on {counted(int(overall['n_groups']), 'group')} of model and sitting"
        f" ({counted(int(overall['n_pairs']), 'pair')} of runs, {overall['n_same_sitting']} of them"
        f" within a sitting). Single runs lie between"
        f" {_signed(runs[RATIO].min())} and {_signed(runs[RATIO].max())}. Top-k with one candidate chooses the same"
        " tokens as greedy decoding: what it differs by is what sampling itself costs, and noise.",
    )


def decoding_order(evidence: Evidence) -> Finding:
    """Whether energy rises along the published order of methods, and with candidates, mass and temperature."""
    rows = _trends(evidence)
    if rows.empty:
        return not_measured("sampling settings beside one another (study decoding)")
    order, others = rows[rows["trend"] == "order of methods"], rows[rows["trend"] != "order of methods"]
    first = order.iloc[0]
    confirmed = {
        "rises": "Energy per token rises in the order greedy, multinomial, top-k, top-p",
        "falls": "Energy per token falls in the order greedy, multinomial, top-k, top-p",
        "undecided": "No order of greedy, multinomial, top-k and top-p is seen",
    }[first["verdict"]]
    if not known(first["per_step_ratio"]):
        return Finding(f"The order of methods {first['note']}.")
    lines = [
        f"{row['trend']} ({row['step']}): "
        + (str(row["note"]) if pd.notna(row["note"]) else f"{_step(row)}, p = {number(row['p_value'], 1)}")
        for _, row in others.iterrows()
    ]
    absent = [
        words for name, words in METHODS.items() if name not in set(runs_of(evidence, "decoding")["decoding"].dropna())
    ]
    lacking = f" {listed(absent).capitalize()} is not measured yet." if absent else ""
    return Finding(
        f"{confirmed}: a step changes it by {_step(first)}, p = {number(first['p_value'], 2)}.",
        f"Changes after one step, compared within a sitting:{bullets(lines)}\n\nThe published order has no"
        f" uncertainty.{lacking}",
    )


def decoding_trend_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `decoding_trend` but that on the time of a step."""
    return _trends(evidence)


def decoding_cause(evidence: Evidence) -> Prose:
    """Where differences come from: steps that take longer because the CPU launches more, or more work of the GPU."""
    rows = evidence.decoding_trend
    rows = rows[(rows["trend"] == "step time") & rows["per_step_ratio"].notna()]
    runs = runs_of(evidence, "decoding")
    if rows.empty or runs.empty:
        return Prose(not_measured("sampling settings beside one another (study decoding)").title)
    row = rows.iloc[0]
    busy = runs["gpu_utilisation_fraction"].median()
    families = evidence.decoding_equivalence
    overall = families[(families["family"] == "all sampling") & (families["quantity"] == STEP_TIME)]
    slower = f" Against greedy decoding a step takes {_change(overall.iloc[0])} of time." if len(overall) else ""
    followed = {
        "rises": "the runs that need more energy are those whose steps take longer",
        "falls": "runs with longer steps need less energy",
        "undecided": "energy does not visibly follow the time of a step",
    }[row["verdict"]]
    host = (
        f" The GPU computes {percent(busy)} of the time (median) and waits for the CPU otherwise; sampling adds small"
        " kernels that the CPU has to launch, so what it costs here depends on the host more than on the GPU."
        if known(busy) and busy < 0.9 and row["verdict"] == "rises"
        else ""
    )
    return Prose(
        f"All methods run the same forward passes. Within a sitting {followed}: steps longer by 10 % come with"
        f" {_step(row)} of energy.{slower}{host}"
    )


def decoding_estimates(evidence: Evidence) -> Prose:
    """Every family with its test, a row each."""
    rows = evidence.decoding_equivalence
    single = rows["family"].eq("run") | (
        rows["quantity"].eq(STEP_TIME) & ~rows["family"].isin(["all sampling", "method"])
    )
    rows = rows[~single]
    if rows.empty:
        return Prose(not_measured("sampling beside greedy decoding (study decoding)").title)
    cells = [
        {
            "family": _label(row),
            "quantity": {ENERGY: "energy per token", STEP_TIME: "time of a step"}.get(row["quantity"], row["quantity"]),
            "over greedy": _change(row),
            "p of no equivalence": _p_words(row["p_value"]),
            "settings": row["n_settings"],
            "pairs (same sitting)": f"{row['n_pairs']} ({row['n_same_sitting']})",
            "groups": row["n_groups"],
            "verdict": row["verdict"],
            "remark": "" if pd.isna(row["note"]) else row["note"],
        }
        for _, row in rows.iterrows()
    ]
    return table(pd.DataFrame(cells))


def decoding_temperatures(evidence: Evidence) -> Finding:
    """Whether the temperature of sampling moves energy per token."""
    rows = _trends(evidence)
    rows = rows[rows["trend"] == "temperature"]
    families = evidence.decoding_equivalence
    families = families[(families["family"] == "temperature") & (families["quantity"] == ENERGY)]
    if rows.empty or families.empty:
        return not_measured("several sampling temperatures beside greedy decoding (study decoding)")
    row = rows.iloc[0]
    if pd.notna(row["note"]):
        return Finding(f"The effect of the temperature {row['note']}.")
    verdict = {
        "rises": "Energy per token rises with the temperature",
        "falls": "Energy per token falls with the temperature",
        "undecided": "No effect of the temperature on energy per token is seen",
    }[row["verdict"]]
    lines = [f"{_label(family)}: {_change(family)}, {family['verdict']}" for _, family in families.iterrows()]
    return Finding(f"{verdict}: {_step(row)} for {row['step']}.", f"Over greedy decoding:{bullets(lines)}")


def decoding_trend_estimates(evidence: Evidence) -> Prose:
    """Every trend, a row each."""
    rows = evidence.decoding_trend
    if rows.empty:
        return Prose(not_measured("sampling settings beside one another (study decoding)").title)
    cells = [
        {
            "trend": row["trend"],
            "a step is": row["step"],
            "change": _step(row) if pd.isna(row["note"]) else "–",
            "p": _p_words(row["p_value"]),
            "runs, settings, groups": f"{row['n_runs']}, {row['n_settings']}, {row['n_groups']}",
            "energy": row["verdict"],
            "remark": "" if pd.isna(row["note"]) else row["note"],
        }
        for _, row in rows.iterrows()
    ]
    return table(pd.DataFrame(cells))


def decoding_margin(evidence: Evidence) -> float:
    """What counts as equal, as a fraction; 0 where nothing was compared."""
    margins = evidence.decoding_equivalence["margin_fraction"].dropna()
    return float(margins.iloc[0]) if len(margins) else 0.0


def _trends(evidence: Evidence) -> pd.DataFrame:
    rows = evidence.decoding_trend
    return rows[rows["trend"] != "step time"]


def _label(row: pd.Series) -> str:
    """``top-k 50``, ``temperature 0.8``, ``all sampling``."""
    if row["family"] == "all sampling":
        return "all sampling"
    if row["family"] == "temperature":
        return f"temperature {row['sampling_temperature']:g}"
    method = METHODS[row["decoding"]]
    level = row["top_k"] if pd.notna(row["top_k"]) else row["top_p"]
    return (
        f"{method} {level:g}" if pd.notna(level) else (method if row["decoding"] == "multinomial" else f"{method}, all")
    )


def _place(column: pd.Series) -> pd.Series:
    return column.map({"all sampling": 0, "method": 1, "level": 2}) if column.name == "family" else column


def _p_words(value: float) -> str:
    """A test's p to two digits; never 0 or 1."""
    if not known(value):
        return "–"
    return "below 0.001" if value < 0.001 else "above 0.99" if value > 0.99 else number(value, 2)


def _signed(ratio: float) -> str:
    """``+2.3 %`` from a ratio."""
    return f"{'+' if ratio >= 1 else '−'}{percent(abs(ratio - 1))}"


def _change(row: pd.Series) -> str:
    """``+2.3 % (90 % interval −1.9 % to +6.7 %)``."""
    low, high = row[f"{RATIO}_low"], row[f"{RATIO}_high"]
    if not (known(low) and known(high)):
        return f"{_signed(row[RATIO])} (no interval)"
    return f"{_signed(row[RATIO])} ({_level(row['confidence'])} interval {_signed(low)} to {_signed(high)})"


def _step(row: pd.Series) -> str:
    ends = interval(
        (row["per_step_ratio_low"] - 1) * 100, (row["per_step_ratio_high"] - 1) * 100, "%", row["confidence"]
    ).replace("-", "−")
    return f"{_signed(row['per_step_ratio'])} ({ends})"


def _level(confidence: float) -> str:
    return percent(confidence)
