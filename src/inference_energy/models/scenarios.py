"""The published scenarios: their names and levels, and the runs that carry them."""

from __future__ import annotations

import pandas as pd

ENERGY = "energy_j_per_output_token"
FOLD = "max_over_min_fold"
CV = "cv"
IDEAL_SHARE = "ideal_over_realistic_mean_ratio"

IDEAL = "A1"
REALISTIC = ("R1", "R2", "R3", "R4", "R5", "R6")

#: Names of the published scenarios by longest delay (s) and, of the text, batch size; of the code, GPUs.
# SOURCE: baker_scenarios_tex.csv and baker_scenarios_code.csv, in resources/published.
LEVELS: dict[str, dict[tuple[float, int], str]] = {
    "scenarios_text": {
        (0.1, 4): "R1",
        (0.1, 8): "R2",
        (0.5, 16): "R3",
        (0.5, 8): "R4",
        (0.8, 10): "R5",
        (0.8, 16): "R6",
    },
    "scenarios_code": {
        (0.1, 1): "R1",
        (0.1, 2): "R2",
        (0.5, 1): "R3",
        (0.5, 2): "R4",
        (0.8, 1): "R5",
        (0.8, 2): "R6",
    },
}


def named(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs of both versions with numbers and the column ``scenario``: A1, R1 to R6, or 'other'."""
    chosen = runs[runs["study"].isin(list(LEVELS)) & runs[ENERGY].notna()]
    second = chosen["batch_size"].where(chosen["study"] == "scenarios_text", chosen["n_gpus"])
    levels = zip(chosen["study"], chosen["traffic"], chosen["delay_max_s"], second, strict=True)
    names = [
        IDEAL if traffic == "none" else LEVELS[study].get((float(delay), int(number)), "other")
        for study, traffic, delay, number in levels
    ]
    return chosen.assign(scenario=pd.Series(names, index=chosen.index, dtype="string"))
