"""Prefill and decoding in words: what a token costs in each, and what formats and vLLM change."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.phases import DECODE, DURATION, ENERGY, MAIN, POWER, PREFILL, TIME_STAMP
from inference_energy.policy.estimates import cell, reasons, rows_with, said, without_interval
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.padding import best_batch, prompts, times
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    fold,
    known,
    listed,
    not_measured,
    number,
    quantity,
    table,
)

_STUDY = "prompts that are read without an answer, and the same prompts with one (study phases)"
_ORDER = ("float32", "float16", "bfloat16", "int8", "int4")
_WORDS = {PREFILL: "prefill", DECODE: "decoding"}
_VLLM = "vLLM"
_HOW = (
    "Prefill is a run that stops after one output token: it holds the first token's last layer, and what an engine does"
    " once for every call. Decoding is what a run with more output tokens takes beyond it. One prompt at a time."
)


def answer(evidence: Evidence) -> Finding:
    """The short answer of the page."""
    found = [tokens(evidence), formats(evidence), prompts(evidence), best_batch(evidence)]
    there = [one.title for one in found if not one.title.startswith("Not measured")]
    return Finding(there[0], " ".join(there[1:])) if there else not_measured(_STUDY)


def level_rows(evidence: Evidence) -> pd.DataFrame:
    """Energy, time and power of each phase and setting, with a ``label`` of format and engine, formats in order."""
    return _labelled(_ordered(evidence.phases[evidence.phases["factor"].isna()]))


def run_rows(evidence: Evidence) -> pd.DataFrame:
    """Table `phase_runs` with the same label."""
    return _labelled(evidence.phase_runs)


def ratio_rows(evidence: Evidence, factor: str, baseline: str | None = None) -> pd.DataFrame:
    """Ratios of one factor, formats in order; of its one baseline, or of the one named."""
    rows = rows_with(evidence.phases, factor=factor)
    return _ordered(rows if baseline is None else rows[rows["baseline"] == baseline])


def tokens(evidence: Evidence) -> Finding:
    """What an output token costs beside an input token."""
    rows = ratio_rows(evidence, "phase")
    cells = rows[(rows["model"] != "all") & rows["estimate"].notna()]
    levels = _main(level_rows(evidence))
    if cells.empty or levels.empty:
        return not_measured(_STUDY)
    confidence = evidence.assumptions.confidence
    lowest, highest = (cells.iloc[int(place)] for place in (cells["estimate"].argmin(), cells["estimate"].argmax()))
    lines = []
    for (model, n_input), of_cell in levels.groupby(["model", "n_input_tokens"], sort=True):
        best = of_cell[of_cell["precision"].isin(["bfloat16"])]
        for label, part in (best if len(best) else of_cell).groupby("label", sort=False):
            each = {phase: rows_with(part, phase=phase, quantity=ENERGY[phase]) for phase in _WORDS}
            if all(len(row) for row in each.values()):
                words = [said(each[phase].iloc[0], "J", confidence) for phase in _WORDS]
                lines.append(
                    f"{model} {label}, {n_input:,} tokens in: {words[0]} per input, {words[1]} per output token"
                )
    return Finding(
        f"One prompt at a time, an output token takes {fold(lowest['estimate'])} ({_where(lowest)}) to"
        f" {fold(highest['estimate'])} ({_where(highest)}) the energy of an input token, over"
        f" {counted(len(cells), 'setting')}.",
        f"{_HOW}{without_interval(levels)}{bullets(lines)}",
    )


def formats(evidence: Evidence) -> Finding:
    """What each format takes against float32 in each phase."""
    rows = _main(ratio_rows(evidence, "precision", "float32"))
    energy = rows[rows["quantity"].isin(ENERGY.values())].dropna(subset=["estimate"])
    if energy.empty:
        return not_measured(f"several number formats, float32 among them, of {_STUDY}")
    cells, said_of = energy[energy["model"] != "all"], []
    for precision, of_format in cells.groupby("precision", sort=False):
        parts = [f"{_range(of_format, phase)} in {words}" for phase, words in _WORDS.items()]
        said_of.append(f"{precision} takes {listed([part for part in parts if not part.startswith('unknown')])}")
    lines = []
    for precision, of_format in energy[energy["model"] == "all"].groupby("precision", sort=False):
        parts = [
            f"{times(row, evidence.assumptions.confidence)} in {_WORDS[str(row['phase'])]}"
            for _, row in of_format.sort_values("phase", ascending=False).iterrows()
        ]
        lines.append(f"{precision}: {listed(parts)}, over {counted(int(of_format['n_settings'].max()), 'setting')}")
    means = " Geometric means, with intervals for which models and lengths are a sample:" if lines else ""
    return Finding(
        f"Against the energy of float32, {'; '.join(said_of)}.",
        "Lowest and highest of model and prompt length; quantised weights are those of bitsandbytes."
        f"{means}{bullets(lines)}",
    )


def energy_and_time(evidence: Evidence) -> Finding:
    """Whether time falls further than energy, and what power each phase draws."""
    ratios = _main(ratio_rows(evidence, "precision", "float32"))
    ratios = ratios[(ratios["model"] != "all") & ratios["estimate"].notna()]
    power, time = ratios[ratios["quantity"] == POWER], ratios[ratios["quantity"].isin(DURATION.values())]
    if power.empty:
        return not_measured(f"several number formats, float32 among them, of {_STUDY}")
    keys = ["phase", "model", "precision", "n_input_tokens"]
    both = power.merge(time[[*keys, "estimate"]], on=keys, suffixes=("", "_time"))
    half = both[both["precision"].isin(["float16", "bfloat16"])]
    parts = []
    for phase, words in _WORDS.items():
        faster = half[(half["phase"] == phase) & (half["estimate_time"] < 1)]
        rises = faster[faster["estimate"] > 1]
        parts.append(f"{len(rises)} of {counted(len(faster), 'setting')} in {words}")
    levels = _main(level_rows(evidence))
    watts = levels[levels["quantity"] == POWER].dropna(subset=["estimate"])
    lines = [
        f"{model}, {n_input:,} tokens in, {_WORDS[str(phase)]}: "
        + listed([f"{row['label']} {quantity(row['estimate'], 'W')}" for _, row in of_cell.iterrows()])
        for (model, n_input, phase), of_cell in watts.groupby(["model", "n_input_tokens", "phase"], sort=True)
    ]
    return Finding(
        "Where float16 or bfloat16 is faster than float32, time falls further than energy (so that power rises) in"
        f" {listed(parts)}.",
        f"Mean power, GPUs that take part:{bullets(lines)}",
    )


def methods(evidence: Evidence) -> Finding:
    """Whether the engine's time stamp tells the same as the runs that need none."""
    rows = ratio_rows(evidence, "method")
    stamped = rows_with(evidence.phases, method=TIME_STAMP, phase=PREFILL, quantity=ENERGY[PREFILL])
    stamped = stamped[stamped["factor"].isna()]
    if stamped.empty:
        return not_measured(_STUDY)
    energy = rows[rows["quantity"].isin(ENERGY.values()) & (rows["model"] != "all")].dropna(subset=["estimate"])
    time = rows[rows["quantity"].isin(DURATION.values()) & (rows["model"] != "all")].dropna(subset=["estimate"])
    n_known = int(stamped["estimate"].notna().sum())
    lines = [
        f"{engine}, time of {words}: {_range(of_engine, phase, 3)} of that {_METHOD[phase]}"
        for engine, of_engine in time.groupby(time["engine"].replace("vllm", _VLLM), sort=True)
        for phase, words in _WORDS.items()
        if (of_engine["phase"] == phase).any()
    ]
    note = reasons(stamped[stamped["estimate"].isna()])
    detail = bullets(lines) + (f"\n\nWithout an energy by time stamp: {note}." if note else "")
    if energy.empty:
        return Finding(
            "The engine's time stamp tells when a phase ends, but of too short a prefill not what it took: none of"
            f" {counted(len(stamped), 'setting')} has an energy to compare.",
            detail,
        )
    said_of = [
        f"{words} takes {_range(energy, phase, 3)} of the energy {_METHOD[phase]}" for phase, words in _WORDS.items()
    ]
    return Finding(
        f"By the engine's time stamp {listed(said_of)}, in {n_known} of {counted(len(stamped), 'setting')}.",
        f"{detail}\n\nLowest and highest of the settings.",
    )


