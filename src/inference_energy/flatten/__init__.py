"""From one record to rows of tables: every derived number of a run is worked out here.

Energies are those of the devices that take part (gross), unless the column's description says
otherwise. Unknown stays missing: a sum is missing as soon as one of its terms is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from inference_energy.flatten import engine
from inference_energy.flatten.devices import device_check_rows as device_check_rows, device_rows as device_rows
from inference_energy.readings import (
    Floats,
    codecarbon_gpu_power_w,
    codecarbon_powers_w,
    counter_energies_j,
    counter_powers_w,
    cumulative_energy_j,
    floats,
    gpu_name,
    idle_devices_energy_j,
    intervals_of,
    key_of,
    per_iteration,
    phase_at,
    power_taking_part_w,
    ratio,
    rest_energies_j,
    shared_energies_j,
    sum_or_missing,
    tail_energies_j,
    taking_part,
    taking_part_sum,
    total_of,
    work_s,
)
from inference_energy.records import Interval, Phase, Record

Row = dict[str, Any]

_MEASURED = [
    "energy_j_per_output_token",
    "energy_net_j_per_output_token",
    "energy_uncertainty_j_per_output_token",
    "energy_codecarbon_j_per_output_token",
    "throughput_tokens_per_s",
    "power_mean_w",
    "duration_s_per_step",
    "window_cv",
    "n_windows",
    "n_iterations",
    "n_warmup_iterations",
    "n_output_tokens_measured",
    "measured_s",
    "waited_s",
    "waited_fraction",
    "energy_j",
    "energy_idle_devices_j",
    "counter_over_power_ratio",
    "counter_over_codecarbon_gpu_ratio",
]
SAMPLE_BIN_S = 0.1  # the samples table holds at most ten a second


# --- the tables' rows ----------------------------------------------------------------------------


def window_rows(record: Record) -> list[Row]:
    """Rows of ``windows``; none where a result such as out of memory stands instead of numbers."""
    if record.status != "ok":
        return []
    return [_window_row(record, interval) for interval in intervals_of(record, "window")]


def run_row(record: Record, windows: Sequence[Row], opener: Record | None = None) -> Row:
    """The row of ``runs``; `windows` are this record's rows of ``windows``.

    A run without windows has missing numbers, and keeps what was read of its clock and counter.

    Parameters
    ----------
    opener : Record, optional
        The first run of the record's process, where that measured several: it alone saw the devices idle.
    """
    idle_power_w = _power_w(opener or record, "idle")
    return (
        key_of(record)
        | _factors(record)
        | _circumstances(record)
        | _overhead(record, idle_power_w)
        | _measured(record, windows, idle_power_w)
        | engine.run_columns(record)
        | _state(record)
    )


def interval_rows(record: Record) -> list[Row]:
    """Rows of ``intervals``, in order of time."""
    return [
        key_of(record)
        | {
            "sitting": record.identity.sitting,
            "phase": interval.phase,
            "index": interval.index,
            "opened_s": interval.opened_s,
            "closed_s": interval.closed_s,
            "energy_j": float(counter_energies_j(interval).sum()) if interval.counter_closed_j else math.nan,
            "n_iterations": len(interval.iteration_duration_s),
        }
        for interval in sorted(record.intervals, key=lambda interval: interval.opened_s)
    ]


def iteration_rows(record: Record) -> list[Row]:
    """Rows of ``iterations``: warm-up first, then the windows."""
    rows: list[Row] = []
    power_w = power_taking_part_w(record)
    started_s = 0.0
    for interval in intervals_of(record, "warmup") + intervals_of(record, "window"):
        # ASSUME: iterations follow each other without a pause from the interval's opening on.
        edges_s = interval.opened_s + np.concatenate([[0.0], np.cumsum(interval.iteration_duration_s)])
        energies_j = np.diff(cumulative_energy_j(record.trace.time_s, power_w, edges_s))
        n_tokens, n_steps = per_iteration(record, interval)
        parts = zip(interval.iteration_duration_s, energies_j, engine.prefills(record, interval), strict=True)
        for duration_s, energy_j, (first_token_s, prefill_energy_j) in parts:
            rows.append(
                key_of(record)
                | _shown_factors(record)
                | {
                    "warmup": record.levels.warmup,
                    "phase": interval.phase,
                    "index": len(rows),
                    "started_s": started_s,
                    "duration_s": duration_s,
                    "duration_s_per_step": ratio(duration_s, n_steps),
                    "energy_j_per_output_token": ratio(float(energy_j), n_tokens),
                    "energy_j": float(energy_j),
                    "first_token_s": first_token_s,
                    "prefill_energy_j": prefill_energy_j,
                }
            )
            started_s += duration_s
    return rows


def sample_rows(record: Record) -> list[Row]:
    """Rows of ``samples``: means over bins of a tenth of a second."""
    times, power_w = np.asarray(record.trace.time_s), power_taking_part_w(record)
    known = np.isfinite(power_w)
    times, power_w = times[known], power_w[known]
    _, bins = np.unique(np.floor(times / SAMPLE_BIN_S), return_inverse=True)
    counts = np.bincount(bins)
    mean_times, mean_powers = (np.bincount(bins, weights=values) / counts for values in (times, power_w))
    return [
        key_of(record) | {"time_s": float(time_s), "phase": phase_at(record, time_s), "power_w": float(power)}
        for time_s, power in zip(mean_times, mean_powers, strict=True)
    ]


def request_rows(record: Record) -> list[Row]:
    """Rows of ``requests``, in the order of planned arrival."""
    return [key_of(record) | row for row in engine.request_rows(record)]


def engine_sample_rows(record: Record) -> list[Row]:
    """Rows of ``engine_samples``, in order of time."""
    return [key_of(record) | row | {"phase": phase_at(record, row["time_s"])} for row in engine.sample_rows(record)]


def warning_rows(record: Record) -> list[Row]:
    """Rows of ``warnings``, in the record's order."""
    return [
        key_of(record) | {"code": warning.code, "value": warning.value, "detail": warning.detail}
        for warning in record.warnings
    ]


