"""What was found and what was expected, case by case: the comparisons behind the checks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from inference_energy.audit.records import Records

#: Found, expected and the row of the run, case by case; a missing value is not tested.
Cases = tuple[pd.Series, pd.Series, pd.Series]

# ASSUME: a GPU that is in use for less than 5 % of the time does nobody's work.
_IDLE_UTILISATION = 0.05


def _runs(records: Records, found: pd.Series, expected: pd.Series | float) -> Cases:
    rows = records.runs.index.to_series()
    return found, pd.Series(expected, index=records.runs.index, dtype="float64"), rows


def _of_run(records: Records, values: pd.Series) -> pd.Series:
    """The value of each process's run, for every process."""
    return values.reindex(records.processes["row"]).set_axis(records.processes.index)


def _processes(records: Records, found: pd.Series, expected: pd.Series | float) -> Cases:
    return found, pd.Series(expected, index=found.index, dtype="float64"), records.processes["row"]


def _machine_limit_w(records: Records) -> pd.Series:
    return records.runs["power_limit_w"] * records.runs["n_machine_gpus"]


def power_own_gpu(records: Records) -> Cases:
    """Mean power of each process against the limit of one card (W)."""
    return _processes(records, records.mean_power_w(), _of_run(records, records.runs["power_limit_w"]))


def power_gpus_of_processes(records: Records) -> Cases:
    """Mean power against the limits of as many cards as processes, where some cards take no part (W)."""
    limit = records.runs["power_limit_w"] * records.runs["n_processes"]
    some_take_no_part = records.runs["n_processes"] < records.runs["n_machine_gpus"]
    limit = limit.where(some_take_no_part)
    return _processes(records, records.mean_power_w(), _of_run(records, limit))


def power_all_gpus(records: Records) -> Cases:
    """Mean power of each process against the limits of all cards (W)."""
    limit = _of_run(records, _machine_limit_w(records))
    return _processes(records, records.mean_power_w(), limit)


def power_summed(records: Records) -> Cases:
    """Mean power summed over processes against the limits of all cards (W)."""
    return _runs(records, records.over_processes(records.mean_power_w(), "sum"), _machine_limit_w(records))


def power_stored(records: Records) -> Cases:
    """Stored GPU power of each process against the limits of all cards (W)."""
    limit = _of_run(records, _machine_limit_w(records))
    return _processes(records, records.processes["gpu_power_w"], limit)


def power_times_time(records: Records) -> Cases:
    """GPU energy of each process against stored power times its time (J)."""
    processes = records.processes
    return _processes(records, processes["gpu_energy_j"], processes["gpu_power_w"] * processes["duration_s"])


def trackers_agree(records: Records) -> Cases:
    """Largest against smallest mean power of a run with several processes (W)."""
    power = records.mean_power_w()
    most, least = records.over_processes(power, "max"), records.over_processes(power, "min")
    return _runs(records, most.where(records.runs["n_processes"] > 1), least)


def cpu_power_varies(records: Records) -> Cases:
    """CPU power of each process against the median of all (W)."""
    power = records.processes["cpu_power_w"]
    return _processes(records, power, float(power.median()))


def energy_parts(records: Records) -> Cases:
    """Energy of each process against the sum of GPU, CPU and RAM (J)."""
    parts = records.processes[["gpu_energy_j", "cpu_energy_j", "ram_energy_j"]].sum(axis=1, min_count=3)
    return _processes(records, records.processes["energy_j"], parts)


def energy_summed(records: Records) -> Cases:
    """Energy of a run against the sum over its processes (J)."""
    return _runs(records, records.runs["energy_j"], records.over_processes(records.processes["energy_j"], "sum"))


def energy_per_token(records: Records) -> Cases:
    """Stored energy per token against energy over tokens counted (J)."""
    runs = records.runs
    return _runs(records, runs["energy_j_per_output_token"], runs["energy_j"] / runs["n_tokens_counted"])


def throughput(records: Records) -> Cases:
    """Stored throughput against tokens counted over time (tokens/s)."""
    runs = records.runs
    return _runs(records, runs["throughput_tokens_per_s"], runs["n_tokens_counted"] / runs["duration_s"])


def tracked_time(records: Records) -> Cases:
    """Each tracker's time against the run's (s)."""
    duration = _of_run(records, records.runs["duration_s"])
    return _processes(records, records.processes["duration_s"], duration)


