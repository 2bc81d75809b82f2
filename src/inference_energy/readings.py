"""From a record's lists over devices, intervals and samples to single numbers.

Unknown stays missing: a sum over devices or intervals is missing as soon as one of its terms is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference_energy.records import Interval, Phase, Record

Floats = NDArray[np.float64]

#: How long power takes to fall to its waiting level once the work has ended, beyond the sensor's lag.
#: SOURCE: traces of h200-pilot (float32, batch 32 and 64): the area under the fall, less the lag, is 8-12 ms.
SETTLING_S = 0.010


def cumulative_energy_j(
    time_s: Sequence[float] | Floats, power_w: Sequence[float] | Floats, at_s: Sequence[float] | Floats
) -> Floats:
    """Energy from the first sample to each of some moments: trapezoids with interpolated edges.

    Parameters
    ----------
    time_s, power_w : array_like
        Samples in order of time, in s and W; a sample with missing power is left out.
    at_s : array_like
        Moments in s. Beyond the samples the nearest one holds.

    Returns
    -------
    ndarray
        Joules, one for each moment; all missing without samples. Energy between two moments is the
        difference of their values.
    """
    times, powers, at = (np.asarray(values, dtype=float) for values in (time_s, power_w, at_s))
    known = np.isfinite(powers)
    times, powers = times[known], powers[known]
    if times.size == 0:
        return np.full(at.shape, np.nan)
    steps = np.diff(times) * (powers[1:] + powers[:-1]) / 2
    energies = np.concatenate([[0.0], np.cumsum(steps)])
    left = np.clip(np.searchsorted(times, at, side="right") - 1, 0, times.size - 1)
    edge_powers = np.interp(at, times, powers)
    return np.asarray(energies[left] + (at - times[left]) * (powers[left] + edge_powers) / 2)


def key_of(record: Record) -> dict[str, str | int]:
    """What names a run in every table."""
    identity = record.identity
    return {
        "campaign": identity.campaign,
        "study": identity.study,
        "setting": identity.setting,
        "cycle": identity.cycle,
    }


def taking_part(record: Record) -> list[int]:
    """Indices of the devices that take part."""
    return [index for index, device in enumerate(record.hardware.devices) if device.participates]


def gpu_name(record: Record) -> str:
    """Names of the devices that take part, each once; the CPU's where there is no device."""
    names = dict.fromkeys(record.hardware.devices[index].name for index in taking_part(record))
    return "+".join(names) or record.hardware.cpu_name


def intervals_of(record: Record, phase: Phase) -> list[Interval]:
    """Intervals of one phase in order."""
    return sorted((one for one in record.intervals if one.phase == phase), key=lambda one: one.index)


def floats(values: Sequence[float | None]) -> Floats:
    """Values as an array, with null as missing."""
    return np.array(values, dtype=float)


def counter_energies_j(interval: Interval) -> Floats:
    """The counter's difference from tick to tick, one value a device."""
    return floats(interval.counter_closed_j) - floats(interval.counter_opened_j)


def ticks_s(interval: Interval) -> tuple[Floats, Floats]:
    """When each device's counter ticked: at the opening and at the closing reading, in s."""
    n_devices = len(interval.counter_opened_j)
    opened = [interval.opened_s] * n_devices if interval.device_opened_s is None else interval.device_opened_s
    closed = [interval.closed_s] * n_devices if interval.device_closed_s is None else interval.device_closed_s
    return np.array(opened, dtype=float), np.array(closed, dtype=float)


def counter_powers_w(intervals: Sequence[Interval]) -> Floats:
    """Mean power by the counter, from each device's tick to its tick; one value a device."""
    energies_j = np.sum([counter_energies_j(one) for one in intervals], axis=0)
    opened, closed = np.sum([ticks_s(one) for one in intervals], axis=0)
    return np.asarray(energies_j / (closed - opened))


