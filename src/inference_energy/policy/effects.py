"""Which deployment choice matters most, what levels do, which choices work together, and the rest of the grid."""

from __future__ import annotations

import numpy as np
import pandas as pd

from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    estimate,
    fold,
    interval,
    known,
    level,
    listed,
    not_measured,
    percent,
    quantity,
    row_with,
    setting_words,
    span,
    table,
)

FACTORS: dict[str, str] = {
    "batch_size": "batch size",
    "parallelism": "use of several GPUs",
    "traffic": "waiting between requests",
    "lengths": "lengths of prompt and answer",
}
_RATIO, _FOLD = "level_over_baseline_ratio", "levels_fold"
_CLEAR = 0.05  # a Holm-adjusted p-value below it is called clear
_WHY = "Cannot be estimated, because"


def factor_words(term: str) -> str:
    """A factor, or two, as a reader says it."""
    return " and ".join(FACTORS.get(name, name) for name in term.split(" x "))


def factor_rows(evidence: Evidence, kind: str = "factor") -> pd.DataFrame:
    """Rows of `factor_ranking` of one kind that have a test, largest share first, with their words."""
    rows = evidence.factor_ranking
    chosen = rows[(rows["kind"] == kind) & rows["explained_fraction"].notna()].sort_values("order")
    return chosen.assign(words=[factor_words(term) for term in chosen["term"]])


def factors(evidence: Evidence) -> Finding:
    """Which factors explain the variance of energy per token, most first."""
    rows = factor_rows(evidence)
    if rows.empty:
        return not_measured("several levels of a factor in enough settings to rank factors")
    said = [f"{row['words']} alone explains {percent(row['explained_fraction'])}" for _, row in rows[:1].iterrows()]
    said += [f"{row['words']} {percent(row['explained_fraction'])}" for _, row in rows[1:3].iterrows()]
    clear = rows["holm_p_value"] < _CLEAR
    unclear = rows[~clear]["words"].tolist()
    first = rows.iloc[0]
    parts = [
        f"Shares are of the variance of log energy per output token over {counted(int(first['n_settings']), 'setting')}"
        f" ({counted(int(first['n_runs']), 'run')}), each factor beside all others and the sitting. Settings are not"
        " balanced, and more levels were tried of some factors than of others: shares depend on the levels chosen and"
        " need not add up.",
        f"No clear effect (p above {_CLEAR:g} after Holm's correction): {listed(unclear)}." if unclear else "",
        _sitting(evidence),
    ]
    return Finding(f"Of the variance of energy per token {listed(said)}.", " ".join(part for part in parts if part))


def _sitting(evidence: Evidence) -> str:
    rows = factor_rows(evidence, "block")
    if rows.empty:
        return ""
    return f"Sittings (other hosts and GPUs) explain {percent(rows.iloc[0]['explained_fraction'])}."


def factors_table(evidence: Evidence) -> Prose:
    """Share, fold between levels, test and published counterpart of every factor; reasons where there is no test."""
    rows = evidence.factor_ranking
    of_kind = rows[rows["kind"] == "factor"]
    if of_kind.empty:
        return Prose(not_measured("any factor").title)
    confidence = evidence.assumptions.confidence
    cells = [
        {
            "factor": factor_words(row["term"]),
            "share of variance": _or_dash(row["explained_fraction"], percent),
            "highest over lowest level": estimate(row, _FOLD, "×", confidence) if known(row[_FOLD]) else "–",
            "p (Holm)": _or_dash(row["holm_p_value"], _p_value),
            "published": row["published_impact"] if pd.notna(row["published_impact"]) else "–",
        }
        for _, row in of_kind.iterrows()
    ]
    reasons = [
        f"{factor_words(row['term'])}: {row['reason']}" for _, row in of_kind.iterrows() if pd.notna(row["reason"])
    ]
    ends = f"\n\n{_WHY}: {bullets(reasons)}" if reasons else ""
    return Prose(
        f"{table(pd.DataFrame(cells))}\n\nPublished: what Baker's web page says of each factor, in its own terms; its"
        " tensor parallelism is a whole copy of the model in every process. The fold is between those of our levels"
        f" that can be told, picked as highest and lowest after looking: its interval is a little too narrow.{ends}"
    )


