"""What the engine decides, in words: transformers, vLLM's eager mode, its CUDA graphs."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.curves import of_study
from inference_energy.models.engines import (
    BASE,
    COMPONENTS,
    CPU,
    EAGER,
    ENERGY,
    ENGINES,
    GRAPHS,
    IDLE,
    IDLE_GPUS,
    MANY,
    NET,
    ONE,
    POWER,
    RAM,
    THROUGHPUT,
    TOTAL,
    TRANSFORMERS,
    with_components,
)
from inference_energy.policy.estimates import behind, cell, reasons, rows_with, said, without_interval
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    fold,
    known,
    level,
    listed,
    not_measured,
    percent,
    quantity,
    table,
)

WHAT = "transformers beside vLLM on the same model (study engine)"
#: SOURCE: resources/published/wetzel_serving_engine.csv. LLaMA 3 8B has the shape of Llama 3.1 8B.
PUBLISHED_MODEL, PUBLISHED_WORDS = "llama-3.1-8b", "LLaMA 3 8B"
_RATIO_WORDS = {
    TOTAL: "energy per output token, with CodeCarbon's CPU and RAM",
    ENERGY: "energy per output token, GPU alone",
    NET: "of it above the GPU's idle power",
    BASE: "the GPU's idle power, CPU and RAM (estimates)",
    THROUGHPUT: "output tokens per second, the other way round",
}


def engine_runs(evidence: Evidence) -> pd.DataFrame:
    """Runs with numbers of the settings of study `engine`: engine in words, and what a token's energy consists of."""
    return with_components(of_study(evidence.ok, "engine", ENERGY))


def _ratios(evidence: Evidence, engine: str, baseline: str, name: str = ENERGY) -> pd.DataFrame:
    rows = rows_with(evidence.engine_comparison, quantity=name, engine=engine, baseline=baseline)
    return rows[rows["estimate"].notna()]


def same_batch_rows(evidence: Evidence, engine: str = TRANSFORMERS, baseline: str = GRAPHS) -> pd.DataFrame:
    """Energy of `engine` over that of `baseline` at the same batch, each model and all, in order of batch."""
    rows = _ratios(evidence, engine, baseline)
    return _all_last(rows[rows["batch_size"].eq(rows["baseline_batch_size"]).fillna(False)])


def _all_last(rows: pd.DataFrame) -> pd.DataFrame:
    """In order of batch and estimate, all models after single ones."""
    order = ["batch_size", "last", "estimate"]
    return rows.assign(last=rows["model"].eq("all")).sort_values(order).drop(columns="last")


def ratio_rows(evidence: Evidence) -> pd.DataFrame:
    """Transformers over vLLM with graphs: at the same batch, then one by one over many at once."""
    rows = _ratios(evidence, TRANSFORMERS, GRAPHS)
    apart = rows[rows["batch_size"].eq(ONE) & rows["baseline_batch_size"].eq(MANY)]
    return _of_several(pd.concat([same_batch_rows(evidence), _all_last(apart)], ignore_index=True))


def graphs_rows(evidence: Evidence) -> pd.DataFrame:
    """Eager mode over graphs."""
    return _of_several(same_batch_rows(evidence, EAGER, GRAPHS))


