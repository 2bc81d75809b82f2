"""From joules to policy: a million tokens in kWh, grams of CO₂e and euros, and what that leaves out."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy import energy
from inference_energy.policy.energy import ENERGY
from inference_energy.policy.evidence import ESTIMATES, Evidence
from inference_energy.policy.formats import formats, quantised, quantised_runs
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    estimate,
    fold,
    known,
    level,
    listed,
    not_measured,
    number,
    percent,
    plain,
    quantity,
    row_with,
    span,
    table,
)
from inference_energy.units import kwh_from_joules

MILLION = 1_000_000

# SOURCE: arXiv 2312.02741 (Part-time power measurements: nvidia-smi's lack of attention) finds errors of about
# 5 % of NVIDIA's on-board readings against an external meter; none of our intervals contains it.
SENSOR_ERROR_FRACTION = 0.05

# ASSUME: a site spends its power usage effectiveness times the energy of the measured devices. Processors, memory
# and network of the same machine are then part of the overhead, though a PUE counts them as computers.

NO_SETTING = "energy per output token by model, precision and batch size"


def million_tokens(evidence: Evidence) -> pd.DataFrame:
    """A million output tokens in every measured setting of the batch curve.

    Returns
    -------
    DataFrame
        Columns model, precision, batch_size and, each with its interval's ends,
        ``energy_kwh_per_million_output_tokens`` (devices that take part),
        ``site_energy_kwh_per_million_output_tokens`` (times the PUE),
        ``carbon_g_per_million_output_tokens`` and ``price_eur_per_million_output_tokens`` (of the latter).
    """
    curve, assumed = evidence.batch_curve.dropna(subset=[ENERGY]), evidence.assumptions
    made = curve[["model", "precision", "batch_size"]].copy()
    for end in ("", "_low", "_high"):
        energy_kwh = kwh_from_joules(1.0) * MILLION * curve[f"{ENERGY}{end}"]
        site_kwh = energy_kwh * assumed.pue.value
        made[f"energy_kwh_per_million_output_tokens{end}"] = energy_kwh
        made[f"site_energy_kwh_per_million_output_tokens{end}"] = site_kwh
        made[f"carbon_g_per_million_output_tokens{end}"] = site_kwh * assumed.grid.value
        made[f"price_eur_per_million_output_tokens{end}"] = site_kwh * assumed.price.value
    return made.sort_values("energy_kwh_per_million_output_tokens").reset_index(drop=True)


def translation(evidence: Evidence) -> Finding:
    """A million output tokens in kWh, CO₂e and euros, least and most costly setting."""
    made, assumed = million_tokens(evidence), evidence.assumptions
    if made.empty:
        return not_measured(NO_SETTING)
    least, most = made.iloc[0], made.iloc[-1]
    title = (
        f"A million output tokens took {_kwh(least, 'energy')} ({_setting(least)}) to {_kwh(most, 'energy')}"
        f" ({_setting(most)}) on the measured devices{_caveat(evidence)}."
    )
    details = [
        f"**{which} costly setting**, {_setting(row)}: {_ends(row, 'energy_kwh', 'kWh')} at the devices;"
        f" {_ends(row, 'site_energy_kwh', 'kWh')} at the site; {_ends(row, 'carbon_g', 'g CO₂e')};"
        f" {_ends(row, 'price_eur', '€')}"
        for which, row in (("Least", least), ("Most", most))
    ]
    return Finding(
        title,
        f"{bullets(details)}\n\nThe site uses {plain(assumed.pue.value)} times the energy of the devices"
        f" (PUE “{assumed.pue.words}”), its electricity causes {plain(assumed.grid.value)} g CO₂e/kWh (grid"
        f" “{assumed.grid.words}”, {assumed.grid.year}) and costs {plain(assumed.price.value)} €/kWh (price"
        f" “{assumed.price.words}”, {assumed.price.year}); these are taken as exact.{_brackets(evidence, made)}",
    )


def translation_table(evidence: Evidence) -> Prose:
    """Least and most costly setting of every model, translated."""
    made = million_tokens(evidence)
    if made.empty:
        return Prose(not_measured(NO_SETTING).title)
    rows = []
    for model, settings in made.groupby("model"):
        for which, row in (("least costly", settings.iloc[0]), ("most costly", settings.iloc[-1])):
            rows.append(
                {
                    "model": model,
                    "setting": f"{which}: {row['precision']}, batch {row['batch_size']}",
                    "kWh, devices": _ends(row, "energy_kwh", ""),
                    "kWh, site": _ends(row, "site_energy_kwh", ""),
                    "g CO₂e": _ends(row, "carbon_g", ""),
                    "€": _ends(row, "price_eur", ""),
                }
            )
    return Prose(f"Per million output tokens.{_brackets(evidence, made)}\n\n{table(pd.DataFrame(rows))}")


def grids_table(evidence: Evidence) -> Prose:
    """The least and most costly setting on every grid of the context."""
    made, assumed = million_tokens(evidence), evidence.assumptions
    if made.empty:
        return Prose(not_measured(NO_SETTING).title)
    ends = made["site_energy_kwh_per_million_output_tokens"].iloc[[0, -1]]
    rows = [
        {
            "grid": fact.words,
            "g CO₂e/kWh": plain(fact.value),
            "year": fact.year,
            "least costly setting, g CO₂e": number(ends.iloc[0] * fact.value),
            "most costly setting, g CO₂e": number(ends.iloc[-1] * fact.value),
        }
        for fact in sorted(assumed.grids, key=lambda fact: fact.value)
    ]
    return Prose(f"Per million output tokens, at the site:\n\n{table(pd.DataFrame(rows))}")


def appliances(evidence: Evidence) -> Finding:
    """One response beside household appliances."""
    made, assumed = million_tokens(evidence), evidence.assumptions
    if made.empty or not assumed.appliances:
        return not_measured(NO_SETTING)
    least, most = (_response_j(evidence, row) for row in (made.iloc[0], made.iloc[-1]))
    details = [
        f"{fact.words} ({quantity(fact.value, 'J')}): {number(fact.value / most, 2)} to"
        f" {number(fact.value / least, 2)} responses"
        for fact in sorted(assumed.appliances, key=lambda f: f.value)
    ]
    return Finding(
        f"One response of {assumed.n_response_tokens} tokens took {span(least, most, 'J')} at the site"
        f" (PUE {plain(assumed.pue.value)}), depending on the setting.",
        f"As much energy as: {bullets(details)}",
    )


def response(evidence: Evidence) -> pd.DataFrame:
    """Energy of one response at the site, J, in every setting, beside the appliances.

    Returns
    -------
    DataFrame
        Columns name, kind (response or appliance), ``energy_j`` with ``_low`` and ``_high``.
    """
    made = million_tokens(evidence)
    rows = [
        {
            "name": _setting(row),
            "kind": "response",
            **{f"energy_j{end}": _response_j(evidence, row, end) for end in ("", "_low", "_high")},
        }
        for _, row in made.iterrows()
    ]
    rows += [
        {"name": fact.words, "kind": "appliance", **{f"energy_j{end}": fact.value for end in ("", "_low", "_high")}}
        for fact in evidence.assumptions.appliances
    ]
    return pd.DataFrame(rows, columns=["name", "kind", "energy_j", "energy_j_low", "energy_j_high"])


def measured(evidence: Evidence) -> Prose:
    """What was measured, where and how, in one paragraph."""
    runs = evidence.ok
    if runs.empty:
        return Prose("This campaign holds no run with numbers.")
    machine = listed(sorted(runs["hardware"].dropna().unique()))
    models = listed(sorted(runs["model"].unique()))
    studies = "\n".join(
        f"- **{name}**: {question}{'' if (runs['study'] == name).any() else ' Not measured yet.'}"
        for name, question in evidence.about.studies.items()
    )
    cycles = counted(runs["cycle"].nunique(), "cycle")
    return Prose(
        f"{evidence.about.description}\n\n{len(runs):,} runs of {runs['setting'].nunique():,} settings in {cycles} gave"
        f" numbers, each run in its own process on {machine}. Models: {models}. {formats(runs)}"
        f" Instrument: {evidence.method_words}.\n\nThe questions:\n\n{studies}"
    )


def limits(evidence: Evidence) -> Prose:
    """What the numbers do not say."""
    weights = set(evidence.ok["weights"].dropna())
    cycles = counted(evidence.ok["cycle"].nunique(), "cycle")
    machines = counted(evidence.ok["host"].nunique(), "machine")
    points = []
    if "random" in weights:
        points.append(
            "**Random weights.** The models have the published shapes and random numbers as weights, and no end"
            " of sequence: this leaves the work per token as it is and says nothing about the quality of text."
        )
    if set(evidence.methods) & ESTIMATES:
        points.append(
            f"**No measurement.** Here {evidence.method_words}: use these numbers to see that the method runs,"
            " never as results."
        )
    else:
        points.append(
            "**The sensor.** Intervals show how repeatable a number is. They leave out the error of the sensor"
            f" itself, about {SENSOR_ERROR_FRACTION * 100:.0f} % on comparable devices (arXiv 2312.02741);"
            " ratios suffer less than levels."
        )
    points += [
        "**Who is billed.** Gross energy of the devices that take part, their idle power while running included. Other"
        " devices, processors, memory, network and cooling are outside, except that the PUE adds a share for the site.",
        "**A laboratory load.** Full batches of equal length without waiting. A service with gaps, short batches or"
        " idle machines in reserve needs more energy per token.",
        f"**{machines}, {cycles}.** Another specimen, driver or engine may differ; the intervals resample settings or"
        f" cycles of this campaign only.{_once(evidence)}",
        "**Use, not life cycle.** Making the hardware and training the model are not counted.",
    ]
    return Prose("\n".join(f"- {point}" for point in points))


def _once(evidence: Evidence) -> str:
    """How many settings were measured in one cycle only."""
    counts = evidence.ok.groupby(["study", "setting"])["cycle"].nunique()
    n = int((counts < 2).sum())
    return f" {n:,} of {counted(len(counts), 'setting')} were measured in one cycle only." if n else ""


def assumptions_table(evidence: Evidence) -> Prose:
    """Every outside value the report uses, with unit and source."""
    assumed = evidence.assumptions
    chosen = [
        ("grid", assumed.grid),
        ("price", assumed.price),
        ("PUE", assumed.pue),
        *(("appliance", fact) for fact in assumed.appliances),
    ]
    rows = [
        {
            "what": what,
            "name": fact.words,
            "value": plain(fact.value),
            "unit": fact.unit,
            "year": fact.year,
            "source": fact.source,
        }
        for what, fact in chosen
    ]
    return table(pd.DataFrame(rows))


def notes(evidence: Evidence) -> Prose:
    """The code's own assumptions and sources, as gathered from its comments."""
    if not evidence.assumptions.notes:
        return Prose("The code marks no further assumption or source.")
    lines = [f"- {note.kind.capitalize()}: {note.text} (`{note.where}`)" for note in evidence.assumptions.notes]
    return Prose("\n".join(lines))


