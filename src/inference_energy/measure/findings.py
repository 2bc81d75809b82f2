"""Warnings of a run: codes with numbers, for a reader to weigh."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference_energy.records import Interval, RunWarning, Trace

#: NVML's reasons for a lower clock that change what is measured: power cap, slow-downs, heat, brake.
THROTTLE_REASONS = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
CODECARBON_TOLERANCE_FRACTION = 0.05


def warnings_of(
    intervals: Sequence[Interval], trace: Trace, lead: int, tolerance_fraction: float, method: str
) -> list[RunWarning]:
    """All warnings of a run.

    Parameters
    ----------
    intervals : sequence of Interval
        With times on the same clock as `trace`.
    trace : Trace
        Samples of the whole run.
    lead : int
        Index of the device that takes part.
    tolerance_fraction : float
        Counter against integrated instant power, beyond which a window carries a warning.
    method : str
        The meter's energy method.
    """
    windows = [interval for interval in intervals if interval.phase == "window"]
    found: list[RunWarning] = []
    if method == "codecarbon_estimate":
        found.append(
            RunWarning(
                code="estimate_only",
                value=None,
                detail="no energy counter: CPU load times an assumed power, RAM a constant",
            )
        )
    for window in windows:
        found += _counter_against_power(window, lead, tolerance_fraction, method)
        found += _counter_against_codecarbon(window, lead, method)
    return found + _from_trace(windows, trace, lead)


def _counter_against_power(window: Interval, lead: int, tolerance_fraction: float, method: str) -> list[RunWarning]:
    opened_j, closed_j = window.counter_opened_j[lead], window.counter_closed_j[lead]
    if opened_j is None or closed_j is None:
        return [RunWarning(code="counter_not_read", value=None, detail=f"window {window.index}")]
    integrated_j = window.energy_power_instant_j[lead]
    if integrated_j is None or integrated_j <= 0:
        missing = method not in ("codecarbon_estimate", "rapl")
        return [RunWarning(code="no_instant_power", value=None, detail=f"window {window.index}")] if missing else []
    deviation = (closed_j - opened_j) / integrated_j - 1
    if abs(deviation) <= tolerance_fraction:
        return []
    return [
        RunWarning(
            code="counter_power_disagree",
            value=deviation,
            detail=f"window {window.index}: counter over integrated instant power, less one",
        )
    ]


def _counter_against_codecarbon(window: Interval, lead: int, method: str) -> list[RunWarning]:
    if method in ("codecarbon_estimate", "rapl"):  # CodeCarbon has no GPU to read
        return []
    lap = window.codecarbon
    if lap is None or lap.duration_s <= 0 or lap.gpu_energy_j <= 0:
        return [RunWarning(code="no_codecarbon", value=None, detail=f"window {window.index}")]
    opened_j, closed_j = window.counter_opened_j[lead], window.counter_closed_j[lead]
    if opened_j is None or closed_j is None:
        return []
    power_w = (closed_j - opened_j) / (window.closed_s - window.opened_s)
    deviation = lap.gpu_energy_j / lap.duration_s / power_w - 1
    if abs(deviation) <= CODECARBON_TOLERANCE_FRACTION:
        return []
    return [
        RunWarning(
            code="codecarbon_disagree",
            value=deviation,
            detail=f"window {window.index}: CodeCarbon's GPU power over the counter's, less one",
        )
    ]


def _from_trace(windows: Sequence[Interval], trace: Trace, lead: int) -> list[RunWarning]:
    if not windows or not trace.slow_time_s:
        return []
    times = np.array(trace.slow_time_s)
    inside = (times >= windows[0].opened_s) & (times <= windows[-1].closed_s)
    found: list[RunWarning] = []
    reasons = [reason or 0 for reason, kept in zip(trace.throttle_reasons[lead], inside, strict=True) if kept]
    for bit, words in THROTTLE_REASONS.items():
        share = sum(1 for reason in reasons if reason & bit) / max(1, len(reasons))
        if share > 0:
            found.append(RunWarning(code="throttled", value=share, detail=f"{words}, share of samples in the windows"))
    others = [n or 0 for n, kept in zip(trace.n_other_processes[lead], inside, strict=True) if kept]
    if any(others):
        found.append(RunWarning(code="other_processes", value=float(max(others)), detail="on the GPU during windows"))
    if trace.time_s[-1] < windows[-1].work_ended_s or trace.time_s[0] > windows[0].opened_s:
        found.append(RunWarning(code="short_trace", value=trace.time_s[-1], detail="samples do not span the windows"))
    return found
