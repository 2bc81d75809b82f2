"""How far deployment choices spread the energy of a token, and under which accounting."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.evidence import Evidence
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
    quantity,
    span,
    table,
)

ALL, GROSS = "all_deployments", "taking_part_gross"

ENERGY = "energy_j_per_output_token"

#: Accountings in words, in order.
ACCOUNTINGS: dict[str, str] = {
    GROSS: "GPUs taking part, gross",
    "taking_part_net": "GPUs taking part, net of idle power",
    "machine_gross": "all GPUs of the machine, gross",
}

#: Columns of `energy_summary` as a table shows them, with their unit.
COLUMNS: dict[str, tuple[str, str]] = {
    "mean": ("energy_mean_j_per_output_token", "J"),
    "standard deviation": ("energy_sd_j_per_output_token", "J"),
    "CV": ("cv", ""),
    "5th percentile": ("energy_p05_j_per_output_token", "J"),
    "median": ("energy_p50_j_per_output_token", "J"),
    "95th percentile": ("energy_p95_j_per_output_token", "J"),
    "max/min": ("max_over_min_fold", "×"),
    "95/5": ("p95_over_p5_fold", "×"),
    "1 - min/max": ("max_over_min_reduction_fraction", "%"),
    "1 - 5/95": ("p95_over_p5_reduction_fraction", "%"),
    "skewness": ("skewness_ratio", ""),
    "skewness of the logarithm": ("log_skewness_ratio", ""),
    "upper tail, 95/50": ("p95_over_p50_fold", "×"),
    "lower tail, 50/5": ("p50_over_p5_fold", "×"),
}


def part_measured(evidence: Evidence) -> Prose:
    """How much of the design stands behind the page."""
    settings = deployment_points(evidence)["setting"].nunique()
    rows = evidence.campaign_quality
    whole = rows[rows["sitting"] == "all"]
    said = f"This page rests on {counted(settings, 'deployed setting')}."
    if len(whole) and known(whole.iloc[0]["n_planned_runs"]):
        planned, done = int(whole.iloc[0]["n_planned_runs"]), int(whole.iloc[0]["n_runs"])
        said += f" Of the design's {counted(planned, 'run')}, {done:,} ({percent(done / planned)}) are recorded."
        if done < planned:
            said += " Settings that are missing may lie outside the range of those measured: folds can only grow."
    return Prose(said)


def deployment_rows(evidence: Evidence, accounting: str = GROSS) -> pd.DataFrame:
    """Rows of `energy_summary` of all deployed settings, one per model (and 'all' for several)."""
    rows = evidence.energy_summary
    return _models_first(rows[(rows["study"] == ALL) & (rows["accounting"] == accounting)])


def deployment_points(evidence: Evidence, accounting: str = GROSS) -> pd.DataFrame:
    """Runs of deployed settings with their energy under `accounting`."""
    rows = evidence.boundaries
    deployed = rows["deployment"].fillna(False).astype(bool)
    return rows[deployed & (rows["accounting"] == accounting) & rows[ENERGY].notna()]


def deployment_runs(evidence: Evidence) -> pd.DataFrame:
    """Rows of `runs` of deployed settings with numbers."""
    key = ["study", "setting", "cycle"]
    return evidence.ok.merge(deployment_points(evidence)[key], on=key)


def _models_first(rows: pd.DataFrame) -> pd.DataFrame:
    named = rows[rows["model"] != "all"]
    return pd.concat([named, rows[rows["model"] == "all"]]) if len(named) > 1 else named


def _whose(model: object) -> str:
    return "all models together" if model == "all" else str(model)


def deployment_spread(evidence: Evidence) -> Finding:
    """How far settings lie apart, per model."""
    rows = deployment_rows(evidence)
    if rows.empty or (rows["n_settings"] < 2).all():
        return not_measured("energy per output token of several deployments")
    confidence = evidence.assumptions.confidence
    parts = [f"{fold(row['max_over_min_fold'])} for {_whose(row['model'])}" for _, row in rows.iterrows()]
    details = [
        f"{_whose(row['model'])} ({row['n_settings']} settings): largest over smallest"
        f" {estimate(row, 'max_over_min_fold', '×', confidence)}, 95th over 5th percentile"
        f" {estimate(row, 'p95_over_p5_fold', '×', confidence)}; choosing the smallest instead of the largest saves"
        f" {percent(row['max_over_min_reduction_fraction'])}, the 5th instead of the 95th percentile"
        f" {percent(row['p95_over_p5_reduction_fraction'])}; CV {_cell(row, 'cv', '')}"
        for _, row in rows.iterrows()
    ]
    whole = rows.iloc[-1]
    tails = (
        f"\n\nOn a plain scale the tail of costly settings is long (skewness {_cell(whole, 'skewness_ratio', '')});"
        f" on a log scale the tails are {_balance(whole)} (skewness {_cell(whole, 'log_skewness_ratio', '')}), which"
        " is why energies are drawn on one."
    )
    return Finding(
        f"Between the settings measured, the energy of an output token differs {listed(parts)}.",
        f"{bullets(details)}{tails if known(whole['log_skewness_ratio']) else ''}\n\nIn brackets: {level(confidence)}"
        " bootstrap intervals over settings, runs within. No interval of the largest over the smallest can be"
        " trusted to cover settings that were not measured: take that fold as a lower bound for them.",
    )


def _balance(row: pd.Series) -> str:
    low, high = row["log_skewness_ratio_low"], row["log_skewness_ratio_high"]
    if not (known(low) and known(high)) or low <= 0 <= high:
        return "not told apart"
    return "longer upwards" if low > 0 else "longer downwards"


def _cell(row: pd.Series, name: str, unit: str) -> str:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if not known(value):
        return "-"
    if unit == "%":
        return percent(value) + (f" ({percent(low)} to {percent(high)})" if known(low) else "")
    shown = fold(value) if unit == "×" else quantity(value, unit).strip() if unit else number(value, 2)
    if not known(low):
        return shown
    ends = span(low, high, unit, value) if unit else f"{number(low, 2)} to {number(high, 2)}"
    return f"{shown} ({ends})"


def spread_table(evidence: Evidence) -> Prose:
    """Every number of the spread over all deployed settings: a row a number, a column a model; per accounting."""
    parts = []
    for accounting, words in ACCOUNTINGS.items():
        rows = deployment_rows(evidence, accounting)
        if rows.empty:
            continue
        cells = {
            f"{_whose(row['model'])}, {counted(row['n_settings'], 'setting')}": [
                _cell(row, name, unit) for name, unit in COLUMNS.values()
            ]
            for _, row in rows.iterrows()
        }
        parts.append(f"**{words[0].upper()}{words[1:]}**\n\n{table(pd.DataFrame({'': list(COLUMNS), **cells}))}")
    return Prose("\n\n".join(parts) or not_measured("energy per output token of deployments").title)


def study_spread_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `energy_summary` of every study with two settings or more, widest first, then all deployments."""
    rows = evidence.energy_summary
    chosen = rows[(rows["accounting"] == GROSS) & (rows["model"] == "all") & (rows["n_settings"] > 1)]
    ordered = chosen[chosen["study"] != ALL].sort_values("max_over_min_fold", ascending=False)
    return pd.concat([chosen[chosen["study"] == ALL], ordered])


