"""Which choices save electricity, and what each costs in responsiveness, quality and complexity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from inference_energy.policy import sizes
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.numbers import NO_CHANGE, batch_row, link, moved, software
from inference_energy.policy.precision import QUANTISED
from inference_energy.policy.wording import (
    Finding,
    Prose,
    fold,
    interval,
    known,
    listed,
    not_measured,
    number,
    percent,
    plain,
    row_with,
    table,
)

RATIO = "level_over_baseline_ratio"
COLUMNS = [
    "lever",
    "subject",
    "energy_ratio",
    "energy_ratio_low",
    "energy_ratio_high",
    "responsiveness",
    "quality",
    "complexity",
]


def lever_rows(evidence: Evidence) -> pd.DataFrame:
    """What each choice does to energy per token, and its price in words.

    Returns
    -------
    DataFrame
        Columns lever, subject (what shows it), ``energy_ratio`` with ``_low`` and ``_high`` (with the
        choice over without it; missing where it was not measured), responsiveness, quality, complexity.
    """
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in _levers(evidence)]
    return pd.DataFrame(rows, columns=COLUMNS)


def levers(evidence: Evidence) -> Finding:
    """Which measured choice saves most."""
    rows = lever_rows(evidence).dropna(subset=["energy_ratio"]).sort_values("energy_ratio")
    if rows.empty:
        return not_measured("two levels of any choice of deployment, all else equal")
    sure = rows.dropna(subset=["energy_ratio_low", "energy_ratio_high"])  # a title rests on more than one pair
    rows = sure if len(sure) else rows
    saving = rows[rows["energy_ratio"] < 1 - NO_CHANGE]
    costly = rows[rows["energy_ratio"] > 1 + NO_CHANGE]
    said = [f"“{row['lever']}” ({percent(1 - row['energy_ratio'])} less)" for _, row in saving.head(2).iterrows()]
    against = costly.iloc[-1] if len(costly) else None
    wrong = "" if against is None else f" “{against['lever']}” takes {fold(against['energy_ratio'])} as much."
    return Finding(
        f"Per token, {listed(said)} save{'s' if len(said) == 1 else ''} most.{wrong}"
        if said
        else f"No choice saves.{wrong}",
        "Each choice is compared with its opposite, all else equal. Savings of several choices do not simply multiply."
        f"{_elsewhere(evidence)}",
    )


def _elsewhere(evidence: Evidence) -> str:
    """What two of the choices do in vLLM, where that was measured."""
    said = " ".join(
        f"{link(subject, find(evidence).title.removesuffix('.'))}."
        for find, rows, subject in (
            (sizes.formats, evidence.quantisation, "formats_in_vllm"),
            (sizes.machines, evidence.right_size, "machines_in_vllm"),
        )
        if len(rows)
    )
    return f" All of them are choices within {software(evidence)}; in vLLM other numbers hold: {said}" if said else ""


def levers_table(evidence: Evidence) -> Prose:
    """Every lever with its saving and its price."""
    rows = [
        {
            "choice": row["lever"],
            "electricity per token, with over without": _ratio_words(evidence, row),
            "responsiveness": row["responsiveness"],
            "quality of text (not judged here)": row["quality"],
            "complexity": row["complexity"],
        }
        for _, row in lever_rows(evidence).iterrows()
    ]
    grids = sorted(evidence.assumptions.grids, key=lambda fact: fact.value)
    saved = percent(1 - grids[0].value / grids[-1].value)
    where = f"hosting in {grids[0].words}, not {grids[-1].words}"
    place = (
        where,
        f"no change; {saved} less carbon",
        "a little delay",
        "the same",
        "contracts, law, room on that grid",
    )
    return table(pd.concat([pd.DataFrame(rows), pd.DataFrame([dict(zip(rows[0], place, strict=True))])]))


def _levers(evidence: Evidence) -> Iterator[tuple[object, ...]]:
    missing = (np.nan, np.nan, np.nan)
    batch = batch_row(evidence)
    yield (
        "answer more prompts together"
        if batch is None
        else f"{batch['level']} prompts together, not {batch['baseline']}",
        "batch_size",
        *(missing if batch is None else _ends(batch, RATIO)),
        _speed_of_one(evidence),
        "the same text but for rounding",
        "requests must be collected; with few users there is nothing to collect",
    )
    for level, baseline, quality, complexity in (
        ("float16", "float32", "usually no visible change", "none: a switch"),
        ("int8", "float16", "may fall a little", "another library; check that it saves on your hardware"),
        ("int4", "float16", "may fall", "another library; check that it saves on your hardware"),
    ):
        by = " (bitsandbytes)" if level in QUANTISED else ""
        row = _level(evidence, "precision", level, baseline)
        ends = missing if row is None else _ends(row, RATIO)
        speed = "not measured" if row is None else "faster" if ends[0] < 1 else "slower with the software used here"
        yield (f"numbers in {level}{by}, not {baseline}", "precision", *ends, speed, quality, complexity)
    yield (
        "steady work, not pauses between requests",
        "traffic",
        *_inverse(_estimate(evidence.traffic, "energy_over_no_waiting_ratio", waiting="all waiting")),
        "no change for a user; the machine is never left waiting",
        "the same",
        "pool users on fewer machines; switch the others off",
    )
    several = evidence.parallelism
    several = several[(several["parallelism"] == "tensor") & (several["setting"] == "all")].dropna(
        subset=["estimate", "n_gpus"]
    )
    n_gpus = row_with(several, "n_settings")["n_gpus"] if len(several) else None
    yield (
        f"one GPU, not {n_gpus} that share each layer"
        if known(n_gpus)
        else "one GPU, not several that share each layer",
        "parallelism",
        *_inverse(
            _estimate(several[several["n_gpus"] == n_gpus], "energy_over_one_gpu_ratio", accounting="generated")
            if known(n_gpus)
            else missing
        ),
        "an answer may take longer; large models do not fit one GPU",
        "the same",
        "less: one device",
    )
    model = evidence.effects[evidence.effects["factor"] == "model"].dropna(subset=[RATIO])
    yield (
        f"a smaller model: {model.iloc[0]['baseline']}, not {model.iloc[0]['level']}"
        if len(model)
        else "a smaller model",
        "model",
        *(_inverse(_ends(model.iloc[0], RATIO)) if len(model) else missing),
        "faster",
        "falls for hard tasks; judge it by the task",
        "less: smaller",
    )


def _level(evidence: Evidence, factor: str, level: str, baseline: str) -> pd.Series | None:
    rows = evidence.level_ratio
    rows = rows[(rows["factor"] == factor) & (rows["level"] == level) & (rows["baseline"] == baseline)]
    rows = rows[(rows["scope"] == "all") & rows[RATIO].notna()]
    return rows.iloc[0] if len(rows) else None


def _estimate(rows: pd.DataFrame, quantity: str, **levels: str) -> tuple[float, float, float]:
    """Estimate and ends over all settings, missing where there is none."""
    rows = rows[(rows["quantity"] == quantity) & (rows["setting"] == "all") & rows["estimate"].notna()]
    for name, level in levels.items():
        rows = rows[rows[name] == level]
    return _ends(rows.iloc[0], "estimate") if len(rows) else (np.nan, np.nan, np.nan)


def _ends(row: pd.Series, name: str) -> tuple[float, float, float]:
    return float(row[name]), float(row[f"{name}_low"]), float(row[f"{name}_high"])


def _inverse(ends: tuple[float, float, float]) -> tuple[float, float, float]:
    value, low, high = ends
    return 1 / value, 1 / high, 1 / low


def _ratio_words(evidence: Evidence, row: pd.Series) -> str:
    """``88 % less: 0.12 (95 % interval 0.10 to 0.14)``."""
    ratio, low, high = row["energy_ratio"], row["energy_ratio_low"], row["energy_ratio_high"]
    if not known(ratio):
        return "not measured in this campaign"
    within = (
        f" ({interval(low, high, '', evidence.assumptions.confidence)})"
        if known(low) and known(high)
        else " (no interval: too few pairs of runs)"
    )
    return f"{link(row['subject'], moved(ratio))}: {number(ratio, 2)}{within}"


def _speed_of_one(evidence: Evidence) -> str:
    """How fast one user's answer comes, alone and in the largest batch of the same curve."""
    curve = evidence.batch_curve.dropna(subset=["throughput_tokens_per_s"])
    curves = {key: rows.sort_values("batch_size") for key, rows in curve.groupby(["model", "precision"])}
    if not any(rows["batch_size"].max() > rows["batch_size"].min() for rows in curves.values()):
        return "an answer waits for its batch"
    (model, precision), rows = max(curves.items(), key=lambda c: np.ptp(np.log(c[1]["batch_size"].astype(float))))
    first, last = (float(rows.iloc[end]["throughput_tokens_per_s"] / rows.iloc[end]["batch_size"]) for end in (0, -1))
    return (
        f"an answer waits for its batch, then comes at {number(last)} tokens/s instead of {number(first)} alone"
        f" ({model} {precision}, batch {plain(rows.iloc[-1]['batch_size'])} and {plain(rows.iloc[0]['batch_size'])})"
    )
