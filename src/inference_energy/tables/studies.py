"""Which studies ask which questions, and the rows of tables that belong to them."""

from __future__ import annotations

from typing import Literal

import pandas as pd

Studies = Literal["deployment", "serving", "all"]

#: Studies of engines, phases, lengths, sizes and requests that arrive. They leave the space of deployments in which
#: the thesis' studies lie (one engine, 128 tokens in and out unless lengths are the question), so questions about
#: that space do not see them.
SERVING: tuple[str, ...] = (
    "engine",
    "sharing",
    "phases",
    "padding",
    "arrival",
    "input_length",
    "output_length",
    "long_context",
    "model_size",
    "prompts_at_once",
    "guidance",
    "quantisation",
)


def of_studies(frame: pd.DataFrame, studies: Studies) -> pd.DataFrame:
    """Rows of the studies in :data:`SERVING`, of the others, or all; a table that names no study is kept whole."""
    if studies == "all" or "study" not in frame.columns:
        return frame
    return frame[frame["study"].isin(SERVING) == (studies == "serving")].reset_index(drop=True)
