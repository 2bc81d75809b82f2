"""Turns a run's readings into the intervals of its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference_energy.measure.meter import Counter, Edge, edge, uncertainty_j
from inference_energy.measure.sampler import Companion, integrate_j
from inference_energy.records import CodeCarbonEnergy, Interval, Phase, Tokens, Trace


@dataclass(frozen=True)
class _Raw:
    phase: Phase
    index: int
    opened: Edge
    work_ended_s: float
    closed: Edge
    iteration_duration_s: list[float]
    tokens: Tokens | None
    lap: int | None


class Recorder:
    """Opens and closes intervals on the counter's ticks, one after another.

    An interval opens on the tick that closed the one before it, unless :meth:`open` says otherwise.

    Parameters
    ----------
    counter : Counter
        The meter.
    companion : Companion
        CodeCarbon; asked for a lap at every edge once :meth:`follow` was called.
    lead : int
        Index of the device whose ticks count.
    """

    def __init__(self, counter: Counter, companion: Companion, lead: int) -> None:
        self._counter, self._companion, self._lead = counter, companion, lead
        self._opened: Edge | None = None
        self._raw: list[_Raw] = []
        self._n_laps: int | None = None

    def follow(self, n_laps_before: int = 0) -> None:
        """Ask CodeCarbon for a lap at every edge from the next one on."""
        self._n_laps = n_laps_before

    def _edge(self) -> Edge:
        found = edge(self._counter, self._lead)
        if self._n_laps is not None:
            self._n_laps += 1
            if self._counter.method != "codecarbon_estimate":  # there, reading the counter is the lap
                self._companion.lap()
        return found

    def open(self) -> None:
        """Wait for a tick and open an interval on it."""
        self._opened = self._edge()

    def close(
        self,
        phase: Phase,
        index: int,
        work_ended_s: float,
        iteration_duration_s: Sequence[float] = (),
        tokens: Tokens | None = None,
    ) -> None:
        """Wait for a tick, close the interval on it, and open the next on the same tick."""
        if self._opened is None:
            raise RuntimeError("close without open")
        closed = self._edge()
        lap = None if self._n_laps is None or self._n_laps < 2 else self._n_laps - 1
        self._raw.append(
            _Raw(phase, index, self._opened, work_ended_s, closed, list(iteration_duration_s), tokens, lap)
        )
        self._opened = closed

    def last_edge(self) -> Edge:
        """The edge at which the last interval closed."""
        if self._opened is None:
            raise RuntimeError("no interval yet")
        return self._opened

    def intervals(self, trace: Trace, laps: list[CodeCarbonEnergy | None], zero_s: float) -> list[Interval]:
        """All intervals with power integrated over them; times relative to `zero_s`.

        Parameters
        ----------
        trace : Trace
            Samples on the monotonic clock.
        laps : list
            CodeCarbon's laps in order.
        zero_s : float
            The process's start on the monotonic clock.
        """
        return [self._interval(raw, trace, laps, zero_s) for raw in self._raw]

    def _interval(self, raw: _Raw, trace: Trace, laps: list[CodeCarbonEnergy | None], zero_s: float) -> Interval:
        n = len(raw.opened.energy_j)
        instant = trace.power_instant_w or [[]] * n
        average = trace.power_average_w or [[]] * n

        def integrated(powers: list[list[float | None]], start_s: float) -> list[float | None]:
            return [integrate_j(trace.time_s, power, start_s, raw.closed.time_s) if power else None for power in powers]

        tail_j = integrated(instant, raw.work_ended_s)
        ticks = self._counter.ticks
        return Interval(
            phase=raw.phase,
            index=raw.index,
            opened_s=raw.opened.time_s - zero_s,
            work_ended_s=raw.work_ended_s - zero_s,
            closed_s=raw.closed.time_s - zero_s,
            iteration_duration_s=raw.iteration_duration_s,
            counter_opened_j=list(raw.opened.energy_j),
            counter_closed_j=list(raw.closed.energy_j),
            energy_power_instant_j=integrated(instant, raw.opened.time_s),
            energy_power_average_j=integrated(average, raw.opened.time_s),
            # Without ticks the meter is read right after the work: there is no tail.
            energy_tail_j=tail_j if ticks else [0.0] * n,
            uncertainty_j=[self._uncertainty_j(raw, i, tail_j[i], trace) for i in range(n)],
            codecarbon=None if raw.lap is None or raw.lap >= len(laps) else laps[raw.lap],
            tokens=raw.tokens,
        )

    def _uncertainty_j(self, raw: _Raw, device: int, tail_j: float | None, trace: Trace) -> float | None:
        """None where the method is an estimate, whose error is not known, or the tail is not."""
        duration_s = raw.closed.time_s - raw.opened.time_s
        if self._counter.method == "codecarbon_estimate" or duration_s <= 0 or tail_j is None:
            return None
        tail_s = max(raw.closed.time_s - raw.work_ended_s, 1e-9)
        spacing_s = (trace.time_s[-1] - trace.time_s[0]) / max(1, len(trace.time_s) - 1)
        return uncertainty_j(
            power_w=(raw.closed.energy_j[device] - raw.opened.energy_j[device]) / duration_s,
            tail_power_w=tail_j / tail_s,
            blur_s=max(raw.opened.blur_s, raw.closed.blur_s),
            resolution_j=self._counter.resolution_j,
            period_s=self._counter.period_s,
            ticks=self._counter.ticks and device == self._lead,
            sample_period_s=spacing_s,
        )


def shifted(trace: Trace, zero_s: float) -> Trace:
    """`trace` with times relative to `zero_s`, rounded to what the instruments resolve."""
    return trace.model_copy(
        update={
            "time_s": [round(t - zero_s, 5) for t in trace.time_s],
            "slow_time_s": [round(t - zero_s, 5) for t in trace.slow_time_s],
        }
    )