def work_s(record: Record, interval: Interval) -> tuple[float, float]:
    """When the work of an interval began and ended, on the run's clock.

    From `opened_s` to `work_ended_s`; where requests arrive, from the first planned arrival to the last answer or
    failure: before it connections are opened, and after it answers are read, while the device waits. (A meter without
    ticks is read when all that is done; nothing can be taken off.)
    """
    found = record.requests
    if found is not None and record.meter.tick_aligned:
        inside = [i for i, time_s in enumerate(found.scheduled_s) if interval.opened_s <= time_s <= interval.closed_s]
        ended_s = [time_s for i in inside if (time_s := found.ended_s[i]) is not None]
        if ended_s:
            return found.scheduled_s[inside[0]], min(max(ended_s), interval.work_ended_s)
    return interval.opened_s, interval.work_ended_s


def tail_energies_j(record: Record, interval: Interval) -> tuple[Floats, Floats]:
    """Energy that the counter saw while a device waited for its ticks, and its standard uncertainty.

    A device waits from its opening tick until the work begins (:func:`work_s`; when the last device has ticked), and
    from the end of the work to its closing tick. It waits with the model loaded, so the
    power is that of the run's interval ``idle_loaded``, by the counter. Instant power cannot tell: it
    lags by tens of milliseconds, so over a tail of at most one tick it still shows the load. Where
    there are no ticks or no such interval, the record's integrated power stands.

    Returns
    -------
    (ndarray, ndarray)
        Joules, one value a device each. The uncertainty is that of the time power takes to settle:
        it has one sign, so it adds up over devices and windows.
    """
    waits = intervals_of(record, "idle_loaded")
    if not (record.meter.tick_aligned and waits):
        return floats(interval.energy_tail_j), np.zeros(len(interval.energy_tail_j))
    waiting_w, window_w = counter_powers_w(waits[:1]), counter_powers_w([interval])
    (opened, closed), (begun_s, ended_s) = ticks_s(interval), work_s(record, interval)
    tail_s = closed - ended_s + (begun_s - opened)
    return waiting_w * tail_s, np.abs(window_w - waiting_w) * SETTLING_S


def shared_energies_j(record: Record, interval: Interval) -> Floats:
    """The counter's energies from `opened_s` to `closed_s`, a stretch that all devices share.

    What a device's ticks leave out or have too much is waiting power, as in :func:`tail_energies_j`.
    One value a device; to be compared with what was integrated over the same stretch.
    """
    waits = intervals_of(record, "idle_loaded")
    opened, closed = ticks_s(interval)
    missing_s = (interval.closed_s - closed) - (interval.opened_s - opened)
    waiting_w = counter_powers_w(waits[:1]) if waits else np.zeros(len(opened))
    return np.asarray(counter_energies_j(interval) + waiting_w * missing_s)


def taking_part_sum(record: Record, per_device: Floats) -> float:
    """Sum over the devices that take part; missing if none does or one is missing."""
    chosen = [float(per_device[index]) for index in taking_part(record) if index < per_device.size]
    return sum_or_missing(chosen)


def idle_devices_energy_j(record: Record, windows: Sequence[Interval]) -> float:
    """Energy over the windows, tick to tick, of metered devices that take no part; missing without any."""
    idle = [index for index in range(len(record.hardware.devices)) if index not in taking_part(record)]
    return sum_or_missing([float(counter_energies_j(one)[index]) for one in windows for index in idle])


def value_at(values: Sequence[float | None], index: int) -> float | None:
    """The value of one device; missing where a list over devices is shorter."""
    return values[index] if index < len(values) else None


def total_of(values: Sequence[float | None]) -> float:
    """Sum over all metered devices."""
    return sum_or_missing(floats(values).tolist())


def sum_or_missing(values: Sequence[float]) -> float:
    """The sum; missing if one value is, or if there is none."""
    return float(sum(values)) if values else math.nan


def ratio(numerator: float | None, denominator: float | None) -> float:
    """The quotient; missing where one is missing or the denominator is 0."""
    return numerator / denominator if numerator is not None and denominator else math.nan


