"""Qualification of the instrument, once a sitting.

On a GPU: period, resolution and read latency of the counter at idle, then the counter against
integrated instant power under a known load (matrix products). A meter that fails is refused.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from inference_energy import provenance
from inference_energy.config import HardwareFacts, Measurement, read_hardware
from inference_energy.errors import ConfigError, MeterError, RecordError, did_you_mean
from inference_energy.measure.devices import DeviceSet, describe, make_counter
from inference_energy.measure.meter import Counter, SystemClock, edge
from inference_energy.measure.sampler import NvmlSampler, integrate_j
from inference_energy.records import EnergyMethod, Hardware, write_text_atomically

OBSERVE_S = 2.0
LOAD_S = 5.0
SETTLE_S = 0.6
#: A window must be this many counter periods long, or alignment buys too little.
PERIODS_PER_WINDOW = 20
#: Counter and integrated power may differ by this much under the known load.
AGREEMENT_FRACTION = 0.05
#: A stretch without a run ends a sitting.
SITTING_BREAK_S = 1800.0


class Qualification(BaseModel):
    """What the instrument was seen to do on this machine, in this sitting."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    sitting: str
    campaign: str
    made_at_utc: str
    machine: str = Field(description="hash of host, boot and devices")
    hardware: Hardware
    driver: str | None
    energy_method: EnergyMethod
    period_s: float = Field(description="median time between two new values")
    period_min_s: float | None
    period_max_s: float | None
    resolution_j: float = Field(description="greatest common divisor of the steps seen")
    read_latency_s: float = Field(description="median")
    idle_power_w: float | None = Field(description="no process on the device")
    load_power_w: float | None = Field(description="by the counter, under matrix products")
    counter_over_power_ratio: float | None = Field(description="under that load")
    power_lag_s: float | None = Field(
        None, description="from the end of that load to instant power half way down to its waiting level"
    )
    launch_latency_s: float | None = Field(description="mean of 20,000 launches of a tiny kernel, without the sampler")
    launch_latency_sampled_s: float | None = Field(description="the same beside the sampler")
    cpu_benchmark_s: float = Field(description="a fixed loop in Python, median of 5")


def machine_hash(devices: DeviceSet) -> str:
    """Hash of host, boot and devices: another machine or boot is another sitting."""
    return provenance.short_hash("/".join([provenance.host_hash(), provenance.boot_id(), *devices.uuids]))


def current(folder: Path, devices: DeviceSet) -> Path | None:
    """The qualification of the running sitting on this machine, if there is one."""
    machine = machine_hash(devices)
    for path in sorted(folder.glob("*.json"), reverse=True):
        if read(path).machine == machine and time.time() - path.stat().st_mtime < SITTING_BREAK_S:
            return path
    return None


def read(path: Path) -> Qualification:
    """Read one qualification.

    Raises
    ------
    RecordError
        If it is not one.
    """
    try:
        return Qualification.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(str(path), f"is no qualification: {error}", "", "Delete it: it is made again") from error


def qualify(folder: Path, campaign: str, devices: DeviceSet, measurement: Measurement, hardware_yaml: Path) -> Path:
    """Qualify the instrument and keep the result in `folder`.

    Returns
    -------
    Path
        The new file, named by its sitting.

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
    machine = machine_hash(devices)
    made_at = provenance.now_utc()
    sitting = f"{made_at[:19].replace('-', '').replace(':', '')}-{machine[:6]}"
    common = {
        "sitting": sitting,
        "campaign": campaign,
        "made_at_utc": made_at,
        "machine": machine,
        "hardware": describe(devices),
        "driver": devices.driver,
        "cpu_benchmark_s": _cpu_benchmark_s(),
    }
    if counter is None:
        result = Qualification(
            energy_method="codecarbon_estimate",
            period_s=1.0,
            period_min_s=None,
            period_max_s=None,
            resolution_j=0.0,
            read_latency_s=0.0,
            idle_power_w=None,
            load_power_w=None,
            counter_over_power_ratio=None,
            launch_latency_s=None,
            launch_latency_sampled_s=None,
            **common,
        )  # type: ignore[arg-type]
    else:
        observed = observe(counter, devices.lead)
        loaded = _under_load(counter, devices, measurement) if devices.kind == "gpu" else {}
        result = Qualification(energy_method=counter.method, **observed, **{**_NOT_LOADED, **loaded}, **common)  # type: ignore[arg-type]
    require_fit(result, measurement)
    path = folder / f"{sitting}.json"
    write_text_atomically(path, result.model_dump_json(indent=1) + "\n")
    return path


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
    """Period, resolution, latency and idle power, from reading the counter as fast as it goes.

    Raises
    ------
    MeterError
        If fewer than five new values come.
    """
    first = edge(counter, lead)
    ticks_s = [first.time_s]
    latencies_s: list[float] = []
    steps_j: list[float] = []
    last_j = first.energy_j[lead]
    total_j = last_j
    while ticks_s[-1] - first.time_s < duration_s and len(latencies_s) < 100_000:
        reading = counter.read()
        latencies_s.append(reading.latency_s)
        total_j = reading.energy_j[lead]
        if total_j != last_j:
            ticks_s.append(reading.time_s)
            steps_j.append(total_j - last_j)
            last_j = total_j
        elif reading.time_s - ticks_s[-1] > duration_s:
            break
    periods_s = [later - earlier for earlier, later in itertools.pairwise(ticks_s)]
    if len(periods_s) < 5:
        raise MeterError(
            counter.method,
            f"{len(periods_s)} new values in {duration_s:.0f} s",
            "at least 5",
            "This counter is too slow to measure with",
        )
    step_mj = math.gcd(*(max(1, round(1000 * step)) for step in steps_j))
    return {
        "period_s": statistics.median(periods_s),
        "period_min_s": min(periods_s),
        "period_max_s": max(periods_s),
        "resolution_j": step_mj / 1000,
        "read_latency_s": statistics.median(latencies_s),
        "idle_power_w": (total_j - first.energy_j[lead]) / (ticks_s[-1] - ticks_s[0]),
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
    opened = edge(counter, devices.lead)
    while counter.clock.now() - opened.time_s < LOAD_S:
        for _ in range(20):
            torch.mm(matrix, matrix)
        torch.cuda.synchronize()
    ended_s = counter.clock.now()
    closed = edge(counter, devices.lead)
    counter.clock.sleep(SETTLE_S)
    trace = sampler.stop()
    energy_j = closed.energy_j[devices.lead] - opened.energy_j[devices.lead]
    integrated_j = integrate_j(trace.time_s, trace.power_instant_w[devices.lead], opened.time_s, closed.time_s)
    return {
        "load_power_w": energy_j / (closed.time_s - opened.time_s),
        "counter_over_power_ratio": None if not integrated_j else energy_j / integrated_j,
        "power_lag_s": lag_s(trace.time_s, trace.power_instant_w[devices.lead], ended_s),
        "launch_latency_s": latency_s,
        "launch_latency_sampled_s": latency_sampled_s,
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
