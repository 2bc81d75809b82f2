"""How much of what a GPU could do is done: FLOP and bytes per token from the architecture, MFU and MBU."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.models.deployments import is_deployment
from inference_energy.tables import above_zero, conform
from inference_energy.tables.speed import UTILISATION

#: Bytes of a weight in the layers, and of an activation, a cached key or value, and a weight of the last layer.
# SOURCE: bitsandbytes as transformers calls it: int8 keeps a byte a weight (and four for each row, left out here), NF4
# half a byte and a float32 scale for each block of 64; both leave the last layer in half precision.
_WEIGHT_BYTES = {"float32": 4.0, "tf32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5 + 4 / 64}
_OTHER_BYTES = {"float32": 4.0, "tf32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8": 2.0, "int4": 2.0}

#: The number format in which the layers' products are computed.
# ASSUME: all FLOP of a precision are held against one peak. LLM.int8() computes outliers and the last layer in float16.
_COMPUTES_IN = {name: name for name in _WEIGHT_BYTES} | {"int4": "float16"}


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

    **FLOP.** A sequence of n input and m output tokens sends L = n + m - 1 tokens through the layers
    (the last one generated is never read), and m through the last layer. With W weights in the
    layers' matrices, hidden width h, vocabulary V, q heads of width d and N layers::

        FLOP per sequence = 2 W L + 2 h V m + 4 N q d L (L + 1) / 2

    The last term is attention: a token at place c forms products with c keys and c values. Norms,
    rotations, softmax and sampling are left out (below 1 %), and so is the embedding, a look-up.

    **Bytes**, the least that must move: every step reads all weights once for the whole batch; it
    reads each sequence's cached keys and values and writes its own. With batch B and cache c bytes
    a token::

        bytes per sequence = m (layers' weights + last layer) / B + c (L + (m - 1) n + m (m - 1) / 2)

    Activations are left out, and what an implementation moves beyond this (copies of the cache,
    dequantised weights): MBU is a lower bound of the memory's real use.

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
    arithmetic = shaped["precision"].map(_COMPUTES_IN)
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


def flop_per_output_token(shaped: pd.DataFrame) -> pd.Series:
    """FLOP per output token of rows with lengths and an architecture; see :func:`utilisation`."""
    n_in, n_out = _float(shaped, "n_input_tokens"), _float(shaped, "n_output_tokens")
    passed = n_in + n_out - 1
    pairs = passed * (passed + 1) / 2
    attention = 4 * _float(shaped, "n_layers") * _float(shaped, "n_heads") * _float(shaped, "n_head_dim") * pairs
    return (2 * _layer_weights(shaped) * passed + 2 * _last_weights(shaped) * n_out + attention) / n_out


def bytes_per_output_token(shaped: pd.DataFrame) -> pd.Series:
    """Bytes per output token of rows with lengths, batch, precision and architecture; see :func:`utilisation`."""
    n_in, n_out = _float(shaped, "n_input_tokens"), _float(shaped, "n_output_tokens")
    other = shaped["precision"].map(_OTHER_BYTES).astype(float)
    weights = _layer_weights(shaped) * shaped["precision"].map(_WEIGHT_BYTES).astype(float)
    weights += _last_weights(shaped) * other
    cache = 2 * _float(shaped, "n_layers") * _float(shaped, "n_kv_heads") * _float(shaped, "n_head_dim") * other
    written = n_in + n_out - 1
    read = (n_out - 1) * n_in + n_out * (n_out - 1) / 2
    return weights / _float(shaped, "batch_size") + cache * (written + read) / n_out


def _layer_weights(shaped: pd.DataFrame) -> pd.Series:
    """Weights of all layers' matrices: queries and output, keys and values, the MLP's three."""
    hidden, dim = _float(shaped, "n_hidden"), _float(shaped, "n_head_dim")
    attention = 2 * hidden * dim * (_float(shaped, "n_heads") + _float(shaped, "n_kv_heads"))
    return _float(shaped, "n_layers") * (attention + 3 * hidden * _float(shaped, "n_intermediate"))


def _last_weights(shaped: pd.DataFrame) -> pd.Series:
    return _float(shaped, "n_hidden") * _float(shaped, "n_vocab")


def _float(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame[name].astype(float)


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
        (~shaped["precision"].isin(list(_WEIGHT_BYTES)), "precision", f"one of {', '.join(_WEIGHT_BYTES)}"),
    ):
        if wrong.any():
            raise AnalysisError(
                "table runs",
                f"unknown {name} {shaped.loc[wrong, name].iloc[0]!r}",
                expected,
                "Aggregate the campaign anew, or teach analyse/utilisation.py",
            )


def _notes(shaped: pd.DataFrame, gpu_facts: pd.DataFrame) -> pd.Series:
    """Why a run has no MFU and MBU."""
    because = "MFU and MBU cannot be estimated, because "
    no_gpu = because + shaped["gpu_name"].fillna("the machine") + " has no peak rates in config/hardware.yaml"
    no_format = because + shaped["gpu_name"] + " has no peak rate for " + shaped["arithmetic"] + " there"
    note = no_format.where(shaped["gpu_name"].isin(gpu_facts["gpu_name"]), no_gpu)
    return note.mask(shaped["peak_flop_per_s"].notna())
