"""Do runs agree? Sentences on anchor settings and on neighbours."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.evidence import ENERGY, Evidence
from inference_energy.policy.wording import (
    Finding,
    bullets,
    counted,
    difference,
    furthest_from_one,
    known,
    level,
    listed,
    not_measured,
    number,
    percent,
    setting_words,
)


def anchor_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `anchors` on energy per token."""
    return evidence.anchors[evidence.anchors["quantity"] == ENERGY]


def anchors(evidence: Evidence) -> Finding:
    """Whether anchor settings repeat on one GPU, and how far GPUs and hosts differ."""
    rows = anchor_rows(evidence)
    if rows.empty:
        return not_measured("anchor settings, repeated in every sitting (study anchors)")
    by = rows.drop_duplicates("setting")
    sittings = f"{rows['sitting'].nunique()} of {counted(evidence.every_run['sitting'].nunique(), 'sitting')}"
    seen = f"{sittings} and {counted(rows['gpu_uuid_hash'].nunique(), 'GPU')}"
    if by["same_gpu_largest_fraction"].isna().all() and by["between_gpus_cv"].isna().all():
        return Finding(
            f"{counted(len(by), 'anchor setting')} measured once, over {seen}: nothing to compare yet.", _partial(rows)
        )
    bound = by[by["gpu_bound"].fillna(value=False).astype(bool)]
    repeated = bound[bound["verdict"] != "undecided"]
    repeats = int((repeated["verdict"] == "repeats").sum())
    details = [f"{setting_words(row)}: {_repeated(row)}" for _, row in by.iterrows()]
    margin = percent(by["margin_fraction"].iloc[0])
    title = f"{repeats} of {counted(len(repeated), 'GPU-bound anchor setting')} repeat within {margin} on the same GPU"
    if repeated.empty:
        title = "Whether a GPU repeats itself is not known yet: no GPU measured a GPU-bound anchor twice"
    apart = by["between_hosts_cv"].dropna()
    hosts = list(dict.fromkeys((percent(apart.min()), percent(apart.max())))) if len(apart) else []
    between = f"; hosts differ by {' to '.join(hosts)} (CV)" if hosts else ""
    return Finding(f"{title}, over {seen}{between}.", bullets(details))


def _repeated(row: pd.Series) -> str:
    """What is known of an anchor setting's repetitions."""
    facts = {
        "largest difference on one GPU": row["same_gpu_largest_fraction"],
        "CV on one GPU": row["same_gpu_cv"],
        "CV between GPUs": row["between_gpus_cv"],
        "CV between hosts": row["between_hosts_cv"],
    }
    known_ones = [f"{name} {percent(value)}" for name, value in facts.items() if known(value)]
    return f"{row['verdict']} ({', '.join(known_ones)})" if known_ones else f"{row['verdict']}, measured once"


def interference_rows(evidence: Evidence) -> pd.DataFrame:
    """Rows of `interference` on energy per token."""
    return evidence.interference[evidence.interference["quantity"] == ENERGY]


def interference(evidence: Evidence) -> Finding:
    """Whether neighbours on other GPUs disturb a run."""
    rows = interference_rows(evidence)
    if rows.empty:
        return not_measured("the same settings alone and beside neighbours (study interference)")
    single, together = rows[rows["model"].notna()], rows[rows["model"].isna()]
    margin = f"margin ± {percent(single['margin_fraction'].iloc[0])}"
    busy = f"On average {single['n_neighbours'].mean():.1f} other GPUs were busy."
    if rows["beside_over_alone_ratio_low"].isna().all():
        ratios = [
            f"{difference(row['beside_over_alone_ratio'])} ({setting_words(row)})" for _, row in single.iterrows()
        ]
        return Finding(
            f"Beside neighbours an output token took {listed(ratios)}; too few runs for an interval.",
            f"Undecided until there are two runs alone and two beside neighbours ({margin}). {busy}",
        )
    counts = [f"{word} in {n}" for word, n in single["verdict"].value_counts().items()]
    worst = furthest_from_one(single, "beside_over_alone_ratio")
    return Finding(
        f"Whether neighbours change the energy of a token: {listed(counts)} of {counted(len(single), 'setting')}"
        f" ({margin}); the ratio furthest from one is {number(worst['beside_over_alone_ratio'], 4)}.",
        f"{busy}{_together(together)}",
    )


def _together(rows: pd.DataFrame) -> str:
    """The common effect of neighbours on GPU-bound settings, with its interval."""
    if rows.empty:
        return ""
    row, name = rows.iloc[0], "beside_over_alone_ratio"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = f"{level(row['confidence'])} interval {number(low, 4)} to {number(high, 4)}" if known(low) else "no interval"
    return f" All GPU-bound settings together: {number(row[name], 4)} times ({ends}), {row['verdict']}."


def _partial(runs: pd.DataFrame) -> str:
    """How much there is behind a finding."""
    once = int((runs.groupby(["study", "setting"])["cycle"].nunique() < 2).sum())
    n = runs.groupby(["study", "setting"]).ngroups
    left = "" if not once else ", all in one cycle only" if once == n else f", {once} of them in one cycle only"
    return f"{counted(len(runs), 'run')} of {counted(n, 'setting')}{left}."
