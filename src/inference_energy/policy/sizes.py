"""What the size of a model, of its numbers and of its machine costs, in words, and which choice saves how much."""

from __future__ import annotations

import numpy as np
import pandas as pd

from inference_energy.models.curves import of_study
from inference_energy.models.sizes import (
    AICC,
    BOTH_PARTS,
    ENERGY_RATIO,
    EXPONENT,
    EXPONENTIAL,
    EXPONENTIAL_OVER,
    FEWER_GPUS,
    FEWEST_JOULES,
    GPUS_PART,
    LEFT_OUT,
    LINEAR,
    MACHINE,
    NUMBERS,
    ONE_GPU,
    PER_TEN_BILLION,
    POWER,
    PRECISION_PART,
    PRECISION_SHARE,
    R2,
    SLOPE,
    SMALLER_MODEL,
    SPEED_RATIO,
    TAKING_PART,
)
from inference_energy.policy.estimates import cell, reasons, rows_with, said, without_interval
from inference_energy.policy.evidence import ENERGY, Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    fold,
    known,
    level,
    listed,
    not_measured,
    number,
    percent,
    quantity,
    table,
)
from inference_energy.units import axis_label

LAWS = {LINEAR: "a straight line", POWER: "a power law", EXPONENTIAL: "an exponential"}
SETUPS = {ONE_GPU: "each model on one GPU", FEWEST_JOULES: "each model on the GPUs on which it takes least"}
ACCOUNTINGS = {TAKING_PART: "GPUs that take part", MACHINE: "a whole machine of four GPUs"}
AICC_CLOSE = 2.0  # laws that differ by less are hardly told apart (Burnham and Anderson 2002, section 2.6)
WHAT_LAWS = "energy against the size of the model (study model_size)"
WHAT_MACHINES = "one model on several numbers of GPUs (study model_size)"
WHAT_FORMATS = "number formats of vLLM on one GPU and on several (study quantisation)"
_LENGTHS = ["n_input_tokens", "n_output_tokens"]


def answer(evidence: Evidence) -> Finding:
    """The page in a sentence: what grows with size, and what fewer GPUs and fewer bits save."""
    found = [part(evidence) for part in (laws, machines, formats)]
    measured = [one.title for one in found if not one.title.startswith("Not measured")]
    return (
        Finding(" ".join(measured)) if measured else not_measured("models, machines or number formats of several sizes")
    )


def size_points(evidence: Evidence) -> pd.DataFrame:
    """Runs of study `model_size` with ``n_parameters``."""
    runs = of_study(evidence.ok, "model_size", ENERGY)
    return runs.merge(evidence.architectures[["model", "n_parameters"]], on="model", how="left")


def format_runs(evidence: Evidence) -> pd.DataFrame:
    """Runs that table `quantisation` rests on."""
    return of_study(evidence.ok, "quantisation", ENERGY)


def points_table(evidence: Evidence) -> Prose:
    """Geometric means of every model, machine and pair of lengths: energy per output token and per prompt, speed."""
    points = size_points(evidence)
    if points.empty:
        return Prose(not_measured(WHAT_LAWS).title)
    quantities = {ENERGY: "J", "energy_j_per_prompt": "J", "throughput_tokens_per_s": "tokens/s"}
    logs = points.assign(**{name: np.log(points[name].astype(float)) for name in quantities})
    groups = logs.groupby(["n_parameters", "model", "n_gpus", *_LENGTHS], sort=True)
    rows = [
        {
            "model": model,
            "parameters": f"{number(group['n_parameters'].iloc[0] / 1e9)} billion",
            "GPUs": n_gpus,
            "tokens in, out": f"{n_input}, {n_output}",
            **{
                axis_label(name).rpartition(" (")[0]: quantity(np.exp(group[name].mean()), unit)
                for name, unit in quantities.items()
            },
            "runs": len(group),
        }
        for (_, model, n_gpus, n_input, n_output), group in groups
    ]
    return Prose(f"{table(pd.DataFrame(rows))}\n\nGeometric means over runs, GPUs that take part.")


