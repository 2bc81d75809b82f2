"""The policy report: what was found, why calculations do not tell, limits, and where everything comes from."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy import arrivals, engines, equivalents, numbers
from inference_energy.policy.evidence import ESTIMATES, Evidence
from inference_energy.policy.numbers import explained_rows
from inference_energy.policy.precision import formats
from inference_energy.policy.spread import ENERGY
from inference_energy.policy.standards import SENSOR_ERROR_FRACTION
from inference_energy.policy.wording import (
    Finding,
    Prose,
    change,
    counted,
    known,
    listed,
    not_measured,
    percent,
    plain,
    table,
)


def widest_curve(evidence: Evidence) -> pd.DataFrame:
    """Energy and calculations per token over those at the smallest batch: the curve over most batch sizes.

    Returns
    -------
    DataFrame
        Columns model, precision, batch_size, ``energy_ratio`` with ``_low`` and ``_high``, and
        ``flop_ratio``: 1 throughout, as model and lengths of prompt and answer are the same.
    """
    names = ["model", "precision", "batch_size", "energy_ratio", "energy_ratio_low", "energy_ratio_high", "flop_ratio"]
    curve = evidence.batch_curve.dropna(subset=[ENERGY])
    sizes = curve.groupby(["model", "precision"])["batch_size"].agg(["min", "max", "nunique"])
    sizes = sizes.assign(span=sizes["max"] / sizes["min"]).sort_values(["span", "nunique"])
    if sizes.empty or sizes["nunique"].iloc[-1] < 2:
        return pd.DataFrame(columns=names)
    model, precision = sizes.index[-1]
    rows = curve[(curve["model"] == model) & (curve["precision"] == precision)].sort_values("batch_size")
    base = float(rows[ENERGY].iloc[0])
    ratios = {f"energy_ratio{end}": rows[f"{ENERGY}{end}"] / base for end in ("", "_low", "_high")}
    made: pd.DataFrame = rows.assign(**ratios, flop_ratio=1.0).reset_index(drop=True)
    return made.loc[:, names]


def curve_runs(evidence: Evidence) -> pd.DataFrame:
    """The runs behind :func:`widest_curve`, each with ``energy_ratio``: over the mean at the smallest batch."""
    curve = widest_curve(evidence)
    runs = evidence.batching.merge(curve[["model", "precision", "batch_size"]])
    means = evidence.batch_curve.merge(curve[["model", "precision", "batch_size"]]).sort_values("batch_size")
    base = float(means[ENERGY].iloc[0]) if len(means) else float("nan")
    return runs.assign(energy_ratio=runs[ENERGY] / base)


def why_flops(evidence: Evidence) -> Finding:
    """The same calculations at very different electricity."""
    curve = widest_curve(evidence)
    if curve.empty:
        return not_measured("deployments at several batch sizes of one model and number format")
    first, last = curve.iloc[0], curve.iloc[-1]
    return Finding(
        f"The same number of calculations: from {counted(int(first['batch_size']), 'prompt')} to"
        f" {last['batch_size']} prompts together the electricity per token {change(last['energy_ratio'])}"
        f" ({last['model']}, {last['precision']}).",
        "A rule that counts calculations (FLOPs) sees no difference between these points. A GPU draws power while it"
        " fetches the model's numbers from memory, waits for the processor beside it, or idles; its power is not in"
        " proportion to its calculations. Electricity per token is power divided by tokens per second: what raises the"
        f" output of a busy machine lowers it.{_shares(evidence)}",
    )


def _shares(evidence: Evidence) -> str:
    """How much of the variance the GPU's own word for being busy explains."""
    rows = explained_rows(evidence)
    busy = rows[rows["predictor"] == "gpu_utilisation_fraction"]
    said = listed([f"{percent(row['variance_fraction'])} for {row['scope']}" for _, row in busy.iterrows()])
    return f" The share of time that a GPU reports to be busy explains {said} of the differences." if said else ""


