"""What an engine's start costs, when CUDA graphs have paid theirs back, and whether runs may share an engine."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.engines import (
    EAGER,
    ENERGY,
    ENGINES,
    FIRST_ITERATION_S,
    GRAPHS,
    LAST_OVER_FIRST,
    PAYBACK_S,
    PAYBACK_TOKENS,
    SHARED_OVER_OWN,
    START_ENERGY,
    START_S,
    THROUGHPUT,
    TRANSFORMERS,
    engine_words,
)
from inference_energy.policy.engines import prompts_words
from inference_energy.policy.estimates import cell, reasons, rows_with, without_interval
from inference_energy.policy.evidence import Evidence, runs_of
from inference_energy.policy.wording import (
    Finding,
    Prose,
    counted,
    duration,
    known,
    level,
    listed,
    not_measured,
    number,
    percent,
    quantity,
    row_with,
    table,
)

PRECISION = "bfloat16"
#: States of the compile cache in words.
CACHES = {"none": "", "new": ", first compilation", "reused": ", compiled before"}
SERVER = "vLLM's server with CUDA graphs"
_VERDICTS = {
    "equivalent": "Energy per token in a shared engine is equivalent to that in an engine of its own",
    "different": "Energy per token in a shared engine differs from that in an engine of its own",
    "undecided": "Whether energy per token in a shared engine equals that in an engine of its own is undecided",
}


def start_rows(evidence: Evidence) -> pd.DataFrame:
    """Seconds and energy of a start on one GPU: each engine, model and state of the compile cache, with ``label``."""
    rows = evidence.engine_start
    rows = rows[rows["quantity"].isin([START_S, START_ENERGY]) & rows["engine"].isin(ENGINES) & rows["n_gpus"].eq(1)]
    rows = rows[rows["precision"].eq(PRECISION)]
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
    return found[runs["precision"].eq(PRECISION) & engine_words(runs).isin(ENGINES)]


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
    like = rows_with(evidence.engine_start, precision=PRECISION, n_gpus=1)
    more = ""
    if len(rows_with(like, quantity=FIRST_ITERATION_S, engine=GRAPHS)):
        waits = _range(rows_with(like, engine=GRAPHS), FIRST_ITERATION_S, "s")
        more += f" From that copy's start to its first prompt it took {waits} with graphs."
    if len(rows_with(like, quantity=START_S, engine=SERVER)):
        more += f" {SERVER} took {_range(rows_with(like, engine=SERVER), START_S, 's')} to start."
    return Finding(
        f"A start took {listed(parts)}.",
        "A start is loading weights, which are random here and need no reading; with graphs also compiling, and"
        " recording a graph for each of many batch sizes. What was compiled once is kept on disk and used again by"
        " later starts. Importing the software is not in it: a measuring process is the copy of one that had imported"
        f" everything.{more} Models in {PRECISION} on one GPU; geometric means"
        " over starts of all studies, on hosts that differ.",
    )


def _range(rows: pd.DataFrame, name: str, unit: str) -> str:
    found = rows_with(rows, quantity=name)["estimate"]
    return " to ".join(dict.fromkeys(quantity(value, unit) for value in (found.min(), found.max())))


def payback(evidence: Evidence) -> Finding:
    """After how many tokens graphs have paid for their start."""
    rows = rows_with(evidence.engine_start, quantity=PAYBACK_TOKENS)
    usable = rows[rows["estimate"].notna()]
    if rows.empty:
        return not_measured("starts and runs of the same model in vLLM with and without CUDA graphs")
    if usable.empty:
        return Finding("When CUDA graphs have paid back their start cannot be said.", f"Because {reasons(rows)}.")
    most, least = row_with(usable, "estimate"), row_with(usable, "estimate", largest=False)
    seconds = [_seconds(evidence, row) for row in (least, most)]
    never = rows[rows["estimate"].isna()]
    without = f" In {counted(len(never), 'case')} there is nothing to pay back: {reasons(never)}." if len(never) else ""
    if len(usable) == 1:
        tokens, named = number(least["estimate"]), f"That is {_named(least)}{seconds[0]}."
    else:
        tokens = f"{number(least['estimate'])} to {number(most['estimate'])}"
        named = f"The first is {_named(least)}{seconds[0]}; the last {_named(most)}{seconds[1]}."
    return Finding(
        f"CUDA graphs had paid back their dearer start after {tokens} output tokens.",
        f"{named} An engine that serves for longer saves energy with graphs; one that is started for less does"
        f" not.{without}",
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
        return Prose("")
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
        f"{table(pd.DataFrame(lines))}\n\nIn brackets: {level(evidence.assumptions.confidence)} intervals, Student's"
        " with spreads pooled over starts and over settings."
    )


# --- sharing -------------------------------------------------------------------------------------


def sharing_rows(evidence: Evidence) -> pd.DataFrame:
    """Comparisons of energy per token, with ``label``; those without an estimate stand aside."""
    rows = rows_with(evidence.sharing, quantity=ENERGY)
    rows = rows[rows["estimate"].notna()]
    single = rows["model"].astype(str) + ", batch " + rows["batch_size"].astype(str)
    every = rows["comparison"].map({SHARED_OVER_OWN: "all settings", LAST_OVER_FIRST: "last over first place"})
    return rows.assign(label=single.where(rows["batch_size"].notna(), every)).reset_index(drop=True)


def sharing_points(evidence: Evidence) -> pd.DataFrame:
    """Shared over own engine in single cycles: model, batch_size, cycle, ``estimate``."""
    runs = runs_of(evidence, "sharing")
    keys = ["model", "batch_size", "cycle"]
    wide = runs.pivot_table(index=keys, columns="engine_process", values=ENERGY).reset_index()
    if not {"own", "shared"} <= set(wide.columns):
        return pd.DataFrame(columns=[*keys, "estimate"])
    return wide.assign(estimate=wide["shared"] / wide["own"]).dropna(subset=["estimate"])


def sharing(evidence: Evidence) -> Finding:
    """Whether runs in a shared engine agree with the same in engines of their own."""
    rows = sharing_rows(evidence)
    found = rows_with(rows, comparison=SHARED_OVER_OWN, model="all")
    if found.empty:
        return not_measured("runs in a shared engine beside the same in an engine of their own")
    row = found.iloc[0]
    single = rows_with(rows, comparison=SHARED_OVER_OWN)
    counts = single[single["model"] != "all"]["verdict"].value_counts()
    verdicts = listed([f"{counted(n, 'setting')} {verdict}" for verdict, n in counts.items()])
    speed = rows_with(evidence.sharing, quantity=THROUGHPUT, comparison=SHARED_OVER_OWN, model="all")
    fast = "".join(f" Throughput: ratio {_precise(one)}, {one['verdict']}." for _, one in speed.iterrows())
    why = without_interval(found)
    return Finding(
        f"{_VERDICTS[row['verdict']]} (margin ± {percent(row['margin_fraction'], 1)}): ratio {_precise(row)}.",
        f"Each setting by itself: {verdicts}. Equivalent: the whole interval lies within the margin; different:"
        f" outside; undecided: more cycles are needed.{why}{fast} {_drift(evidence)}".rstrip(),
    )


def _drift(evidence: Evidence) -> str:
    rows = rows_with(evidence.sharing, quantity=ENERGY, comparison=LAST_OVER_FIRST)
    if rows.empty:
        return ""
    row = rows.iloc[0]
    if not known(row["estimate"]):
        return f"Whether energy drifts with a run's place in its process cannot be estimated, because {row['note']}."
    return (
        f"From the first to the last of {row['n_places']} places in a process energy per token changes by a factor of"
        f" {_precise(row)}: {row['verdict']}."
    )


def _precise(row: pd.Series) -> str:
    if not (known(row["estimate_low"]) and known(row["estimate_high"])):
        return f"{number(row['estimate'], 4)} (no interval)"
    ends = f"{number(row['estimate_low'], 4)} to {number(row['estimate_high'], 4)}"
    return f"{number(row['estimate'], 4)} ({level(row['confidence'])} interval {ends})"
