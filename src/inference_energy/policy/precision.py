"""Number formats in words: what fewer bits save, and where quantised weights lose."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.batch import RATIO, SPEED, matched, of_ratio, ratio_rows, settings_of, speeds
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    bullets,
    counted,
    fold,
    interval,
    known,
    listed,
    not_measured,
    percent,
)

#: Formats in which weights are quantised, with the method in words.
QUANTISED = {"int4": "NF4 through bitsandbytes", "int8": "LLM.int8 through bitsandbytes"}
_LIBRARY = (
    "Quantised means LLM.int8() and 4-bit NormalFloat (NF4) of bitsandbytes, which compute in half precision; other"
    " kernels and engines may differ. Quantising saves memory, which is not judged here."
)
_SCOPES = {
    "batch 8 and below": "at batches of 8 and below",
    "above batch 8": "at batches above 8",
    "all": "over all batch sizes",
}


def precision_order(evidence: Evidence) -> Finding:
    """Whether energy falls with every step to fewer bits: quantised weights beside float16."""
    rows = ratio_rows(evidence, "precision", "float16")
    rows = rows[rows["level"].isin(list(QUANTISED))]
    if rows.empty:
        return _without_quantised(evidence)
    confidence = evidence.assumptions.confidence
    overall, cells = rows[rows["scope"] == "all"], rows[rows["scope"] == "setting"]
    said = [f"{row['level']} takes {of_ratio(row, confidence)}" for _, row in overall.iterrows()]
    above = int((cells[RATIO] > 1).sum())
    opening = (
        "Fewer bits do not mean less energy"
        if (overall["verdict"] == "more").any()
        else "Fewer bits mean less energy"
        if (overall["verdict"] == "less").all()
        else "Whether fewer bits mean less energy is undecided"
    )
    return Finding(
        f"{opening}: with quantised weights an output token costs more than in float16 at {above} of"
        f" {counted(len(cells), 'point')} of model and batch size; {listed(said)} the energy.",
        f"Geometric means over points; {matched(cells)}. {_LIBRARY}",
    )


def _without_quantised(evidence: Evidence) -> Finding:
    """The order of the formats where none is quantised."""
    cells = ratio_rows(evidence, "precision", "float32", "setting")
    if cells.empty:
        return not_measured("several precisions at the same model and batch size (study batching)")
    said = [
        f"in {name} at {int((of_level[RATIO] < 1).sum())} of {counted(len(of_level), 'point')}"
        for name, of_level in cells.groupby("level")
    ]
    return Finding(
        f"An output token takes less energy than in float32 {listed(said)} of model and batch size.",
        f"{matched(cells)}. Quantised weights are not measured in this campaign.",
    )


def precision_gain(evidence: Evidence) -> Finding:
    """What each format saves or costs against float32, for small and for large batches."""
    rows = ratio_rows(evidence, "precision", "float32")
    if rows.empty:
        return not_measured("precisions beside float32 at the same model and batch size (study batching)")
    confidence = evidence.assumptions.confidence
    order = [name for name in ("float16", "bfloat16", "tf32", "int8", "int4") if name in set(rows["level"])]
    lines = []
    for name in order:
        of_level = rows[rows["level"] == name]
        parts = [
            f"{of_ratio(of_level[of_level['scope'] == scope].iloc[0], confidence)} {words}"
            for scope, words in _SCOPES.items()
            if (of_level["scope"] == scope).any()
        ]
        lines.append(f"{name}: {listed(parts)}; {matched(of_level[of_level['scope'] == 'setting'])}")
    gain = rows[(rows["level"] == "float16") & rows["scope"].isin(list(_SCOPES)[:2])]
    gains = [f"{_saved(row, confidence)} {_SCOPES[row['scope']]}" for _, row in gain.iterrows()]
    losses = [_where_it_loses(rows[(rows["level"] == name) & (rows["scope"] == "setting")]) for name in QUANTISED]
    said = [f"float16 saves {listed(gains)}"] if gains else []
    return Finding(
        f"Against float32, {'; '.join(said + [loss for loss in losses if loss])}.",
        "Ratios to float32, geometric means:" + bullets(lines),
    )


def precision_half(evidence: Evidence) -> Finding:
    """What other formats cost against float16, and whether bfloat16 equals it."""
    rows = ratio_rows(evidence, "precision", "float16")
    overall = rows[rows["scope"] == "all"]
    if overall.empty:
        return not_measured("precisions beside float16 at the same model and batch size (study batching)")
    confidence = evidence.assumptions.confidence
    said = [f"{row['level']} takes {of_ratio(row, confidence)}" for _, row in overall.iterrows()]
    cells = rows[rows["scope"] == "setting"]
    lines = [
        f"{name}: " + listed([f"{n} {verdict}" for verdict, n in of_level["verdict"].value_counts().items()])
        for name, of_level in cells.groupby("level")
    ]
    return Finding(
        f"Against float16, {listed(said)} the energy, over the batch sizes measured.",
        "Points of model and batch size by whether their interval lies above 1 (more), below (less) or holds it"
        f" (undecided):{bullets(lines)}",
    )


def precision_speed(evidence: Evidence) -> Finding:
    """Throughput of the formats over that of float16 at the same model and batch size."""
    medians = speeds(settings_of(evidence, "batching", "tf32"))
    half = medians[medians["precision"] == "float16"].drop(columns="precision")
    both = medians[medians["precision"] != "float16"].merge(half, on=["model", "batch_size"], suffixes=("", "_half"))
    if both.empty:
        return not_measured("precisions beside float16 at the same model and batch size (study batching)")
    both["ratio"] = both[SPEED] / both[f"{SPEED}_half"]
    said = []
    for name, rows in both.groupby("precision"):
        ends = dict.fromkeys((fold(rows["ratio"].min()), fold(rows["ratio"].max())))
        said.append(f"{name} {' to '.join(ends)} ({counted(len(rows), 'point')})")
    return Finding(
        f"Tokens per second over those in float16, by model and batch size: {listed(said)}.",
        "Medians of runs, of all sittings: where the host's CPU is the limit a part of the differences is the hosts'.",
    )


def tf32_ratio(evidence: Evidence) -> Finding:
    """What TF32 saves against float32."""
    rows = tf32_ratio_rows(evidence)
    if rows.empty:
        return not_measured("TF32 beside float32 (study tf32)")
    confidence = evidence.assumptions.confidence
    said = [f"{_saved(row, confidence)} in {row['model']} at batch {row['batch_size']}" for _, row in rows.iterrows()]
    return Finding(
        f"TF32 instead of float32 saves {listed(said)}.",
        f"{matched(rows)}. TF32 keeps weights in float32 and rounds the factors of matrix products.",
    )


def tf32_ratio_rows(evidence: Evidence) -> pd.DataFrame:
    """Settings of TF32 over float32, with labels."""
    rows = ratio_rows(evidence, "precision", "float32", "setting")
    rows = rows[rows["level"] == "tf32"]
    labels = [f"{row.model}, batch {row.batch_size}" for row in rows.itertuples()]
    return rows.assign(label=pd.Series(labels, index=rows.index, dtype="string"))


def _saved(row: pd.Series, confidence: float) -> str:
    """``39 % (95 % interval 29 to 47 %)``: one less the ratio."""
    low, high = 1 - row[f"{RATIO}_high"], 1 - row[f"{RATIO}_low"]
    ends = f" ({interval(low * 100, high * 100, '%', confidence)})" if known(low) and known(high) else ""
    return f"{percent(1 - row[RATIO])}{ends}"


def _where_it_loses(cells: pd.DataFrame) -> str:
    """``int8 costs 1.6× to 2.3× at batch 1 to 8 and 0.53× to 0.78× at batch 32 to 64``."""
    parts = []
    for worse in (True, False):
        chosen = cells[(cells[RATIO] > 1) == worse]
        if chosen.empty:
            continue
        ends = list(dict.fromkeys((fold(chosen[RATIO].min()), fold(chosen[RATIO].max()))))
        sizes = list(dict.fromkeys((int(chosen["batch_size"].min()), int(chosen["batch_size"].max()))))
        parts.append(f"{' to '.join(ends)} at batch {' to '.join(map(str, sizes))}")
    return f"{cells['level'].iloc[0]} takes {listed(parts)}" if parts else ""


def formats(runs: pd.DataFrame) -> str:
    """The number formats that were measured, quantised ones named as such."""
    found = sorted(runs["precision"].dropna().unique())
    served = runs["engine"].fillna("transformers").ne("transformers").astype(bool)
    named = [f"{name} ({words})" for name, words in QUANTISED.items() if name in set(runs["precision"][~served])]
    named += [
        f"{name} (by the serving engine)" for name in ("float8", "int4") if name in set(runs["precision"][served])
    ]
    said = f"Number formats: {listed(found)}."
    return f"{said} Quantised weights: {listed(named)}." if named else f"{said} No weights were quantised."