def measured(evidence: Evidence) -> Prose:
    """What was measured, where and how, in one paragraph."""
    runs = evidence.every_ok
    if runs.empty:
        return Prose("This campaign holds no run with numbers.")
    shared = " or in an engine that it shares with others" if runs["engine_process"].eq("shared").any() else ""
    machine = listed(sorted(runs["hardware"].dropna().unique()))
    models = listed(sorted(runs["model"].unique()))
    studies = "\n".join(
        f"- **{name}**: {question}{'' if (runs['study'] == name).any() else ' Not measured yet.'}"
        for name, question in evidence.about.studies.items()
    )
    n_cycles = runs.groupby("setting")["cycle"].nunique()
    return Prose(
        f"{evidence.about.description}\n\n{len(runs):,} runs of {len(n_cycles):,} settings, {(n_cycles > 1).sum():,} of"
        f" them in several cycles, gave numbers, each run in its own process{shared} on {machine}. Models: {models}."
        f" {formats(runs)} Instrument: {evidence.method_words}.\n\nThe questions:\n\n{studies}"
    )


def limits(evidence: Evidence) -> Prose:
    """What the numbers do not say."""
    runs = evidence.every_ok
    weights = set(runs["weights"].dropna())
    machines = counted(runs["host"].nunique(), "machine")
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
    models = listed(sorted((evidence.ok if len(evidence.ok) else runs)["model"].unique())) or "no model"
    served = runs["engine"].fillna("transformers").ne("transformers").any()
    software = "" if served else ", and services use faster software than this study does"
    points += [
        f"**Small models, one kind of hardware.** The models of the deployments, {models}, are small. Large models need"
        f" several GPUs{software}: their levels differ.",
        "**Who is billed.** Gross energy of the devices that take part, their idle power while running included. Other"
        " devices, processors, memory, network and cooling are outside, except that the PUE adds a share for the site.",
        "**A laboratory load.** Most settings run full batches of equal length without waiting. A service with gaps,"
        " short batches or idle machines in reserve needs more energy per token.",
        f"**{machines}.** Another specimen, driver or engine may differ; the intervals resample settings or"
        f" cycles of this campaign only.{_once(evidence)}",
        "**Averages of grids.** A region's carbon is its yearly mean, not what one more kilowatt-hour causes.",
        "**Use, not life cycle.** Making the hardware and training the model are not counted.",
    ]
    return Prose("\n".join(f"- {point}" for point in points))


def _once(evidence: Evidence) -> str:
    """How many settings were measured in one cycle only."""
    counts = evidence.every_ok.groupby("setting")["cycle"].nunique()
    n = int((counts < 2).sum())
    return f" {n:,} of {counted(len(counts), 'setting')} were measured in one cycle only." if n else ""


def assumptions_table(evidence: Evidence) -> Prose:
    """Every outside value the report uses, with unit and source."""
    assumed = evidence.assumptions
    chosen = [
        ("grid", assumed.grid),
        ("price", assumed.price),
        *(("PUE", fact) for fact in assumed.pues),
        ("household, a year", assumed.household),
        *(("service, requests a day", fact) for fact in assumed.requests),
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
        f" figure and page, this one as `results/{name}/report/`, also as PDF. The figures are also kept as SVG, each"
        f" with the table it was drawn from, in `results/{name}/figures/`."
    )


def headlines(evidence: Evidence) -> Prose:
    """The main findings as a list: the five numbers, how well they repeat, and what they mean."""
    found = [f"**{one.name}.** {one.sentence}" for one in numbers.five(evidence)]
    found += [
        f"**{name}.** {finding.title}{'' if lows.notna().any() else ' No interval yet: too few runs repeat it.'}"
        for name, finding, lows in (
            ("The software decides, too", engines.in_plain_words(evidence), evidence.engine_comparison["estimate_low"]),
            ("So does the load", arrivals.in_plain_words(evidence), evidence.arrival_ratio["energy_ratio_low"]),
        )
        if len(lows)
    ]
    found += [_repeatability(evidence), equivalents.sentence(evidence), equivalents.appliances(evidence).title]
    return Prose("\n".join(f"- {sentence}" for sentence in dict.fromkeys(found) if sentence))


def _repeatability(evidence: Evidence) -> str:
    """How little a repetition changes."""
    rows = evidence.cost_range
    if rows.empty and len(evidence.every_ok):
        return not_measured("how little a repeated deployment differs").title
    if rows.empty or not known(rows.iloc[0]["repeat_cv"]):
        return "No setting was measured twice: how well a number repeats is not known."
    row = rows.iloc[0]
    return (
        f"Runs of one setting differ by {percent(row['repeat_cv'])} in their energy per token (pooled standard"
        f" deviation of the logarithm, {counted(int(row['n_repeats']), 'repetition')})."
    )