# --- parts of a run's row ------------------------------------------------------------------------


def _factors(record: Record) -> Row:
    return record.levels.model_dump() | {"n_prompts": record.levels.n_prompts_per_pass}


def _shown_factors(record: Record) -> Row:
    levels = record.levels
    return {
        "model": levels.model,
        "precision": levels.precision,
        "batch_size": levels.batch_size,
        "attention": levels.attention,
    }


def _circumstances(record: Record) -> Row:
    """Who measured what, when, where and with which software."""
    identity, hardware, devices = record.identity, record.hardware, taking_part(record)
    return {
        "status": record.status,
        "status_detail": record.status_detail,
        "order": identity.order,
        "sitting": identity.sitting,
        "host": hardware.host,
        "hardware": hardware.description,
        "gpu_name": gpu_name(record),
        "gpu_uuid_hash": "+".join(hardware.devices[index].uuid_hash for index in devices),
        "metered_uuid_hash": "+".join(device.uuid_hash for device in hardware.devices),
        "n_metered_gpus": len(hardware.devices),
        "n_visible_gpus": len(record.device_checks[0].devices) if record.device_checks else len(hardware.devices),
        "power_limit_w": hardware.devices[devices[0]].power_limit_w if devices else None,
        "started_at_utc": identity.started_at_utc,
        "ended_at_utc": identity.ended_at_utc,
        "energy_method": record.meter.energy_method,
        "n_warnings": len(record.warnings),
        "config_sha256": record.provenance.config_sha256,
        "source_sha256": record.provenance.source_sha256,
        "commit": record.provenance.commit,
        "driver": record.software.driver,
        "torch": record.software.torch,
        "transformers": record.software.transformers,
        "model_revision": record.provenance.model_revision,
        "token_ids_sha256": record.workload.token_ids_sha256 if record.workload else None,
        "replay_of": record.provenance.replay_of,
        "started_to_first_iteration_s": record.launch.started_to_first_iteration_s,
        "n_processes": record.launch.n_processes,
        "n_attempts": record.n_attempts,
    }