def _or_dash(value: float, words: object) -> str:
    return words(value) if known(value) and callable(words) else "–"


def _p_value(value: float) -> str:
    return "below 0.001" if value < 0.001 else "above 0.99" if value > 0.99 else f"{value:.2g}"


def level_effect_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `effects` with a ratio, beside the first baseline of each factor."""
    rows = evidence.effects
    first = rows.groupby("factor", sort=False)["baseline"].transform("first")
    chosen = rows[(rows["baseline"] == first) & rows[_RATIO].notna()]
    return chosen.assign(words=[factor_words(factor) for factor in chosen["factor"]])


def level_effects(evidence: Evidence) -> Finding:
    """Which levels move energy per token clearly, and by how much."""
    rows = level_effect_rows(evidence)
    if rows.empty:
        return not_measured("two levels of a factor in several settings each")
    clear = rows[rows["holm_p_value"] < _CLEAR]
    furthest = clear.assign(size=np.abs(np.log(clear[_RATIO].astype(float)))).sort_values("size", ascending=False)
    said = [
        f"{fold(row[_RATIO])}{'' if place else ' the energy'} with {_level(row)}"
        for place, (_, row) in enumerate(furthest.drop_duplicates("factor")[:3].iterrows())
    ]
    cells = [
        {
            "factor": row["words"],
            "level over baseline": f"{row['level']} over {row['baseline']}",
            "energy per token": _cell(row, _RATIO, "×"),
            "p (Holm)": _or_dash(row["holm_p_value"], _p_value),
            "settings": row["n_settings"],
        }
        for _, row in rows.iterrows()
    ]
    title = (
        f"Against its baseline, all else equal, a token takes {listed(said)}."
        if said
        else "No level differs clearly from its baseline once all levels are tested together."
    )
    return Finding(
        title,
        f"{len(clear)} of {counted(len(rows), 'level')} differ clearly (p below {_CLEAR:g} after Holm's correction)."
        " A ratio is an average over the settings measured; where two choices work together it hides that, see below."
        f"\n\n{table(pd.DataFrame(cells))}\n\nIn brackets: {level(evidence.assumptions.confidence)} intervals.",
    )


def _level(row: pd.Series) -> str:
    return f"batch {row['level']}" if row["factor"] == "batch_size" else str(row["level"])


def level_effects_against_float32(evidence: Evidence) -> Prose:
    """The precisions against float32, as the published study compares them."""
    rows = evidence.effects
    chosen = rows[(rows["factor"] == "precision") & (rows["baseline"] == "float32") & rows[_RATIO].notna()]
    if chosen.empty:
        return Prose(not_measured("float32 beside another precision").title)
    confidence = evidence.assumptions.confidence
    points = [f"{row['level']}: {estimate(row, _RATIO, '×', confidence)}" for _, row in chosen.iterrows()]
    return Prose(f"Against float32, as the published study compares: {bullets(points)}")


def level_effects_left_out(evidence: Evidence) -> Prose:
    """Levels without a ratio, with the reason."""
    rows = evidence.effects
    first = rows.groupby("factor", sort=False)["baseline"].transform("first")
    chosen = rows[(rows["baseline"] == first) & rows["reason"].notna()]
    if chosen.empty:
        return Prose("Every level has a ratio.")
    points = [f"{factor_words(row['factor'])}: {row['reason']}" for _, row in chosen.iterrows()]
    return Prose(f"Levels without a ratio: {bullets(points)}")


def factor_runs(evidence: Evidence) -> pd.DataFrame:
    """Runs of the settings behind the ranking and the ratios."""
    return evidence.ok[evidence.ok["setting"].isin(evidence.adjusted_runs["setting"])]


def grid_runs(evidence: Evidence) -> pd.DataFrame:
    """Runs of the settings that the grid's model is fitted to."""
    return evidence.ok[evidence.ok["setting"].isin(evidence.grid_left_out["setting"])]


