"""What prefill and decoding take apart, in each run."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from inference_energy.models.phases import DECODE, DIFFERENCE, ONE_TOKEN, PREFILL, TIME_STAMP
from inference_energy.pairs import difference
from inference_energy.tables import FACTORS, KEY, conform
from inference_energy.tables.phases import PHASE_RUNS

# ASSUME: a prefill below this is too short for its energy to be integrated: power is sampled every 20 to 30 ms, so
# that fewer than four samples fall into it, and its ends are smeared over what follows.
PREFILL_MIN_S = 0.1

_ENERGY, _DURATION = "energy_j_per_prompt", "duration_s_per_prompt"
_SHORT = f"a prefill is shorter than {PREFILL_MIN_S:g} s: too few samples of power for its energy"
_KEPT = [column.name for column in (*KEY, *FACTORS)] + ["sitting"]


@dataclass(frozen=True)
class PhaseRuns:
    """Every run's phases.

    Attributes
    ----------
    rows : DataFrame
        One row a run, phase and method.
    """

    rows: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``phase_runs``."""
        return conform(self.rows, PHASE_RUNS)


def phase_runs(runs: pd.DataFrame) -> PhaseRuns:
    r"""Split the energy and the time of an answer into prefill and decoding, in two ways.

    *By difference.* A run that generates one token is prefill alone: the prompt passes through the layers once, and the
    last layer is applied to its last token. Decoding is what a run with *m* output tokens takes more, per prompt:
    :math:`(E_m - E_1) / (m - 1)`. The run of one token is that of the same sitting, or the campaign's mean where its
    sitting has none (:mod:`inference_energy.pairs`). What an engine does once for every call, whatever its
    length, counts as prefill.

    *By time stamp.* The engine says when the first token was there. Until then it is prefill; its energy is instant
    power integrated, times the run's ratio of the counter to that power, so that both phases add up to the counter.
    It is missing where a prefill is shorter than :data:`PREFILL_MIN_S`.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; those of study ``phases`` with energy are taken.

    Raises
    ------
    AnalysisError
        If an energy per prompt is not above 0.
    """
    known = runs[(runs["study"] == "phases") & runs[_ENERGY].notna()]
    known = known.assign(**{_DURATION: _float(known, "measured_s") / _float(known, "n_prompts_measured")})
    one = (known["n_output_tokens"] == 1).fillna(value=False).astype(bool)
    longer = known[~one]
    parts = [
        _part(known[one], PREFILL, ONE_TOKEN, known.loc[one, _ENERGY], known.loc[one, _DURATION]),
        *_stamped(longer),
        _difference(known, one, longer),
    ]
    return PhaseRuns(pd.concat([conform(part, PHASE_RUNS) for part in parts]))


def _stamped(longer: pd.DataFrame) -> list[pd.DataFrame]:
    """Both phases of longer runs by the time of the first token."""
    prefill_s = _float(longer, "prefill_s")
    n_prompts, n_iterations = _float(longer, "n_prompts_measured"), _float(longer, "n_iterations")
    short = prefill_s / n_iterations < PREFILL_MIN_S
    energy = _float(longer, "prefill_energy_j") * _float(longer, "counter_over_power_ratio")
    energy = energy.mask(short)
    why = pd.Series(pd.NA, index=longer.index, dtype="string").mask(short, _SHORT)
    why = why.mask(prefill_s.isna(), "the engine does not say when the first token was there")
    decode = (_float(longer, "energy_j") - energy) / n_prompts
    decode_s = (_float(longer, "measured_s") - prefill_s) / n_prompts
    return [
        _part(longer, PREFILL, TIME_STAMP, energy / n_prompts, prefill_s / n_prompts, note=why),
        _part(longer, DECODE, TIME_STAMP, decode, decode_s, note=why),
    ]


def _difference(known: pd.DataFrame, one: pd.Series, longer: pd.DataFrame) -> pd.DataFrame:
    """Decoding of longer runs as what they take more than the run of one token."""
    energy, duration = (difference(known, ("n_output_tokens",), one, name) for name in (_ENERGY, _DURATION))
    part = _part(longer, DECODE, DIFFERENCE, energy["more"], duration["more"], note=energy["note"])
    return part.assign(matched=energy["matched"])


def _part(
    runs: pd.DataFrame,
    phase: str,
    method: str,
    energy: pd.Series,
    duration: pd.Series,
    note: pd.Series | None = None,
) -> pd.DataFrame:
    """Rows of one phase and method, from energy and seconds per prompt."""
    energy, duration = energy.astype(float), duration.astype(float)
    n_input = _float(runs, "n_input_tokens_measured") / _float(runs, "n_prompts_measured")
    n_after = _float(runs, "n_output_tokens") - 1
    found = runs[_KEPT].assign(phase=phase, method=method, matched="same run", note=note)
    found = found.assign(**{_ENERGY: energy, _DURATION: duration, "power_mean_w": energy / duration})
    if phase == PREFILL:
        found["energy_j_per_input_token"] = energy / n_input
    else:
        found["energy_j_per_output_token"] = energy / n_after
        found["duration_s_per_output_token"] = duration / n_after
    return found.reindex(columns=PHASE_RUNS.names)


def _float(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name].astype("Float64").astype(float)
