"""Runs of deployments, with every factor as one level in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.tables import above_zero

ENERGY = "energy_j_per_output_token"
ONE_GPU, NO_TRAFFIC, TRAFFIC = "1 GPU", "no waiting", "waiting"
ONE_BATCH, PASSES = "one batch, repeated", "a pass of several batches"

#: Factors of a deployment, each with the level it is compared with where that was measured.
BASELINES: dict[str, str] = {
    "model": "llama-3.2-1b",
    "precision": "float16",
    "batch_size": "8",
    "parallelism": ONE_GPU,
    "decoding": "greedy",
    "traffic": NO_TRAFFIC,
    "lengths": "128 in, 128 out",
}
#: Levels that the published study varies: where a campaign lacks one, a table says so.
LEVELS: dict[str, tuple[str, ...]] = {
    "precision": ("float32", "float16", "int8", "int4"),
    "batch_size": ("2", "4", "8", "16", "32", "64"),
    "parallelism": (ONE_GPU, *(f"duplicated replicas, {n} GPUs" for n in (2, 3, 4))),
    "decoding": ("greedy", "multinomial", "top-k", "top-p"),
}
_SHARED = {"replicas": "replicas", "replicas_duplicated": "duplicated replicas", "tensor": "tensor parallelism"}


def is_deployment(runs: pd.DataFrame) -> pd.Series:
    """Which runs are of a deployment, and not of a level that is there for the method's sake.

    Those are a cold launcher, too short a warm-up, a machine kept empty, and an attention kernel other than
    most settings have (of equally many, the first in the alphabet).
    """
    kernels = runs.drop_duplicates("setting")["attention"].value_counts()
    usual = sorted(kernels[kernels == kernels.max()].index)[:1]
    method = runs["launcher"].eq("cold") | runs["warmup"].eq("forward_passes") | runs["neighbours"].eq("none")
    other_kernel = runs["attention"].notna() & ~runs["attention"].isin(usual)
    return ~(method | other_kernel).fillna(value=False).astype(bool)


def deployments(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a deployment run: its levels as text, and the logarithm of its energy.

    Runs of method studies are left out (:func:`is_deployment`).

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table, of any studies; runs without energy are left out.

    Returns
    -------
    DataFrame
        The factors of :data:`BASELINES`, ``setting``, ``sitting``, ``log_energy`` (of J per output
        token), ``log2_batch`` (over a batch of 8), ``of_grid`` (whether of study grid),
        ``batch_wait_s`` and ``wait_gpu_s_per_output_token`` (seconds times GPUs that take part).

    Raises
    ------
    AnalysisError
        If no run has an energy, or one is not above 0.
    """
    known = runs[runs[ENERGY].notna()]
    if known.empty:
        raise AnalysisError("table runs", f"none of {len(runs)} runs has {ENERGY}", "at least one measured run")
    above_zero(known, ENERGY, "table runs")
    return with_levels(known[is_deployment(known)])


def with_levels(runs: pd.DataFrame) -> pd.DataFrame:
    """Levels in words, energies and waits of `runs`, without leaving any out."""
    batch, n_gpus = runs["batch_size"].astype(float), runs["n_gpus"].astype(int)
    waited = runs["waited_s"].astype("Float64").fillna(0).to_numpy(float)
    shared = runs["parallelism"].map(_SHARED)
    sharing = n_gpus.where(runs["parallelism"].eq("replicas").fillna(value=False).to_numpy(bool), 1)
    several = runs["n_prompts"].astype("Float64").fillna(0).to_numpy(float) > batch.to_numpy() * sharing.to_numpy()
    with np.errstate(invalid="ignore"):
        per_batch = np.where(waited > 0, waited / runs["n_iterations"].astype("Float64").to_numpy(float), 0.0)
        per_token = waited * n_gpus / runs["n_output_tokens_measured"].astype("Float64").to_numpy(float)
    return pd.DataFrame(
        {
            "model": runs["model"].astype(str),
            "precision": runs["precision"].astype(str),
            "batch_size": runs["batch_size"].astype(int).astype(str),
            "parallelism": [ONE_GPU if n == 1 else f"{kind}, {n} GPUs" for kind, n in zip(shared, n_gpus, strict=True)],
            "decoding": runs["decoding"].astype(str).str.replace("_", "-"),
            "traffic": [_waiting(row) for row in runs.itertuples()],
            "lengths": [f"{row.n_input_tokens} in, {row.n_output_tokens} out" for row in runs.itertuples()],
            "prompts": np.where(several, PASSES, ONE_BATCH),
            "setting": runs["setting"].astype(str),
            "sitting": runs["sitting"].astype(str),
            "log_energy": np.log(runs[ENERGY].astype(float)),
            "log2_batch": np.log2(batch) - 3,
            "of_grid": runs["study"].eq("grid").fillna(value=False).to_numpy(bool),
            "batch_wait_s": per_batch,
            "wait_gpu_s_per_output_token": np.where(waited > 0, per_token, 0.0),
        },
        index=runs.index,
    )


def baseline_of(factor: str, levels: pd.Series) -> str:
    """The level that others are compared with: that of :data:`BASELINES`, or the most frequent one."""
    return BASELINES[factor] if BASELINES[factor] in set(levels) else str(levels.mode().iloc[0])


def waits(deployed: pd.DataFrame) -> pd.Series:
    """Whether there is simulated waiting, of whatever kind, in words."""
    return deployed["traffic"].where(deployed["traffic"] == NO_TRAFFIC, TRAFFIC)


def order_of(level: str) -> tuple[float, str]:
    """Sorts levels: numbers by value, text by letters."""
    return (float(level), "") if level.replace(".", "", 1).isdigit() else (np.inf, level)


def _waiting(row: object) -> str:
    kind, least, most = getattr(row, "traffic"), getattr(row, "delay_min_s"), getattr(row, "delay_max_s")  # noqa: B009
    if pd.isna(kind) or kind == "none":
        return NO_TRAFFIC
    return f"{kind}, {least:g} to {most:g} s per {getattr(row, 'delay_every')}"  # noqa: B009
