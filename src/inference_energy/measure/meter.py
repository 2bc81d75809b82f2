"""Energy counters, and how a window opens and closes on their ticks.

A counter counts joules since some moment and shows a new value once every period. A window that
opens and closes on such a tick knows its energy to within the time it takes to read the counter,
not to within the counter's period. Several devices tick at different moments: each has a window of
its own, from its tick to its tick.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from inference_energy.errors import MeterError

RAPL_ROOT = Path("/sys/class/powercap")


class Clock(Protocol):
    """A monotonic clock in seconds; tests and replay bring their own."""

    def now(self) -> float:
        """Seconds since an arbitrary moment."""

    def sleep(self, duration_s: float) -> None:
        """Let `duration_s` seconds pass."""


class SystemClock:
    """The host's monotonic clock, common to all its processes."""

    def now(self) -> float:
        """Seconds on CLOCK_MONOTONIC."""
        return time.monotonic()

    def sleep(self, duration_s: float) -> None:
        """Sleep."""
        time.sleep(duration_s)


@dataclass(frozen=True)
class Reading:
    """Cumulative energy of devices at one moment.

    Attributes
    ----------
    time_s : float
        Middle of the read on the monotonic clock.
    latency_s : float
        How long the read took.
    energy_j : list of float
        One value a device that was read.
    """

    time_s: float
    latency_s: float
    energy_j: list[float]


@dataclass(frozen=True)
class Edge:
    """One end of an interval; lists over devices.

    Attributes
    ----------
    device_time_s : list of float
        When each device's tick happened, or when its counter was read.
    blur_s : list of float
        Width of the interval in which that tick may have happened.
    energy_j : list of float
        Cumulative energy of each device at its tick.
    """

    device_time_s: list[float]
    blur_s: list[float]
    energy_j: list[float]

    @property
    def time_s(self) -> float:
        """The last device's tick: what comes after the edge comes after all of them."""
        return max(self.device_time_s)


class Counter(Protocol):
    """A cumulative energy counter over one or more devices.

    ``n_devices``: how many; ``period_s``, ``resolution_j``: time between new values and smallest
    step; ``ticks``: whether the moments of new values can be observed.
    """

    method: str
    n_devices: int
    period_s: float
    resolution_j: float
    ticks: bool
    clock: Clock

    def read(self) -> Reading:
        """Read every device's counter."""

    def read_one(self, device: int) -> Reading:
        """Read the counter of one device."""

    def next_edge(self) -> Edge:
        """Wait for the next tick of every device."""


class Polled:
    """A counter whose ticks are found by reading it again and again."""

    def next_edge(self: Counter) -> Edge:
        """Wait for the next tick of every device."""
        return edge(self)


def edge(counter: Counter) -> Edge:
    """Wait for the next tick of every device; without ticks, read at once.

    A device is read until it shows a new value and no longer, since a read takes milliseconds.

    Raises
    ------
    MeterError
        If a device's counter stands still for twenty periods.
    """
    if not counter.ticks:
        read = counter.read()
        n = len(read.energy_j)
        return Edge([read.time_s] * n, [read.latency_s] * n, read.energy_j)
    waiting = {device: counter.read_one(device) for device in range(counter.n_devices)}
    deadline_s = counter.clock.now() + 20 * counter.period_s
    found: dict[int, tuple[float, float, float]] = {}
    while True:
        for device, before in list(waiting.items()):
            after = counter.read_one(device)
            waiting[device] = after
            if after.energy_j != before.energy_j:
                blur_s = after.time_s - before.time_s
                found[device] = ((before.time_s + after.time_s) / 2, blur_s, after.energy_j[0])
                del waiting[device]
        if not waiting:
            times_s, blurs_s, energies_j = zip(*(found[device] for device in sorted(found)), strict=True)
            return Edge(list(times_s), list(blurs_s), list(energies_j))
        if counter.clock.now() >= deadline_s:
            raise MeterError(
                f"{counter.method}, device {min(waiting)}",
                f"the counter stood still for {20 * counter.period_s:.1f} s",
                f"a new value every {counter.period_s:.3f} s",
                "Qualify the instrument anew",
            )
        if all(reading.latency_s < counter.period_s / 100 for reading in waiting.values()):
            counter.clock.sleep(counter.period_s / 100)