def laws(evidence: Evidence) -> Finding:
    """Which law describes energy against parameters, and which foretells a model."""
    groups = _law_groups(evidence)
    if not groups:
        points = size_points(evidence)
        if points.empty:
            return not_measured(WHAT_LAWS)
        one = points[points["n_gpus"] == 1]
        models = one.groupby(_LENGTHS)["model"].transform("nunique")
        few = int(models.max()) if len(one) else 0
        why = f"which law holds cannot be told: that takes five models of one pair of lengths, and there are {few}."
        if few < 2:
            return Finding(why[0].upper() + why[1:])
        chosen = one[models == few].sort_values(_LENGTHS)
        chosen = chosen[(chosen[_LENGTHS] == chosen[_LENGTHS].iloc[0]).all(axis=1)]
        return Finding(f"{_grown(chosen)}; {why}", "Models on one GPU each, at the lengths that most of them have.")
    first = groups[0]
    points = size_points(evidence).query(_same_lengths(first))
    exponent = rows_with(first, law=POWER, quantity=EXPONENT).iloc[0]
    return Finding(
        f"{_grown(points[points['n_gpus'] == 1])}, and of three laws {_best(first)} describes it best.",
        f"The power law's exponent is {cell(exponent, '')}: 1 would be in proportion."
        " With answers of one length energy per prompt is the same curve, as many times higher as an answer has tokens."
        f"{bullets([_law_words(group, evidence.assumptions.confidence) for group in groups])}",
    )


def _grown(points: pd.DataFrame) -> str:
    """``68 times the parameters took 39× the energy per token (…)``, from the smallest to the largest of `points`."""
    ends = points.sort_values("n_parameters").iloc[[0, -1]]
    small, large = ends["n_parameters"].astype(float)
    means = points.assign(log=np.log(points[ENERGY].astype(float))).groupby("model")["log"].mean()
    grown = float(np.exp(means[ends["model"].iloc[1]] - means[ends["model"].iloc[0]]))
    lengths = "{n_input_tokens} tokens in and {n_output_tokens} out".format(**ends.iloc[0])
    return f"{number(large / small, 2)} times the parameters took {fold(grown)} the energy per token ({lengths})"


def laws_table(evidence: Evidence) -> Prose:
    """Every law with its numbers, and how well it describes and foretells."""
    rows = []
    for group in _law_groups(evidence):
        for law, (first, second) in NUMBERS.items():
            told = {name: rows_with(group, law=law, quantity=name) for name in (first, second, AICC, LEFT_OUT, R2)}
            one, two, score, error, r2 = (found.iloc[0] if len(found) else None for found in told.values())
            rows.append(
                {
                    "points": _group_words(group),
                    "law": LAWS[law],
                    "first number": _numbered(one, first),
                    "second number": _numbered(two, second),
                    "AICc": "too few models"
                    if score is None or not known(score["estimate"])
                    else f"{score['estimate']:.1f}",
                    "left out, a model is missed by": "–" if error is None else cell(error, "×"),
                    "R² of a straight line": "–" if r2 is None else cell(r2, ""),
                }
            )
    if not rows:
        return Prose("No law could be fitted." if len(size_points(evidence)) else not_measured(WHAT_LAWS).title)
    return Prose(
        f"{table(pd.DataFrame(rows))}\n\nLine: energy at no parameters, and what a billion parameters add. Power law:"
        " energy at a billion parameters, and the exponent. Exponential: energy at no parameters, and the factor for"
        f" ten billion parameters. In brackets {level(evidence.assumptions.confidence)} intervals. AICc: the smaller"
        " the better, to be compared between the laws of the same points only."
    )


def machines(evidence: Evidence) -> Finding:
    """What the same model takes on fewer GPUs."""
    rows = rows_with(evidence.right_size, quantity=ENERGY_RATIO, choice=FEWER_GPUS)
    if rows.empty:
        return not_measured(WHAT_MACHINES)
    taking, whole = (_widest(rows_with(rows, accounting=name)) for name in (TAKING_PART, MACHINE))
    fast = _widest(rows_with(evidence.right_size, quantity=SPEED_RATIO, choice=FEWER_GPUS))
    parts = [f"{row['model']} on {_gpus(row)} took {fold(row['estimate'])}" for _, row in taking.iterrows()]
    billed = [f"{fold(row['estimate'])} ({row['model']})" for _, row in whole.iterrows()]
    slow = [f"{fold(row['estimate'])} ({row['model']})" for _, row in fast.iterrows()]
    return Finding(
        f"Per token, {listed(parts)} the energy.",
        f"Counted are the GPUs that take part. If a machine of four is billed as a whole, its idle GPUs too, the ratios"
        f" are {listed(billed)}; tokens come at {listed(slow)} the rate. The first is right where the other GPUs serve"
        " someone else or are not there, the second where they wait for this model alone." + without_interval(taking),
    )


