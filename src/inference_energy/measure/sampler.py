"""What runs beside a measured process: a sampler of power and clocks, and CodeCarbon.

Each lives in a process of its own, so that neither takes the interpreter from the engine, and dies
with the run however that ends.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from inference_energy.errors import MeterError
from inference_energy.measure.devices import DeviceSet, check_devices, powers_w, quietly, temperature_c
from inference_energy.measure.lifeline import end_with
from inference_energy.measure.meter import Clock, Polled, Reading, SystemClock
from inference_energy.records import CodeCarbonEnergy, DeviceCheck, Trace
from inference_energy.units import joules_from_kwh

#: How often the slow quantities (clocks, temperature, processes) are read, in fast samples.
SLOW_EVERY = 10
#: How often every visible GPU is checked for who uses it.
CHECK_EVERY_S = 2.0
#: How long a killed process may take to be gone.
END_WAIT_S = 10.0


def empty_trace() -> Trace:
    """A trace without samples or devices."""
    return Trace(**{name: [] for name in Trace.model_fields})


def integrate_j(time_s: Sequence[float], power_w: Sequence[float | None], start_s: float, end_s: float) -> float | None:
    """Integral of sampled power from `start_s` to `end_s` by the trapezoid rule, in joules.

    Power at the ends is interpolated. None if the samples do not span the interval to within two
    typical spacings, or fewer than two remain.

    Parameters
    ----------
    time_s : sequence of float, n samples
        Increasing.
    power_w : sequence of float or None, n samples
        None where a sample failed.
    """
    kept = [(t, p) for t, p in zip(time_s, power_w, strict=True) if p is not None]
    if len(kept) < 2 or end_s < start_s:
        return None
    times, powers = np.array(kept, dtype=float).T
    slack_s = 2 * float(np.median(np.diff(times)))
    if times[0] > start_s + slack_s or times[-1] < end_s - slack_s:
        return None
    inside = (times > start_s) & (times < end_s)
    at = np.concatenate([[start_s], times[inside], [end_s]])
    return float(np.trapezoid(np.interp(at, times, powers), at))


class Sampler(Protocol):
    """Records the trace of a run."""

    def start(self) -> None:
        """Begin to sample, anew if it did before."""

    def stop(self) -> Trace:
        """Pause, and return all samples since the start on the monotonic clock."""

    def checks(self) -> list[DeviceCheck]:
        """What was seen of every visible GPU meanwhile; known once sampling has paused."""

    def end(self) -> None:
        """Sample no more."""


class Companion(Protocol):
    """CodeCarbon beside a run, one lap an interval."""

    def start(self) -> None:
        """Begin to get ready."""

    def lap(self) -> None:
        """End the current interval and open the next, without waiting."""

    def laps(self) -> list[CodeCarbonEnergy | None]:
        """Every lap in order since this was last asked; the first reaches from then, or from readiness, to `lap()`."""

    def end(self) -> None:
        """Read no more."""


class _Helper:
    """A forked process that answers on a pipe."""

    def __init__(self, target: Callable[[Connection], None]) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=self._run, args=(target, theirs, os.getpid()), daemon=True)
        self._process.start()

    @staticmethod
    def _run(target: Callable[[Connection], None], pipe: Connection, parent: int) -> None:
        end_with(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(EOFError, BrokenPipeError):
            target(pipe)
        os._exit(0)

    def ask(self, question: str, timeout_s: float) -> Any:
        """Send `question` and wait for the answer.

        Raises
        ------
        MeterError
            If no answer comes in time.
        """
        try:
            self.pipe.send(question)
            if not self.pipe.poll(timeout_s):
                raise MeterError("sampler", f"no answer to {question!r} within {timeout_s} s")
            return self.pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise MeterError("sampler", f"its process ended before {question!r}") from error

    def end(self) -> None:
        """Kill the process; one that the driver does not let go at once is not waited for."""
        self._process.kill()
        self._process.join(END_WAIT_S)


class NvmlSampler:
    """Samples NVML in a process of its own, and looks now and then who uses the machine's GPUs.

    The process is forked once, before anything else uses a GPU, and serves every run of the measuring process.

    Parameters
    ----------
    devices : DeviceSet
        All metered devices are sampled, whether they take part or not.
    period_s : float
        Aim for the spacing of samples; a slow driver makes it longer.
    """

    def __init__(self, devices: DeviceSet, period_s: float) -> None:
        self._devices, self._period_s, self._pid = devices, period_s, os.getpid()
        self._helper: _Helper | None = None
        self._checks: list[DeviceCheck] = []

    def start(self) -> None:
        """Fork the sampling process unless it is there; returns once it samples."""
        if self._helper is None:
            self._helper = _Helper(self._sample)
        self._helper.ask("start", 30)

    def stop(self) -> Trace:
        """Pause, and return all samples since the start on the monotonic clock."""
        if self._helper is None:
            return empty_trace()
        fast, slow, self._checks = self._helper.ask("stop", 30)
        n = len(self._devices.names)
        series = [[[row[1 + kind][i] for row in fast] for i in range(n)] for kind in range(3)]
        slow_series = [[[row[1 + kind][i] for row in slow] for i in range(n)] for kind in range(6)]
        return Trace(
            time_s=[row[0] for row in fast],
            counter_j=series[0],
            power_instant_w=series[1],
            power_average_w=series[2],
            slow_time_s=[row[0] for row in slow],
            sm_clock_mhz=slow_series[0],
            memory_clock_mhz=slow_series[1],
            temperature_c=slow_series[2],
            gpu_utilisation_fraction=slow_series[3],
            throttle_reasons=slow_series[4],
            n_other_processes=slow_series[5],
        )

    def checks(self) -> list[DeviceCheck]:
        """Every visible GPU, each `CHECK_EVERY_S` from the start to :meth:`stop`."""
        return self._checks

    def end(self) -> None:
        """Kill the process."""
        if self._helper is not None:
            self._helper.end()
            self._helper = None

    def _sample(self, pipe: Connection) -> None:
        devices = self._devices.reopened()
        while pipe.recv() == "start":
            pipe.send(self._samples(devices, pipe))

    def _samples(self, devices: DeviceSet, pipe: Connection) -> tuple[list[Any], list[Any], list[DeviceCheck]]:
        """Fast and slow samples and device checks until something comes through `pipe`; says so after the first."""
        handles, participates = devices.handles, devices.participates
        clock = SystemClock()
        fast: list[tuple[Any, ...]] = []
        slow: list[tuple[Any, ...]] = []
        checks: list[DeviceCheck] = []
        next_s = next_check_s = clock.now()
        while True:
            fast.append((clock.now(), *zip(*(_fast_sample(h) for h in handles), strict=True)))
            if len(fast) % SLOW_EVERY == 1:
                slow.append((clock.now(), *zip(*map(_slow_sample, handles, participates), strict=True)))
            if clock.now() >= next_check_s:
                next_check_s = clock.now() + CHECK_EVERY_S
                checks.append(check_devices(devices, "during", clock.now(), self._pid))
            if len(fast) == 1:
                pipe.send("samples")
            next_s = max(next_s + self._period_s, clock.now())
            if pipe.poll(max(0.0, next_s - clock.now())):
                pipe.recv()
                return fast, slow, checks


def _fast_sample(handle: Any) -> tuple[float | None, float | None, float | None]:
    """Counter in J, instant power in W, one-second average in W."""
    import pynvml

    energy_mj = quietly(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    return (None if energy_mj is None else energy_mj / 1000, *powers_w(handle))


def _slow_sample(handle: Any, participates: bool) -> tuple[Any, ...]:
    """SM clock, memory clock, temperature, utilisation, throttle reasons, processes beyond the one of the run."""
    import pynvml

    utilisation = quietly(pynvml.nvmlDeviceGetUtilizationRates, handle)
    processes = quietly(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return (
        quietly(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        quietly(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        temperature_c(handle),
        None if utilisation is None else utilisation.gpu / 100,
        quietly(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle),
        None if processes is None else max(0, len(processes) - int(participates)),
    )


class NoSampler:
    """For machines without power samples; also stands in where none are wanted."""

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> Trace:
        """An empty trace."""
        return empty_trace()

    def checks(self) -> list[DeviceCheck]:
        """None."""
        return []

    def end(self) -> None:
        """Do nothing."""


class CodeCarbonCompanion:
    """CodeCarbon, offline, in a process of its own; one task an interval.

    Parameters
    ----------
    gpu_ids : list of int
        NVML's numbers of the GPUs that take part; an empty list on a machine without.
    country : str
        ISO code; it sets only the emissions, which we do not use.
    """

    def __init__(self, gpu_ids: list[int], country: str) -> None:
        self._gpu_ids, self._country = gpu_ids, country
        self._helper: _Helper | None = None

    def start(self) -> None:
        """Fork the process; it imports CodeCarbon (seconds) while the run goes on."""
        self._helper = _Helper(self._track)

    def ready(self, timeout_s: float = 60) -> bool:
        """Wait until it tracks; False if CodeCarbon does not work here, or its process is gone."""
        try:
            return self._helper is not None and bool(self._helper.ask("ready?", timeout_s))
        except MeterError:
            self.end()
            return False

    def lap(self) -> None:
        """End the current interval and open the next, without waiting."""
        if self._helper is not None:
            with contextlib.suppress(BrokenPipeError):
                self._helper.pipe.send("lap")

    def lap_now(self) -> CodeCarbonEnergy:
        """As `lap`, but wait for the reading and return it."""
        if self._helper is None:
            raise MeterError("CodeCarbon", "was not started")
        answer: CodeCarbonEnergy | None = self._helper.ask("lap now", 30)
        if answer is None:
            raise MeterError("CodeCarbon", "gave no reading", "an estimate of CPU and RAM energy")
        return answer

    def laps(self) -> list[CodeCarbonEnergy | None]:
        """Every lap in order since this was last asked."""
        if self._helper is None:
            return []
        try:
            laps: list[CodeCarbonEnergy | None] = self._helper.ask("laps", 30)
        except MeterError:
            self.end()  # its process is gone: later runs do without
            return []
        return laps

    def end(self) -> None:
        """Kill the process."""
        if self._helper is not None:
            self._helper.end()
            self._helper = None

    def _track(self, pipe: Connection) -> None:
        try:
            tracker: Any = self._tracker()
        except Exception as error:  # noqa: BLE001 - a comparison column must never cost a run its record
            tracker = None
            print(f"CodeCarbon does not work here: {error}", flush=True)  # noqa: T201
        laps: list[CodeCarbonEnergy | None] = []
        while True:
            question = pipe.recv()
            if question == "ready?":
                pipe.send(tracker is not None)
            elif question == "laps":
                pipe.send(laps)
                laps = []
            else:
                laps.append(self._lap(tracker))
                if question == "lap now":
                    pipe.send(laps[-1])

    def _tracker(self) -> Any:
        from codecarbon import OfflineEmissionsTracker

        logging.getLogger("codecarbon").disabled = True
        tracker = OfflineEmissionsTracker(
            country_iso_code=self._country,
            measure_power_secs=1,
            tracking_mode="machine",
            gpu_ids=self._gpu_ids,
            output_methods=[],
            log_level="critical",
            allow_multiple_runs=True,
        )
        tracker.start_task()
        return tracker

    @staticmethod
    def _lap(tracker: Any) -> CodeCarbonEnergy | None:
        if tracker is None:
            return None
        data = tracker.stop_task()
        tracker.start_task()
        return CodeCarbonEnergy(
            duration_s=data.duration,
            gpu_energy_j=joules_from_kwh(data.gpu_energy),
            cpu_energy_j=joules_from_kwh(data.cpu_energy),
            ram_energy_j=joules_from_kwh(data.ram_energy),
        )


class CodeCarbonCounter(Polled):
    """CodeCarbon's estimate of CPU and RAM energy as a counter: the last resort, named as such."""

    method = "codecarbon_estimate"
    ticks = False
    n_devices = 1

    def __init__(self, companion: CodeCarbonCompanion, clock: Clock) -> None:
        self._companion, self.clock = companion, clock
        self.period_s, self.resolution_j = 1.0, 0.0
        self._total_j = 0.0

    def read(self) -> Reading:
        """Close CodeCarbon's task and add its estimate (tens of milliseconds)."""
        started_s = self.clock.now()
        lap = self._companion.lap_now()
        self._total_j += lap.cpu_energy_j + lap.ram_energy_j
        ended_s = self.clock.now()
        return Reading((started_s + ended_s) / 2, ended_s - started_s, [self._total_j])

    def read_one(self, device: int) -> Reading:  # noqa: ARG002 - there is one
        """As :meth:`read`."""
        return self.read()
