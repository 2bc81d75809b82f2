"""Whether energies can be true: measured and published ones beside the least that the work can take, in words."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.audit import Published
from inference_energy.policy.estimates import rows_with
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    bullets,
    counted,
    fold,
    not_measured,
    number,
    percent,
    quantity,
    row_with,
)

OVER_FLOOR, OVER_ARITHMETIC = "energy_over_floor_ratio", "energy_over_arithmetic_ratio"
_NOT_AUDITED = (
    "The published runs were not audited here: their table is no part of this project, and"
    " `resources/audit/delavande.yaml` says what it must hold."
)


def floor_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `energy_floor` with a verdict, and ``series``: the engine, or requests that arrive."""
    rows = evidence.energy_floor[evidence.energy_floor["verdict"].notna()]
    served = rows["arrival"].fillna("none").ne("none")
    words = rows["engine"].map({"transformers": "transformers", "vllm": "vLLM"}).fillna(rows["engine"])
    return rows.assign(series=words.mask(served, "arriving requests").astype("string"))


def floor(evidence: Evidence) -> Finding:
    """Whether a run lies below what physics or good sense allow."""
    rows = floor_rows(evidence)
    without = evidence.energy_floor[evidence.energy_floor["verdict"].isna()]
    if rows.empty:
        reasons = "; ".join(sorted(set(without["note"].dropna())))
        return Finding(f"No run can be held against a floor: {reasons}.") if reasons else not_measured("serving runs")
    impossible, implausible = (rows_with(rows, verdict=verdict) for verdict in ("impossible", "not plausible"))
    nearest, hardest = (row_with(rows, name, largest=False) for name in (OVER_FLOOR, OVER_ARITHMETIC))
    below = pd.concat([impossible, implausible])
    title = (
        f"No serving run of {len(rows):,} takes less energy than its work must."
        if below.empty
        else f"{len(impossible)} of {counted(len(rows), 'serving run')} take less energy than physics allows, and"
        f" {len(implausible)} less than is plausible: defects of the measurement."
    )
    lines = [
        f"{row['study']}/{row['setting']}, cycle {row['cycle']}: {quantity(row['energy_j_per_prompt'], 'J')}"
        f" ({row['verdict']})"
        for _, row in below.iterrows()
    ]
    left = f" {counted(len(without), 'run')} could not be tested." if len(without) else ""
    return Finding(
        title,
        "The floor: no GPU works faster than its peak rates, or draws less while it works than at rest. The nearest run"
        f" takes {fold(nearest[OVER_FLOOR])} its floor ({_words(nearest)}). A stricter line rests on an assumption:"
        " arithmetic at the peak rate and the board's power limit. The nearest run takes"
        f" {fold(hardest[OVER_ARITHMETIC])} that ({_words(hardest)}).{left}"
        f"{bullets(lines) if lines else ''}",
    )


def _words(row: pd.Series) -> str:
    """A run of the table by what it did."""
    at_once = counted(int(row["n_at_once_max"]), "prompt")
    return f"study {row['study']}: {row['model']} {row['precision']}, {row['series']}, {at_once} at once"


def published_floor(audit: Published) -> Finding:
    """Whether the published energies of served requests can be true."""
    if not audit.there:
        return Finding(_NOT_AUDITED)
    row, apart = audit.check("work_per_joule"), audit.check("runs_apart")
    tested = counted(int(row["n_tested"]), "published run")
    best = f"a card at its peak rate and power limit does {row['worst_expected']}"
    if row["n_failing"] == 0:
        return Finding(f"None of {tested} claims more arithmetic per joule than a GPU can do: {best}.")
    over = number(row["found_over_expected_worst_ratio"], 2)
    worst = str(row["worst_example"])
    overlap = (
        f" {int(apart['n_failing'])} of {int(apart['n_tested'])} runs are stamped sooner after another than they lasted"
        f" ({apart['worst_example']}: {apart['worst_found']} after, {apart['worst_expected']} long), so runs overlapped"
        " or their files were written anew."
        if apart["n_failing"] > 0
        else ""
    )
    return Finding(
        f"{int(row['n_failing'])} of {tested} claim more arithmetic per joule than a GPU can do; {worst}: {over} times"
        " as much.",
        f"Counted as published, its arithmetic comes to {row['worst_found']}; {best}. The count is two FLOP for each"
        " weight of the layers and each token that passes them, with the mean lengths of the published prompts and"
        " answers; it leaves out attention. The median run reaches"
        f" {percent(row['found_over_expected_median_ratio'])} of that rate. Either many requests were not answered,"
        " though all are counted, or the energy is of a GPU that rested."
        f"{overlap} What this campaign measures of fixed gaps stands above.",
    )
