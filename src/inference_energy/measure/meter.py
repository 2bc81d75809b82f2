"""Energy counters, and how a window opens and closes on their ticks.

A counter counts joules since some moment and shows a new value once every period. A window that
opens and closes on such a tick knows its energy to within the time it takes to read the counter,
not to within the counter's period.
"""

from __future__ import annotations

import math
import time
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
    """Cumulative energy of every device at one moment.

    Attributes
    ----------
    time_s : float
        Middle of the read on the monotonic clock.
    latency_s : float
        How long the read took.
    energy_j : list of float
        One value a device.
    """

    time_s: float
    latency_s: float
    energy_j: list[float]


@dataclass(frozen=True)
class Edge:
    """One end of an interval.

    Attributes
    ----------
    time_s : float
        When the tick happened, or when the counter was read.
    blur_s : float
        Width of the interval in which the tick may have happened.
    energy_j : list of float
        Cumulative energy at that moment, one value a device.
    """

    time_s: float
    blur_s: float
    energy_j: list[float]


class Counter(Protocol):
    """A cumulative energy counter over one or more devices.

    ``period_s``, ``resolution_j``: time between new values and smallest step; ``ticks``: whether
    the moments of new values can be observed.
    """

    method: str
    period_s: float
    resolution_j: float
    ticks: bool
    clock: Clock

    def read(self) -> Reading:
        """Read every device's counter."""


def edge(counter: Counter, lead: int = 0) -> Edge:
    """Wait for the next tick of device `lead` and return it; without ticks, read at once.

    Raises
    ------
    MeterError
        If the counter stands still for twenty periods.
    """
    before = counter.read()
    if not counter.ticks:
        return Edge(before.time_s, before.latency_s, before.energy_j)
    deadline_s = before.time_s + 20 * counter.period_s
    while before.time_s < deadline_s:
        after = counter.read()
        if after.energy_j[lead] != before.energy_j[lead]:
            return Edge((before.time_s + after.time_s) / 2, after.time_s - before.time_s, after.energy_j)
        before = after
        if after.latency_s < counter.period_s / 100:
            counter.clock.sleep(counter.period_s / 100)
    raise MeterError(
        f"{counter.method}, device {lead}",
        f"the counter stood still for {20 * counter.period_s:.1f} s",
        f"a new value every {counter.period_s:.3f} s",
        "Qualify the instrument anew",
    )


def uncertainty_j(
    *,
    power_w: float,
    tail_power_w: float,
    blur_s: float,
    resolution_j: float,
    period_s: float,
    ticks: bool,
    sample_period_s: float,
) -> float:
    r"""Standard uncertainty of a window's energy in joules.

    With ticks, each edge is known to within `blur_s` (uniform), the counter to within its
    resolution (uniform, both ends), and the tail that is taken off to within one sample of the
    step from working to waiting power:

    .. math:: u^2 = 2 \frac{(P\,\delta)^2}{12} + 2 \frac{r^2}{12} + \frac{(|P - P_t|\,\tau)^2}{12}

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

    References
    ----------
    JCGM 100:2008, Guide to the expression of uncertainty in measurement, 4.3.7 and 4.3.9.
    """
    edges = (power_w * blur_s) ** 2 / 6 if ticks else (power_w * period_s) ** 2 / 6
    step = resolution_j**2 / 6
    tail = (abs(power_w - tail_power_w) * sample_period_s) ** 2 / 12 if ticks else 0.0
    return math.sqrt(edges + step + tail)


class NvmlCounter:
    """NVML's total-energy counter of every visible GPU, in joules since the driver was loaded."""

    method = "nvml_total_energy"
    ticks = True

    def __init__(self, handles: list[Any], period_s: float = 0.1, resolution_j: float = 0.001) -> None:
        import pynvml

        self._read_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption
        self._handles, self.period_s, self.resolution_j = handles, period_s, resolution_j
        self.clock: Clock = SystemClock()

    def read(self) -> Reading:
        """Read every GPU's counter (about 4 ms a GPU)."""
        started_s = self.clock.now()
        energy_j = [self._read_mj(handle) / 1000 for handle in self._handles]
        ended_s = self.clock.now()
        return Reading((started_s + ended_s) / 2, ended_s - started_s, energy_j)


class RaplCounter:
    """The CPU packages' energy counters; wraps are undone."""

    method = "rapl"
    ticks = True

    def __init__(self, root: Path = RAPL_ROOT) -> None:
        self._packages = rapl_packages(root)
        if not self._packages:
            raise MeterError(str(root), "no readable energy counter", "intel-rapl:N/energy_uj")
        self._wrap_j = [int((p / "max_energy_range_uj").read_text()) / 1e6 for p in self._packages]
        self._offset_j, self._last_j = [0.0] * len(self._packages), [0.0] * len(self._packages)
        self.period_s, self.resolution_j = 0.001, 6.1e-5
        self.clock: Clock = SystemClock()

    def read(self) -> Reading:
        """Read every package's counter."""
        started_s = self.clock.now()
        for i, package in enumerate(self._packages):
            raw_j = int((package / "energy_uj").read_text()) / 1e6
            if raw_j + self._offset_j[i] < self._last_j[i]:
                self._offset_j[i] += self._wrap_j[i]
            self._last_j[i] = raw_j + self._offset_j[i]
        ended_s = self.clock.now()
        return Reading((started_s + ended_s) / 2, ended_s - started_s, list(self._last_j))


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