def machines_table(evidence: Evidence) -> Prose:
    """Ratios between numbers of GPUs and between models, with intervals."""
    rows = []
    for choice in (FEWER_GPUS, SMALLER_MODEL):
        energy = rows_with(evidence.right_size, quantity=ENERGY_RATIO, choice=choice, accounting=TAKING_PART)
        for _, row in energy.iterrows():
            names = ("model", "n_gpus", "over_model", "n_gpus_over", *_LENGTHS)
            same = rows_with(evidence.right_size, **{name: row[name] for name in names})
            told = {
                words: rows_with(same, quantity=quantity_, accounting=accounting)
                for words, quantity_, accounting in (
                    (f"energy, {ACCOUNTINGS[TAKING_PART]}", ENERGY_RATIO, TAKING_PART),
                    (f"energy, {ACCOUNTINGS[MACHINE]}", ENERGY_RATIO, MACHINE),
                    ("tokens per second", SPEED_RATIO, TAKING_PART),
                )
            }
            rows.append(
                {
                    "choice": f"{row['model']} on {row['n_gpus']}",
                    "over": f"{row['over_model']} on {row['n_gpus_over']}",
                    "tokens in, out": f"{row['n_input_tokens']}, {row['n_output_tokens']}",
                    **{words: cell(found.iloc[0], "×") for words, found in told.items()},
                    "compared": row["compared"],
                    "runs": row["n_runs"],
                }
            )
    if not rows:
        return Prose(not_measured(WHAT_MACHINES).title)
    return Prose(
        f"{table(pd.DataFrame(rows))}\n\nRatios of energy per output token; in brackets"
        f" {level(evidence.assumptions.confidence)} intervals. *Within sittings*: hosts fall out of the ratio; *over"
        " sittings*: they are part of its interval."
    )


def formats(evidence: Evidence) -> Finding:
    """How much of what fewer bits save is fewer bits, and how much fewer GPUs."""
    rows = evidence.quantisation
    rows = _over_batches(rows[rows["quantity"].isin([ENERGY_RATIO, PRECISION_SHARE])])
    same = rows_with(rows, part=PRECISION_PART, quantity=ENERGY_RATIO)
    if same.empty:
        return not_measured(WHAT_FORMATS)
    same = same[same["n_gpus_to"] == same["n_gpus_to"].min()]
    both, share = rows_with(rows, part=BOTH_PARTS, quantity=ENERGY_RATIO), rows_with(rows, quantity=PRECISION_SHARE)
    parts = [f"{fold(row['estimate'])} ({row['precision_to']})" for _, row in same.iterrows()]
    before, n_gpus = same.iloc[0]["precision_from"], same.iloc[0]["n_gpus_to"]
    together = [
        f"{row['precision_to']} on {row['n_gpus_to']} over {row['precision_from']} on {row['n_gpus_from']}:"
        f" {said(row, '×', evidence.assumptions.confidence)}; {_share_words(share, row)}"
        for _, row in both.iterrows()
    ]
    fewer = rows_with(rows, part=GPUS_PART, quantity=ENERGY_RATIO)
    alone = [
        f"{row['precision_from']} on {row['n_gpus_to']} over {row['n_gpus_from']} GPUs:"
        f" {said(row, '×', evidence.assumptions.confidence)}"
        for _, row in fewer.iterrows()
    ]
    return Finding(
        f"On the same {'GPU' if n_gpus == 1 else f'{n_gpus} GPUs'} a token took {listed(parts)} the energy it took in"
        f" {before}{_at_batch(same)}.",
        "Where fewer bits also free a GPU, the saving has two parts that multiply: the number format on the same GPUs,"
        f" and fewer GPUs in the same format.{without_interval(same)}{bullets([*together, *alone])}",
    )


def formats_table(evidence: Evidence) -> Prose:
    """Every change of format, of GPUs and of both, at each batch size."""
    energy = rows_with(evidence.quantisation, quantity=ENERGY_RATIO)
    if energy.empty:
        return Prose(not_measured(WHAT_FORMATS).title)
    changes = ["model", "precision_from", "n_gpus_from", "precision_to", "n_gpus_to", "part"]
    lines = []
    for _, group in energy.groupby(changes, sort=False):
        for _, row in group.iterrows():
            same = rows_with(evidence.quantisation, **{name: row[name] for name in changes})
            batches = same["batch_size"]
            same = same[batches.eq(row["batch_size"]) if known(row["batch_size"]) else batches.isna()]
            share = rows_with(same, quantity=PRECISION_SHARE)
            lines.append(
                {
                    "model": row["model"],
                    "from": f"{row['precision_from']} on {row['n_gpus_from']}",
                    "to": f"{row['precision_to']} on {row['n_gpus_to']}",
                    "batch": row["batch_size"] if known(row["batch_size"]) else "all",
                    "energy": cell(row, "×"),
                    "tokens per second": cell(rows_with(same, quantity=SPEED_RATIO).iloc[0], "×"),
                    "share of the number format": _share(share.iloc[0]) if len(share) else "–",
                    "runs": row["n_runs"],
                }
            )
    notes = reasons(rows_with(evidence.quantisation, quantity=PRECISION_SHARE))
    return Prose(
        f"{table(pd.DataFrame(lines))}\n\nIn brackets {level(evidence.assumptions.confidence)} intervals. The share is"
        " that of the logarithm of the whole saving: what the number format does on the fewer GPUs. Above 100 % fewer"
        f" GPUs cost more, below 0 % the number format does.{f' Without a share: {notes}.' if notes else ''}"
    )


