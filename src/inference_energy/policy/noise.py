"""Where the variance of log energy comes from, and what this design can therefore detect."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    known,
    level,
    listed,
    not_measured,
    number,
    percent,
    table,
)

COMPONENTS: dict[str, str] = {
    "setting": "between settings",
    "sitting": "between sittings (hosts)",
    "gpu": "between GPUs of a sitting",
    "run": "between runs of a setting on one GPU",
    "window": "between windows of a run",
}

GROUPS: dict[str, str] = {
    "all": "all settings",
    "GPU-bound": "settings that keep the GPU busy",
    "host-bound": "settings that wait for the host",
    "with waiting": "settings with simulated waiting",
}


def variance_split_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `variance_split` with numbers, and in words."""
    rows = evidence.variance_split.dropna(subset=["cv"])
    return rows.assign(component_words=rows["component"].map(COMPONENTS))


def variance_split(evidence: Evidence) -> Finding:
    """How much of the variance is choice, how much the machine, how much noise."""
    rows = evidence.variance_split
    by = {str(row["component"]): row for _, row in rows[rows["settings"] == "all"].iterrows()}
    if not by or not known(by["setting"]["cv"]) or not known(by["run"]["cv"]):
        why = listed(sorted({str(row["reason"]) for row in by.values() if isinstance(row["reason"], str)}))
        return Finding(
            "Not measured in this campaign: how the variance of energy splits into settings, machines and repetitions.",
            f"It cannot be estimated, because {why}." if why else "",
        )
    confidence = evidence.assumptions.confidence
    setting, run = by["setting"], by["run"]
    correlation = ""
    if known(setting["intraclass_correlation"]):
        correlation = (
            f"Two runs of one setting correlate by {number(setting['intraclass_correlation'], 4)} (intraclass"
            f" correlation of the logarithm; {level(confidence)} interval"
            f" {number(setting['intraclass_correlation_low'], 4)} to"
            f" {number(setting['intraclass_correlation_high'], 4)}), over settings measured more than once."
        )
    noise = _sentence(rows)
    mixed = sorted(
        {
            f"{COMPONENTS[str(row['component'])]}: {row['reason']}"
            for row in by.values()
            if isinstance(row["reason"], str)
        }
    )
    return Finding(
        f"{percent(setting['variance_fraction'])} of the variance of log energy lies between settings; repeating one on"
        f" the same GPU moves it by {percent(run['cv'])}.",
        f"{correlation}{noise}" + (f"\n\nRead with care:{bullets(mixed)}" if mixed else ""),
    )


def _sentence(rows: pd.DataFrame) -> str:
    """What hosts and repetitions do to settings that the GPU limits, and to those that the host limits."""
    parts = []
    for group in ("GPU-bound", "host-bound"):
        of_group = rows[(rows["settings"] == group) & (rows["component"] != "setting")]
        told = [
            f"{percent(row['cv']) if row['cv'] > 0 else 'nothing visible'} {COMPONENTS[str(row['component'])]}"
            for _, row in of_group.iterrows()
            if known(row["cv"])
        ]
        if told:
            parts.append(f"{GROUPS[group]}: {listed(told)}")
    return f"\n\nAs coefficients of variation:{bullets(parts)}" if parts else ""


def variance_split_table(evidence: Evidence) -> Prose:
    """Every component of every group, and why some are missing."""
    rows = evidence.variance_split
    if rows.empty:
        return Prose(not_measured("repeated runs of a deployment").title)
    cells = [
        {
            "settings": row["settings"],
            "component": COMPONENTS[str(row["component"])],
            "levels": row["n_levels"],
            "degrees of freedom": row["n_freedom"],
            "CV": _with_ends(row),
            "share of the variance": percent(row["variance_fraction"]) if known(row["variance_fraction"]) else "-",
            "note": row["reason"] if isinstance(row["reason"], str) else "",
        }
        for _, row in rows.iterrows()
    ]
    confidence = evidence.assumptions.confidence
    return Prose(
        f"{table(pd.DataFrame(cells))}\n\nIn brackets: {level(confidence)} intervals (settings and windows:"
        " chi-square; sittings, GPUs and runs: profile of the restricted likelihood)."
    )


def _with_ends(row: pd.Series) -> str:
    if not known(row["cv"]):
        return "-"
    high = percent(row["cv_high"]) if known(row["cv_high"]) else "unbounded"
    if row["cv"] == 0:
        return f"none seen (up to {high})"
    return f"{percent(row['cv'])} ({percent(row['cv_low'])} to {high})" if known(row["cv_low"]) else percent(row["cv"])


def smallest_effects(evidence: Evidence) -> Finding:
    """What a comparison within a sitting can find."""
    if evidence.smallest_effects.empty:
        return not_measured("repeated runs of a deployment")
    rows = evidence.smallest_effects.dropna(subset=["smallest_effect_fraction"])
    two = rows[(rows["matched"] == "sitting") & (rows["n_settings"] == 1) & (rows["n_cycles"] == 2)]
    if two.empty:
        reasons = listed(sorted(evidence.smallest_effects["reason"].dropna().unique()))
        return Finding("The smallest effect that this design detects cannot be estimated.", f"Because {reasons}.")
    by = {str(row["settings"]): row for _, row in two.iterrows()}
    bound = [name for name in by if name in ("GPU-bound", "host-bound")]
    parts = [f"{percent(by[name]['smallest_effect_fraction'])} for {GROUPS[name]}" for name in bound or by]
    first = two.iloc[0]
    return Finding(
        f"Two settings compared in two cycles of one sitting differ detectably from {listed(parts)}.",
        f"Detectably: a two-sided test at {percent(first['alpha_fraction'])} finds the difference in"
        f" {percent(first['power_fraction'])} of repetitions, with the noise estimated above. Over several settings"
        " smaller effects show, if the factor acts alike in all of them.",
    )


def smallest_effects_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `smallest_effects` with numbers, within a sitting."""
    rows = evidence.smallest_effects.dropna(subset=["smallest_effect_fraction"])
    return rows[rows["matched"] == "sitting"]


def smallest_effects_table(evidence: Evidence) -> Prose:
    """Smallest detectable effects: a row a design, a column a group of settings."""
    rows = evidence.smallest_effects.dropna(subset=["smallest_effect_fraction"])
    if rows.empty:
        return smallest_effects(evidence).answer
    cells = []
    for _, of_design in rows.groupby(["matched", "n_settings", "n_cycles"], sort=False):
        matched, n_settings, n_cycles = of_design.iloc[0][["matched", "n_settings", "n_cycles"]]
        where = "in one sitting" if matched == "sitting" else "in different sittings"
        what = "two settings" if n_settings == 1 else f"a factor over {n_settings} settings"
        found = of_design.set_index("settings")["smallest_effect_fraction"]
        cells.append(
            {"comparison": f"{what}, {counted(n_cycles, 'cycle')}, {where}"}
            | {GROUPS[name]: percent(found[name]) if name in found else "-" for name in rows["settings"].unique()}
        )
    return table(pd.DataFrame(cells))
