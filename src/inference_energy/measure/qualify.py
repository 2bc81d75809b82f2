"""Qualification of the instrument, once a sitting: each GPU of the machine for itself.

On a GPU: period, resolution and read latency of the counter at idle, then the counter against
integrated instant power under a known load (matrix products). A meter that fails is refused.
"""

from __future__ import annotations

import fcntl
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_energy import provenance
from inference_energy.config import HardwareFacts, Measurement, read_hardware
from inference_energy.errors import ConfigError, MeterError, did_you_mean
from inference_energy.measure.devices import DeviceSet, describe, make_counter
from inference_energy.measure.meter import Counter, Edge, SystemClock
from inference_energy.measure.sampler import NvmlSampler, integrate_j
from inference_energy.qualification import Qualification, read
from inference_energy.records import Trace, write_text_atomically

OBSERVE_S = 2.0
#: The load comes in pieces, since how fast sampled power falls is seen once after each.
N_LOADS = 3
LOAD_S = 5.0 / N_LOADS
SETTLE_S = 0.6
#: A window must be this many counter periods long, or alignment buys too little.
PERIODS_PER_WINDOW = 20
#: Counter and integrated power may differ by this much under the known load.
AGREEMENT_FRACTION = 0.05
#: A stretch without a run ends a sitting.
SITTING_BREAK_S = 1800.0


def machine_hash(devices: DeviceSet) -> str:
    """Hash of host, boot and visible devices: another machine or boot is another sitting."""
    return provenance.short_hash("/".join([provenance.host_hash(), provenance.boot_id(), *devices.visible.uuids]))


def sitting_of(folder: Path, devices: DeviceSet) -> str | None:
    """The sitting that goes on at this machine, as long as one of its GPUs is used; None after a break."""
    found = _going_on(folder, devices)
    return found[0][0].sitting if found else None


def current(folder: Path, devices: DeviceSet) -> Path | None:
    """The qualification of the lead device in the sitting that goes on, if there is one."""
    uuid_hash = provenance.short_hash(devices.uuids[devices.lead])
    for found, path in _going_on(folder, devices):
        if any(device.participates and device.uuid_hash == uuid_hash for device in found.hardware.devices):
            return path
    return None


def _going_on(folder: Path, devices: DeviceSet) -> list[tuple[Qualification, Path]]:
    """All qualifications of the latest sitting at this machine, the latest first; none after a break."""
    machine = machine_hash(devices)
    here = [(found, path) for path in folder.glob("*.json") if (found := read(path)).machine == machine]
    here.sort(key=lambda each: (each[0].sitting, each[0].made_at_utc), reverse=True)
    latest = [each for each in here if each[0].sitting == here[0][0].sitting]
    return latest if any(_is_recent(path) for _, path in latest) else []


def _is_recent(path: Path) -> bool:
    return time.time() - path.stat().st_mtime < SITTING_BREAK_S


def new_sitting(folder: Path, devices: DeviceSet) -> str:
    """Name of the sitting that goes on at this machine, or of one that begins now.

    Processes that ask at the same time, before any has qualified a GPU, get the same name.
    """
    machine = machine_hash(devices)
    folder.mkdir(parents=True, exist_ok=True)
    begun = folder / ".sitting"
    with begun.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        going_on = sitting_of(folder, devices)
        if going_on is not None:
            return going_on
        file.seek(0)
        named = file.read()
        if named.endswith(machine[:6]) and _is_recent(begun):
            return named
        name = f"{provenance.now_utc()[:19].replace('-', '').replace(':', '')}-{machine[:6]}"
        file.truncate(0)
        file.write(name)
    return name


def qualify(
    folder: Path, campaign: str, devices: DeviceSet, measurement: Measurement, hardware_yaml: Path, sitting: str
) -> Path:
    """Qualify the instrument on one claimed device and keep the result in `folder`.

    Parameters
    ----------
    devices : DeviceSet
        One GPU, or the CPU.
    sitting : str
        From :func:`new_sitting`, which is asked once for all GPUs of the machine.

    Returns
    -------
    Path
        The new file, named by its sitting and device; one that is there stays as it is.

    Raises
    ------
    ConfigError
        If the GPU is not in ``hardware.yaml``.
    MeterError
        If the instrument fails.
    """
    require_known(devices, hardware_yaml)
    clock = SystemClock()
    counter = make_counter(devices, clock)
    common = {
        "sitting": sitting,
        "campaign": campaign,
        "made_at_utc": provenance.now_utc(),
        "machine": machine_hash(devices),
        "hardware": describe(devices),
        "driver": devices.driver,
        "cpu_benchmark_s": _cpu_benchmark_s(),
    }
    if counter is None:
        result = Qualification(energy_method="codecarbon_estimate", **_ESTIMATED, **_NOT_LOADED, **common)  # type: ignore[arg-type]
    else:
        observed = observe(counter, devices.lead)
        loaded = _under_load(counter, devices, measurement) if devices.kind == "gpu" else {}
        result = Qualification(energy_method=counter.method, **observed, **{**_NOT_LOADED, **loaded}, **common)  # type: ignore[arg-type]
    require_fit(result, measurement)
    path = _free_path(folder, f"{sitting}.{provenance.short_hash(devices.uuids[devices.lead])[:6]}")
    write_text_atomically(path, result.model_dump_json(indent=1) + "\n")
    return path


