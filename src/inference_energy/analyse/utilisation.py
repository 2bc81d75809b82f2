"""How much of what a GPU could do is done: FLOP and bytes per token from the architecture, MFU and MBU."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.models.deployments import is_deployment
from inference_energy.models.work import COMPUTES_IN, WEIGHT_BYTES, bytes_per_output_token, flop_per_output_token
from inference_energy.tables import above_zero, conform
from inference_energy.tables.speed import UTILISATION


@dataclass(frozen=True)
class Utilisation:
    """FLOP, bytes and utilisation of every run of a deployment.

    Attributes
    ----------
    runs : DataFrame
        One row a run.
    """

    runs: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``utilisation``."""
        return conform(self.runs, UTILISATION)


def utilisation(runs: pd.DataFrame, architectures: pd.DataFrame, gpu_facts: pd.DataFrame) -> Utilisation:
    r"""Count FLOP and bytes per output token, and hold what was achieved against a GPU's peaks.

    FLOP and bytes are those of :mod:`inference_energy.models.work`. An implementation moves more bytes than these
    (activations, copies of the cache, dequantised weights): MBU is a lower bound of the memory's real use.

    MFU = FLOP per token times tokens per second of one GPU, over its peak; MBU alike. Tensor
    parallelism reads each weight once over all its GPUs, replicas once each for a batch of their own,
    so per token and GPU both formulas hold for all.

    Left out are runs that are no deployment: a short warm-up, a cold launcher, an attention kernel
    other than the campaign's commonest, and an interference study's runs alone on the machine.

    Parameters
    ----------
    runs, architectures, gpu_facts : DataFrame
        The tables of these names.

    Raises
    ------
    AnalysisError
        If no run has an energy, an energy is not above 0, or a model or precision is unknown.

    References
    ----------
    Chowdhery et al. (2022), *PaLM*, arXiv 2204.02311, appendix B (MFU).
    """
    known = _deployments(runs)
    shaped = known.merge(architectures.drop(columns="n_parameters"), on="model", how="left", validate="many_to_one")
    _refuse_unknown(shaped)
    arithmetic = shaped["precision"].map(COMPUTES_IN)
    peaks = gpu_facts.rename(columns={"precision": "arithmetic"}).drop(columns="power_limit_w")
    shaped = shaped.assign(arithmetic=arithmetic).merge(
        peaks, on=["gpu_name", "arithmetic"], how="left", validate="many_to_one"
    )
    flop, moved = flop_per_output_token(shaped), bytes_per_output_token(shaped)
    gpu_throughput = shaped["throughput_tokens_per_s"] / shaped["n_gpus"]
    batch_s = shaped["duration_s_per_step"] * shaped["n_output_tokens"]
    waited = shaped["waited_fraction"].fillna(0.0)
    shaped = shaped.assign(
        gpu_throughput_tokens_per_s=gpu_throughput,
        latency_s=batch_s * (1 - waited),
        waiting_s=batch_s * waited,
        flop_per_output_token=flop,
        bytes_per_output_token=moved,
        flop_over_bytes_ratio=flop / moved,
        achieved_flop_per_s=flop * gpu_throughput,
        achieved_bytes_per_s=moved * gpu_throughput,
        peak_bytes_per_s=shaped["memory_bandwidth_bytes_per_s"],
        mfu=flop * gpu_throughput / shaped["peak_flop_per_s"],
        mbu=moved * gpu_throughput / shaped["memory_bandwidth_bytes_per_s"],
        power_over_limit_fraction=shaped["power_mean_w"] / (shaped["power_limit_w"] * shaped["n_gpus"]),
        note=_notes(shaped, gpu_facts),
    )
    return Utilisation(shaped[UTILISATION.names])


def _deployments(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with numbers that show a deployment."""
    known = runs[runs["energy_j_per_output_token"].notna()]
    if known.empty:
        raise AnalysisError(
            "table runs",
            f"none of {len(runs)} runs has energy_j_per_output_token",
            "at least one measured run",
            "See the column status",
        )
    above_zero(known, "energy_j_per_output_token", "table runs")
    return known[is_deployment(known)]


def _refuse_unknown(shaped: pd.DataFrame) -> None:
    for wrong, name, expected in (
        (shaped["n_layers"].isna(), "model", "a model of the table architectures"),
        (~shaped["precision"].isin(list(WEIGHT_BYTES)), "precision", f"one of {', '.join(WEIGHT_BYTES)}"),
    ):
        if wrong.any():
            raise AnalysisError(
                "table runs",
                f"unknown {name} {shaped.loc[wrong, name].iloc[0]!r}",
                expected,
                "Aggregate the campaign anew, or teach models/work.py",
            )


def _notes(shaped: pd.DataFrame, gpu_facts: pd.DataFrame) -> pd.Series:
    """Why a run has no MFU and MBU."""
    because = "MFU and MBU cannot be estimated, because "
    no_gpu = because + shaped["gpu_name"].fillna("the machine") + " has no peak rates in config/hardware.yaml"
    no_format = because + shaped["gpu_name"] + " has no peak rate for " + shaped["arithmetic"] + " there"
    note = no_format.where(shaped["gpu_name"].isin(gpu_facts["gpu_name"]), no_gpu)
    return note.mask(shaped["peak_flop_per_s"].notna())
