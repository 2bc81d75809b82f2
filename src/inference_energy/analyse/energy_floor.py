"""Measured energy of a prompt beside the least that its work can take on this GPU."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from inference_energy.models.work import COMPUTES_IN, bytes_per_output_token, flop_per_output_token
from inference_energy.tables import KEY, conform
from inference_energy.tables.arrivals import ENERGY_FLOOR

POSSIBLE, NOT_PLAUSIBLE, IMPOSSIBLE = "possible", "not plausible", "impossible"
_KEYS = [column.name for column in KEY]


@dataclass(frozen=True)
class EnergyFloor:
    """One row a run."""

    runs: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``energy_floor``."""
        return conform(self.runs, ENERGY_FLOOR)


def energy_floor(
    runs: pd.DataFrame, arrival_runs: pd.DataFrame, architectures: pd.DataFrame, gpu_facts: pd.DataFrame
) -> EnergyFloor:
    r"""Hold the measured energy of a prompt against two floors.

    FLOP and bytes of a prompt follow from the architecture and the mean lengths (:mod:`inference_energy.models.work`):
    FLOP are convex in the length, so those of mixed lengths are no fewer than those of the mean. A reading of the
    weights serves at most as many sequences as could run together: the batch, or for arriving requests the most that
    were sent and not yet answered at one time, and no more than the engine runs.

    *The floor* takes nothing for granted but the datasheet's peaks:

    .. math:: E \ge P_\text{idle} \max(\text{FLOP} / \text{peak}, \text{bytes} / \text{bandwidth}),

    with the idle power of the GPUs before this run loaded its model. The work cannot be done in less time, and a GPU
    that works draws no less than one at rest. It is far below what any GPU reaches. A run below it is *impossible*: a
    defect of the measurement, or of the count of its work.

    *Arithmetic at the limit* is FLOP times the power limit over the peak rate. ASSUME: no FLOP takes less energy than
    at the peak rate and the board's power limit. Boards draw less than their limit in work that is bound by memory, and
    lower clocks save energy per FLOP, but neither comes with the peak rate, which products of matrices do not reach
    within the limit. A run below it is *not plausible*.

    Parameters
    ----------
    runs, arrival_runs, architectures, gpu_facts : DataFrame
        The tables of these names. Runs without numbers are left out.
    """
    known = runs[runs["energy_j_per_prompt"].notna()]
    shaped = known.merge(architectures.drop(columns="n_parameters"), on="model", how="left", validate="many_to_one")
    facts = gpu_facts.rename(columns={"precision": "arithmetic", "power_limit_w": "board_limit_w"})
    shaped = shaped.assign(arithmetic=shaped["precision"].map(COMPUTES_IN)).merge(
        facts, on=["gpu_name", "arithmetic"], how="left", validate="many_to_one"
    )
    shaped = shaped.merge(arrival_runs[[*_KEYS, "n_in_flight_max"]], on=_KEYS, how="left", validate="one_to_one")
    n_prompts = shaped["n_prompts_measured"].astype(float)
    at_once = shaped["n_in_flight_max"].fillna(shaped["batch_size"])
    at_once = at_once.where(~(shaped["n_sequences_limit"] < at_once).fillna(value=False), shaped["n_sequences_limit"])
    of_prompt = shaped.assign(
        n_input_tokens=shaped["n_effective_input_tokens_measured"].astype(float) / n_prompts,
        n_output_tokens=shaped["n_output_tokens_measured"].astype(float) / n_prompts,
        batch_size=at_once,
    )
    flop = flop_per_output_token(of_prompt) * of_prompt["n_output_tokens"]
    moved = bytes_per_output_token(of_prompt) * of_prompt["n_output_tokens"]
    n_gpus = shaped["n_gpus"].astype(float).clip(lower=1)
    seconds = (flop / (n_gpus * shaped["peak_flop_per_s"]), moved / (n_gpus * shaped["memory_bandwidth_bytes_per_s"]))
    # ASSUME: with several lengths the mean of products of lengths is the product of means, as they are drawn apart.
    testable = shaped["peak_flop_per_s"].notna() & shaped["prefix_caching"].ne("on").fillna(value=True)
    least_s = pd.concat(seconds, axis=1).max(axis=1).where(testable)
    energy, floor_j = shaped["energy_j_per_prompt"].astype(float), least_s * shaped["idle_power_w"]
    arithmetic_j = (flop * shaped["board_limit_w"] / shaped["peak_flop_per_s"]).where(least_s.notna())
    arithmetic_ratio = energy / arithmetic_j
    return EnergyFloor(
        shaped.assign(
            n_input_tokens_per_prompt=of_prompt["n_input_tokens"],
            n_output_tokens_per_prompt=of_prompt["n_output_tokens"],
            n_at_once_max=at_once,
            flop_per_prompt=flop,
            bytes_per_prompt=moved,
            least_s_per_prompt=least_s,
            energy_floor_j_per_prompt=floor_j,
            energy_over_floor_ratio=energy / floor_j,
            arithmetic_energy_j_per_prompt=arithmetic_j,
            energy_over_arithmetic_ratio=arithmetic_ratio,
            verdict=_verdict(energy / floor_j, arithmetic_ratio),
            note=_note(shaped, floor_j),
        )[ENERGY_FLOOR.names]
    )


def _verdict(over_floor: pd.Series, over_arithmetic: pd.Series) -> pd.Series:
    verdict = pd.Series(POSSIBLE, over_floor.index, dtype="string").mask(over_arithmetic < 1, NOT_PLAUSIBLE)
    return verdict.mask(over_floor < 1, IMPOSSIBLE).where(over_floor.notna() & over_arithmetic.notna())


def _note(shaped: pd.DataFrame, floor_j: pd.Series) -> pd.Series:
    """Why a run has no floor."""
    note = pd.Series("no idle power, or tokens not counted", shaped.index, dtype="string")
    no_peak = "no peak rate of " + shaped["gpu_name"].fillna("the machine") + " for " + shaped["precision"]
    note = note.mask(shaped["peak_flop_per_s"].isna(), no_peak + " in config/hardware.yaml")
    cached = "prompts that share a beginning are computed once, and how much that spares is not known"
    note = note.mask(shaped["prefix_caching"].eq("on").fillna(value=False), cached)
    return note.mask(floor_j.notna())