def _of_several(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` without a mean over models that is of a single one."""
    return rows[rows["model"].ne("all") | rows["n_settings"].gt(1)]


def graphs_points(evidence: Evidence) -> pd.DataFrame:
    """Single cycles behind :func:`graphs_rows`."""
    return pair_points(evidence, EAGER)


def published_fold(evidence: Evidence) -> float:
    """What the published study states of all energy, transformers over vLLM; missing without a comparison."""
    rows = _ratios(evidence, TRANSFORMERS, GRAPHS, TOTAL)["published_ratio"].dropna()
    return float(rows.iloc[0]) if len(rows) else float("nan")


def pair_points(evidence: Evidence, engine: str = TRANSFORMERS, baseline: str = GRAPHS) -> pd.DataFrame:
    """Ratios of single cycles: model, both batch sizes, cycle, ``estimate``; the same batch, and one over many."""
    runs = engine_runs(evidence)[["model", "batch_size", "cycle", "words", ENERGY]]
    both = runs[runs["words"] == engine].merge(
        runs[runs["words"] == baseline].rename(columns={"batch_size": "baseline_batch_size"}),
        on=["model", "cycle"],
        suffixes=("", "_baseline"),
    )
    same = both["batch_size"] == both["baseline_batch_size"]
    one_over_many = (both["batch_size"] == ONE) & (both["baseline_batch_size"] == MANY)
    chosen = both[same | one_over_many]
    return chosen.assign(estimate=chosen[ENERGY].astype(float) / chosen[f"{ENERGY}_baseline"].astype(float))


def prompts_words(batch_size: object) -> str:
    """``one prompt at a time``, ``64 prompts at once``."""
    return "one prompt at a time" if batch_size == ONE else f"{batch_size} prompts at once"


def _folds(rows: pd.DataFrame) -> str:
    """``2.0× to 4.0×``: smallest and largest estimate."""
    ends = list(dict.fromkeys(fold(value) for value in (rows["estimate"].min(), rows["estimate"].max())))
    return " to ".join(ends)


def _by_batch(rows: pd.DataFrame, of_what: str) -> str:
    """``2.0× to 4.0× of_what for one prompt at a time, 1.8× to 3.0× for 64 prompts at once``."""
    groups = rows[rows["model"] != "all"].groupby("batch_size")
    first, *others = [(_folds(part), prompts_words(batch)) for batch, part in groups]
    folds = ", ".join([f"{first[0]} {of_what} for {first[1]}", *(f"{folds} for {words}" for folds, words in others)])
    models = sorted(set(rows["model"]) - {"all"})
    return f"{folds} ({models[0] if len(models) == 1 else f'{len(models)} models'})"


def answer(evidence: Evidence) -> Finding:
    """The short answer to the page's question."""
    none = without_interval(same_batch_rows(evidence))
    return Finding(same_batch(evidence).title, f"{graphs(evidence).title}{none}")


def in_plain_words(evidence: Evidence) -> Finding:
    """For the policy report: what the software is worth, and what a disclosure must name."""
    finding = same_batch(evidence)
    if same_batch_rows(evidence).empty and same_batch_rows(evidence, baseline=EAGER).empty:
        return finding
    return Finding(
        finding.title,
        "Both run the same model on the same GPU, with the same prompts and answers of the same length: transformers is"
        " a library that research uses, vLLM an engine that services use. An energy measured with one says little of a"
        " service that runs the other, so a disclosure must name the software, its version and how many prompts it"
        f" works on together.{without_interval(same_batch_rows(evidence))}",
    )


# --- beside each other ---------------------------------------------------------------------------


def same_batch(evidence: Evidence) -> Finding:
    """Energy of transformers over that of vLLM at the same batch."""
    baseline = GRAPHS if len(same_batch_rows(evidence)) else EAGER
    rows = same_batch_rows(evidence, TRANSFORMERS, baseline)
    if rows.empty:
        return not_measured(WHAT)
    confidence = evidence.assumptions.confidence
    points = [
        f"transformers over {name}, {prompts_words(row['batch_size'])}: {said(row, '×', confidence)}; {behind(row)}"
        for name in (GRAPHS, EAGER)
        for _, row in rows_with(same_batch_rows(evidence, TRANSFORMERS, name), model="all").iterrows()
    ]
    return Finding(
        f"Transformers took {_by_batch(rows, f'the energy per token of {baseline}')}.",
        "The same prompts, answers, number format and number of prompts at once; only the software differs. Weights are"
        " random, so the engines cannot end answers at different lengths, as they did in the published study."
        f"{without_interval(rows)} Over all models measured:{bullets(points)}",
    )


def published(evidence: Evidence) -> Finding:
    """The published fold between a lower and an upper reading."""
    lower, upper, model = _readings(evidence, ENERGY)
    value = published_fold(evidence)
    if lower is None or upper is None or not known(value):
        return not_measured("what the published fold of transformers over vLLM is about")
    low, high = lower["estimate"], upper["estimate"]
    place = "lies between" if low <= value <= high else "lies below" if value < low else "lies above"
    confidence = evidence.assumptions.confidence
    return Finding(
        f"The published {fold(value)} {place} what the engine alone makes, {fold(low)} with {prompts_words(MANY)} in"
        f" both, and transformers one by one over vLLM with {prompts_words(MANY)}, {fold(high)} ({model}).",
        f"Of the GPU's energy: {said(lower, '×', confidence)} and {said(upper, '×', confidence)}."
        f"{without_interval(pd.DataFrame([lower, upper]))} The published fold is of {PUBLISHED_WORDS} and counts CPU"
        " and RAM besides, as the table does. The published study ran transformers in small batches and let vLLM"
        " schedule its requests, so that its fold mixes the engine with the batch. The lower reading is the engine"
        " alone, and the one that the claim is judged by; the upper one adds all that batching can save. It had four"
        " GPUs of another kind, trained weights and answers whose length differed between the engines.",
    )


def published_table(evidence: Evidence) -> Prose:
    """The published folds beside both readings."""
    lines = []
    for name, words in _RATIO_WORDS.items():
        lower, upper, model = _readings(evidence, name)
        if lower is None or upper is None:
            continue
        both = [_inverse(row) if name == THROUGHPUT else row for row in (lower, upper)]
        lines.append(
            {
                f"transformers over vLLM, {model}": words,
                "published": fold(both[0]["published_ratio"]) if known(both[0]["published_ratio"]) else "–",
                f"both with {prompts_words(MANY)}": cell(both[0], "×"),
                f"one by one over {MANY} at once": cell(both[1], "×"),
            }
        )
    return table(pd.DataFrame(lines)) if lines else Prose("")


def _readings(evidence: Evidence, name: str) -> tuple[pd.Series | None, pd.Series | None, str]:
    """The same batch and one over many, for the published model or, where one of them is missing, all models."""
    rows = rows_with(_ratios(evidence, TRANSFORMERS, GRAPHS, name), baseline_batch_size=MANY)
    models = sorted(set(rows["model"]) - {"all"})
    for model in (PUBLISHED_MODEL, models[0] if len(models) == 1 else "all"):
        lower, upper = (rows_with(rows, model=model, batch_size=batch) for batch in (MANY, ONE))
        if len(lower) and len(upper):
            return lower.iloc[0], upper.iloc[0], "all models" if model == "all" else model
    return None, None, ""


def _inverse(row: pd.Series) -> pd.Series:
    ends = {"estimate": "estimate", "estimate_low": "estimate_high", "estimate_high": "estimate_low"}
    return pd.Series({name: 1 / row[of] for name, of in (ends | {"published_ratio": "published_ratio"}).items()})


def levels_table(evidence: Evidence) -> Prose:
    """Energy, throughput and power of every engine by model and batch size."""
    rows = evidence.engine_comparison
    rows = rows[rows["baseline"].isna()]
    if rows.empty:
        return Prose(not_measured(WHAT).title)
    lines = []
    for (model, batch), of_batch in rows.groupby(["model", "batch_size"], sort=True):
        for engine in ENGINES:
            line = {"model": model, "prompts at once": batch, "engine": engine}
            for name, heading, unit in (
                (ENERGY, "energy per output token", "J"),
                (THROUGHPUT, "output tokens per second", ""),
                (POWER, "power", "W"),
            ):
                found = rows_with(of_batch, engine=engine, quantity=name)
                line[heading] = cell(found.iloc[0], unit) if len(found) else "–"
            if len(of_batch[of_batch["engine"] == engine]):
                lines.append(line)
    shown = rows[rows["engine"].isin(ENGINES) & rows["quantity"].isin([ENERGY, THROUGHPUT, POWER])]
    brackets = without_interval(shown) or f" In brackets: {level(evidence.assumptions.confidence)} intervals."
    bare = shown[shown["estimate_low"].isna()]
    if len(bare) < len(shown) and len(bare):
        brackets += f" Without brackets: {reasons(bare)}."
    return Prose(f"{table(pd.DataFrame(lines))}\n\nGeometric means over cycles.{brackets}")


# --- where it goes -------------------------------------------------------------------------------


def parts_rows(evidence: Evidence) -> pd.DataFrame:
    """What a token's energy consists of: model, batch_size, engine, component, words, ``energy_j_per_output_token``.

    ``over_transformers_ratio`` is over all parts of transformers together at the same model and batch size.
    """
    rows = evidence.engine_comparison
    rows = rows[rows["baseline"].isna() & rows["quantity"].isin(list(COMPONENTS))]
    parts = rows[["model", "batch_size", "engine", "quantity", "estimate"]].rename(
        columns={"quantity": "component", "estimate": ENERGY}
    )
    # Idle GPUs are metered where a run had the machine to itself; beside others they would make a bar longer.
    parts = parts[parts["component"] != IDLE_GPUS].assign(words=parts["component"].map(COMPONENTS))
    whole = parts[parts["engine"] == TRANSFORMERS].groupby(["model", "batch_size"])[ENERGY].sum().rename("whole")
    joined = parts.merge(whole.reset_index(), on=["model", "batch_size"])
    return joined.assign(over_transformers_ratio=joined[ENERGY] / joined["whole"]).drop(columns="whole")


def parts(evidence: Evidence) -> Finding:
    """Which parts of the energy vLLM saves."""
    rows = rows_with(parts_rows(evidence), batch_size=MANY)
    models = [str(model) for model, found in rows.groupby("model") if {TRANSFORMERS, GRAPHS} <= set(found["engine"])]
    if not models:
        return not_measured("what a token's energy consists of, in transformers and in vLLM")
    model = PUBLISHED_MODEL if PUBLISHED_MODEL in models else max(models)
    wide = rows_with(rows, model=model).pivot_table(index="component", columns="engine", values=ENERGY)
    saved = (wide[TRANSFORMERS] - wide[GRAPHS]).dropna()
    named = {
        "is the GPU above its idle power": [NET],
        "the GPU's idle power": [IDLE],
        "CPU and RAM (estimates)": [CPU, RAM],
    }
    shares = {words: saved.reindex(names).sum() / saved.sum() for words, names in named.items()}
    shown = listed([f"{percent(share)} {words}" for words, share in shares.items() if share])
    whole = wide[TRANSFORMERS].sum()
    if saved.sum() <= 0:
        return Finding(f"With {prompts_words(MANY)} {GRAPHS} saves nothing over transformers ({model}).")
    return Finding(
        f"With {prompts_words(MANY)} {GRAPHS} saves {quantity(saved.sum(), 'J')} of the {quantity(whole, 'J')} that a"
        f" token takes in transformers, CPU and RAM included ({model}). Of what it saves, {shown}.",
        "The GPU's energy is measured, and split at the idle power it had before the model was loaded; what is drawn"
        " whatever is done goes with time alone. CPU and RAM are CodeCarbon's estimates for the whole machine, of which"
        f" a run bears the share of its GPUs; they are no measurement.{_idle_gpus(evidence)}",
    )


def _idle_gpus(evidence: Evidence) -> str:
    """What GPUs cost that take no part."""
    found = rows_with(evidence.engine_comparison, quantity=IDLE_GPUS)
    if found.empty:
        return (
            " Idle GPUs of the machine were metered in none of these runs: what they draw goes with time, too, and"
            " whether a run is billed for them is a choice."
        )
    ends = quantity(found["estimate"].min(), "J"), quantity(found["estimate"].max(), "J")
    return f" The machine's idle GPUs, where they were metered, drew {' to '.join(ends)} for a token besides."


# --- graphs --------------------------------------------------------------------------------------


def graphs(evidence: Evidence) -> Finding:
    """What CUDA graphs and compiled code save."""
    rows = graphs_rows(evidence)
    if rows.empty:
        return not_measured("the same model in vLLM with and without CUDA graphs")
    confidence = evidence.assumptions.confidence
    points = [
        f"{'all models' if row['model'] == 'all' else row['model']}, {prompts_words(row['batch_size'])}:"
        f" {said(row, '×', confidence)}"
        for _, row in rows.iterrows()
    ]
    return Finding(
        f"vLLM in eager mode took {_by_batch(rows, 'the energy per token that it took with CUDA graphs')}.",
        "Graphs launch a whole step at once, so that the GPU does not wait for the CPU to launch kernel after kernel;"
        f" vLLM compiles its code for them.{without_interval(rows)} Eager mode over graphs:{bullets(points)}",
    )