def interaction(evidence: Evidence, term: str) -> Finding:
    """Whether two factors work together, or why that cannot be told."""
    rows = evidence.factor_ranking[evidence.factor_ranking["term"] == term]
    words = factor_words(term)
    if rows.empty:
        return not_measured(words)
    row = rows.iloc[0]
    cells = f"{int(row['n_missing_cells'])} of {int(row['n_cells'])} pairs of levels have no setting" + (
        f", such as {'; '.join(str(row['missing_cells']).split('; ')[:3])}."
        if known(row["n_missing_cells"]) and row["n_missing_cells"]
        else "."
    )
    if pd.notna(row["reason"]):
        return Finding(f"Whether {words} work together cannot be estimated, because {row['reason']}.", cells)
    share, p_value = percent(row["explained_fraction"]), _p_value(row["holm_p_value"])
    clear = row["holm_p_value"] < _CLEAR
    title = (
        f"What {term.split(' x ')[0].replace('_', ' ')} does depends on {factor_words(term.split(' x ')[1])}: together"
        f" they explain a further {share} of the variance."
        if clear
        else f"That {words} work together is not shown: no more than {share} of the variance goes to both at once."
    )
    return Finding(
        title, f"Wald test, p {p_value} after Holm's correction, {counted(int(row['n_settings']), 'setting')}. {cells}"
    )


def interaction_rows(evidence: Evidence, term: str) -> pd.DataFrame:
    """Adjusted runs of one interaction."""
    return evidence.adjusted_runs[evidence.adjusted_runs["term"] == term]


def grid_check(evidence: Evidence) -> Finding:
    """How well the chosen model predicts settings that it has not seen."""
    rows = evidence.grid_models
    chosen = rows[rows["chosen"].fillna(value=False).astype(bool)]
    if chosen.empty:
        reasons = rows["reason"].dropna()
        return Finding(
            f"The grid's model {_WHY.lower()} {reasons.iloc[0] if len(reasons) else 'no setting can be left out'}."
        )
    row = chosen.iloc[0]
    others = rows[~rows["chosen"].astype(bool) & rows["error_left_out_cv"].notna()]
    worst = (
        f"; the plainest candidate is off by {percent(others.iloc[0]['error_left_out_median_fraction'])}"
        if len(others)
        else ""
    )
    power = ""
    if known(row["waiting_power_w"]):
        ends = interval(row["waiting_power_w_low"], row["waiting_power_w_high"], "W", row["confidence"])
        power = (
            f" As a check of the physics, it finds that a waiting GPU draws {quantity(row['waiting_power_w'], 'W')}"
            f" ({ends}), from energies alone; metered with the model loaded and nothing to do:"
            f" {quantity(row['idle_loaded_power_w'], 'W')}."
        )
    return Finding(
        f"A setting that the model has not seen is predicted to within"
        f" {percent(row['error_left_out_median_fraction'])} (median), and {percent(row['interval_coverage_fraction'])}"
        f" of such settings lie in their {level(row['confidence'])} interval.",
        f"Chosen of {counted(len(rows), 'candidate')} by the smallest error of"
        f" {counted(int(row['n_left_out']), 'setting')} left out in turn: {row['candidate']}, that is"
        f" {row['description']}; {int(row['n_parameters'])} coefficients from"
        f" {counted(int(row['n_settings']), 'setting')} of all studies{worst}. A level is taken"
        f" to do the same in combinations that were not measured, and sittings and hosts that differ are part of the"
        f" error.{power}",
    )


def grid_models_table(evidence: Evidence) -> Prose:
    """All candidates with their errors."""
    if evidence.grid_models.empty:
        return Prose(not_measured("settings that a model of the grid could be fitted to").title)
    cells = [
        {
            "candidate": f"**{row['candidate']}**" if row["chosen"] else row["candidate"],
            "energy per token is": row["description"],
            "coefficients": row["n_parameters"] if known(row["n_parameters"]) else "–",
            "median error left out": _or_dash(row["error_left_out_median_fraction"], percent),
            "root mean square": _or_dash(row["error_left_out_cv"], percent),
            "in their interval": _or_dash(row["interval_coverage_fraction"], percent),
        }
        for _, row in evidence.grid_models.iterrows()
    ]
    return Prose(table(pd.DataFrame(cells)))


def grid_check_rows(evidence: Evidence) -> pd.DataFrame:
    """Measured settings with a prediction that has not seen them."""
    return evidence.grid_left_out.dropna(subset=["energy_predicted_j_per_output_token"])