def _start(record: Record, idle_power_w: float) -> Row:
    """How rested the devices that take part were; missing where nothing was gated."""
    start = record.launch.start
    if start is None:
        return dict.fromkeys(("start_waited_s", "start_settled", "start_power_over_idle_w", "start_temperature_max_c"))
    return {
        "start_waited_s": start.waited_s,
        "start_settled": start.settled,
        "start_power_over_idle_w": sum_or_missing(floats(start.power_w).tolist()) - idle_power_w,
        "start_temperature_max_c": max((t for t in start.temperature_c if t is not None), default=None),
    }


def _power_w(record: Record, phase: Phase) -> float:
    """Mean power of the devices that take part over a phase; missing without it."""
    intervals = intervals_of(record, phase)
    return taking_part_sum(record, counter_powers_w(intervals)) if intervals else math.nan


def _overhead(record: Record, idle_power_w: float) -> Row:
    """Seconds and joules around the windows; all metered devices unless it says otherwise."""
    row: Row = {
        "monotonic_started_s": record.monotonic_started_s,
        "wall_s": record.process_ended_s - record.process_started_s,
        "sampled_from_s": record.trace.time_s[0] if record.trace.time_s else None,
        "rest_energy_j": sum_or_missing(rest_energies_j(record).tolist()),
        "counter_started_j": total_of(record.counter_started_j),
        "counter_ended_j": total_of(record.counter_ended_j),
    }
    row["run_energy_j"] = row["counter_ended_j"] - row["counter_started_j"]
    phases: tuple[Phase, ...] = ("idle", "load", "warmup")
    for phase in phases:
        intervals = intervals_of(record, phase)
        row[f"{phase}_s"] = sum_or_missing([one.closed_s - one.opened_s for one in intervals])
        row[f"{phase}_energy_j"] = sum_or_missing([float(counter_energies_j(one).sum()) for one in intervals])
    row |= {"idle_power_w": idle_power_w, "idle_loaded_power_w": _power_w(record, "idle_loaded")}
    return row | _start(record, idle_power_w)


def _measured(record: Record, windows: Sequence[Row], idle_power_w: float) -> Row:
    """Numbers over all windows; missing without any."""
    if not windows:
        return dict.fromkeys(_MEASURED) | engine.measured_columns(record, [], math.nan)

    def total(column: str) -> float:
        return float(sum(math.nan if row[column] is None else row[column] for row in windows))

    energy_j, measured_s, n_tokens = total("energy_j"), total("duration_s"), total("n_output_tokens_measured")
    intervals = intervals_of(record, "window")
    n_steps = sum(per_iteration(record, one)[1] * len(one.iteration_duration_s) for one in intervals)
    counter_j, waited_s = total("counter_energy_j"), total("waited_s")
    per_window = np.array([row["energy_j_per_output_token"] for row in windows])
    codecarbon_w, codecarbon_gpu_w = codecarbon_powers_w(record, intervals)
    return {
        "energy_j": energy_j,
        "measured_s": measured_s,
        "n_output_tokens_measured": n_tokens,
        "energy_j_per_output_token": ratio(energy_j, n_tokens),
        "energy_net_j_per_output_token": ratio(energy_j - idle_power_w * measured_s, n_tokens),
        "energy_uncertainty_j_per_output_token": ratio(
            math.hypot(total("uncertainty_settling_j"), *(row["uncertainty_random_j"] for row in windows)), n_tokens
        ),
        "energy_idle_devices_j": idle_devices_energy_j(record, intervals),
        "waited_s": waited_s,
        "waited_fraction": ratio(waited_s, measured_s),
        "energy_codecarbon_j_per_output_token": ratio(codecarbon_w * measured_s, n_tokens),
        "throughput_tokens_per_s": ratio(n_tokens, measured_s),
        "power_mean_w": ratio(energy_j, measured_s),
        "duration_s_per_step": ratio(measured_s, n_steps),
        "window_cv": float(per_window.std(ddof=1) / per_window.mean()) if len(windows) > 1 else None,
        "n_windows": len(windows),
        "n_iterations": sum(row["n_iterations"] for row in windows),
        "n_warmup_iterations": sum(len(one.iteration_duration_s) for one in intervals_of(record, "warmup")),
        "counter_over_power_ratio": ratio(counter_j, total("energy_power_instant_j")),
        "counter_over_codecarbon_gpu_ratio": ratio(counter_j / (measured_s + total("tail_s")), codecarbon_gpu_w),
    } | engine.measured_columns(record, intervals, energy_j)