def _free_path(folder: Path, stem: str) -> Path:
    """A file that is not there yet: records name the qualification they were measured with."""
    names = itertools.chain([f"{stem}.json"], (f"{stem}.{n}.json" for n in itertools.count(2)))
    return next(folder / name for name in names if not (folder / name).exists())


_ESTIMATED: dict[str, float | None] = {
    "period_s": 1.0,
    "period_min_s": None,
    "period_max_s": None,
    "resolution_j": 0.0,
    "read_latency_s": 0.0,
    "idle_power_w": None,
}
_NOT_LOADED: dict[str, float | None] = {
    "load_power_w": None,
    "counter_over_power_ratio": None,
    "launch_latency_s": None,
    "launch_latency_sampled_s": None,
}


def require_known(devices: DeviceSet, hardware_yaml: Path) -> HardwareFacts | None:
    """The facts of the device that takes part; an unknown GPU is an error, never a default."""
    if devices.kind != "gpu":
        return None
    known = read_hardware(hardware_yaml)
    name = devices.names[devices.lead]
    if name not in known:
        raise ConfigError(
            str(hardware_yaml),
            f"no entry for {name!r}. {did_you_mean(name, known)}",
            "peak rates and power limit of every measured GPU",
            "Add them from the vendor's datasheet, with the source",
        )
    return known[name]


def require_fit(found: Qualification, measurement: Measurement) -> None:
    """Refuse an instrument that cannot do what the campaign asks of it."""
    where = f"{found.energy_method} on {found.hardware.devices[0].name}"
    shortest_s = (
        PERIODS_PER_WINDOW * found.period_s if found.energy_method == "nvml_total_energy" else 2 * found.period_s
    )
    if measurement.window_min_s < shortest_s:
        raise MeterError(
            where,
            f"a new value comes every {found.period_s:.3f} s, and windows last {measurement.window_min_s} s",
            f"windows of at least {shortest_s:.1f} s",
            "Raise measurement.window_min_s",
        )
    ratio = found.counter_over_power_ratio
    if ratio is not None and abs(ratio - 1) > AGREEMENT_FRACTION:
        raise MeterError(
            where,
            f"the counter reads {ratio:.3f} of integrated instant power under a known load",
            f"1 within {AGREEMENT_FRACTION:.0%}",
            "Do not measure energy with this driver and GPU",
        )


def observe(counter: Counter, lead: int, duration_s: float = OBSERVE_S) -> dict[str, float | None]:
    """Period, resolution, latency and idle power, from reading one device's counter as fast as it goes.

    Raises
    ------
    MeterError
        If fewer than five new values come.
    """
    begun = counter.read_one(lead)
    latencies_s: list[float] = []
    ticks: list[tuple[float, float]] = []  # when a new value was read, and the value
    last_j = begun.energy_j[0]
    while len(latencies_s) < 100_000:
        reading = counter.read_one(lead)
        latencies_s.append(reading.latency_s)
        if reading.energy_j[0] != last_j:
            last_j = reading.energy_j[0]
            ticks.append((reading.time_s, last_j))
        if reading.time_s - (ticks[0][0] if ticks else begun.time_s) > duration_s:
            break
    if len(ticks) < 6:
        raise MeterError(
            counter.method,
            f"{max(0, len(ticks) - 1)} new values in {duration_s:.0f} s",
            "at least 5",
            "This counter is too slow to measure with",
        )
    periods_s = [b[0] - a[0] for a, b in itertools.pairwise(ticks)]
    step_mj = math.gcd(*(max(1, round(1000 * (b[1] - a[1]))) for a, b in itertools.pairwise(ticks)))
    return {
        "period_s": statistics.median(periods_s),
        "period_min_s": min(periods_s),
        "period_max_s": max(periods_s),
        "resolution_j": step_mj / 1000,
        "read_latency_s": statistics.median(latencies_s),
        "idle_power_w": (ticks[-1][1] - ticks[0][1]) / (ticks[-1][0] - ticks[0][0]),
    }