def grid_spread(evidence: Evidence) -> Finding:
    """The grid's folds, measured and predicted apart."""
    rows = evidence.grid_folds
    told = rows[rows["p95_over_p5_fold"].notna() & (rows["model"] != "all")]
    states = evidence.grid_prediction["status"].value_counts()
    n = {name: int(states.get(name, 0)) for name in ("measured", "predicted", "cannot be predicted")}
    behind = (
        f"Of the grid's {counted(len(evidence.grid_prediction), 'setting')} {n['measured']:,} are measured,"
        f" {n['predicted']:,} predicted and {n['cannot be predicted']:,} are neither."
    )
    if told.empty:
        return Finding(
            "The spread of the published grid cannot be estimated in this campaign.",
            f"{behind} {_unpredicted(evidence)}",
        )
    confidence = float(told.iloc[0]["confidence"])
    said = [
        f"{fold(row['p95_over_p5_fold'])} for {row['model']} ({row['source']}, {row['n_settings']:,} settings;"
        f" {span(row['p95_over_p5_fold_low'], row['p95_over_p5_fold_high'], '×', row['p95_over_p5_fold'])})"
        for _, row in told.iterrows()
    ]
    lacking = [
        f"{row['source']}, {row['model']}: {row['reason']}"
        for _, row in rows[rows["reason"].notna() & (rows["model"] != "all")].iterrows()
    ]
    no_fold = f" No fold: {bullets(lacking)}\n\n" if lacking else " "
    return Finding(
        f"95th over 5th percentile of the grid's energies: {listed(said)}.",
        f"{behind} In brackets {level(confidence)} intervals.{no_fold}{_unpredicted(evidence)}",
    )


def _unpredicted(evidence: Evidence) -> str:
    """Why settings cannot be predicted, and how many."""
    reasons = evidence.grid_prediction["reason"].dropna().str.split("; ").explode().value_counts()
    points = [f"{counted(int(n), 'setting')}: {reason}" for reason, n in reasons.items()]
    return f"Not predicted, because (a setting may lack several): {bullets(points)}" if points else ""


def grid_folds_table(evidence: Evidence) -> Prose:
    """Median and both folds by source and model."""
    if evidence.grid_folds.empty:
        return Prose(not_measured("settings of the published grid").title)
    cells = [
        {
            "source": row["source"],
            "model": "both" if row["model"] == "all" else row["model"],
            "settings": f"{row['n_settings']:,} of {row['n_grid_settings']:,}",
            "median": _cell(row, "energy_p50_j_per_output_token", "J"),
            "max/min": _cell(row, "max_over_min_fold", "×"),
            "95/5": _cell(row, "p95_over_p5_fold", "×"),
            "published max/min": _or_dash(row["published_max_over_min_fold"], fold),
            "published 95/5": _or_dash(row["published_p95_over_p5_fold"], fold),
        }
        for _, row in evidence.grid_folds.iterrows()
    ]
    return Prose(
        f"{table(pd.DataFrame(cells))}\n\nMeasured and predicted settings are never mixed. Predicted folds are medians"
        " of draws from the predictive distribution, so they hold the scatter that a measurement would have."
        " The published folds are of other GPUs and of another way to count energy over several GPUs."
    )


def _cell(row: pd.Series, name: str, unit: str) -> str:
    if not known(row[name]):
        return "–"
    value = fold(row[name]) if unit == "×" else quantity(row[name], unit)
    return f"{value} ({span(row[f'{name}_low'], row[f'{name}_high'], unit, row[name])})"


def grid_extremes(evidence: Evidence) -> Prose:
    """The most frugal and the most costly predicted setting."""
    rows = evidence.grid_prediction
    chosen = rows[rows["status"] == "predicted"]
    if chosen.empty:
        return Prose("No setting of the grid is predicted.")
    name, confidence = "energy_predicted_j_per_output_token", evidence.assumptions.confidence
    said = []
    for words, largest in (("Lowest", False), ("highest", True)):
        row = row_with(chosen, name, largest)
        where = f"{setting_words(row)}, {counted(int(row['n_gpus']), 'GPU')}"
        said.append(f"{words} prediction: {estimate(row, name, 'J', confidence)}, {where}, {row['latency_level']}")
    return Prose(f"{'; '.join(said)}.")
