"""Quantised weights in words: which were measured, and what they cost beside float16."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.energy import ENERGY
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import Finding, counted, fold, listed, not_measured

#: Formats in which weights are quantised, with the method in words.
QUANTISED = {"int4": "NF4 through bitsandbytes", "int8": "LLM.int8 through bitsandbytes"}
BASELINE = "float16"


def formats(runs: pd.DataFrame) -> str:
    """The number formats that were measured, quantised ones named as such."""
    found = sorted(runs["precision"].dropna().unique())
    named = [f"{name} ({words})" for name, words in QUANTISED.items() if name in found]
    said = f"Number formats: {listed(found)}."
    return f"{said} Quantised weights: {listed(named)}." if named else f"{said} No weights were quantised."


def quantised_runs(evidence: Evidence) -> pd.DataFrame:
    """Runs with quantised weights of the study on batch size and precision."""
    runs = evidence.batching
    return runs[runs["precision"].isin(list(QUANTISED))]


def quantised(evidence: Evidence) -> Finding:
    """What quantised weights cost per token against float16, at the same model and batch size."""
    chosen, runs = quantised_runs(evidence), evidence.batching
    if chosen.empty:
        return not_measured(f"quantised weights ({listed(list(QUANTISED))})")
    keys = ["model", "batch_size"]
    baseline = runs[runs["precision"] == BASELINE].groupby(keys)[ENERGY].mean()
    means = chosen.groupby(["precision", *keys], as_index=False)[ENERGY].mean()
    means = means.merge(baseline.rename("baseline").reset_index(), on=keys)
    once = int((chosen.groupby("setting")["cycle"].nunique() < 2).sum())
    settings = counted(chosen["setting"].nunique(), "quantised setting")
    behind = f"{settings} measured{f', {once} of them in one cycle only' if once else ''}."
    if means.empty:
        return Finding(
            f"Quantised weights are measured ({listed(sorted(chosen['precision'].unique()))}), but none of them yet"
            f" at a model and batch size that is also measured in {BASELINE}.",
            behind,
        )
    ratios = (means[ENERGY] / means["baseline"]).groupby(means["precision"])
    said = []
    for name, of_format in ratios:
        low, high = fold(float(of_format.min())), fold(float(of_format.max()))
        points = counted(len(of_format), "pair")
        said.append(f"{low if low == high else f'{low} to {high}'} with {name} ({points})")
    return Finding(
        f"An output token took {listed(said)} the energy it took in {BASELINE}, at the same model and batch size.",
        f"{behind} The library computes with quantised weights in its own way on this hardware; other kernels and"
        " engines may differ. Quantising saves memory, which is not judged here.",
    )
