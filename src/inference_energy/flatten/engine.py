"""Rows and columns that come from an engine's own words: its facts, its queues, its requests, its two phases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from inference_energy.readings import (
    Floats,
    counter_energies_j,
    cumulative_energy_j,
    intervals_of,
    power_taking_part_w,
    ratio,
    taking_part,
    work_s,
)
from inference_energy.records import Interval, Record

Row = dict[str, Any]

_FACTS = {
    "engine_version": "version",
    "graph_mode": "graph_mode",
    "engine_attention": "attention_backend",
    "engine_quantisation": "quantisation",
    "n_kv_blocks": "n_kv_blocks",
    "n_tokens_per_kv_block": "n_tokens_per_kv_block",
    "n_sequences_limit": "n_sequences_max",
    "n_step_tokens_max": "n_step_tokens_max",
    "n_context_tokens_max": "n_context_tokens_max",
    "compile_cache": "compile_cache",
    "n_preemptions": "n_preemptions",
}


def request_rows(record: Record) -> list[Row]:
    """Rows of ``requests``, less the key; none where prompts are given in batches."""
    found = record.requests
    if found is None or not found.scheduled_s:
        return []
    zero_s = found.scheduled_s[0]

    def since(moment_s: float | None, from_s: float) -> float:
        return math.nan if moment_s is None else moment_s - from_s

    rows: list[Row] = []
    for index, scheduled_s in enumerate(found.scheduled_s):
        first_s, ended_s, n_counted = found.first_token_s[index], found.ended_s[index], found.n_tokens_counted[index]
        # Where no ids come, events are counted, which may hold several tokens.
        n_tokens = found.n_tokens_requested[index] if found.outcome[index] == "ok" else n_counted
        decoding_s = math.nan if first_s is None or ended_s is None else ended_s - first_s
        rows.append(
            {
                "model": record.levels.model,
                "arrival": record.levels.arrival,
                "arrival_requests_per_s": record.levels.arrival_requests_per_s,
                "request": index,
                "scheduled_s": scheduled_s - zero_s,
                "sent_s": since(found.sent_s[index], zero_s),
                "first_token_s": since(first_s, zero_s),
                "ended_s": since(ended_s, zero_s),
                "n_input_tokens": found.n_input_tokens[index],
                "n_tokens_requested": found.n_tokens_requested[index],
                "n_tokens_counted": n_counted,
                "n_tokens_reported": found.n_tokens_reported[index],
                "outcome": found.outcome[index],
                "time_to_first_token_s": since(first_s, scheduled_s),
                "latency_s": since(ended_s, scheduled_s),
                "inter_token_latency_s": ratio(decoding_s, n_tokens - 1 if n_tokens > 1 else None),
            }
        )
    return rows


def sample_rows(record: Record) -> list[Row]:
    """Rows of ``engine_samples``, less the key and the phase."""
    found = record.engine_samples
    if found is None:
        return []
    return [
        {"time_s": time_s, "n_running": n_running, "n_waiting": n_waiting, "kv_cache_fraction": fraction}
        for time_s, n_running, n_waiting, fraction in zip(
            found.time_s, found.n_running, found.n_waiting, found.kv_cache_fraction, strict=True
        )
    ]


def prefills(record: Record, interval: Interval) -> list[tuple[float, float]]:
    """Of each iteration: seconds until its last prompt had a first token, and the energy until then in J.

    Energy is instant power of the GPUs that take part, integrated; both are missing where the
    engine does not say, and with simulated waiting, whose place in an iteration a record does not hold.
    """
    durations_s = interval.iteration_duration_s
    if interval.iteration_first_token_s is None or record.levels.traffic != "none":
        return [(math.nan, math.nan)] * len(durations_s)
    first_s = np.array(interval.iteration_first_token_s)
    # ASSUME: iterations follow each other without a pause from the interval's opening on.
    begins_s = interval.opened_s + np.concatenate([[0.0], np.cumsum(durations_s)[:-1]])
    times, power_w = record.trace.time_s, power_taking_part_w(record)
    energies_j = cumulative_energy_j(times, power_w, begins_s + first_s) - cumulative_energy_j(times, power_w, begins_s)
    return list(zip(first_s.tolist(), energies_j.tolist(), strict=True))


def n_prompts_measured(record: Record, windows: Sequence[Interval]) -> int | None:
    """Prompts answered in the windows: requests that ended well, or whole batches."""
    if record.requests is not None:
        return record.requests.outcome.count("ok")
    if record.workload is None or any(one.tokens is None for one in windows):
        return None
    if record.workload.n_output_tokens_of is None:
        n_tokens = sum(one.tokens.n_tokens_requested for one in windows if one.tokens)
        return n_tokens // record.levels.n_output_tokens
    # Where lengths differ, the windows together hold whole passes (measure.windows.Plan).
    n_iterations = sum(len(one.iteration_duration_s) for one in windows)
    return n_iterations * record.workload.n_prompts // record.workload.n_batches


def run_columns(record: Record) -> Row:
    """Columns of ``runs`` that say how the engine was set up, how full it was, and which process it ran in."""
    engine, shared, requests = record.engine, record.launch.shared, record.requests
    return (
        {column: None if engine is None else getattr(engine, name) for column, name in _FACTS.items()}
        | _queues(record)
        | {
            "process": shared.process if shared else None,
            "process_position": shared.position if shared else None,
            "process_first_run": shared.first_run if shared else None,
            "client_cpu_s": requests.client_cpu_s if requests else None,
            "client_wall_s": requests.client_wall_s if requests else None,
        }
    )


def measured_columns(record: Record, windows: Sequence[Interval], energy_j: float) -> Row:
    """Columns of ``runs`` over all windows: tokens and prompts, the first phase, what CodeCarbon and idle GPUs say."""
    tokens = [one.tokens for one in windows if one.tokens is not None]
    complete = bool(tokens) and len(tokens) == len(windows)
    effective = [
        one.n_input_tokens if one.n_effective_input_tokens is None else one.n_effective_input_tokens for one in tokens
    ]
    phases = np.array([each for one in windows for each in prefills(record, one)]).reshape(-1, 2)
    n_prompts = n_prompts_measured(record, windows)
    return {
        "n_computed_output_tokens_measured": sum(one.n_tokens_generated for one in tokens) if complete else None,
        "n_input_tokens_measured": sum(one.n_input_tokens for one in tokens) if complete else None,
        "n_effective_input_tokens_measured": sum(effective) if complete else None,
        "n_prompts_measured": n_prompts,
        "energy_j_per_prompt": ratio(energy_j, n_prompts),
        "prefill_s": float(phases[:, 0].sum()) if len(phases) else math.nan,
        "prefill_energy_j": float(phases[:, 1].sum()) if len(phases) else math.nan,
        "codecarbon_cpu_power_w": _estimate_w(windows, "cpu_energy_j"),
        "codecarbon_ram_power_w": _estimate_w(windows, "ram_energy_j"),
        "idle_devices_power_w": _idle_devices_w(record, windows),
    }


def _estimate_w(windows: Sequence[Interval], name: str) -> float:
    """Mean power that CodeCarbon estimates over the windows; missing unless it read all of them."""
    found = [one.codecarbon for one in windows if one.codecarbon is not None]
    if not found or len(found) < len(windows):
        return math.nan
    return ratio(sum(getattr(one, name) for one in found), sum(one.duration_s for one in found))


def _idle_devices_w(record: Record, windows: Sequence[Interval]) -> float:
    """Mean power over the windows of metered devices that take no part, tick to tick."""
    idle = [index for index in range(len(record.hardware.devices)) if index not in taking_part(record)]
    if not idle or not windows:
        return math.nan
    energy_j = sum(float(counter_energies_j(one)[idle].sum()) for one in windows)
    return ratio(energy_j, sum(one.closed_s - one.opened_s for one in windows))


def _queues(record: Record) -> Row:
    """Means by time over the windows of what the engine said of its queues."""
    names = {
        "n_running_mean": "n_running",
        "n_waiting_mean": "n_waiting",
        "kv_cache_used_fraction": "kv_cache_fraction",
    }
    windows = intervals_of(record, "window") if record.status == "ok" else []
    found = record.engine_samples
    if found is None or not windows:
        return dict.fromkeys(names, math.nan)
    opened_s, ended_s = np.array([work_s(record, one) for one in windows]).T

    def mean(values: Sequence[float | None]) -> float:
        series: Floats = np.array(values, dtype=float)
        at_end, at_begin = (cumulative_energy_j(found.time_s, series, moments) for moments in (ended_s, opened_s))
        return ratio(float((at_end - at_begin).sum()), float((ended_s - opened_s).sum()))

    return {column: mean(getattr(found, name)) for column, name in names.items()}
