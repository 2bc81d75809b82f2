"""How far the published scenarios lie apart, in words."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.scenarios import CV, FOLD, IDEAL, IDEAL_SHARE, REALISTIC, named
from inference_energy.policy.estimates import ACCOUNTINGS, cell, reasons, rows_with
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    counted,
    fold,
    known,
    level,
    listed,
    not_measured,
    percent,
    table,
)

VERSIONS = {"scenarios_text": "as the text says", "scenarios_code": "as the code does"}
_ONCE = (
    "No interval is given here, because not every scenario was measured in two cycles; the policy report gives one from"
    " the scatter of all repeated runs."
)
WHAT = "the published scenarios (studies scenarios_text and scenarios_code)"


def scenario_runs(evidence: Evidence) -> pd.DataFrame:
    """Runs of the scenarios under each accounting: the column ``scenario``, and energy as the accounting counts it."""
    runs = named(evidence.ok)
    keys = ["campaign", "study", "setting", "cycle"]
    counted_rows = evidence.accountings[[*keys, "accounting", "energy_j_per_output_token"]]
    return runs.drop(columns="energy_j_per_output_token").merge(counted_rows, on=keys)


def scenario_spread(evidence: Evidence) -> Finding:
    """Fold over the realistic scenarios, as we count and as published."""
    rows = evidence.scenarios
    if rows.empty:
        return not_measured(WHAT)
    folds = rows_with(rows, quantity=FOLD)
    usable = folds[folds["estimate"].notna()]
    if usable.empty:
        return Finding(
            f"{counted(scenario_runs(evidence)['setting'].nunique(), 'scenario')} measured: too few to compare.",
            f"The spread cannot be estimated, because {reasons(folds)}.",
        )
    parts = []
    versions = usable["version"].nunique()
    for (version, model), of_pair in usable.groupby(["version", "model"], sort=True):
        ours = rows_with(of_pair, accounting="generated")
        theirs = rows_with(of_pair, accounting="published")
        if ours.empty:
            continue
        again = f", {fold(theirs['estimate'].iloc[0])} counted as published" if len(theirs) else ""
        said = ours["published_ratio"].iloc[0]
        stated = f" (the study states {fold(said)})" if known(said) else ""
        which = f" {VERSIONS[str(version)]}" if versions > 1 else ""
        parts.append(f"{fold(ours['estimate'].iloc[0])} for {model}{which}{again}{stated}")
    return Finding(
        f"Between realistic scenarios energy per generated token differs {listed(parts)}.",
        f"Scenarios on several GPUs are duplicated replicas in the code's version: counting decides how far they lie"
        f" from the others. {_missing(rows)}".strip(),
    )


def ideal_share(evidence: Evidence) -> Finding:
    """How little of the realistic scenarios' energy the ideal one shows."""
    rows = rows_with(evidence.scenarios, quantity=IDEAL_SHARE)
    usable = rows_with(rows[rows["estimate"].notna()], accounting="generated")
    if usable.empty:
        return (
            not_measured(f"scenario {IDEAL} beside realistic ones")
            if rows.empty
            else Finding(
                f"How far {IDEAL} falls short of realistic scenarios cannot be estimated, because {reasons(rows)}."
            )
        )
    n_versions = len(set(usable["version"]))
    parts = [
        f"{percent(row['estimate'])} for {row['model']}"
        + (f" {VERSIONS[row['version']]}" if n_versions > 1 else "")
        + (f" (published: {percent(row['published_ratio'])})" if known(row["published_ratio"]) else "")
        for _, row in usable.iterrows()
    ]
    least = float(usable["estimate"].min())
    return Finding(
        f"A benchmark that runs the ideal scenario {IDEAL} shows only this share of what realistic scenarios take per"
        f" generated token: {listed(parts)}.",
        f"By the choice of {IDEAL} alone a benchmark could state as little as 1/{1 / least:.0f} of the energy."
        + ("" if usable["estimate_low"].notna().all() else f" {_ONCE}"),
    )


def scenario_table(evidence: Evidence) -> Prose:
    """Fold, CV and share under every accounting, beside the published values."""
    rows = evidence.scenarios
    if rows.empty:
        return Prose(not_measured(WHAT).title)
    heads = {
        FOLD: ("largest over smallest of R1 to R6", "×"),
        CV: ("CV of R1 to R6", "%"),
        IDEAL_SHARE: ("A1 over their mean", "%"),
    }
    cells = []
    for (version, model), group in rows.groupby(["version", "model"], sort=True):
        lines = {name: rows_with(group, accounting=name) for name in ACCOUNTINGS}
        for name, of_accounting in lines.items():
            line = {"version": VERSIONS[str(version)], "model": model, "accounting": ACCOUNTINGS[name]}
            for quantity, (words, unit) in heads.items():
                found = rows_with(of_accounting, quantity=quantity)
                line[words] = cell(found.iloc[0], unit) if len(found) else "–"
            first = rows_with(of_accounting, quantity=FOLD)
            cells.append(line | {"scenarios": first["n_scenarios"].max(), "cycles": first["n_cycles"].max()})
        stated = {words: _stated(group, quantity) for quantity, (words, _) in heads.items()}
        cells.append(
            {"version": "the study states", "model": model, "accounting": "", **stated, "scenarios": "", "cycles": ""}
        )
    return Prose(
        f"{table(pd.DataFrame(cells))}\n\nIn brackets: {level(evidence.assumptions.confidence)} intervals over"
        f" cycles; none where a scenario was measured in one cycle only. {_missing(rows)}".strip()
    )


def _stated(rows: pd.DataFrame, quantity: str) -> str:
    value = rows_with(rows, quantity=quantity)["published_ratio"].dropna()
    if value.empty:
        return "–"
    return fold(value.iloc[0]) if quantity == FOLD else percent(value.iloc[0])


def _missing(rows: pd.DataFrame) -> str:
    """Which scenarios are not measured, by version and model."""
    lacking = []
    for (version, model), group in rows.groupby(["version", "model"], sort=True):
        without = [name for name in (IDEAL, *REALISTIC) if name not in set(group["scenario"].dropna())]
        if without:
            lacking.append(f"{listed(without)} of {model} {VERSIONS[str(version)]}")
    absent = [words for version, words in VERSIONS.items() if version not in set(rows["version"])]
    said = f"Not measured: {'; '.join(lacking)}." if lacking else ""
    return f"{said} {f'No scenario {listed(absent)} is measured.' if absent else ''}".strip()
