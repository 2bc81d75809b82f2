"""Stand-ins for machine, meter and model whose energy is known exactly: FOR TESTS, they measure nothing.

All of them live on one virtual clock, so hours pass at once. What is measured with them has the
energy method ``fake``, which an archive refuses.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from typing import Literal

from inference_energy.config import Setting
from inference_energy.measure.audit import n_prompts_of
from inference_energy.measure.devices import DeviceSet
from inference_energy.measure.engines import Generated, Observations, OutOfDeviceMemory
from inference_energy.measure.meter import Clock, Polled, Reading
from inference_energy.measure.run import Bench
from inference_energy.measure.sampler import SLOW_EVERY, Companion, Sampler
from inference_energy.measure.traffic import Traffic, period_batches
from inference_energy.measure.workload import Prompts
from inference_energy.records import CodeCarbonEnergy, Device, DeviceCheck, EngineFacts, Hardware, Trace


class VirtualClock:
    """A clock that moves only when someone sleeps; :mod:`replay` uses it too."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def now(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def sleep(self, duration_s: float) -> None:
        """Let virtual time pass."""
        self._now_s += max(0.0, duration_s)

    def until(self, moment_s: float) -> None:
        """Let time pass up to `moment_s`; nothing happens if it is over."""
        self._now_s = max(self._now_s, moment_s)


class FakePower:
    """Power of one device, constant from one :meth:`draw` to the next; its integral is exact."""

    def __init__(self, clock: VirtualClock, power_w: float) -> None:
        self._clock = clock
        self._times_s, self._powers_w, self._energies_j = [clock.now()], [power_w], [0.0]

    def draw(self, power_w: float) -> None:
        """Draw `power_w` from now on."""
        now_s = self._clock.now()
        self._energies_j.append(self.energy_j(now_s))
        self._times_s.append(now_s)
        self._powers_w.append(power_w)

    def _piece(self, moment_s: float) -> int:
        return max(0, bisect.bisect_right(self._times_s, moment_s) - 1)

    def power_w(self, moment_s: float) -> float:
        """Power at a moment that is past."""
        return self._powers_w[self._piece(moment_s)]

    def energy_j(self, moment_s: float) -> float:
        """Energy from the beginning to a moment that is past."""
        i = self._piece(moment_s)
        return self._energies_j[i] + self._powers_w[i] * max(0.0, moment_s - self._times_s[i])


class FakeCounter(Polled):
    """A counter of known power: shows a new value once a period, cut to its resolution.

    Parameters
    ----------
    powers : sequence of FakePower
        One a device.
    period_s, resolution_j : float
        Between new values; smallest step.
    latency_s : float
        Of one read, of one device or of all.
    phase_s : float or sequence of float
        When the first tick is, of all devices or of each.
    stops_at_s : float
        The counter stands still from then on.
    """

    method = "fake"

    def __init__(
        self,
        clock: VirtualClock,
        powers: Sequence[FakePower],
        *,
        period_s: float = 0.1,
        resolution_j: float = 0.001,
        latency_s: float = 0.004,
        phase_s: float | Sequence[float] = 0.0,
        ticks: bool = True,
        stops_at_s: float = math.inf,
    ) -> None:
        self.clock: Clock = clock
        self.period_s, self.resolution_j, self.ticks = period_s, resolution_j, ticks
        self.powers = list(powers)
        self.n_devices = len(self.powers)
        self._phases_s = [phase_s] * self.n_devices if isinstance(phase_s, float | int) else list(phase_s)
        self.latency_s, self._stops_at_s = latency_s, stops_at_s

    def shown_j(self, moment_s: float) -> list[float]:
        """What the counter shows at a moment that is past."""
        return [self._shown_j(device, min(moment_s, self._stops_at_s)) for device in range(self.n_devices)]

    def _shown_j(self, device: int, moment_s: float) -> float:
        phase_s = self._phases_s[device]
        tick_s = phase_s + math.floor((moment_s - phase_s) / self.period_s + 1e-9) * self.period_s
        return self.resolution_j * math.floor(self.powers[device].energy_j(tick_s) / self.resolution_j + 1e-6)

    def read(self) -> Reading:
        """What it shows in the middle of the read."""
        middle_s = self.clock.now() + self.latency_s / 2
        self.clock.sleep(self.latency_s)
        return Reading(middle_s, self.latency_s, self.shown_j(middle_s))

    def read_one(self, device: int) -> Reading:
        """What it shows of one device in the middle of the read."""
        reading = self.read()
        return Reading(reading.time_s, reading.latency_s, [reading.energy_j[device]])


