"""The report's five numbers: each with its interval, the runs behind it, and the page it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.policy.evidence import ESTIMATES, Evidence
from inference_energy.policy.precision import QUANTISED
from inference_energy.policy.spread import deployment_rows
from inference_energy.policy.wording import (
    Prose,
    counted,
    fold,
    interval,
    known,
    listed,
    number,
    percent,
    row_with,
)

#: Quantised and full formats in words.
FORMATS = {"int8": "8 bits (int8)", "int4": "4 bits (int4)", "float16": "16 bits (float16)"}
IDEAL_SHARE = "ideal_over_realistic_mean_ratio"
RATIO = "level_over_baseline_ratio"
FLOP, THROUGHPUT = "flop_per_output_token", "throughput_tokens_per_s"

#: Ratios closer to one are called no change.
NO_CHANGE = 0.02

#: Page and figure that show a subject in full.
SHOWN: dict[str, tuple[str, str]] = {
    "spread": ("02_distribution", "spread_models"),
    "accountings": ("02_distribution", "spread_accountings"),
    "repetition": ("02_distribution", "spread_variance"),
    "meter": ("01_campaign_quality", "quality_counter_against_power"),
    "machines": ("01_campaign_quality", "quality_anchors"),
    "warm_up": ("03_method", "method_warm_up"),
    "model": ("04_factors", "effects"),
    "batch_size": ("05_batch", "batch_ratio"),
    "lengths": ("05_batch", "batch_lengths"),
    "precision": ("06_precision", "precision_over_float16"),
    "parallelism": ("07_parallelism", "parallelism_ratio"),
    "decoding": ("08_decoding", "decoding_equivalence"),
    "traffic": ("09_traffic", "traffic_waiting"),
    "flops": ("10_throughput", "throughput_explained"),
    "scenarios": ("11_scenarios", "scenarios_spread"),
    "engine": ("15_engine", "engine_energy"),
    "load": ("17_serving", "serving_energy"),
    "answers": ("18_lengths", "lengths_ratio"),
    "machines_in_vllm": ("19_size", "size_machines"),
    "formats_in_vllm": ("19_size", "size_formats"),
}


@dataclass(frozen=True)
class Number:
    """One of the five.

    Attributes
    ----------
    name : str
        What it is about.
    subject : str
        Key of :data:`SHOWN`: which figure shows it.
    sentence : str
        What was found, or why there is no number.
    grounds : str
        How many settings and runs are behind it.
    """

    name: str
    subject: str
    sentence: str
    grounds: str = ""

    def __str__(self) -> str:
        grounds = f"{self.grounds}; " if self.grounds else ""
        return f"**{self.name}.** {self.sentence} ({grounds}{link(self.subject, 'figure')})"


def link(subject: str, words: str) -> str:
    """`words` as a link to the figure of `subject`."""
    page, figure = SHOWN[subject]
    return f"[{words}]({page}.html#fig-{figure})"


def five_numbers(evidence: Evidence) -> Prose:
    """What was found, as five numbers."""
    said = "\n".join(f"{place}. {one}" for place, one in enumerate(five(evidence), start=1))
    return Prose(f"Here {evidence.method_words}.\n\n{said}" if set(evidence.methods) & ESTIMATES else said)


def five(evidence: Evidence) -> tuple[Number, ...]:
    """The five, in the order of the report."""
    return spread(evidence), batching(evidence), formats(evidence), gaming(evidence), flops(evidence)


def spread(evidence: Evidence) -> Number:
    """Largest over smallest setting, and 95th over 5th percentile."""
    name, subject = "The setting decides", "spread"
    rows = deployment_rows(evidence)
    if rows.empty:
        return Number(name, subject, "Not measured in this campaign: energy of several deployments.")
    row = row_with(rows[rows["model"] != "all"] if len(rows) > 1 else rows, "n_settings")
    return Number(
        name,
        subject,
        f"The same model ({row['model']}) on the same kind of hardware and in the same software"
        f" ({software(evidence)}) needs"
        f" {_fold(evidence, row, 'max_over_min_fold')} as much electricity per token in the most costly setting as in"
        " the least costly one. Without the extremes (95th over 5th percentile) it is"
        f" {_fold(evidence, row, 'p95_over_p5_fold')}.",
        f"{counted(int(row['n_settings']), 'setting')}, {counted(int(row['n_runs']), 'run')}",
    )


def software(evidence: Evidence) -> str:
    """What all deployments run in: ``transformers``."""
    return listed(sorted(evidence.ok["engine"].fillna("transformers").unique()))


def batching(evidence: Evidence) -> Number:
    """What answering prompts together saves: a large batch against 2."""
    name, subject = "Answer prompts together", "batch_size"
    row = batch_row(evidence)
    if row is None:
        return Number(
            name,
            subject,
            "Not measured in this campaign: deployments at several batch sizes of one model and number format.",
        )
    return Number(
        name,
        subject,
        f"Answering {row['level']} prompts together instead of {row['baseline']} {_changes(evidence, row)}.",
        _grounds(row),
    )


def batch_row(evidence: Evidence) -> pd.Series | None:
    """Row of `level_ratio` for the largest batch size over all settings, with an interval if any row has one."""
    rows = _over_settings(evidence, "batch_size")
    rows = rows[rows[f"{RATIO}_low"].notna()] if rows[f"{RATIO}_low"].notna().any() else rows
    return rows.iloc[int(np.argmax(rows["level"].astype(int)))] if len(rows) else None


def formats(evidence: Evidence) -> Number:
    """The number format that changes most against 16 bits."""
    name, subject = "Fewer bits need not save", "precision"
    rows = format_rows(evidence)
    if rows.empty:
        return Number(
            "The number format",
            subject,
            "Not measured in this campaign: deployments in several number formats at one batch size.",
        )
    row = rows.iloc[int(np.argmax(np.abs(np.log(rows[RATIO].to_numpy(float)))))]
    others = [
        f"{FORMATS[str(other['level'])]} {_changes(evidence, other, brief=True)}"
        for _, other in rows.iterrows()
        if other["level"] in QUANTISED and other["level"] != row["level"]
    ]
    also = f"; {listed(others)}" if others else ""
    quantised = others or row["level"] in QUANTISED
    opening = f"With bitsandbytes in {software(evidence)}, storing" if quantised else "Storing"
    return Number(
        name if row[RATIO] > 1 and row["level"] in QUANTISED else "The number format",
        subject,
        f"{opening} the model's numbers in {FORMATS.get(row['level'], row['level'])} instead of"
        f" {FORMATS.get(row['baseline'], row['baseline'])} {_changes(evidence, row)}{also}.",
        _grounds(row),
    )


def format_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `level_ratio` for number formats over all settings: against float16, or float32 where that is all."""
    rows = _over_settings(evidence, "precision")
    return rows[rows["baseline"] == "float16"] if (rows["baseline"] == "float16").any() else rows


