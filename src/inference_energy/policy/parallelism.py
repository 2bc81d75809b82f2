"""What several GPUs cost per token, in words: who is counted decides."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.parallelism import (
    ENERGY_RATIO,
    EXPONENT,
    LARGE_BATCH,
    LEFT_OUT,
    MODERATION,
    SMALL_BATCH,
    THROUGHPUT_RATIO,
)
from inference_energy.policy.estimates import ACCOUNTINGS, behind, cell, reasons, rows_with, said
from inference_energy.policy.evidence import Evidence
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
    table,
)

KINDS = {"replicas": "replicas", "replicas_duplicated": "duplicated replicas", "tensor": "tensor parallelism"}
BATCHES = f"ratio at batch {LARGE_BATCH} over that at batch {SMALL_BATCH}"
WHAT = "several GPUs in one run"
_ENOUGH = 3  # pairs of runs behind an exponent that a title names


def parallelism_runs(evidence: Evidence) -> pd.DataFrame:
    """Runs with numbers on several GPUs that are compared with one."""
    runs = evidence.ok[evidence.ok["study"] != LEFT_OUT]
    return runs[(runs["n_gpus"] > 1).fillna(False)]


def several_gpus(evidence: Evidence) -> Finding:
    """Energy against one GPU under the three accountings."""
    rows = _pooled(evidence, ENERGY_RATIO)
    if rows.empty:
        return not_measured(WHAT)
    generated, published = rows_with(rows, accounting="generated"), rows_with(rows, accounting="published")
    ends = [_most_gpus(rows_with(generated, parallelism=kind)) for kind in KINDS]
    parts = [f"{fold(row['estimate'])} with {_named(row)}{_single(row)}" for row in ends if row is not None]
    if not parts:
        return Finding(
            f"{counted(len(parallelism_runs(evidence)), 'run')} on several GPUs, none of them comparable with one GPU.",
            f"It cannot be estimated, because {reasons(rows)}.",
        )
    twice = _most_gpus(rows_with(published, parallelism="replicas_duplicated"))
    as_published = (
        f" Counted as in the published code, {_named(twice)} seem to take {fold(twice['estimate'])}."
        if twice is not None
        else ""
    )
    lost = generated[generated["estimate"].isna()]
    without = (
        f" Without an equal run on one GPU: {listed([_named(row) for _, row in lost.iterrows()])}." if len(lost) else ""
    )
    return Finding(
        f"A generated token took {listed(parts)} the energy it took on one GPU.{as_published}",
        "What differs between the columns is the counting, not the runs. Duplicated replicas repeat the work of one"
        " GPU on each of several: a generated token costs least more, an answer about as many times more as there are"
        " copies."
        " The published count adds the whole machine up once for each process; only because it bills a single process"
        f" for the idle GPUs too does its ratio stay below the square of their number.{without}",
    )


def several_gpus_speed(evidence: Evidence) -> Finding:
    """Throughput against one GPU."""
    rows = rows_with(_pooled(evidence, THROUGHPUT_RATIO), accounting="answered")
    ends = [row for kind in KINDS if (row := _most_gpus(rows_with(rows, parallelism=kind))) is not None]
    if not ends:
        return not_measured("throughput of several GPUs beside one")
    confidence = evidence.assumptions.confidence
    points = [f"{_named(row)}: {said(row, '×', confidence)}; {behind(row)}" for _, row in rows.iterrows()]
    return Finding(
        f"Against one GPU {listed([f'{_named(row)} gave {fold(row.estimate)}{_single(row)}' for row in ends])} the"
        " answered tokens per second.",
        "Processes that all answer the same prompts do not answer more prompts: counted as answers, the throughput of"
        f" duplicated replicas can only stay flat. {bullets(points)}",
    )


def growth(evidence: Evidence) -> Finding:
    """Whether energy per token grows faster than the number of GPUs."""
    rows = _pooled(evidence, EXPONENT)
    usable = rows[rows["estimate"].notna()]
    if usable.empty:
        return not_measured("the growth of energy per token with the number of GPUs")
    confidence = evidence.assumptions.confidence
    above = usable["estimate_low"] > 1
    faster, thin = usable[above & (usable["n_pairs"] >= _ENOUGH)], usable[above & (usable["n_pairs"] < _ENOUGH)]
    named = [f"{KINDS[row['parallelism']]} {ACCOUNTINGS[row['accounting']]}" for _, row in faster.iterrows()]
    n_shown = int(usable["estimate_low"].notna().sum())
    return Finding(
        f"Energy per token grows faster than the number of GPUs with {listed(named)}."
        if named
        else "No way to share the work is shown to take more than in proportion to the number of GPUs.",
        "The table holds the exponent b of (energy per token over that on one GPU) = (number of GPUs) to the power b:"
        " 0 is no growth, 1 growth in proportion to the GPUs, above 1 superlinear. Superlinear is said where the"
        f" {level(confidence)} interval lies above 1; {n_shown} of {counted(len(rows), 'exponent')} have an interval;"
        f" that of two settings is no more than their range.{_thin(thin)}",
    )


def growth_table(evidence: Evidence) -> Prose:
    """Exponents of growth with intervals, and how the batch size changes the ratio to one GPU."""
    rows = evidence.parallelism[evidence.parallelism["quantity"].isin([EXPONENT, MODERATION])]
    if rows.empty:
        return Prose(not_measured(WHAT).title)
    cells = []
    for kind, of_kind in rows.groupby("parallelism", sort=True):
        for quantity, words in ((EXPONENT, "exponent"), (MODERATION, BATCHES)):
            found = rows_with(of_kind, quantity=quantity)
            if found["estimate"].isna().all():
                continue
            line = {"shared by": KINDS[str(kind)], "quantity": words}
            for name, heading in ACCOUNTINGS.items():
                row = rows_with(found, accounting=name)
                shown = [cell(each, "×") if quantity == MODERATION else _exponent(each) for _, each in row.iterrows()]
                line[heading] = shown[0] if shown else "–"
            cells.append(line | {"pairs": found["n_pairs"].max()})
    return table(pd.DataFrame(cells))


def batch_moderates(evidence: Evidence) -> Finding:
    """Whether the batch size changes what several GPUs cost."""
    rows = _pooled(evidence, MODERATION)
    usable = rows[rows["estimate"].notna()]
    if usable.empty:
        return (
            Finding(
                "Whether the batch size changes what several GPUs cost cannot be estimated yet.", reasons(rows) + "."
            )
            if len(rows)
            else not_measured("several GPUs at two batch sizes")
        )
    generated = rows_with(usable, accounting="generated")
    parts = [
        f"{said(row, '×', evidence.assumptions.confidence)} with {KINDS[row['parallelism']]}"
        for _, row in generated.iterrows()
    ]
    return Finding(
        f"Per generated token the ratio to one GPU at batch {LARGE_BATCH} over that at batch {SMALL_BATCH} is"
        f" {listed(parts)}.",
        "1 is no difference: then the batch size does not change what several GPUs cost.",
    )


def several_gpus_table(evidence: Evidence) -> Prose:
    """Energy and throughput against one GPU, with intervals, under each accounting."""
    energy, speed = _pooled(evidence, ENERGY_RATIO), _pooled(evidence, THROUGHPUT_RATIO)
    if energy.empty:
        return Prose(not_measured(WHAT).title)
    cells = []
    for (kind, n), rows in energy.groupby(["parallelism", "n_gpus"], sort=True):
        line = {"shared by": KINDS[str(kind)], "GPUs": n}
        for name, words in ACCOUNTINGS.items():
            found = rows_with(rows, accounting=name)
            line[f"energy {words}"] = cell(found.iloc[0], "×") if len(found) else "–"
        fast = rows_with(speed, parallelism=kind, n_gpus=n, accounting="answered")
        line["answered tokens per second"] = cell(fast.iloc[0], "×") if len(fast) else "–"
        said_there = rows["published_ratio"].dropna()
        line["published energy"] = fold(said_there.iloc[0]) if len(said_there) else "–"
        first = rows_with(rows, accounting="generated").iloc[0]
        line["pairs"] = f"{first['n_pairs']} ({first['n_sitting_pairs']} within a sitting)"
        cells.append(line)
    confidence = level(evidence.assumptions.confidence)
    return Prose(
        f"{table(pd.DataFrame(cells))}\n\nRatios to one GPU. In brackets: {confidence} bootstrap intervals over"
        " settings and runs within them; none where there is one pair. The published column holds what the study says:"
        " 2 stands for more than doubles."
    )


def _pooled(evidence: Evidence, quantity: str) -> pd.DataFrame:
    """Rows over all settings of one quantity, in the order of pages."""
    rows = rows_with(evidence.parallelism, quantity=quantity, setting="all")
    order = list(ACCOUNTINGS)
    return rows.sort_values(
        ["parallelism", "n_gpus", "accounting"], key=lambda c: c.map(order.index) if c.name == "accounting" else c
    )


def _most_gpus(rows: pd.DataFrame) -> pd.Series | None:
    usable = rows[rows["estimate"].notna()].sort_values("n_gpus")
    return usable.iloc[-1] if len(usable) else None


def _named(row: pd.Series) -> str:
    joined = {"tensor": f"tensor parallelism over {row['n_gpus']} GPUs"}
    return joined.get(row["parallelism"], f"{row['n_gpus']} {KINDS[row['parallelism']]}")


def _single(row: pd.Series) -> str:
    """Says of an estimate that one pair of runs is all there is."""
    return " (one pair of runs)" if row["n_pairs"] == 1 else ""


def _thin(rows: pd.DataFrame) -> str:
    """Ways to share the work whose growth rests on two pairs."""
    named = list(dict.fromkeys(KINDS[kind] for kind in rows["parallelism"]))
    return f" From two pairs of runs only, so no more than a sign of it: {listed(named)}." if named else ""


def _exponent(row: pd.Series) -> str:
    if not known(row["estimate"]):
        return "–"
    ends = f" ({row['estimate_low']:.2f} to {row['estimate_high']:.2f})" if known(row["estimate_low"]) else ""
    return f"{row['estimate']:.2f}{ends}"