class FakeSampler:
    """Samples a fake counter and its power at exact spacing; clocks and temperature never change."""

    def __init__(self, counter: FakeCounter, period_s: float = 0.025, other_processes: int = 0) -> None:
        self._counter, self._period_s, self._others = counter, period_s, other_processes
        self._started_s = 0.0

    def checks(self) -> list[DeviceCheck]:
        """None: fakes have no driver to ask."""
        return []

    def end(self) -> None:
        """Do nothing."""

    def start(self) -> None:
        """Sampling begins now."""
        self._started_s = self._counter.clock.now()

    def stop(self) -> Trace:
        """All samples from the start to now."""
        counter, period_s = self._counter, self._period_s
        n = int((counter.clock.now() - self._started_s) / period_s) + 1
        times = [self._started_s + i * period_s for i in range(n)]
        shown = [counter.shown_j(moment_s) for moment_s in times]
        devices = range(len(counter.powers))

        def slowly(value: float) -> list[list[float | None]]:
            return [[value for _ in times[::SLOW_EVERY]] for _ in devices]

        return Trace(
            time_s=times,
            counter_j=[[row[device] for row in shown] for device in devices],
            power_instant_w=[[power.power_w(t) for t in times] for power in counter.powers],
            power_average_w=[[power.energy_j(t) - power.energy_j(t - 1.0) for t in times] for power in counter.powers],
            slow_time_s=times[::SLOW_EVERY],
            sm_clock_mhz=slowly(1980.0),
            memory_clock_mhz=slowly(3201.0),
            temperature_c=slowly(40.0),
            gpu_utilisation_fraction=slowly(0.5),
            throttle_reasons=[[0 for _ in times[::SLOW_EVERY]] for _ in devices],
            n_other_processes=[[self._others for _ in times[::SLOW_EVERY]] for _ in devices],
        )


class FakeCompanion:
    """CodeCarbon as if it saw the power of the devices that take part exactly."""

    def __init__(self, clock: VirtualClock, powers: Sequence[FakePower], *, is_ready: bool = True) -> None:
        self._clock, self._powers, self._is_ready = clock, powers, is_ready
        self._edges_s = [clock.now()]

    def end(self) -> None:
        """Do nothing."""

    def start(self) -> None:
        """Do nothing."""

    def ready(self) -> bool:
        """As told."""
        return self._is_ready

    def lap(self) -> None:
        """End an interval now."""
        self._edges_s.append(self._clock.now())

    def laps(self) -> list[CodeCarbonEnergy | None]:
        """Every lap in order."""
        return [
            CodeCarbonEnergy(
                duration_s=end_s - start_s,
                gpu_energy_j=sum(power.energy_j(end_s) - power.energy_j(start_s) for power in self._powers),
                cpu_energy_j=40.0 * (end_s - start_s),
                ram_energy_j=10.0 * (end_s - start_s),
            )
            for start_s, end_s in zip(self._edges_s, self._edges_s[1:], strict=False)
        ]


