"""Lengths of prompts and answers, and prompts given at once, in words."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.curves import of_study
from inference_energy.models.laws import HERE, LAWS, LINEAR, POWER, QUADRATIC
from inference_energy.policy.estimates import reasons, rows_with
from inference_energy.policy.evidence import Evidence, runs_of
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    estimate,
    fold,
    interval,
    known,
    listed,
    not_measured,
    number,
    percent,
    quantity,
    span,
    table,
)

RATIO, PART, SHORT_PART = "level_over_baseline_ratio", "square_part_fraction", "short_square_part_fraction"
_OF = {"input": "prompts", "output": "answers"}
_LAWS = {LINEAR: "a line", QUADRATIC: "a line with a square", POWER: "a power"}
_LONG = {
    "long_prompt": "a prompt of {n_input_tokens:,} tokens takes {} the energy",
    "long_answer": "an answer of {n_output_tokens:,} tokens takes {} the energy",
}
_PAIR = "long prompts and long answers beside short ones (study model_size)"


def fits(evidence: Evidence, varied: str, published: bool = False) -> pd.DataFrame:
    """Rows of `length_fits` of one length, small models first; with those of published energies on request."""
    rows = rows_with(evidence.length_fits, varied=varied)
    rows = rows if published else rows_with(rows, source=HERE)
    return rows.sort_values(["source", "linear_slope_energy_j_per_prompt"], ascending=[False, True])


def ratios(evidence: Evidence, *comparisons: str) -> pd.DataFrame:
    """Rows of `length_ratios` of some comparisons, in their order, small models first and all models last."""
    rows = evidence.length_ratios
    rows = rows[rows["comparison"].isin(comparisons)]
    place = rows["comparison"].map({name: place for place, name in enumerate(comparisons)})
    keys = ["place", "n_input_tokens", "n_output_tokens", "batch_size", "energy_j_per_prompt"]
    return rows.assign(place=place).sort_values(keys, na_position="last").drop(columns="place")


def growth(evidence: Evidence, varied: str) -> Finding:
    """How energy per prompt grows with the length of prompts (`varied` is ``input``) or answers (``output``)."""
    rows, what = fits(evidence, varied), _OF[varied]
    if rows.empty:
        return not_measured(f"{what} of several lengths (study {varied}_length)")
    fitted = rows.dropna(subset=[PART])
    missing = [f"{row['model']}: {row['note']}." for _, row in rows[rows[PART].isna()].iterrows()]
    if fitted.empty:
        return Finding(
            f"How energy grows with the length of {what} cannot be told yet: too few lengths were measured.",
            bullets(missing),
        )
    confidence = evidence.assumptions.confidence
    opening = {
        ("up",): f"Energy bends upward with the length of {what}",
        ("undecided",): f"Energy grows with the length of {what} along a line, as far as can be told",
        ("down",): f"Energy bends downward with the length of {what}",
    }.get(tuple(fitted["bend"].unique()), f"Whether energy bends with the length of {what} differs between models")
    parts = [
        f"{percent(row[PART])} of it in {row['model']} at {row['longest_tokens']:,.0f} tokens"
        for _, row in fitted.iterrows()
    ]
    lengths = list(dict.fromkeys(str(n) for n in sorted(fitted["n_lengths"])))
    freedom = f"{counted(int(fitted['n_freedom'].iloc[0]), 'degree')} of freedom"
    return Finding(
        f"{opening}: the square of the length accounts for {listed(parts)}.",
        bullets([_growth_of(row, confidence) for _, row in fitted.iterrows()] + missing)
        + f"\n\nEach law is fitted in proportion to {' to '.join(lengths)} lengths of a model, the mean over its runs"
        f" each; the spread is pooled over the models ({freedom})."
        " That can show a bend of tens of percent, and no small one." + _published(evidence, varied),
    )


def _growth_of(row: pd.Series, confidence: float) -> str:
    """What the laws say of one model."""
    errors = [f"{percent(row[f'{law}_left_out_fraction'])} by {words}" for law, words in _LAWS.items()]
    return (
        f"{row['model']}, {row['batch_size']} prompts at once: a thousand tokens more take"
        f" {estimate(row, 'linear_slope_energy_j_per_prompt', 'J', confidence)} by the line. The square's part is"
        f" {_share(row, PART, confidence)} at {row['longest_tokens']:,.0f} tokens and"
        f" {_share(row, SHORT_PART, confidence)} at 128 (test of no square: p {_p(row['quadratic_p_value'])})."
        f" A length left out is missed by {listed(errors)}, whose exponent is"
        f" {number(row['power_elasticity_ratio'])}."
        + (f" AICc is best for {_LAWS[row['fits_best']]}." if pd.notna(row["fits_best"]) else f" {row['note']}.")
    )


def _p(value: float) -> str:
    return "below 0.0001" if value < 0.0001 else f"= {number(value, 1)}"


def _share(row: pd.Series, name: str, confidence: float) -> str:
    ends = interval(row[f"{name}_low"] * 100, row[f"{name}_high"] * 100, "%", confidence)
    return f"{percent(row[name])} ({ends})"


def _published(evidence: Evidence, varied: str) -> str:
    """The same of published energies, where there are any."""
    rows = fits(evidence, varied, published=True)
    rows = rows[rows["source"] != HERE].dropna(subset=[PART])
    return "".join(
        f" The published energies of {row['model']} ({row['source']}), fitted alike, have a square's part of"
        f" {_share(row, PART, evidence.assumptions.confidence)} at {row['longest_tokens']:,.0f} tokens."
        for _, row in rows.iterrows()
    )


def long_or_short(evidence: Evidence) -> Finding:
    """What long prompts and long answers cost over short ones."""
    rows = ratios(evidence, "long_prompt", "long_answer")
    if rows.empty:
        return not_measured(_PAIR)
    confidence = evidence.assumptions.confidence
    said = [
        _LONG[str(comparison)].format(_across(of_level, confidence), **of_level.iloc[0])
        for comparison, of_level in rows.groupby("comparison", sort=False)
    ]
    beside = ratios(evidence, "answer_or_prompt")
    last = beside.iloc[-1] if len(beside) else None
    across = (
        ""
        if last is None
        else f"\n\nThe long answer takes {estimate(last, RATIO, '×', confidence)} the energy of the long prompt"
        f" ({_whose(last)})" + (": a prompt is computed at once, an answer token by token." if last[RATIO] > 1 else ".")
    )
    return Finding(
        f"Against {rows['baseline'].iloc[0].replace(' in, ', ' tokens in and ')}, {listed(said)}.",
        f"{counted(int(rows['batch_size'].iloc[0]), 'prompt')} at once; the interval of a mean takes its models for a"
        f" sample of all models.{_each(rows, confidence)}{across}",
    )


def _across(rows: pd.DataFrame, confidence: float) -> str:
    """``1.7× to 2.4×``: lowest and highest of the models; of a single one its interval."""
    models = rows[rows["setting"] != "all"]
    if len(models) == 1:
        return estimate(models.iloc[0], RATIO, "×", confidence)
    return " to ".join(dict.fromkeys(fold(end) for end in (models[RATIO].min(), models[RATIO].max())))


def context(evidence: Evidence) -> Finding:
    """What a single request with a very long prompt costs beside one with a short prompt."""
    rows = ratios(evidence, "long_context")
    if rows.empty:
        return not_measured("a single request with a very long prompt (study long_context)")
    confidence, row = evidence.assumptions.confidence, rows.iloc[-1]
    shortest = int(runs_of(evidence, "long_context")["n_input_tokens"].min())
    return Finding(
        f"A single request with {row['n_input_tokens']:,} input tokens takes {estimate(row, RATIO, '×', confidence)}"
        f" the energy of one with {shortest:,}, for {fold(row['n_input_tokens'] / shortest)} the input tokens.",
        _each(rows, confidence),
    )


def guidance(evidence: Evidence) -> Finding:
    """What prompts enriched with guidance cost per answer."""
    rows = ratios(evidence, "guidance")
    if rows.empty:
        return not_measured("prompts with and without guidance (study guidance)")
    confidence, row = evidence.assumptions.confidence, rows.iloc[-1]
    shortest = int(runs_of(evidence, "guidance")["n_input_tokens"].min())
    return Finding(
        f"Prompts of {row['n_input_tokens']} instead of {shortest} tokens take {_across(rows, confidence)}"
        f" the energy per answer, for {fold(row['n_input_tokens'] / shortest)} the input tokens.",
        _each(rows, confidence) + f"\n\nAnswers have {row['n_output_tokens']} tokens on average with either prompt:"
        " their lengths are drawn. Guidance that makes answers longer or shorter changes more than this.",
    )


def at_once(evidence: Evidence) -> Finding:
    """What giving an engine several prompts at once saves, and where that ends."""
    rows = ratios(evidence, "prompts_at_once")
    if rows.empty:
        return not_measured("several prompts at once beside a single one (study prompts_at_once)")
    confidence = evidence.assumptions.confidence
    of_models = rows[rows["setting"] != "all"]
    best = of_models.loc[of_models.groupby("model", sort=False)[RATIO].idxmin()]
    said = [f"{fold(1 / row[RATIO])} less in {row['model']} with {row['batch_size']}" for _, row in best.iterrows()]
    curves = evidence.prompts_curve
    lines = [_flattens(row, confidence) for _, row in curves.iterrows()]
    return Finding(
        f"Prompts given at once share their cost: per prompt, energy is up to {listed(said)} at once.",
        bullets(lines)
        + "\n\nEnergy per prompt: "
        + "; ".join(_energies(of_model) for _, of_model in of_models.groupby("model", sort=False))
        + ".",
    )


def _flattens(row: pd.Series, confidence: float) -> str:
    """Where the curve of one model flattens."""
    if not known(row["plateau_energy_j_per_prompt"]):
        return f"{row['model']}: {row['note']}."
    plateau = estimate(row, "plateau_energy_j_per_prompt", "J", confidence)
    said = f"{row['model']}: the law of a shared cost leaves {plateau} per prompt however many there are"
    if known(row["n_prompts_near_plateau"]):
        said += f", and is within a tenth of that from {number(row['n_prompts_near_plateau'], 2)} prompts on"
        beyond = row["n_prompts_near_plateau"] > row["n_prompts_most"]
        said += f" (beyond the {row['n_prompts_most']} measured)" if beyond else ""
    limit = f" The engine runs {row['n_sequences_limit']} at a time at most." if known(row["n_sequences_limit"]) else ""
    note = f" ({row['note']})" if pd.notna(row["note"]) else ""
    return f"{said}; it misses the measured energies by {percent(row['shared_cv'])}{note}.{limit}"


def _energies(rows: pd.DataFrame) -> str:
    """``in m 30 J alone, 6 J with 8``: energy per prompt with each number of prompts."""
    alone = float((rows["energy_j_per_prompt"] / rows[RATIO]).iloc[0])
    each = [f"{quantity(row['energy_j_per_prompt'], 'J')} with {row['batch_size']}" for _, row in rows.iterrows()]
    return f"in {rows['model'].iloc[0]} {quantity(alone, 'J')} alone, {', '.join(each)}"


def answer(evidence: Evidence) -> Finding:
    """The short answer of the page on lengths."""
    found = [long_or_short(evidence), growth(evidence, "output"), growth(evidence, "input"), at_once(evidence)]
    found += [context(evidence), guidance(evidence)]
    there = [one.title for one in found if not one.title.startswith("Not measured")]
    if not there:
        return not_measured("prompts and answers of several lengths on vLLM")
    return Finding(there[0], " ".join(there[1:]))


def fits_table(evidence: Evidence) -> Prose:
    """Every law, a row a curve and law."""
    rows = pd.concat([fits(evidence, varied, published=True) for varied in ("output", "input")])
    cells = [
        {
            "length of": _OF[row["varied"]],
            "model": f"{row['model']}, {row['source']}",
            "lengths (runs)": f"{row['n_lengths']} ({row['n_runs']})",
            "law": _equation(row, law),
            "residuals": percent(row[f"{law}_residual_fraction"]),
            "length left out": percent(row[f"{law}_left_out_fraction"]),
            "AICc": number(row[f"{law}_aicc"]) if known(row[f"{law}_aicc"]) else "–",
            "weight": percent(row[f"{law}_weight_fraction"]) if known(row[f"{law}_weight_fraction"]) else "–",
        }
        for _, row in rows.dropna(subset=[PART]).iterrows()
        for law in LAWS
    ]
    return table(pd.DataFrame(cells)) if cells else Prose(not_measured("energy at several lengths").title)


def _equation(row: pd.Series, law: str) -> str:
    """The law with its numbers, n in thousands of tokens."""

    def of(name: str) -> str:
        return number(row[f"{law}_{name}_energy_j_per_prompt"])

    if law == POWER:
        return f"E = {of('thousand')} J · n^{number(row['power_elasticity_ratio'])}"
    square = f" + {of('square')} J · n²" if law == QUADRATIC else ""
    return f"E = {of('fixed')} J + {of('slope')} J · n{square}".replace("+ -", "- ")


def ratios_table(evidence: Evidence) -> Prose:
    """Every ratio, a row each."""
    rows = evidence.length_ratios
    if rows.empty:
        return Prose(not_measured("workloads of several lengths beside each other").title)
    cells = [
        {
            "workload": row["level"],
            "over": row["baseline"],
            "model": row["model"],
            "prompts at once": row["batch_size"],
            "energy per prompt": quantity(row["energy_j_per_prompt"], "J")
            if known(row["energy_j_per_prompt"])
            else "–",
            "ratio": number(row[RATIO]),
            "interval": span(row[f"{RATIO}_low"], row[f"{RATIO}_high"], "") if known(row[f"{RATIO}_low"]) else "–",
            "pairs (same sitting)": f"{row['n_pairs']} ({row['n_sitting_pairs']})",
            "remark": row["interval_by"] if pd.isna(row["note"]) else row["note"],
        }
        for _, row in rows.iterrows()
    ]
    return table(pd.DataFrame(cells))


def _each(rows: pd.DataFrame, confidence: float) -> str:
    """A line for each model and workload, and why there is no interval."""
    lines = [f"{row['level']}, {_whose(row)}: {estimate(row, RATIO, '×', confidence)}" for _, row in rows.iterrows()]
    notes = reasons(rows)
    return bullets(lines) + (f"\n\nOf single models {notes}." if notes else "")


def _whose(row: pd.Series) -> str:
    return f"mean of {counted(int(row['n_settings']), 'model')}" if row["setting"] == "all" else str(row["model"])


def runs_behind(evidence: Evidence, *studies: str) -> pd.DataFrame:
    """Runs with an energy per prompt of the settings of `studies`, in whatever study they were measured."""
    return pd.concat([of_study(evidence.ok, study, "energy_j_per_prompt") for study in studies])