def tokens_of_one(records: Records) -> Cases:
    """Tokens counted against prompts times output length."""
    runs = records.runs
    return _runs(records, runs["n_tokens_counted"], runs["n_prompts"] * runs["n_output_tokens"])


def tokens_of_all(records: Records) -> Cases:
    """Tokens counted against prompts times output length times processes."""
    runs = records.runs
    return _runs(records, runs["n_tokens_counted"], runs["n_prompts"] * runs["n_output_tokens"] * runs["n_processes"])


def _batches(records: Records, prompts: pd.Series) -> Cases:
    runs = records.runs
    found = runs["duration_s"] / runs["batch_duration_s"]
    return _runs(records, found.where(runs["n_processes"] > 1), (prompts / runs["batch_size"]).apply(np.ceil))


def all_prompts(records: Records) -> Cases:
    """Batches that fit into a run against those of all prompts."""
    return _batches(records, records.runs["n_prompts"])


def shared_prompts(records: Records) -> Cases:
    """Batches that fit into a run against those of a process's share of the prompts."""
    return _batches(records, records.runs["n_prompts"] / records.runs["n_processes"])


def other_gpus_rest(records: Records) -> Cases:
    """Utilisation of GPUs beyond the number of processes against that of a GPU at rest."""
    gpus = records.gpus
    n_processes = records.runs["n_processes"].reindex(gpus["row"]).to_numpy()
    found = gpus["utilisation_fraction"].astype(float).where(gpus["number"].to_numpy() >= n_processes)
    return found, pd.Series(_IDLE_UTILISATION, index=gpus.index), gpus["row"]


def runs_apart(records: Records) -> Cases:
    """Time from the end of the run before to a run's own against its duration (s)."""
    ordered = records.runs.sort_values("ended_at")
    since = ordered.groupby("lane")["ended_at"].diff().dt.total_seconds()
    return _runs(records, since.reindex(records.runs.index), records.runs["wall_s"])


def run_names(records: Records) -> Cases:
    """How often each run's name stands there, against once."""
    times = records.runs.groupby("run")["run"].transform("size").astype(float)
    return _runs(records, times, 1.0)


def flop(records: Records) -> Cases:
    """Stored FLOP against two for each parameter and token counted."""
    runs = records.runs
    return _runs(records, runs["work_flop"], 2 * runs["n_model_parameters"] * runs["n_tokens_counted"])


def work_per_joule(records: Records) -> Cases:
    """Least FLOP of the answers over GPU energy, against the peak rate over the power limit (TFLOP/J).

    Two FLOP for each parameter of the layers and token that passes them (the last one of an answer does not);
    attention and the last layer are left out.
    """
    runs = records.runs
    passed = runs["n_prompts"] * (runs["n_input_tokens"] + runs["n_output_tokens"] - 1)
    energy_j = records.over_processes(records.processes["gpu_energy_j"], "sum")
    best = runs["peak_flop_per_s"] / runs["power_limit_w"]
    return _runs(records, 2e-12 * runs["n_layer_parameters"] * passed / energy_j, 1e-12 * best)


def parameters(records: Records) -> Cases:
    """Stored number of parameters against the model's."""
    return _runs(records, records.runs["n_parameters"], records.runs["n_model_parameters"])


def input_length(records: Records) -> Cases:
    """Input tokens of a prompt against the stated length."""
    return _runs(records, records.runs["n_input_tokens"], records.stated.n_input_tokens)


def output_length(records: Records) -> Cases:
    """Output tokens of a prompt against the stated length."""
    return _runs(records, records.runs["n_output_tokens"], records.stated.n_output_tokens)


def cycles(records: Records) -> Cases:
    """Cycles in which each setting was measured against the stated number."""
    by_setting = records.runs.groupby(["setting", "n_processes"], sort=False)
    found = by_setting["cycle"].nunique().astype(float).where(by_setting["cycle"].count() > 0).reset_index(drop=True)
    rows = by_setting["run"].apply(lambda runs: runs.index[0]).reset_index(drop=True)
    return found, pd.Series(records.stated.n_cycles, index=found.index), rows


def cycles_apart(records: Records) -> Cases:
    """Time from one cycle of a setting to its next against the stated time (s)."""
    keys = ["setting", "n_processes", "cycle"]
    first = records.runs.dropna(subset=["ended_at", "cycle"]).sort_values("ended_at").drop_duplicates(keys)
    gap = first.groupby(keys[:2])["ended_at"].diff().dt.total_seconds().dropna()
    return gap, pd.Series(records.stated.cycle_gap_s, index=gap.index), gap.index.to_series()