_METHOD = {PREFILL: "of a run that stops after one token", DECODE: "by difference"}


def method_rows(evidence: Evidence) -> pd.DataFrame:
    """Energy by time stamp over that by the method that needs none, with labels."""
    rows = ratio_rows(evidence, "method")
    rows = rows[rows["quantity"].isin(ENERGY.values()) & (rows["model"] != "all")]
    named = _labelled(rows)
    return named.assign(
        label=[f"{row['model']} {row['label']}, {row['n_input_tokens']:,} in" for _, row in named.iterrows()]
    )


def engines(evidence: Evidence) -> Finding:
    """What vLLM takes beside transformers in each phase."""
    rows = _main(ratio_rows(evidence, "engine"))
    cells = rows[(rows["model"] != "all") & rows["estimate"].notna()]
    energy, time = (cells[cells["quantity"].isin(names.values())] for names in (ENERGY, DURATION))
    if energy.empty:
        return not_measured(f"vLLM beside transformers, in {_STUDY}")
    lines = [
        f"{_WORDS[str(row['phase'])]}, {_where(row)}: {times(row, evidence.assumptions.confidence)}"
        for _, row in energy.iterrows()
    ]
    return Finding(
        f"vLLM with CUDA graphs takes {_range(energy, PREFILL)} of the energy of transformers in prefill and"
        f" {_range(energy, DECODE)} in decoding, in {energy['precision'].iloc[0]}, one prompt at a time.",
        f"Of the time: {_range(time, PREFILL)} in prefill, {_range(time, DECODE)} in decoding. Energy:{bullets(lines)}",
    )