def study_points(evidence: Evidence) -> pd.DataFrame:
    """Runs of deployed settings, once for every study of :func:`study_spread_rows` that holds their setting."""
    points = deployment_points(evidence)
    parts = []
    for study in study_spread_rows(evidence)["study"]:
        settings = points.loc[points["study"] == study, "setting"]
        parts.append((points if study == ALL else points[points["setting"].isin(settings)]).assign(study=study))
    return pd.concat(parts) if parts else points.iloc[:0]


def study_spread(evidence: Evidence) -> Finding:
    """Which study holds most of the spread."""
    rows = study_spread_rows(evidence)
    ordered = rows[rows["study"] != ALL]
    if ordered.empty:
        return not_measured("a study of several deployments")
    widest, narrowest = ordered.iloc[0], ordered.iloc[-1]
    few = [str(row["study"]) for _, row in ordered.iterrows() if row["n_settings"] < 10]
    title = f"The settings of study {widest['study']} alone differ {fold(widest['max_over_min_fold'])}"
    if len(ordered) > 1:
        title += f", those of {narrowest['study']} {fold(narrowest['max_over_min_fold'])}"
    thin = f"Fewer than ten settings so far: {listed(few)}. " if few else ""
    return Finding(
        f"{title}.",
        f"{thin}Each study holds several factors and models at once, so a fold here is not the effect of one"
        " choice; the pages on factors say those.",
    )