def _under_load(counter: Counter, devices: DeviceSet, measurement: Measurement) -> dict[str, float | None]:
    """Counter against integrated instant power while the GPU multiplies matrices, and launch latency."""
    import torch

    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    torch.mm(matrix, matrix)
    latency_s = _launch_latency_s()
    sampler = NvmlSampler(devices, measurement.sample_period_s)
    sampler.start()
    latency_sampled_s = _launch_latency_s()

    def load() -> None:
        for _ in range(20):
            torch.mm(matrix, matrix)
        torch.cuda.synchronize()

    pieces = [_piece(counter, load) for _ in range(N_LOADS)]
    return {
        **judged(pieces, sampler.stop(), devices.lead),
        "launch_latency_s": latency_s,
        "launch_latency_sampled_s": latency_sampled_s,
    }


@dataclass(frozen=True)
class Piece:
    """One piece of the known load: edges around it, when the work ended, and when the wait after it did."""

    opened: Edge
    ended_s: float
    closed: Edge
    settled_s: float


def _piece(counter: Counter, load: Callable[[], None]) -> Piece:
    opened = counter.next_edge()
    while counter.clock.now() - opened.time_s < LOAD_S:
        load()
    ended_s = counter.clock.now()
    closed = counter.next_edge()
    counter.clock.sleep(SETTLE_S)
    return Piece(opened, ended_s, closed, counter.clock.now())


def judged(pieces: Sequence[Piece], trace: Trace, lead: int) -> dict[str, float | None]:
    """The counter's power under load, its energy over integrated instant power, and how late sampled power falls.

    The sensor shows everything late by its lag, so power is integrated over as much later a span: at the rise of a
    short load the lag would else count as a difference of 3 %.
    """
    power_w = trace.power_instant_w[lead]
    spans_s = [(piece.opened.device_time_s[lead], piece.closed.device_time_s[lead]) for piece in pieces]
    energy_j = sum(piece.closed.energy_j[lead] - piece.opened.energy_j[lead] for piece in pieces)
    lags_s = []
    for piece in pieces:
        kept = [(t, p) for t, p in zip(trace.time_s, power_w, strict=True) if t <= piece.settled_s]
        lags_s.append(lag_s([t for t, _ in kept], [p for _, p in kept], piece.ended_s))
    seen_s = [lag for lag in lags_s if lag is not None]
    late_s = statistics.median(seen_s) if seen_s else 0.0
    integrals_j = [integrate_j(trace.time_s, power_w, start_s + late_s, end_s + late_s) for start_s, end_s in spans_s]
    integrated_j = sum(j for j in integrals_j if j is not None) if None not in integrals_j else None
    return {
        "load_power_w": energy_j / sum(closed_s - opened_s for opened_s, closed_s in spans_s),
        "counter_over_power_ratio": energy_j / integrated_j if integrated_j else None,
        "power_lag_s": statistics.median(seen_s) if seen_s else None,
    }


def lag_s(time_s: Sequence[float], power_w: Sequence[float | None], ended_s: float) -> float | None:
    """From the end of a load to where sampled power crosses the middle between load and waiting level.

    The load's level is the mean of the second before the end, the waiting level that of the last
    tenth of a second sampled. None if the samples do not show the fall.
    """
    samples = [(t - ended_s, p) for t, p in zip(time_s, power_w, strict=True) if p is not None]
    before = [p for t, p in samples if -1 <= t < 0]
    after = [(t, p) for t, p in samples if t >= 0]
    if not before or len(after) < 2:
        return None
    waiting = [p for t, p in after if t > after[-1][0] - 0.1]
    middle_w = (statistics.fmean(before) + statistics.fmean(waiting)) / 2
    for (t0, p0), (t1, p1) in itertools.pairwise([(0.0, before[-1]), *after]):
        if p0 >= middle_w > p1:
            return t0 + (t1 - t0) * (p0 - middle_w) / (p0 - p1)
    return None


def _launch_latency_s(n: int = 20_000) -> float:
    import torch

    small = torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    started_s = time.monotonic()
    for _ in range(n):
        small.add_(1)
    torch.cuda.synchronize()
    return (time.monotonic() - started_s) / n


def _cpu_benchmark_s() -> float:
    durations_s = []
    for _ in range(5):
        started_s = time.perf_counter()
        total = 0
        for i in range(200_000):
            total += i * i % 7
        durations_s.append(time.perf_counter() - started_s)
    return statistics.median(durations_s)