def rerun(evidence: Evidence) -> Prose:
    """How to make this page again."""
    name = evidence.about.campaign
    return Prose(
        f"The records were measured at commit `{evidence.about.commit}`. `make study` rebuilds every table,"
        f" figure and page, this one as `results/{name}/report/`. The figures are also kept as SVG, each with"
        f" the table it was drawn from, in `results/{name}/figures/`."
    )


def _response_j(evidence: Evidence, row: pd.Series, end: str = "") -> float:
    kwh = float(row[f"site_energy_kwh_per_million_output_tokens{end}"])
    return kwh / kwh_from_joules(1.0) / MILLION * evidence.assumptions.n_response_tokens


def _setting(row: pd.Series) -> str:
    return f"{row['model']} {row['precision']}, batch {row['batch_size']}"


def _kwh(row: pd.Series, what: str) -> str:
    return quantity(row[f"{what}_kwh_per_million_output_tokens"], "kWh")


def _ends(row: pd.Series, what: str, unit: str) -> str:
    name = f"{what}_per_million_output_tokens"
    value = f"{number(row[name])} {unit}".strip()
    if not known(row[f"{name}_low"]):
        return value
    return f"{value} ({span(row[f'{name}_low'], row[f'{name}_high'], '')})"


def _brackets(evidence: Evidence, made: pd.DataFrame) -> str:
    """What the brackets hold; or, without any, why there are none."""
    if made["energy_kwh_per_million_output_tokens_low"].notna().any():
        return f" In brackets: {level(evidence.assumptions.confidence)} intervals of the measurement."
    return " Measured in one cycle only: no intervals."