def power_taking_part_w(record: Record) -> Floats:
    """Instant power summed over the devices that take part, for every sample."""
    series = record.trace.power_instant_w
    chosen = [floats(series[index]) for index in taking_part(record) if index < len(series)]
    return np.sum(chosen, axis=0) if chosen else np.full(len(record.trace.time_s), np.nan)


def rest_energies_j(record: Record) -> Floats:
    """Instant power of each metered device integrated over what no interval covers, tick to tick.

    It starts with the first sample, as does the counter's difference over the run; and it uses no
    counter, so that the ledger built from it can fail to close.
    """
    trace = record.trace
    if not trace.time_s:
        return np.full(len(record.hardware.devices), np.nan)
    ordered = sorted(record.intervals, key=lambda one: one.opened_s)
    ticks = [ticks_s(one) for one in ordered]
    energies_j = []
    for device, series in enumerate(trace.power_instant_w):
        begins = [trace.time_s[0], *(closed[device] for _, closed in ticks)]
        ends = [*(opened[device] for opened, _ in ticks), record.process_ended_s]
        to_begin, to_end = (cumulative_energy_j(trace.time_s, floats(series), moments) for moments in (begins, ends))
        energies_j.append(float(np.sum(to_end - to_begin)))
    return np.array(energies_j)


def codecarbon_gpu_energy_j(record: Record, interval: Interval) -> float:
    """CodeCarbon's energy of the GPUs over one window; missing where it read none.

    A GPU that runs draws at least its idle power. An energy of exactly 0 beside NVML's meter therefore
    means that CodeCarbon found no GPU; its total would then be that of CPU and RAM, and too small.
    """
    if interval.codecarbon is None:
        return math.nan
    # SOURCE: CodeCarbon 3.3.2 strips the letter G from ids such as "GPU-..." and then finds no such GPU:
    # the first sitting of h200 was measured so.
    blind = record.meter.energy_method == "nvml_total_energy" and interval.codecarbon.gpu_energy_j == 0
    return math.nan if blind else interval.codecarbon.gpu_energy_j


def codecarbon_gpu_power_w(record: Record, interval: Interval) -> float:
    """CodeCarbon's mean power of the GPUs over one window."""
    codecarbon = interval.codecarbon
    return ratio(codecarbon_gpu_energy_j(record, interval), codecarbon.duration_s) if codecarbon else math.nan


def codecarbon_powers_w(record: Record, intervals: Sequence[Interval]) -> tuple[float, float]:
    """CodeCarbon's mean power over the windows: everything it counts, and the GPU alone."""
    energies = [one.codecarbon for one in intervals if one.codecarbon is not None]
    if len(energies) < len(intervals):
        return math.nan, math.nan
    duration_s = sum(one.duration_s for one in energies)
    gpu_j = sum(codecarbon_gpu_energy_j(record, one) for one in intervals)
    others_j = sum(one.cpu_energy_j + one.ram_energy_j for one in energies)
    return ratio(gpu_j + others_j, duration_s), ratio(gpu_j, duration_s)


def per_iteration(record: Record, interval: Interval) -> tuple[float, float]:
    """Output tokens and decoding steps of one iteration; missing where nothing is generated.

    An iteration is one batch of every process, and a step is one token for every prompt of it: there is no such thing
    where answers have several lengths or requests arrive.
    """
    if interval.tokens is None or record.workload is None or not interval.iteration_duration_s:
        return math.nan, math.nan
    stepwise = record.workload.n_output_tokens_of is None and record.levels.arrival == "none"
    n_tokens = interval.tokens.n_tokens_non_padding / len(interval.iteration_duration_s)
    return n_tokens, float(record.workload.n_output_tokens) if stepwise else math.nan


def phase_at(record: Record, time_s: float) -> str:
    """The interval that a moment falls into, or ``none``."""
    return next((one.phase for one in record.intervals if one.opened_s <= time_s < one.closed_s), "none")