def engine_rows(evidence: Evidence) -> pd.DataFrame:
    """Energy in vLLM over that in transformers, with labels."""
    rows = _main(ratio_rows(evidence, "engine"))
    rows = rows[rows["quantity"].isin(ENERGY.values()) & (rows["model"] != "all")]
    return rows.assign(label=[f"{row['model']}, {row['n_input_tokens']:,} tokens in" for _, row in rows.iterrows()])


def levels_table(evidence: Evidence) -> Prose:
    """Energy, time and power of both phases, a row a setting."""
    rows = _main(level_rows(evidence))
    if rows.empty:
        return Prose(not_measured(_STUDY).title)
    units = {"J per input token": (PREFILL, ENERGY[PREFILL], "J"), "prefill": (PREFILL, DURATION[PREFILL], "s")}
    units |= {"power of prefill": (PREFILL, POWER, "W"), "J per output token": (DECODE, ENERGY[DECODE], "J")}
    units |= {"time per output token": (DECODE, DURATION[DECODE], "s"), "power of decoding": (DECODE, POWER, "W")}
    return _wide(rows, {head.replace("J per", "per"): wanted for head, wanted in units.items()})


def ratios_table(evidence: Evidence, baseline: str) -> Prose:
    """Energy, time and power over those of a baseline format, a row a setting."""
    rows = _main(ratio_rows(evidence, "precision", baseline))
    if rows.empty:
        return Prose(not_measured(f"number formats beside {baseline}, of {_STUDY}").title)
    wanted = {
        f"{_WORDS[phase]}: {words}": (phase, name, "×")
        for phase in _WORDS
        for words, name in (("energy", ENERGY[phase]), ("time", DURATION[phase]), ("power", POWER))
    }
    return _wide(_labelled(rows), wanted)


def _wide(rows: pd.DataFrame, wanted: dict[str, tuple[str, str, str]]) -> Prose:
    """A line for each model, format and prompt length."""
    lines = []
    for (model, label, n_input), part in rows.groupby(["model", "label", "n_input_tokens"], sort=False, dropna=False):
        line = {"model": model, "format": label, "tokens in": "all" if model == "all" else f"{n_input:,}"}
        for head, (phase, name, unit) in wanted.items():
            found = rows_with(part, phase=phase, quantity=name)
            line[head] = cell(found.iloc[0], unit) if len(found) else "–"
        lines.append(line)
    return table(pd.DataFrame(lines))


def _main(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by the method that needs no time stamp."""
    return rows[rows["method"] == rows["phase"].map(MAIN)]


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Formats in order, vLLM last, shorter prompts first."""
    order = rows["precision"].map({name: place for place, name in enumerate(_ORDER)}).fillna(len(_ORDER))
    keyed = rows.assign(order=order.astype(float) + 10.0 * rows["engine"].ne("transformers").astype(float))
    return keyed.sort_values(["order", "model", "n_input_tokens", "phase"], kind="stable").drop(columns="order")


def _labelled(rows: pd.DataFrame) -> pd.DataFrame:
    words = [
        str(row["precision"]) if row["engine"] == "transformers" else f"{row['precision']}, {_VLLM}"
        for _, row in rows.iterrows()
    ]
    return rows.assign(label=pd.Series(words, index=rows.index, dtype=object))


def _where(row: pd.Series) -> str:
    """``llama-3.1-8b bfloat16, 2,048 tokens in``."""
    engine = "" if row["engine"] == "transformers" else f" in {_VLLM}"
    return f"{row['model']} {row['precision']}{engine}, {row['n_input_tokens']:,} tokens in"


def _range(rows: pd.DataFrame, phase: str, digits: int = 2) -> str:
    """``0.19× to 0.90×``: lowest and highest of a phase."""
    values = rows.loc[rows["phase"] == phase, "estimate"].astype(float)
    if values.empty or not known(values.iloc[0]):
        return "unknown"
    return " to ".join(dict.fromkeys(f"{number(end, digits)}×" for end in (values.min(), values.max())))
