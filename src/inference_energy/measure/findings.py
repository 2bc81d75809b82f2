"""Warnings of a run: codes with numbers, for a reader to weigh."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference_energy.records import DeviceCheck, Interval, RunWarning, Start, Trace

#: NVML's reasons for a lower clock that change what is measured: power cap, slow-downs, heat, brake.
THROTTLE_REASONS = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
CODECARBON_TOLERANCE_FRACTION = 0.05
#: A neighbour that draws this much more than a rested GPU may is at work, whether its processes are seen or not.
NEIGHBOUR_ABOVE_REST_W = 15.0


def warnings_of(
    intervals: Sequence[Interval],
    trace: Trace,
    lead: int,
    tolerance_fraction: float,
    method: str,
    *,
    takes_part: Sequence[int] = (),
    start: Start | None = None,
    checks: Sequence[DeviceCheck] = (),
    alone: bool = False,
) -> list[RunWarning]:
    """All warnings of a run.

    Parameters
    ----------
    intervals : sequence of Interval
        With times on the same clock as `trace`.
    trace : Trace
        Samples of the whole run.
    lead : int
        Index of the first device that takes part.
    tolerance_fraction : float
        Counter against integrated instant power, beyond which a window carries a warning.
    method : str
        The meter's energy method.
    takes_part : sequence of int
        Indices of all devices that take part; `lead` alone where none are given.
    start : Start, optional
        How rested the GPUs were.
    checks : sequence of DeviceCheck
        Of every visible GPU.
    alone : bool
        Whether the run was to have the machine to itself.
    """
    working = list(takes_part) or [lead]
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
    for device in working:
        seen = [w for window in windows for w in _counter_against_power(window, device, tolerance_fraction, method)]
        seen += _from_trace(windows, trace, device)
        which = f" (device {device})" if len(working) > 1 else ""
        found += [warning.model_copy(update={"detail": warning.detail + which}) for warning in seen]
    for window in windows:
        found += _counter_against_codecarbon(window, working, method)
    return found + _short(windows, trace) + _not_settled(start) + (_neighbours(checks, start) if alone else [])


def _counter_against_power(window: Interval, device: int, tolerance_fraction: float, method: str) -> list[RunWarning]:
    opened_j, closed_j = window.counter_opened_j[device], window.counter_closed_j[device]
    if opened_j is None or closed_j is None:
        return [RunWarning(code="counter_not_read", value=None, detail=f"window {window.index}")]
    integrated_j = window.energy_power_instant_j[device]
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


def _counter_against_codecarbon(window: Interval, working: Sequence[int], method: str) -> list[RunWarning]:
    if method in ("codecarbon_estimate", "rapl"):  # CodeCarbon has no GPU to read
        return []
    lap = window.codecarbon
    if lap is None or lap.duration_s <= 0 or lap.gpu_energy_j <= 0:
        return [RunWarning(code="no_codecarbon", value=None, detail=f"window {window.index}")]
    power_w = 0.0
    for device in working:
        opened_j, closed_j = window.counter_opened_j[device], window.counter_closed_j[device]
        if opened_j is None or closed_j is None:
            return []
        opened_s = (window.device_opened_s or [window.opened_s] * (device + 1))[device]
        closed_s = (window.device_closed_s or [window.closed_s] * (device + 1))[device]
        power_w += (closed_j - opened_j) / (closed_s - opened_s)
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


def _from_trace(windows: Sequence[Interval], trace: Trace, device: int) -> list[RunWarning]:
    if not windows or not trace.slow_time_s:
        return []
    times = np.array(trace.slow_time_s)
    inside = (times >= windows[0].opened_s) & (times <= windows[-1].closed_s)
    found: list[RunWarning] = []
    reasons = [reason or 0 for reason, kept in zip(trace.throttle_reasons[device], inside, strict=True) if kept]
    for bit, words in THROTTLE_REASONS.items():
        share = sum(1 for reason in reasons if reason & bit) / max(1, len(reasons))
        if share > 0:
            found.append(RunWarning(code="throttled", value=share, detail=f"{words}, share of samples in the windows"))
    others = [n or 0 for n, kept in zip(trace.n_other_processes[device], inside, strict=True) if kept]
    if any(others):
        found.append(RunWarning(code="other_processes", value=float(max(others)), detail="on the GPU during windows"))
    return found


def _short(windows: Sequence[Interval], trace: Trace) -> list[RunWarning]:
    if not windows or not trace.time_s:
        return []
    if trace.time_s[-1] >= windows[-1].work_ended_s and trace.time_s[0] <= windows[0].opened_s:
        return []
    return [RunWarning(code="short_trace", value=trace.time_s[-1], detail="samples do not span the windows")]


def _not_settled(start: Start | None) -> list[RunWarning]:
    """What was over its limit when the run started all the same, on the worst device."""
    if start is None or start.settled:
        return []
    found = []
    for quantity, values, limit in (
        ("power, W", start.power_w, start.power_max_w),
        ("temperature, degrees C", start.temperature_c, start.temperature_max_c),
    ):
        above = max((value for value in values if value is not None), default=0.0) - (limit or 0.0)
        if limit is not None and above > 0:
            detail = f"{quantity} above the limit of {limit:g} after {start.waited_s:.1f} s"
            found.append(RunWarning(code="start_not_settled", value=above, detail=detail))
    return found


def _neighbours(checks: Sequence[DeviceCheck], start: Start | None) -> list[RunWarning]:
    """GPUs beside a run that was to be alone, on which someone was at work."""
    rested_w = None if start is None else start.power_max_w
    busy = {
        device.uuid_hash
        for check in checks
        for device in check.devices
        if not device.participates
        and (
            (device.n_other_processes or 0) > 0
            or (
                rested_w is not None
                and device.power_w is not None
                and device.power_w > rested_w + NEIGHBOUR_ABOVE_REST_W
            )
        )
    }
    if not busy:
        return []
    detail = f"other GPUs in use though the run was to be alone: {', '.join(sorted(busy))}"
    return [RunWarning(code="neighbour_seen", value=float(len(busy)), detail=detail)]
