"""Which runs lie on one curve of batch sizes."""

from __future__ import annotations

from typing import Any

import pandas as pd


def alike(utilisation: pd.DataFrame) -> pd.DataFrame:
    """Runs that differ in model, precision and batch size only: one GPU, no waiting, commonest decoding and lengths."""
    shown = utilisation[utilisation["n_gpus"].eq(1) & utilisation["traffic"].fillna("none").eq("none")]
    for names in (["decoding"], ["n_input_tokens", "n_output_tokens"]):
        tried = shown.groupby(names)["setting"].nunique()
        if len(tried):
            commonest: Any = tried.idxmax()
            wanted = list(commonest) if isinstance(commonest, tuple) else [commonest]
            shown = shown[shown[names].eq(wanted).fillna(False).all(axis=1)]
    return shown
