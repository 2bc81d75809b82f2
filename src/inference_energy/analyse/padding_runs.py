"""What static batches of prompts of mixed lengths take, in each run, per token of each kind."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from inference_energy.models.phases import DECODE, GENERATION, PREFILL
from inference_energy.pairs import difference
from inference_energy.tables import FACTORS, KEY, conform
from inference_energy.tables.phases import PADDING_RUNS

_ENERGY = "energy_j_per_prompt"
_KEPT = [column.name for column in (*KEY, *FACTORS)] + ["sitting"]
#: The run of one token differs in what answers are asked for, and in nothing else.
_OF_ANSWERS = ("n_output_tokens", "output_length_cv")


@dataclass(frozen=True)
class PaddingRuns:
    """Every run's phases per token.

    Attributes
    ----------
    rows : DataFrame
        One row a run and phase.
    """

    rows: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``padding_runs``."""
        return conform(self.rows, PADDING_RUNS)


def padding_runs(runs: pd.DataFrame) -> PaddingRuns:
    """Divide the energy of prefill, generation and decoding by tokens asked for and by tokens computed.

    A static batch pads its prompts to the longest and goes on until its longest answer ends. *Effective* input tokens
    are those of prompts, *computed* ones hold padding as well; output tokens alike, asked for and computed. Runs with
    one output token are prefill alone. Decoding is a whole generation less the prefill of the same batch size and
    order, per prompt, of the same sitting where there is one (:mod:`inference_energy.pairs`); the first
    output token belongs to prefill.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; those of study ``padding`` with energy are taken.

    Raises
    ------
    AnalysisError
        If an energy per prompt is not above 0.
    """
    known = runs[(runs["study"] == "padding") & runs[_ENERGY].notna()]
    one = (known["n_output_tokens"] == 1).fillna(value=False).astype(bool)
    whole = known[~one]
    decode = difference(known, _OF_ANSWERS, one, _ENERGY)
    same = {"matched": "same run", "note": None}
    parts = [
        _part(known[one], PREFILL, _float(known[one], _ENERGY)).assign(**same),
        _part(whole, GENERATION, _float(whole, _ENERGY)).assign(**same),
        _part(whole, DECODE, decode["more"]).assign(matched=decode["matched"], note=decode["note"]),
    ]
    return PaddingRuns(pd.concat([conform(part, PADDING_RUNS) for part in parts]))


def _part(runs: pd.DataFrame, phase: str, energy: pd.Series) -> pd.DataFrame:
    """Rows of a phase from its energy per prompt."""
    n_prompts = _float(runs, "n_prompts_measured")
    effective, computed = _float(runs, "n_effective_input_tokens_measured"), _float(runs, "n_input_tokens_measured")
    before = n_prompts if phase == DECODE else 0.0
    asked = _float(runs, "n_output_tokens_measured") - before
    generated = _float(runs, "n_computed_output_tokens_measured") - before
    total = energy * n_prompts
    found = {
        _ENERGY: energy,
        "energy_j_per_effective_input_token": total / effective,
        "computed_over_effective_input_ratio": computed / effective,
    }
    if phase != DECODE:
        found["energy_j_per_computed_input_token"] = total / computed
    if phase != PREFILL:
        found |= {
            "energy_j_per_output_token": total / asked,
            "energy_j_per_computed_output_token": total / generated,
            "computed_over_asked_output_ratio": generated / asked,
        }
    if phase == GENERATION:
        found["energy_j_per_computed_token"] = total / (computed + generated)
    return runs[_KEPT].assign(phase=phase, **found).reindex(columns=PADDING_RUNS.names)


def _float(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name].astype("Float64").astype(float)