def gaming(evidence: Evidence) -> Number:
    """An ideal test case as a share of realistic ones."""
    name, subject = "A benchmark can be flattering", "scenarios"
    rows = gap_rows(evidence)
    if rows.empty:
        return Number(
            name, subject, "Not measured in this campaign: an ideal scenario (A1) beside realistic ones (R1 to R6)."
        )
    said = [f"{_percent(evidence, row, IDEAL_SHARE)} for {row['model']}" for _, row in rows.iterrows()]
    first = rows.iloc[0]
    return Number(
        name,
        subject,
        f"A test under ideal conditions (scenario A1) shows {listed(said)} of the electricity per token that"
        f" {counted(int(first['n_scenarios']), 'realistic scenario')} need on average. The model and the number"
        " of calculations per token are the same.",
        f"{counted(int(rows['n_runs'].sum()), 'run')}; scenarios as the published"
        f" {'text' if first['version'] == 'scenarios_text' else 'code'} defines them",
    )


def gap_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `benchmark_gap`, tokens counted as generated; of the text where all its scenarios were measured."""
    return _of_one_version(evidence.benchmark_gap[evidence.benchmark_gap["accounting"] == "generated"])


def scenario_rows(evidence: Evidence, quantity: str) -> pd.DataFrame:
    """Rows of `scenarios` of one quantity in the version of :func:`gap_rows`, tokens counted as generated."""
    rows, version = evidence.scenarios, gap_rows(evidence)["version"].unique()
    chosen = (rows["quantity"] == quantity) & (rows["accounting"] == "generated") & rows["version"].isin(version)
    return rows[chosen & rows["estimate"].notna()]


def _of_one_version(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the text if they hold as many scenarios and models as those of the code, else of the code."""
    text, code = (rows[rows["version"] == name] for name in ("scenarios_text", "scenarios_code"))
    return text if text["n_scenarios"].sum() >= code["n_scenarios"].sum() else code


