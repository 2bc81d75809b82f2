"""Do the methods hold? Sentences on the warm-up and on the launcher."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    counted,
    fold,
    furthest_from_one,
    known,
    level,
    listed,
    not_measured,
    number,
    percent,
    quantity,
)
from inference_energy.units import level_words

STEP = "duration_s_per_step"
N_STEADY = 3  #: last iterations of a run whose median is called its steady level


def warm_up_iterations(evidence: Evidence) -> pd.DataFrame:
    """Iterations of the study on warm-up."""
    return evidence.iterations[evidence.iterations["study"] == "warmup"].dropna(subset=[STEP])


def first_over_steady(iterations: pd.DataFrame) -> pd.DataFrame:
    """Per run: the first measured iteration, the steady level, and their ratio.

    The steady level is the median of the run's last three iterations; a measured iteration is one
    within a window.
    """
    keys = ["model", "precision", "batch_size", "attention", "warmup", "setting", "cycle"]
    rows = []
    for key, run in iterations.sort_values("index").groupby(keys, dropna=False):
        measured = run[run["phase"] == "window"]
        if len(measured):
            steady = run[STEP].tail(N_STEADY).median()
            first = measured[STEP].iloc[0]
            rows.append((*key, first, steady, first / steady))
    return pd.DataFrame(
        rows, columns=[*keys, "first_duration_s_per_step", "steady_duration_s_per_step", "first_over_steady_ratio"]
    )


def warm_up(evidence: Evidence) -> Finding:
    """Whether three forward passes warm a run up, by attention kernel."""
    runs = first_over_steady(warm_up_iterations(evidence))
    short = runs[runs["warmup"] == "forward_passes"]
    if short.empty:
        return not_measured("warm-up by three forward passes (there is no study named warmup)")
    by_kernel = (
        short.assign(attention=short["attention"].map(level_words))
        .groupby("attention")["first_over_steady_ratio"]
        .median()
        .sort_values(ascending=False)
    )
    kernel, ratio = by_kernel.index[0], by_kernel.iloc[0]
    times = short[short["attention"].map(level_words) == kernel]
    verdict = "do not warm every run up" if ratio > 1.1 else "warmed every run up"
    title = (
        f"Three forward passes {verdict}: the first measured iteration took {fold(ratio)} its steady time with {kernel}"
    )
    others = [f"{fold(value)} with {name}" for name, value in by_kernel.iloc[1:].items()]
    title += f" ({listed(others)})." if others else "."
    steady = runs[runs["warmup"] == "steady"]["first_over_steady_ratio"]
    after = (
        f" After the steady-state protocol the first measured iteration took {fold(steady.median())} the steady time."
        if len(steady)
        else ""
    )
    return Finding(
        title,
        f"With {kernel} that is {quantity(times['first_duration_s_per_step'].median(), 's')} a decoding"
        f" step against {quantity(times['steady_duration_s_per_step'].median(), 's')}.{after}"
        f"{_energy_effect(evidence)}",
    )


def _energy_effect(evidence: Evidence) -> str:
    rows = evidence.equivalence[
        (evidence.equivalence["factor"] == "warmup") & (evidence.equivalence["quantity"] == "energy_j_per_output_token")
    ]
    rows = rows.dropna(subset=["level_over_baseline_ratio"])
    if rows.empty:
        return ""
    worst = furthest_from_one(rows, "level_over_baseline_ratio")
    return (
        f" Energy per output token over the windows was {_ratio(worst)} times that"
        f" after a steady warm-up ({level_words(worst['attention'])}): {worst['verdict']}."
    )


def launcher_rows(evidence: Evidence) -> pd.DataFrame:
    """Comparisons of energy per output token between launchers."""
    rows = evidence.equivalence
    return rows[(rows["factor"] == "launcher") & (rows["quantity"] == "energy_j_per_output_token")].dropna(
        subset=["level_over_baseline_ratio"]
    )


def launcher(evidence: Evidence) -> Finding:
    """Whether cold and forked runs need the same energy."""
    rows = launcher_rows(evidence)
    if rows.empty:
        return not_measured("cold starts against forked ones (there is no study named launcher)")
    margin = percent(rows["margin_fraction"].iloc[0], 1)
    verdicts = rows["verdict"].value_counts()
    counts = listed([f"{count} {verdict}" for verdict, count in verdicts.items()])
    worst = furthest_from_one(rows, "level_over_baseline_ratio")
    who = f"{worst['model']} {worst['precision']} batch {worst['batch_size']}"
    return Finding(
        f"Whether a {worst['level']} start needs the energy of a {worst['baseline']} one, within ± {margin}: {counts}"
        f" of {counted(len(rows), 'setting')}; the ratio furthest from one is {_ratio(worst)} ({who}).",
        "Equivalent: the whole interval lies within the margin. Different: it lies outside. Undecided: it"
        f" straddles an edge, so more cycles are needed.{_launched_throughput(evidence)}{_start_times(evidence)}",
    )


def _launched_throughput(evidence: Evidence) -> str:
    """Where the launcher changes throughput most, in one sentence."""
    every = evidence.equivalence
    rows = every[(every["factor"] == "launcher") & (every["quantity"] == "throughput_tokens_per_s")]
    if rows.empty:
        return ""
    worst = furthest_from_one(rows, "level_over_baseline_ratio")
    return (
        f" Throughput differs most with {worst['model']} {worst['precision']} at batch {worst['batch_size']}:"
        f" {worst['level']} over {worst['baseline']} {_ratio(worst)}, {worst['verdict']}."
    )


def _start_times(evidence: Evidence) -> str:
    runs = evidence.ok[evidence.ok["study"] == "launcher"].dropna(subset=["started_to_first_iteration_s"])
    medians = runs.groupby("launcher")["started_to_first_iteration_s"].median()
    if medians.empty:
        return ""
    return (
        " From the process's start to its first iteration: "
        + listed([f"{quantity(seconds, 's')} {name}" for name, seconds in medians.items()])
        + " (median)."
    )


def _ratio(row: pd.Series) -> str:
    """The ratio with its interval, whose level belongs to the equivalence test and stands in the row."""
    low, high = row["level_over_baseline_ratio_low"], row["level_over_baseline_ratio_high"]
    value = number(row["level_over_baseline_ratio"], 4)
    if not (known(low) and known(high)):
        return f"{value} (no interval)"
    return f"{value} ({level(row['confidence'])} interval {number(low, 4)} to {number(high, 4)})"