def boundary_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `energy_summary` of all deployed settings under every accounting."""
    parts = [deployment_rows(evidence, accounting) for accounting in ACCOUNTINGS]
    return pd.concat(parts).assign(
        accounting_words=lambda rows: rows["accounting"].map(ACCOUNTINGS),
        whose=lambda rows: rows["model"].map(_whose),
    )


def boundary_spread(evidence: Evidence) -> Finding:
    """What the choice of accounting does to level and spread."""
    rows = boundary_rows(evidence)
    whole = rows[rows["model"] == "all"] if (rows["model"] == "all").any() else rows
    by = {str(row["accounting"]): row for _, row in whole.iterrows()}
    if GROSS not in by or len(by) < 2:
        return not_measured("more than one accounting of the same runs")
    shares = evidence.boundaries[evidence.boundaries["deployment"].fillna(False).astype(bool)]
    ratios = {str(name): each.astype(float) for name, each in shares.groupby("accounting")["over_default_ratio"]}
    parts = [
        f"{ACCOUNTINGS[name]}: {number(ratios[name].median(), 2)} of the default in the median run"
        f" ({number(ratios[name].min(), 2)} to {number(ratios[name].max(), 2)}); 95th over 5th percentile"
        f" {_cell(row, 'p95_over_p5_fold', '×')}, CV {_cell(row, 'cv', '')}"
        for name, row in by.items()
        if name != GROSS
    ]
    changes = [
        f"{fold(row['p95_over_p5_fold'])} ({ACCOUNTINGS[name]}, {counted(row['n_settings'], 'setting')})"
        for name, row in by.items()
    ]
    return Finding(
        f"The fold between the 95th and 5th percentile depends on who is counted: {listed(changes)}.",
        f"{bullets(parts)}\n\n{_basis(evidence)}",
    )


def _basis(evidence: Evidence) -> str:
    rows = evidence.boundaries
    rows = rows[rows["accounting"] == "machine_gross"]
    n = rows["basis"].value_counts()
    missing = int(rows[ENERGY].isna().sum())
    said = (
        f"The machine's idle GPUs were metered, or there were none, in {counted(int(n.get('metered', 0)), 'run')};"
        f" in {counted(int(n.get('estimated', 0)), 'run')} they are counted at the idle power that each showed when the"
        " instrument was qualified in the same sitting, as if no one else had used them."
    )
    if missing:
        said += f" Unknown in {counted(missing, 'run')}: {listed(sorted(rows['reason'].dropna().unique()))}."
    net = evidence.boundaries[evidence.boundaries["accounting"] == "taking_part_net"]
    lost = net[net[ENERGY].isna()]
    if len(lost):
        reasons = listed(sorted(lost["reason"].dropna().unique()))
        said += f" Net energy is unknown in {counted(len(lost), 'run')}: {reasons}."
    return said


def published_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `published_spread` with ten settings of a model: of the grid if it has them for all, else of all."""
    rows = evidence.published_spread
    enough = rows[rows["n_settings"] >= 10]
    grid, every = (enough[enough["study"] == study] for study in ("grid", ALL))
    return grid if grid["model"].nunique() == every["model"].nunique() else every


def published_spread(evidence: Evidence) -> Finding:
    """Our folds beside the published ones."""
    rows = published_rows(evidence)
    shown = rows[rows["quantity"] == "p95_over_p5_fold"]
    if shown.empty:
        return not_measured("ten settings of a model of the published table")
    parts = [f"{fold(row['estimate'])} against {fold(row['value'])} for {row['model']}" for _, row in shown.iterrows()]
    inside = [
        f"{row['model']}: published {'inside' if row['low'] <= row['value'] <= row['high'] else 'outside'} our interval"
        f" of {span(row['low'], row['high'], '×')} over {counted(row['n_settings'], 'setting')}"
        for _, row in shown.iterrows()
        if known(row["low"])
    ]
    same = (rows["study"] == "grid").all()
    which = (
        "Ours are the settings of the study grid, a balanced fraction of the published grid."
        if same
        else "The grid is not measured far enough to stand beside the published one, so ours are all deployed settings:"
        " other choices, in other shares. The comparison says whether the size is plausible, no more."
    )
    return Finding(
        f"95th over 5th percentile, ours against published: {listed(parts)}.",
        f"{bullets(inside)}\n\n{which} The published energies add up trackers that each read all GPUs (see the audit),"
        " so their level differs from ours by construction.",
    )


def published_table(evidence: Evidence) -> Prose:
    """Every published number on the spread beside ours."""
    rows = published_rows(evidence)
    if rows.empty:
        return Prose("")
    words = {name: (head, unit) for head, (name, unit) in COLUMNS.items()}
    cells = [
        {
            "model": row["model"],
            "": words[row["quantity"]][0],
            "published": _plain(row["value"], words[row["quantity"]][1]),
            "ours": _cell(
                pd.Series({"x": row["estimate"], "x_low": row["low"], "x_high": row["high"]}),
                "x",
                words[row["quantity"]][1],
            ),
        }
        for _, row in rows.iterrows()
    ]
    return table(pd.DataFrame(cells))


def _plain(value: float, unit: str) -> str:
    return _cell(pd.Series({"x": value, "x_low": float("nan"), "x_high": float("nan")}), "x", unit)
