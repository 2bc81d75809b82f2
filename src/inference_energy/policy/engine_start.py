"""What an engine's start costs and when CUDA graphs have paid theirs back, in words."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.engines import (
    EAGER,
    ENGINES,
    FIRST_ITERATION_S,
    GRAPHS,
    PAYBACK_S,
    PAYBACK_TOKENS,
    START_ENERGY,
    START_S,
    TRANSFORMERS,
    engine_words,
)
from inference_energy.policy.engines import prompts_words
from inference_energy.policy.estimates import cell, reasons, rows_with
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    counted,
    duration,
    level,
    listed,
    not_measured,
    number,
    quantity,
    row_with,
    table,
)

#: States of the compile cache in words.
CACHES = {"none": "", "new": ", first compilation", "reused": ", compiled before"}


def start_rows(evidence: Evidence) -> pd.DataFrame:
    """Seconds and energy of a start on one GPU: each engine, model and state of the compile cache, with ``label``."""
    rows = evidence.engine_start
    rows = rows[rows["quantity"].isin([START_S, START_ENERGY]) & rows["engine"].isin(ENGINES) & rows["n_gpus"].eq(1)]
    rows = rows[rows["precision"].eq("bfloat16")]
    engine = rows["engine"].map({name: place for place, name in enumerate(ENGINES)})
    energy = rows.groupby("model")["estimate"].transform("max")
    ordered = rows.assign(label=rows["engine"] + rows["compile_cache"].map(CACHES), place=engine, size=energy)
    return ordered.sort_values(["size", "model", "place", "compile_cache"]).drop(columns=["place", "size"])


def start_points(evidence: Evidence) -> pd.DataFrame:
    """Single starts on one GPU: model, engine in words, compile_cache, and what they took.

    A run that metered idle GPUs as well has no energy here: its table holds that of all.
    """
    runs = evidence.ok[evidence.ok[START_S].notna() & evidence.ok["n_gpus"].eq(1)]
    energy = runs[START_ENERGY].where(runs["n_metered_gpus"].eq(1).fillna(False).astype(bool))
    cache = runs["compile_cache"].fillna("none")
    label = engine_words(runs) + cache.map(CACHES)
    found = runs.assign(label=label, **{START_ENERGY: energy})
    return found[runs["precision"].eq("bfloat16") & engine_words(runs).isin(ENGINES)]


def start(evidence: Evidence) -> Finding:
    """What starting each engine took."""
    rows = start_rows(evidence)
    parts = []
    for engine in (GRAPHS, EAGER, TRANSFORMERS):
        of_engine = rows_with(rows, engine=engine)
        if len(of_engine):
            parts.append(f"{_range(of_engine, START_S, 's')} and {_range(of_engine, START_ENERGY, 'J')} ({engine})")
    if not parts:
        return not_measured("what starting an engine costs")
    waits = rows_with(evidence.engine_start, quantity=FIRST_ITERATION_S, engine=GRAPHS)
    first = (
        f" From the process's start to its first prompt it took {_range(waits, FIRST_ITERATION_S, 's')} with graphs."
        if len(waits)
        else ""
    )
    return Finding(
        f"A start took {listed(parts)}.",
        "A start is what comes before the first prompt: loading weights, which are random here and need no reading;"
        " with graphs also compiling, and recording a graph for each of many batch sizes. What was compiled once is"
        f" kept on disk and used again by later starts.{first}",
    )


def _range(rows: pd.DataFrame, name: str, unit: str) -> str:
    found = rows_with(rows, quantity=name)["estimate"]
    return " to ".join(dict.fromkeys(quantity(value, unit) for value in (found.min(), found.max())))


def payback(evidence: Evidence) -> Finding:
    """After how many tokens graphs have paid for their start."""
    rows = rows_with(evidence.engine_start, quantity=PAYBACK_TOKENS)
    usable = rows[rows["estimate"].notna()]
    if rows.empty:
        return not_measured("starts and runs of vLLM with and without CUDA graphs")
    if usable.empty:
        return Finding("When CUDA graphs have paid back their start cannot be said.", f"{reasons(rows)}.")
    most, least = row_with(usable, "estimate"), row_with(usable, "estimate", largest=False)
    seconds = [_seconds(evidence, row) for row in (least, most)]
    never = rows[rows["estimate"].isna()]
    without = f" In {counted(len(never), 'case')} there is nothing to pay back: {reasons(never)}." if len(never) else ""
    return Finding(
        f"CUDA graphs had paid back their dearer start after {number(least['estimate'])} to"
        f" {number(most['estimate'])} output tokens.",
        f"The first is {_named(least)}{seconds[0]}; the last {_named(most)}{seconds[1]}. An engine that serves for"
        f" longer saves energy with graphs; one that is started for less does not.{without}",
    )


def _seconds(evidence: Evidence, row: pd.Series) -> str:
    names = ("model", "precision", "n_gpus", "compile_cache", "batch_size")
    found = rows_with(evidence.engine_start, quantity=PAYBACK_S, **{name: row[name] for name in names})
    return f" ({duration(found.iloc[0]['estimate'])} of work)" if len(found) else ""


def _named(row: pd.Series) -> str:
    return f"{row['model']}, {prompts_words(row['batch_size'])}{CACHES[row['compile_cache']]}"


def payback_table(evidence: Evidence) -> Prose:
    """Tokens and seconds of work after which graphs have paid back their start."""
    tokens = rows_with(evidence.engine_start, quantity=PAYBACK_TOKENS)
    if tokens.empty:
        return Prose(not_measured("starts and runs of vLLM with and without CUDA graphs").title)
    keys = ["model", "batch_size", "compile_cache"]
    seconds = rows_with(evidence.engine_start, quantity=PAYBACK_S).set_index(keys)["estimate"]
    lines = [
        {
            "model": row["model"],
            "prompts at once": row["batch_size"],
            "start": CACHES[row["compile_cache"]].removeprefix(", "),
            "output tokens": cell(row, ""),
            "work": duration(seconds[tuple(row[key] for key in keys)]) if pd.notna(row["estimate"]) else "–",
            "starts": row["n_starts"],
            "note": row["note"] if isinstance(row["note"], str) else "",
        }
        for _, row in tokens.iterrows()
    ]
    return Prose(
        f"{table(pd.DataFrame(lines))}\n\nIn brackets: {level(evidence.assumptions.confidence)} bootstrap intervals;"
        " with two starts they are their range."
    )