def flops(evidence: Evidence) -> Number:
    """How much of the variance calculations per token explain."""
    name, subject = "Counting calculations does not tell", "flops"
    rows = explained_rows(evidence)
    calculations, speed = rows[rows["predictor"] == FLOP], rows[rows["predictor"] == THROUGHPUT]
    if calculations.empty or speed.empty:
        return Number(
            name, subject, "Not measured in this campaign: enough deployments to split what explains their energy."
        )
    if (calculations["n_values"] == 1).all():
        said = "is the same and explains nothing of the differences in electricity"
    else:
        said = f"explains {_of_models(evidence, calculations)} of the differences in electricity"
    first = rows.iloc[0]
    return Number(
        name,
        subject,
        f"Between settings of one model the number of calculations (FLOPs) per token {said}; how many tokens all"
        f" GPUs together write per second explains {_of_models(evidence, speed)}.",
        f"{counted(int(first['n_settings']), 'setting')}, {counted(int(first['n_runs']), 'run')} of {first['scope']}",
    )


def _of_models(evidence: Evidence, rows: pd.DataFrame) -> str:
    return listed([f"{_percent(evidence, row, 'variance_fraction')} for {row['scope']}" for _, row in rows.iterrows()])


def explained_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `explained` within single models that hold a number."""
    rows = evidence.explained
    return rows[(rows["scope"] != "all") & rows["variance_fraction"].notna()]


def _over_settings(evidence: Evidence, factor: str) -> pd.DataFrame:
    rows = evidence.level_ratio
    return rows[(rows["factor"] == factor) & (rows["scope"] == "all") & rows[RATIO].notna()]


def _grounds(row: pd.Series) -> str:
    return (
        f"{counted(int(row['n_pairs']), 'pair')} of runs, {int(row['n_same_sitting'])} of them within one sitting, in"
        f" {counted(int(row['n_settings']), 'setting')}"
    )


def _changes(evidence: Evidence, row: pd.Series, *, brief: bool = False) -> str:
    """``cuts the electricity per token by 91 % (…)`` or ``multiplies it by 3.0 (…)``; briefly ``by …`` alone."""
    ratio, low, high = (float(row[name]) for name in (RATIO, f"{RATIO}_low", f"{RATIO}_high"))
    ends = (low, high, "") if ratio >= 1 else (100 * (1 - high), 100 * (1 - low), "%")
    within = interval(*ends, evidence.assumptions.confidence) if known(low) and known(high) else "no interval"
    size = f"{number(ratio, 2)}" if ratio >= 1 else percent(1 - ratio)
    verb = "multiplies" if ratio >= 1 else "cuts"
    return f"{verb} {'it' if brief else 'the electricity per token'} by {size} ({within})"


def moved(ratio: float) -> str:
    """What a ratio does, in words: ``91 % less``, ``3.0× as much``, ``4 % more``, ``no change``."""
    if abs(ratio - 1) < NO_CHANGE:
        return "no change"
    if ratio < 1:
        return f"{percent(1 - ratio)} less"
    return f"{fold(ratio)} as much" if ratio >= 2 else f"{percent(ratio - 1)} more"


def _fold(evidence: Evidence, row: pd.Series, name: str) -> str:
    return _with_ends(evidence, row, name, fold(row[name]), 1.0, "×")


def _percent(evidence: Evidence, row: pd.Series, name: str) -> str:
    return _with_ends(evidence, row, name, percent(row[name]), 100.0, "%")


def _with_ends(evidence: Evidence, row: pd.Series, name: str, value: str, scale: float, unit: str) -> str:
    """``value (95 % interval low to high unit)``; without an interval, says so."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if not (known(low) and known(high)):
        return f"{value} (no interval)"
    return f"{value} ({interval(low * scale, high * scale, unit, evidence.assumptions.confidence)})"