def _caveat(evidence: Evidence) -> str:
    return f" ({evidence.method_words})" if set(evidence.methods) & ESTIMATES else ""


def headlines(evidence: Evidence) -> Prose:
    """The main findings as a list: each one sentence, with its interval."""
    confidence = evidence.assumptions.confidence
    found = [energy.distribution(evidence).title, energy.batch_size(evidence).title, energy.throughput(evidence).title]
    rows = energy.summary(evidence)
    if len(rows):
        whole = rows.iloc[-1]
        found[0] = (
            f"The choice of setting alone moves the energy of an output token"
            f" {estimate(whole, 'max_over_min_fold', '×', confidence)} over {whole['n_settings']} settings;"
            f" {estimate(whole, 'p95_over_p5_fold', '×', confidence)} between their 95th and 5th percentile."
        )
    found += [
        f"{_best_batch(evidence)}",
        quantised(evidence).title if len(quantised_runs(evidence)) else "",
        _repeatability(evidence),
        _translated(evidence),
        appliances(evidence).title,
    ]
    return Prose("\n".join(f"- {sentence}" for sentence in found if sentence))


def _repeatability(evidence: Evidence) -> str:
    """How little a repetition changes beside another setting."""
    by = {str(row["component"]): row for _, row in energy.variance_rows(evidence).iterrows()}
    if not {"setting", "cycle"} <= set(by) or not known(by["cycle"]["cv"]):
        return energy.variance(evidence).title
    cycle, confidence = by["cycle"], level(evidence.assumptions.confidence)
    return (
        f"Measuring a setting again in another cycle moves its energy per token by {percent(cycle['cv'])} (coefficient"
        f" of variation; {confidence} interval {percent(cycle['cv_low'])} to {percent(cycle['cv_high'])}), choosing"
        f" another setting by {percent(by['setting']['cv'])}."
    )