class FakeEngine:
    """Iterations of given durations at a given power.

    Parameters
    ----------
    levels : Setting
        Says how many tokens an iteration generates, and how long it waits before.
    powers : sequence of FakePower
        Of the devices that work; they fall back to `waiting_w` whenever an iteration ends.
    durations_s : iterable of float
        Of the iterations, in order, without waiting; must not run dry.
    out_of_memory_at : "load" or int, optional
        Where memory runs out: on loading, or half-way through the iteration of that number, from 0.
    n_lost_tokens, n_padding_tokens : int
        Tokens of each iteration that are not generated, and that are padding.
    uuids : sequence of str
        Of the devices it says it runs on.
    """

    def __init__(
        self,
        levels: Setting,
        powers: Sequence[FakePower],
        clock: VirtualClock,
        durations_s: Iterable[float],
        *,
        working_w: float = 400.0,
        waiting_w: float = 120.0,
        load_s: float = 0.3,
        out_of_memory_at: Literal["load"] | int | None = None,
        n_lost_tokens: int = 0,
        n_padding_tokens: int = 0,
        uuids: Sequence[str] = ("GPU-fake-0",),
    ) -> None:
        self._levels, self._powers, self._clock = levels, powers, clock
        self._durations_s, self._load_s = iter(durations_s), load_s
        self._working_w, self._waiting_w = working_w, waiting_w
        self._out_of_memory_at = out_of_memory_at
        self._n_lost, self._n_padding, self._uuids = n_lost_tokens, n_padding_tokens, uuids
        self._traffic = Traffic(levels, seed=1, process=0)
        self._n_before = levels.n_batches_per_pass if levels.n_prompts else period_batches(levels)
        self.n_iterations = self.n_awaited = 0
        self.is_closed = False

    def _work(self, duration_s: float) -> None:
        self._draw(self._working_w)
        self._clock.sleep(duration_s)
        self._draw(self._waiting_w)

    def _draw(self, power_w: float) -> None:
        for power in self._powers:
            power.draw(power_w)

    def load(self) -> None:
        """Take a while, at waiting power."""
        self._draw(self._waiting_w)
        self._clock.sleep(self._load_s)
        if self._out_of_memory_at == "load":
            raise OutOfDeviceMemory("fake: no memory for the weights")

    def prime(self, n_tokens: int) -> None:
        """Ten milliseconds a token."""
        self._work(0.01 * n_tokens)

    def forward_passes(self, n: int) -> None:
        """Ten milliseconds each."""
        self._work(0.01 * n)

    def iterate(self, *, waiting: bool) -> Generated:
        """One iteration; the first that waits begins a pass, in the midst of traffic."""
        number, waited_s = self.n_iterations, 0.0
        if waiting:
            number = self.n_awaited
            waited_s = self._traffic.wait_s(self._n_before + number)
            self._clock.sleep(waited_s)
            self.n_awaited += 1
        duration_s = next(self._durations_s)
        if self._out_of_memory_at == self.n_iterations:
            self._work(duration_s / 2)
            raise OutOfDeviceMemory(f"fake: no memory in iteration {self.n_iterations}")
        self._work(duration_s)
        self.n_iterations += 1
        n_tokens = n_prompts_of(self._levels, number) * self._levels.n_output_tokens - self._n_lost
        return Generated(n_tokens, n_tokens - self._n_padding, waited_s)

    def take(self, levels: Setting, prompts: Prompts) -> None:  # noqa: ARG002 - as engines do
        """Answer other prompts from now on."""
        self._levels = levels
        self._traffic = Traffic(levels, seed=1, process=0)
        self.n_iterations = self.n_awaited = 0

    def observations(self) -> Observations:
        """Says that it is vLLM, and nothing more."""
        return Observations(EngineFacts.sparse("vllm"))

    def device_uuids(self) -> list[str]:
        """As told."""
        return list(self._uuids)

    def memory_peak_bytes(self) -> list[int]:
        """One gigabyte each."""
        return [10**9 for _ in self._powers]

    def close(self) -> None:
        """Note it."""
        self.is_closed = True


def fake_bench(
    counter: FakeCounter, *, takes_part: Sequence[int] = (0,), sampler: Sampler | None, companion: Companion
) -> Bench:
    """A bench around fakes; the devices are called fake and have UUIDs ``GPU-fake-<n>``.

    Without a `sampler`, the counter is sampled every 25 ms.
    """
    names = ["fake GPU"] * len(counter.powers)
    uuids = [f"GPU-fake-{i}" for i in range(len(names))]
    devices = DeviceSet("gpu", names=names, uuids=uuids, takes_part=tuple(takes_part))
    described = [
        Device(name=name, uuid_hash=uuid, participates=i in takes_part, power_limit_w=None, memory_total_bytes=None)
        for i, (name, uuid) in enumerate(zip(names, uuids, strict=True))
    ]
    return Bench(
        clock=counter.clock,
        counter=counter,
        sampler=sampler or FakeSampler(counter),
        companion=companion,
        devices=devices,
        hardware=Hardware(
            host="fake", description="fake", cpu_name="fake", n_cpus=1, memory_total_bytes=1, devices=described
        ),
        read_latency_s=counter.latency_s,
        idle_power_w=None,
        sitting="fake",
        qualification=None,
    )