def _state(record: Record) -> Row:
    """Temperature, clock, utilisation and memory of the devices that take part, over the windows."""
    trace, devices = record.trace, taking_part(record)
    times = np.asarray(trace.slow_time_s)
    inside = np.zeros(times.shape, dtype=bool)
    for interval in intervals_of(record, "window") if record.status == "ok" else []:
        inside |= (times >= interval.opened_s) & (times <= interval.closed_s)

    def over_windows(series: Sequence[Sequence[float | None]], reduce: Callable[[Floats], np.float64]) -> float:
        values = np.array([series[device] for device in devices if device < len(series)], dtype=float)
        values = values[:, inside] if values.size else values
        values = values[np.isfinite(values)]
        return float(reduce(values)) if values.size else math.nan

    peaks = record.memory.device_peak_bytes
    return {
        "temperature_max_c": over_windows(trace.temperature_c, np.max),
        "sm_clock_median_mhz": over_windows(trace.sm_clock_mhz, np.median),
        "gpu_utilisation_fraction": over_windows(trace.gpu_utilisation_fraction, np.mean),
        "memory_peak_bytes": max(
            (peak for index in devices if index < len(peaks) and (peak := peaks[index]) is not None), default=None
        ),
    }


def _window_row(record: Record, interval: Interval) -> Row:
    n_tokens = interval.tokens.n_tokens_non_padding if interval.tokens else None
    tails_j, tails_uncertainty_j = tail_energies_j(record, interval)
    random_j = math.sqrt(taking_part_sum(record, floats(interval.uncertainty_j) ** 2))
    settling_j = taking_part_sum(record, tails_uncertainty_j)
    counter_j = taking_part_sum(record, shared_energies_j(record, interval))
    energy_j = taking_part_sum(record, counter_energies_j(interval) - tails_j)
    power_instant_j = taking_part_sum(record, floats(interval.energy_power_instant_j))
    begun_s, ended_s = work_s(record, interval)
    duration_s = ended_s - begun_s
    return (
        key_of(record)
        | _shown_factors(record)
        | {
            "window": interval.index,
            "launcher": record.levels.launcher,
            "warmup": record.levels.warmup,
            "sitting": record.identity.sitting,
            "started_s": interval.opened_s,
            "duration_s": duration_s,
            "tail_s": interval.closed_s - ended_s,
            "waited_s": 0.0 if record.levels.traffic == "none" else interval.waited_s,
            "n_iterations": len(interval.iteration_duration_s),
            "n_output_tokens_measured": n_tokens,
            "energy_j": energy_j,
            "tail_energy_j": taking_part_sum(record, tails_j),
            "counter_energy_j": counter_j,
            "uncertainty_j": math.hypot(random_j, settling_j),
            "uncertainty_random_j": random_j,
            "uncertainty_settling_j": settling_j,
            "energy_power_instant_j": power_instant_j,
            "energy_power_average_j": taking_part_sum(record, floats(interval.energy_power_average_j)),
            "counter_over_power_ratio": ratio(counter_j, power_instant_j),
            "codecarbon_gpu_power_w": codecarbon_gpu_power_w(record, interval),
            "energy_j_per_output_token": ratio(energy_j, n_tokens),
            "throughput_tokens_per_s": ratio(n_tokens, duration_s),
            "power_mean_w": ratio(energy_j, duration_s),
        }
    )
