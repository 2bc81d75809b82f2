"""What simulated waiting costs, in words."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.traffic import (
    ALL,
    BURST,
    CONSTANT,
    LARGE,
    OVER_IDLE,
    OVER_NONE,
    PAIRED,
    PER_SECOND,
    POWER,
    QUERY,
    SAME_WAITING,
    SMALL,
)
from inference_energy.policy.estimates import behind, cell, rows_with, said
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    fold,
    known,
    level,
    not_measured,
    quantity,
    setting_words,
    table,
)
from inference_energy.tables import FACTORS

WHAT = "simulated waiting beside no waiting (studies traffic, grid and scenarios)"
_WAITS = ["traffic", "delay_min_s", "delay_max_s", "delay_every", "burst_interval_s", "burst_size", "n_prompts"]


def waiting_runs(evidence: Evidence) -> pd.DataFrame:
    """Runs on one GPU that wait, and those that do not and are equal in all else.

    The column ``wait_s`` is the mean waiting before a batch, ``series`` the kind of waiting.
    """
    alone = evidence.ok[(evidence.ok["n_gpus"] <= 1).fillna(False)]
    waiting = alone["traffic"].ne("none").fillna(False)
    others = [column.name for column in FACTORS if column.name not in _WAITS]
    cells = alone.loc[waiting, others].drop_duplicates()
    equal = alone[~waiting].merge(cells, on=others)
    runs = pd.concat([alone[waiting], equal]) if len(equal) else alone[waiting]
    per_query, burst = runs["delay_every"].eq("query"), runs["traffic"].eq("burst")
    kind = pd.Series(CONSTANT, runs.index).mask(per_query, QUERY).mask(burst, BURST)
    return runs.assign(
        wait_s=runs["waited_s"].astype(float) / runs["n_iterations"].astype(float),
        series=kind.mask(runs["traffic"].eq("none"), "no waiting"),
    )


def waiting(evidence: Evidence) -> Finding:
    """What waiting costs against none."""
    rows = rows_with(evidence.traffic, setting="all", model="all")
    over = rows_with(rows, quantity=OVER_NONE)
    if over.empty:
        return not_measured(WHAT)
    every = rows_with(over, waiting=ALL).iloc[0]
    n_runs = int(waiting_runs(evidence)["series"].ne("no waiting").sum())
    if not known(every["estimate"]):
        return Finding(
            f"{counted(n_runs, 'run')} with simulated waiting, none of them comparable with no waiting.",
            f"What it costs cannot be estimated, because {every['note']}.",
        )
    each = evidence.traffic[evidence.traffic["quantity"].eq(OVER_NONE) & evidence.traffic["setting"].ne("all")]
    least, most = float(each["estimate"].min()), float(each["estimate"].max())
    span = f"{fold(least)} to {fold(most)}" if fold(least) != fold(most) else fold(most)
    confidence = evidence.assumptions.confidence
    return Finding(
        f"With simulated waiting an output token takes {span} the energy it takes without: the GPU idles"
        " meanwhile, and its power is paid by the tokens that follow.",
        f"Over all kinds of waiting, {said(every, '×', confidence)} that of the same run without waiting (geometric"
        f" mean; {behind(every)}), with a mean wait of {quantity(every['waited_s'], 's')} before a batch.",
    )


def waiting_power(evidence: Evidence) -> Finding:
    """What a second of waiting costs, and whether that is the power of an idle GPU."""
    rows = rows_with(evidence.traffic, setting="all", model="all", waiting=ALL)
    power, ratio = (rows_with(rows, quantity=name) for name in (POWER, OVER_IDLE))
    if power.empty:
        return not_measured(WHAT)
    watts, over = power.iloc[0], ratio.iloc[0]
    if not known(watts["estimate"]):
        return Finding(f"What a second of waiting costs cannot be estimated, because {watts['note']}.")
    confidence = evidence.assumptions.confidence
    check = (
        f", {said(over, '×', confidence)} the power of the idle GPU with the model loaded"
        if known(over["estimate"])
        else ""
    )
    verdict = ""
    if known(over["estimate_low"]):
        agrees = over["estimate_low"] <= 1 <= over["estimate_high"]
        verdict = (
            "The interval holds 1: waiting costs what an idle GPU draws, and no more can be seen."
            if agrees
            else "The interval does not hold 1: waiting costs something besides the power of an idle GPU, such as"
            " the time that power takes to fall and the first steps after a pause."
        )
    return Finding(
        f"A second of waiting costs {said(watts, 'W', confidence)}{check}.",
        f"{verdict} {behind(watts).capitalize()}. Only pairs within a sitting count here.".strip(),
    )


def waiting_table(evidence: Evidence) -> Prose:
    """Every kind of waiting and every model and batch size, with intervals."""
    rows = evidence.traffic[evidence.traffic["setting"].eq("all")]
    rows = rows[rows["quantity"].isin([OVER_NONE, POWER, OVER_IDLE, PER_SECOND])]
    if rows.empty:
        return Prose(not_measured(WHAT).title)
    heads = {
        OVER_NONE: ("energy per token over no waiting", "×"),
        POWER: ("power of waiting", "W"),
        OVER_IDLE: ("over idle power, model loaded", "×"),
        PER_SECOND: ("energy per token for each second", "J"),
    }
    rows = rows.assign(
        of=[row["waiting"] if row["model"] == "all" else setting_words(row) for _, row in rows.iterrows()]
    )
    cells = []
    for of, group in rows.groupby("of", sort=False):
        line = {"waiting": of, "mean wait": quantity(group["waited_s"].max(), "s")}
        for name, (words, unit) in heads.items():
            found = rows_with(group, quantity=name)
            line[words] = cell(found.iloc[0], unit) if len(found) else "–"
        first = rows_with(group, quantity=OVER_NONE).iloc[0]
        cells.append(line | {"pairs": f"{first['n_pairs']} ({first['n_sitting_pairs']} within a sitting)"})
    return Prose(
        f"{table(pd.DataFrame(cells))}\n\nIn brackets: {level(evidence.assumptions.confidence)} intervals over"
        " settings and runs within them; none where there is one pair. Watts and joules rest on the pairs within a"
        " sitting; a dash: there is none. The wait is the mean before a batch."
    )


def waiting_compared(evidence: Evidence) -> Finding:
    """Bursts beside constant delays, queries beside batches, small bursts beside large ones."""
    rows = evidence.traffic[evidence.traffic["quantity"].isin([SAME_WAITING, PAIRED])]
    if rows.empty:
        return not_measured(WHAT)
    confidence = evidence.assumptions.confidence
    words = {SAME_WAITING: "cost of a second of waiting", PAIRED: "energy per token, equal in all else"}
    points = [
        f"{row['waiting']}, {words[row['quantity']]}: {said(row, '×', confidence)}; {behind(row)}"
        for _, row in rows.iterrows()
    ]
    burst = rows_with(rows, quantity=SAME_WAITING, waiting=f"{BURST} over {CONSTANT}").iloc[0]
    lead = (
        f"At the same mean waiting, bursts cost {said(burst, '×', confidence)} what constant delays cost."
        if known(burst["estimate"])
        else f"Whether bursts cost more than constant delays at the same mean waiting cannot be estimated, because"
        f" {burst['note']}."
    )
    small = rows_with(rows, quantity=SAME_WAITING, waiting=f"{SMALL} over {LARGE}").iloc[0]
    sized = (
        f" Small bursts cost {said(small, '×', confidence)} what large ones cost per second of waiting;"
        " that they wait oftener is another matter."
        if known(small["estimate"])
        else ""
    )
    return Finding(lead + sized, bullets(points))