def uncertainty_j(
    *,
    power_w: float,
    tail_power_w: float,
    blur_s: float,
    resolution_j: float,
    period_s: float,
    ticks: bool,
    sample_period_s: float,
    n_steps: int = 1,
) -> float:
    r"""Standard uncertainty of a window's energy in joules.

    With ticks, each edge is known to within `blur_s` (uniform), the counter to within its
    resolution (uniform, both ends), and the tail that is taken off to within one sample of each of
    the n steps between working and waiting power:

    .. math:: u^2 = 2 \frac{(P\,\delta)^2}{12} + 2 \frac{r^2}{12} + n \frac{(|P - P_t|\,\tau)^2}{12}

    Without ticks the first term is :math:`(P\,T)^2 / 6`, the triangular error of two unaligned edges.

    Parameters
    ----------
    power_w, tail_power_w : float
        Mean power of the window and of its tail.
    blur_s : float
        Width of the interval in which a tick may have happened.
    resolution_j, period_s : float
        Of the counter.
    ticks : bool
        Whether the edges were aligned.
    sample_period_s : float
        Spacing of the power samples that the tail was integrated from.
    n_steps : int
        1 where the work alone ended within the tail; 2 where it also began, after the device's own opening tick.

    References
    ----------
    JCGM 100:2008, Guide to the expression of uncertainty in measurement, 4.3.7 and 4.3.9.
    """
    edges = (power_w * blur_s) ** 2 / 6 if ticks else (power_w * period_s) ** 2 / 6
    step = resolution_j**2 / 6
    tail = n_steps * (abs(power_w - tail_power_w) * sample_period_s) ** 2 / 12 if ticks else 0.0
    return math.sqrt(edges + step + tail)


class NvmlCounter(Polled):
    """NVML's total-energy counter of each GPU, in joules since the driver was loaded."""

    method = "nvml_total_energy"
    ticks = True

    def __init__(self, handles: list[Any], period_s: float = 0.1, resolution_j: float = 0.001) -> None:
        import pynvml

        self._read_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption
        self._handles, self.period_s, self.resolution_j = handles, period_s, resolution_j
        self.n_devices = len(handles)
        self.clock: Clock = SystemClock()

    def read(self) -> Reading:
        """Read every GPU's counter (about 4 ms a GPU)."""
        return self._read(self._handles)

    def read_one(self, device: int) -> Reading:
        """Read one GPU's counter."""
        return self._read([self._handles[device]])

    def _read(self, handles: list[Any]) -> Reading:
        started_s = self.clock.now()
        energy_j = [self._read_mj(handle) / 1000 for handle in handles]
        ended_s = self.clock.now()
        return Reading((started_s + ended_s) / 2, ended_s - started_s, energy_j)


class RaplCounter(Polled):
    """The CPU packages' energy counters; wraps are undone."""

    method = "rapl"
    ticks = True

    def __init__(self, root: Path = RAPL_ROOT) -> None:
        self._packages = rapl_packages(root)
        if not self._packages:
            raise MeterError(str(root), "no readable energy counter", "intel-rapl:N/energy_uj")
        self._wrap_j = [int((p / "max_energy_range_uj").read_text()) / 1e6 for p in self._packages]
        self._offset_j, self._last_j = [0.0] * len(self._packages), [0.0] * len(self._packages)
        self.n_devices = len(self._packages)
        self.period_s, self.resolution_j = 0.001, 6.1e-5
        self.clock: Clock = SystemClock()

    def read(self) -> Reading:
        """Read every package's counter."""
        return self._read(range(self.n_devices))

    def read_one(self, device: int) -> Reading:
        """Read one package's counter."""
        return self._read([device])

    def _read(self, devices: Iterable[int]) -> Reading:
        started_s = self.clock.now()
        energy_j = [self._total_j(device) for device in devices]
        ended_s = self.clock.now()
        return Reading((started_s + ended_s) / 2, ended_s - started_s, energy_j)

    def _total_j(self, device: int) -> float:
        raw_j = int((self._packages[device] / "energy_uj").read_text()) / 1e6
        if raw_j + self._offset_j[device] < self._last_j[device]:
            self._offset_j[device] += self._wrap_j[device]
        self._last_j[device] = raw_j + self._offset_j[device]
        return self._last_j[device]


def rapl_packages(root: Path = RAPL_ROOT) -> list[Path]:
    """Folders of CPU packages whose counter can be read."""
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        if folder.name.count(":") != 1:  # sub-domains (cores, DRAM) are parts of a package
            continue
        try:
            (folder / "energy_uj").read_text()
            found.append(folder)
        except OSError:
            continue
    return found
