"""Checks of published and own records as sentences and tables, and what they cannot tell."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.audit import NOT_HERE, Published, passed
from inference_energy.policy.estimates import rows_with
from inference_energy.policy.wording import Finding, Prose, bullets, counted, fold, listed, percent, table


def audit_stated(audit: Published) -> Finding:
    """Lengths and cycles against what the text states."""
    if not audit.there:
        return Finding(NOT_HERE)
    before, after = audit.check("input_length"), audit.check("output_length")
    cycles, apart = audit.check("cycles"), audit.check("cycles_apart")
    ends = [row["found_over_expected_median_ratio"] for row in (before, after)]
    ends += [row["found_over_expected_worst_ratio"] for row in (before, after)]
    if before["verdict"] == after["verdict"] == "holds":
        lead = "Lengths are as the text says."
    elif before["verdict"] == after["verdict"] == "fails" and len(set(ends)) == 1:
        lead = f"Every prompt and answer has {after['worst_found']}; the text says {after['worst_expected']}."
    else:
        lead = "Some prompts or answers are not as long as the text says."
    return Finding(
        lead,
        bullets(
            [
                f"Input length differs from the stated one in {before['n_failing']:,} of {before['n_tested']:,} runs,"
                f" output length in {after['n_failing']:,} of {after['n_tested']:,}.",
                f"{passed(cycles)} settings were measured in {cycles['worst_expected']} or more, as stated. The"
                " time from"
                " one cycle of a setting to its next is in the median"
                f" {percent(apart['found_over_expected_median_ratio'])} of the stated one (separate weeks). The"
                " text says"
                " so of its grid, whose records are not public; these are the experiments on one factor at a time.",
            ]
        ),
    )


def audit_checks_table(checks: pd.DataFrame, kind: str) -> Prose:
    """Checks of one kind: what was tested, how many fail, the worst.

    Parameters
    ----------
    checks : DataFrame
        Table `audit_checks` or `audit_own`.
    kind : str
        ``sense``, ``hypothesis`` or ``text``.
    """
    rows = rows_with(checks, kind=kind)
    if rows.empty:
        return Prose("No check was made.")
    return table(
        pd.DataFrame(
            {
                "check": rows["check"].str.replace("_", " "),
                "tested": rows["tested"],
                "verdict": rows["verdict"],
                "fail": [
                    f"{row['n_failing']:,} of {counted(row['n_tested'], row['counted_in'])}" if row["n_tested"] else "–"
                    for _, row in rows.iterrows()
                ],
                "worst, or why not tested": [
                    f"{row['worst_found']} against {row['worst_expected']} (run {row['worst_example']})"
                    if row["n_failing"]
                    else (row["reason"] if row["n_tested"] == 0 else "–")
                    for _, row in rows.iterrows()
                ],
            }
        )
    )


def audit_sense(audit: Published) -> Finding:
    """How many checks of sense the published records pass, and what the failing ones mean."""
    if not audit.there:
        return Finding(NOT_HERE)
    rows = rows_with(audit.checks, kind="sense")
    held = rows_with(rows, verdict="holds")
    cpu, stored = audit.check("cpu_power_varies"), audit.check("power_stored")
    flop = audit.check("flop_of_all_tokens")
    points = []
    if cpu["verdict"] == "fails":
        points.append(
            f"CPU power is {cpu['worst_found']} in all {cpu['n_failing']:,} readings: an assumed value, not a measured"
            " one, and each process's tracker adds it again."
        )
    if stored["n_failing"]:
        points.append(
            "The stored GPU power is no mean over the run: it lies above what all cards can draw in"
            f" {stored['n_failing']:,} readings (up to {stored['worst_found']}). Energy over time is used here instead."
        )
    if flop["n_failing"]:
        points.append(
            f"Stored FLOP are in the median {fold(flop['found_over_expected_median_ratio'])} what generating the"
            " counted"
            f" tokens takes at least, and at worst {flop['worst_found']}: they are not the work of the runs."
        )
    tested = rows[rows["verdict"] != "not testable"]
    return Finding(
        f"{len(held)} of {len(tested)} checks of sense hold in every case:"
        f" {listed([name.replace('_', ' ') for name in held['check']]) or 'none'}.",
        bullets(points) if points else "",
    )


def audit_unknown(audit: Published) -> Prose:
    """What the data cannot tell."""
    if not audit.there:
        return Prose(NOT_HERE)
    source = audit.source.iloc[0]
    return Prose(
        "What cannot be known from these records:"
        + bullets(
            [
                "The grid's own numbers: its result file is not public. The way of counting is that of the same"
                " code, so the"
                " same is likely there; it is not shown here.",
                "What each other process generated: tokens are stored for one process. Equal time and power of the"
                " others say"
                " that they did the same, not that their answers were complete.",
                "What CPU and memory drew: both are assumed or estimated, and cannot be corrected.",
                "Each card's own energy: the readings hold all cards together, so idle and working power come from"
                " a straight"
                " line, with all cards taken as alike.",
                "What else ran on the shared server: utilisation was stored for one moment a run.",
            ]
        )
        + "\n\nNone of this was hidden: the study published its records and its code, and they are complete and careful"
        f" enough ({counted(source['n_runs'], 'run')} with every process's readings) that all of the above can be found"
        " from them alone. Counting multiplies all settings with the same number of processes by the same factor,"
        " so that"
        " ratios between them stand."
    )
