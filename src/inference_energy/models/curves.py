"""Which runs lie on one curve of batch sizes."""

from __future__ import annotations

from typing import Any

import pandas as pd

LENGTHS = ["n_input_tokens", "n_output_tokens"]


def alike(utilisation: pd.DataFrame) -> pd.DataFrame:
    """Runs that differ in model, precision and batch size only: one GPU, no waiting, commonest decoding and lengths."""
    shown = utilisation[utilisation["n_gpus"].eq(1) & utilisation["traffic"].fillna("none").eq("none")]
    return of_commonest(of_commonest(shown, ["decoding"]), LENGTHS)


def of_commonest(runs: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Runs with the levels of `names` that most settings have together."""
    tried = runs.groupby(names)["setting"].nunique()
    if tried.empty:
        return runs
    commonest: Any = tried.idxmax()
    wanted = list(commonest) if isinstance(commonest, tuple) else [commonest]
    return runs[runs[names].eq(wanted).fillna(False).all(axis=1)]
