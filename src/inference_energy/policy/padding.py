"""Static batches of prompts of mixed lengths in words: what padding costs, and whether there is a best batch."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.phases import (
    BY_LENGTH,
    COMPUTED,
    COMPUTED_INPUT,
    COMPUTED_OUTPUT,
    DECODE,
    DRAWN,
    EFFECTIVE_INPUT,
    GENERATION,
    INPUT_PADDING,
    OUTPUT_PADDING,
    PER_OUTPUT,
    PREFILL,
)
from inference_energy.policy.estimates import cell, rows_with, without_interval
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    difference,
    interval,
    known,
    level,
    listed,
    not_measured,
    number,
    percent,
    table,
)

_STUDY = "prompts of mixed lengths in static batches (study padding)"
_PHASES = {PREFILL: "prefill", DECODE: "decoding", GENERATION: "both phases"}
_QUANTITIES = {
    EFFECTIVE_INPUT: "per token of the prompts",
    COMPUTED_INPUT: "per input token computed",
    PER_OUTPUT: "per output token asked for",
    COMPUTED_OUTPUT: "per output token computed",
    COMPUTED: "per token computed",
}


def runs_in(evidence: Evidence, phase: str) -> pd.DataFrame:
    """Runs of the settings that tell of a phase; of decoding those of prefill are a part."""
    told = evidence.padding_runs[evidence.padding_runs["phase"] == phase]
    return evidence.ok[evidence.ok["setting"].isin(told["setting"])]


def prompts(evidence: Evidence) -> Finding:
    """What padding does to prefill: energy per token of the prompts and per token computed."""
    levels = rows_with(evidence.padding, phase=PREFILL, batch_order=DRAWN)
    ratios = levels[levels["factor"] == "batch_size"]
    if ratios.empty:
        return not_measured(f"the prefill of {_STUDY}")
    confidence = evidence.assumptions.confidence
    largest = int(ratios["batch_size"].max())
    effective, computed = (_one(ratios, largest, name) for name in (EFFECTIVE_INPUT, COMPUTED_INPUT))
    shares = levels[levels["factor"].isna() & (levels["quantity"] == INPUT_PADDING)].sort_values("batch_size")
    return Finding(
        f"Reading a token of the prompts at batch {largest} takes {times(effective, confidence)} the energy it takes at"
        f" batch {effective['baseline']}, a token computed, padding included, {times(computed, confidence)}.",
        f"A static batch pads its prompts to the longest of them. Of the input tokens computed {_wasted(shares)}."
        + without_interval(ratios),
    )


def best_batch(evidence: Evidence) -> Finding:
    """Whether an inner batch size is best, for each phase."""
    shapes = evidence.padding_shape[evidence.padding_shape["quantity"] == EFFECTIVE_INPUT]
    if shapes.empty:
        return not_measured(f"several batch sizes of {_STUDY}")
    found = {str(row["phase"]): row for _, row in shapes.iterrows()}
    confidence = evidence.assumptions.confidence
    told = {phase: words for phase, words in _PHASES.items() if phase in found and pd.notna(found[phase]["shape"])}
    said_of = [f"in {words} it {_shape(found[phase], confidence)}" for phase, words in told.items()]
    lacking = [
        f"{words}: no course can be told, because {found[phase]['note']}"
        for phase, words in _PHASES.items()
        if phase in found and phase not in told
    ]
    rises = evidence.padding[
        (evidence.padding["factor"] == "lowest") & (evidence.padding["quantity"] == EFFECTIVE_INPUT)
    ].sort_values(["phase", "batch_size"])
    lines = [
        f"{_PHASES[str(row['phase'])]}: batch {row['batch_size']} over batch {row['baseline']}, the lowest of the"
        f" smaller ones: {times(row, confidence)}"
        for _, row in rises.iterrows()
        if int(row["batch_size"]) in (16, int(rises["batch_size"].max()))
    ]
    return Finding(
        f"Energy per token of the prompts: {'; '.join(said_of)}."
        if said_of
        else "Whether there is a best batch size cannot be told yet: too few of them were measured, or too seldom.",
        "A U is said only where a parabola on logarithmic axes falls at the smallest batch and rises at the largest,"
        " and, without any law, an inner batch lies below both ends. The lowest batch was chosen from the runs that are"
        f" compared, so that a rise above it is rather too large.{bullets([*lacking, *lines])}",
    )


def answers(evidence: Evidence) -> Finding:
    """Energy per output token asked for and per one computed, both phases together."""
    rows = rows_with(evidence.padding, phase=GENERATION, batch_order=DRAWN)
    ratios = rows[rows["factor"] == "batch_size"]
    if ratios.empty:
        return not_measured(f"answers to {_STUDY}")
    confidence = evidence.assumptions.confidence
    largest = int(ratios["batch_size"].max())
    asked, computed = (_one(ratios, largest, name) for name in (PER_OUTPUT, COMPUTED_OUTPUT))
    waste = rows[rows["factor"].isna() & (rows["quantity"] == OUTPUT_PADDING)].sort_values("batch_size")
    return Finding(
        f"At batch {largest} an output token asked for takes {times(asked, confidence)} of its energy at batch"
        f" {asked['baseline']}, an output token computed {times(computed, confidence)}.",
        f"A static batch goes on until its longest answer ends. Of the output tokens computed {_wasted(waste)}."
        + without_interval(ratios),
    )


def sorting(evidence: Evidence) -> Finding:
    """What sorting prompts by length saves."""
    rows = evidence.padding[evidence.padding["factor"] == "batch_order"]
    rows = rows[(rows["quantity"] == EFFECTIVE_INPUT) & (rows["batch_order"] == BY_LENGTH)]
    rows = rows[rows["estimate"].notna()].sort_values(["phase", "batch_size"])
    if rows.empty:
        return not_measured(f"prompts sorted by length beside the same in the order drawn, of {_STUDY}")
    parts = []
    for phase, words in _PHASES.items():
        of_phase = rows[rows["phase"] == phase]
        each = [f"{difference(row['estimate'])} at batch {row['batch_size']}" for _, row in of_phase.iterrows()]
        if each:
            parts.append(f"in {words} {listed(each)}")
    lines = [
        f"{_PHASES[str(row['phase'])]}, batch {row['batch_size']}: {times(row, evidence.assumptions.confidence)}"
        for _, row in rows.iterrows()
    ]
    return Finding(
        f"Batches of prompts sorted by length take, against the order drawn, {'; '.join(parts)}.",
        "Prompts are sorted by their own length: how long an answer becomes is not known beforehand. Energy sorted over"
        f" drawn:{bullets(lines)}{without_interval(rows)}",
    )


def estimates_table(evidence: Evidence) -> Prose:
    """Every level and its ratios to its baselines, a row a phase, quantity, order and batch size."""
    rows = evidence.padding[evidence.padding["quantity"].isin(list(_QUANTITIES))]
    if rows.empty:
        return Prose(not_measured(_STUDY).title)
    lines = []
    keys = ["phase", "quantity", "batch_order", "batch_size"]
    for (phase, quantity, order, batch), part in rows.groupby(keys, sort=True):
        line = {
            "phase": _PHASES[str(phase)],
            "energy": _QUANTITIES[str(quantity)],
            "order": str(order).replace("_", " "),
        }
        line |= {"batch": str(batch), "estimate": cell(part[part["factor"].isna()].iloc[0], "J")}
        for head, factor in (("over smallest", "batch_size"), ("over lowest", "lowest"), ("over drawn", "batch_order")):
            found = rows_with(part, factor=factor)
            line[head] = cell(found.iloc[0], "×") if len(found) else "–"
        lines.append(line)
    return table(pd.DataFrame(lines))


def shapes_table(evidence: Evidence) -> Prose:
    """Every curve's shape with both tests."""
    rows = evidence.padding_shape
    if rows.empty:
        return Prose(not_measured(_STUDY).title)
    lines = [
        {
            "phase": _PHASES[str(row["phase"])],
            "energy": _QUANTITIES[str(row["quantity"])],
            "runs": row["n_runs"],
            "shape": row["shape"] if pd.notna(row["shape"]) else row["note"],
            "lowest measured": f"batch {row['n_prompts_lowest']}",
            "a doubling leaves, at the smallest": _ends(row, "at_smallest_per_doubling_ratio"),
            "at the largest": _ends(row, "at_largest_per_doubling_ratio"),
            "p of the parabola": _p(row["parabola_p_value"]),
            "p without a law": _p(row["inner_p_value"]),
        }
        for _, row in rows.iterrows()
    ]
    return table(pd.DataFrame(lines))