def _best_batch(evidence: Evidence) -> str:
    """The largest change with batch size, with its interval."""
    curve = evidence.batch_curve.dropna(subset=["energy_over_batch_1_ratio"])
    if curve.empty:
        return ""
    row = row_with(curve, "energy_over_batch_1_ratio", largest=False)
    low, high = row["energy_over_batch_1_ratio_low"], row["energy_over_batch_1_ratio_high"]
    if row["energy_over_batch_1_ratio"] >= 1 or not known(high):
        return ""
    return (
        f"The largest saving by batching alone is {fold(1 / row['energy_over_batch_1_ratio'])}"
        f" ({level(evidence.assumptions.confidence)} interval {span(1 / high, 1 / low, '×')}): {_setting(row)}."
    )


def _translated(evidence: Evidence) -> str:
    made, assumed = million_tokens(evidence), evidence.assumptions
    if made.empty:
        return not_measured(NO_SETTING).title
    least, most = (
        f"{_ends(row, 'site_energy_kwh', 'kWh')}, {_ends(row, 'carbon_g', 'g CO₂e')} and {_ends(row, 'price_eur', '€')}"
        for row in (made.iloc[0], made.iloc[-1])
    )
    several = made["energy_kwh_per_million_output_tokens_low"].notna().any()
    brackets = f"in brackets {level(assumed.confidence)} intervals" if several else "one cycle, no intervals"
    return (
        f"A million output tokens cost {least} in the least costly setting, {most} in the most costly one"
        f"{_caveat(evidence)} (PUE {plain(assumed.pue.value)}, grid “{assumed.grid.words}”, price"
        f" “{assumed.price.words}”; {brackets})."
    )