def _law_groups(evidence: Evidence) -> list[pd.DataFrame]:
    """Rows of `model_size` of the same points, shortest lengths and one GPU first."""
    rows = evidence.model_size.sort_values([*_LENGTHS, "gpus"], key=lambda c: c if c.name != "gpus" else c != ONE_GPU)
    groups = [group for _, group in rows.groupby([*_LENGTHS, "gpus"], sort=False)]
    first = [group.drop(columns="gpus").to_csv(index=False) for group in groups]  # often the two choices are one
    return [group for place, group in enumerate(groups) if first.index(first[place]) == place]


def _same_lengths(group: pd.DataFrame) -> str:
    return " and ".join(f"{name} == {group[name].iloc[0]}" for name in _LENGTHS)


def _group_words(group: pd.DataFrame) -> str:
    first = group.iloc[0]
    return (
        f"{SETUPS[first['gpus']]}, {first['n_input_tokens']} tokens in and {first['n_output_tokens']} out,"
        f" {counted(int(first['n_models']), 'model')}"
    )


def _best(group: pd.DataFrame) -> str:
    """The law of the least AICc, with the next one where that is hardly worse."""
    scores = rows_with(group, quantity=AICC).sort_values("estimate").set_index("law")["estimate"]
    first, second = (LAWS[str(law)] for law in scores.index[:2])
    return f"{first} (hardly better than {second})" if scores.iloc[1] - scores.iloc[0] < AICC_CLOSE else first


def _law_words(group: pd.DataFrame, confidence: float) -> str:
    """What describes the points best, how far a model is missed, and what the exponential does."""
    errors = rows_with(group, quantity=LEFT_OUT).set_index("law")["estimate"]
    over = rows_with(group, quantity=EXPONENTIAL_OVER, law=POWER).iloc[0]
    missed = listed([f"{percent(errors[law] - 1)} by {words}" for law, words in LAWS.items()])
    return (
        f"{_group_words(group)}: {_best(group)} describes them best. Each model left out in turn is missed by {missed}"
        f" on average; the exponential's miss over the power law's is {said(over, '×', confidence)}."
    )


def _numbered(row: pd.Series | None, name: str) -> str:
    """A law's number with its unit and interval."""
    if row is None:
        return "–"
    if name in (EXPONENT, PER_TEN_BILLION):
        return cell(row, "×" if name == PER_TEN_BILLION else "")
    return cell(row, "J") + (" per billion" if name == SLOPE else "")


def _share(row: pd.Series) -> str:
    """A fraction with its interval."""
    return cell(row, "%") if known(row["estimate"]) else "–"


def _share_words(shares: pd.DataFrame, row: pd.Series) -> str:
    same = rows_with(
        shares, precision_to=row["precision_to"], n_gpus_from=row["n_gpus_from"], n_gpus_to=row["n_gpus_to"]
    )
    if same.empty:
        return "its parts were not both measured"
    if not known(same.iloc[0]["estimate"]):
        return f"no share, because {same.iloc[0]['note']}"
    return f"of this saving the number format is {percent(same.iloc[0]['estimate'])}, fewer GPUs the rest"


def _widest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each model the fewest GPUs over the most."""
    ordered = rows.sort_values(["n_gpus", "n_gpus_over"], ascending=[True, False])
    return ordered.drop_duplicates(["model", *_LENGTHS])


def _gpus(row: pd.Series) -> str:
    return f"{row['n_gpus']} GPU{'s' * int(row['n_gpus'] > 1)} instead of {row['n_gpus_over']}"


def _at_batch(rows: pd.DataFrame) -> str:
    """`` at batch 8`` where that is the only batch size that was measured."""
    batches = rows["batch_size"].dropna().unique()
    return f" at batch {listed([str(batch) for batch in batches])}" if len(batches) else ""


def _over_batches(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows over all batch sizes; those of the only one where there is one."""
    pooled = rows[rows["batch_size"].isna()]
    return pooled if len(pooled) else rows