def times(row: pd.Series, confidence: float) -> str:
    """``0.61× (95 % interval 0.53 to 0.71×)``: a ratio of a table of estimates, or why there is none."""
    if not known(row["estimate"]):
        return f"cannot be estimated, because {row['note']}"
    digits = 3 if 0.8 < row["estimate"] < 1.25 else 2  # next to 1 the third digit matters
    ends = [row["estimate_low"], row["estimate_high"]]
    if not all(known(end) for end in ends):
        return f"{number(row['estimate'], digits)}×"
    span_of = f"{number(ends[0], digits)} to {number(ends[1], digits)}"
    return f"{number(row['estimate'], digits)}× ({level(confidence)} interval {span_of}×)"


def _shape(row: pd.Series, confidence: float) -> str:
    """One curve's shape as the end of a sentence that began with ``energy in prefill``."""
    first, last = row["n_prompts_smallest"], row["n_prompts_largest"]
    if row["shape"] == "U":
        name = "n_prompts_at_minimum"
        ends = interval(row[f"{name}_low"], row[f"{name}_high"], "", confidence).strip()
        return f"is lowest at batch {number(row[name], 2)} ({ends}) and rises on either side"
    words = {
        "falls": f"falls from batch {first} to {last}",
        "levels off": f"falls from batch {first} and levels off, without a rise that could be told",
        "rises": f"rises from batch {first} to {last}",
        "inverted U": "is highest in between",
        "undecided": f"shows no clear course from batch {first} to {last}",
    }
    return words[str(row["shape"])]


def _wasted(ratios: pd.DataFrame) -> str:
    """``20 % are of no use at batch 2, 33 % at batch 4``, from computed over wanted."""
    shares = [
        f"{percent(1 - 1 / row['estimate'])} at batch {row['batch_size']}"
        for _, row in ratios.iterrows()
        if row["estimate"] > 1
    ]
    return f"nobody asked for {listed(shares)}"


def _one(rows: pd.DataFrame, batch_size: int, quantity: str) -> pd.Series:
    return rows[(rows["batch_size"] == batch_size) & (rows["quantity"] == quantity)].iloc[0]


def _ends(row: pd.Series, name: str) -> str:
    if not known(row[name]):
        return "–"
    return f"{percent(row[name])} ({percent(row[f'{name}_low'])} to {percent(row[f'{name}_high'])})"


def _p(value: float) -> str:
    if not known(value):
        return "–"
    return number(value, 1) if value >= 0.0001 else "below 0.0001"
