"""Turns a run's readings into the intervals of its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference_energy.measure.meter import Counter, Edge, uncertainty_j
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
    waited_s: float | None
    first_token_s: list[float] | None
    lap: int | None


class Recorder:
    """Opens and closes intervals on the counter's ticks, one after another.

    An interval opens on the ticks that closed the one before it, unless :meth:`open` says otherwise.
    Each device has its own tick; work begins after the last of them.

    Parameters
    ----------
    counter : Counter
        The meter.
    companion : Companion
        CodeCarbon; asked for a lap at every edge once :meth:`follow` was called.
    """

    def __init__(self, counter: Counter, companion: Companion) -> None:
        self._counter, self._companion = counter, companion
        self._opened: Edge | None = None
        self._raw: list[_Raw] = []
        self._n_laps: int | None = None

    def follow(self, n_laps_before: int = 0) -> None:
        """Ask CodeCarbon for a lap at every edge from the next one on."""
        self._n_laps = n_laps_before

    def _edge(self) -> Edge:
        found = self._counter.next_edge()
        if self._n_laps is not None:
            self._n_laps += 1
            if self._counter.method != "codecarbon_estimate":  # there, reading the counter is the lap
                self._companion.lap()
        return found

    def open(self) -> None:
        """Wait for a tick of every device and open an interval on them."""
        self._opened = self._edge()

    def close(
        self,
        phase: Phase,
        index: int,
        work_ended_s: float,
        iteration_duration_s: Sequence[float] = (),
        tokens: Tokens | None = None,
        *,
        waited_s: float | None = None,
        first_token_s: list[float] | None = None,
    ) -> None:
        """Wait for a tick of every device, close the interval on them, and open the next on the same ticks."""
        if self._opened is None:
            raise RuntimeError("close without open")
        closed = self._edge()
        lap = None if self._n_laps is None or self._n_laps < 2 else self._n_laps - 1
        self._raw.append(
            _Raw(
                *(phase, index, self._opened, work_ended_s, closed, list(iteration_duration_s)),
                *(tokens, waited_s, first_token_s, lap),
            )
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
        tails_j = [self._tail_j(raw, device, trace) for device in range(n)]
        return Interval(
            phase=raw.phase,
            index=raw.index,
            opened_s=raw.opened.time_s - zero_s,
            work_ended_s=raw.work_ended_s - zero_s,
            closed_s=raw.closed.time_s - zero_s,
            device_opened_s=[moment_s - zero_s for moment_s in raw.opened.device_time_s],
            device_closed_s=[moment_s - zero_s for moment_s in raw.closed.device_time_s],
            waited_s=raw.waited_s,
            iteration_duration_s=raw.iteration_duration_s,
            iteration_first_token_s=raw.first_token_s,
            counter_opened_j=list(raw.opened.energy_j),
            counter_closed_j=list(raw.closed.energy_j),
            energy_power_instant_j=[
                _integrated_j(trace, trace.power_instant_w, device, *_span_s(raw, device)) for device in range(n)
            ],
            energy_power_average_j=[
                _integrated_j(trace, trace.power_average_w, device, *_span_s(raw, device)) for device in range(n)
            ],
            energy_tail_j=tails_j,
            uncertainty_j=[self._uncertainty_j(raw, device, tails_j[device], trace) for device in range(n)],
            codecarbon=None if raw.lap is None or raw.lap >= len(laps) else laps[raw.lap],
            tokens=raw.tokens,
        )

    def _tail_j(self, raw: _Raw, device: int, trace: Trace) -> float | None:
        """Energy between a device's ticks and the work: after it, and before it where other devices ticked later."""
        if not self._counter.ticks:  # the meter is read right before and after the work
            return 0.0
        opened_s, closed_s = _span_s(raw, device)
        after_j = _integrated_j(trace, trace.power_instant_w, device, raw.work_ended_s, closed_s)
        if opened_s == raw.opened.time_s or after_j is None:
            return after_j
        before_j = _integrated_j(trace, trace.power_instant_w, device, opened_s, raw.opened.time_s)
        return None if before_j is None else before_j + after_j

    def _uncertainty_j(self, raw: _Raw, device: int, tail_j: float | None, trace: Trace) -> float | None:
        """None where the method is an estimate, whose error is not known, or the tail is not."""
        opened_s, closed_s = _span_s(raw, device)
        # Without samples the tail is not known; without ticks there is none, and samples say nothing about it.
        if self._counter.method == "codecarbon_estimate" or closed_s <= opened_s or tail_j is None or not trace.time_s:
            return None
        before_s = raw.opened.time_s - opened_s
        tail_s = max(before_s + closed_s - raw.work_ended_s, 1e-9)
        spacing_s = (trace.time_s[-1] - trace.time_s[0]) / max(1, len(trace.time_s) - 1)
        tail_power_w = tail_j / tail_s
        # Simulated waiting draws about what the tail draws: the step to it is from the power at work, not the mean.
        waited_s = raw.waited_s or 0.0
        energy_j = raw.closed.energy_j[device] - raw.opened.energy_j[device]
        return uncertainty_j(
            power_w=(energy_j - waited_s * tail_power_w) / (closed_s - opened_s - waited_s),
            tail_power_w=tail_power_w,
            blur_s=max(raw.opened.blur_s[device], raw.closed.blur_s[device]),
            resolution_j=self._counter.resolution_j,
            period_s=self._counter.period_s,
            ticks=self._counter.ticks,
            sample_period_s=spacing_s,
            n_steps=2 if before_s > 0 else 1,
        )


def _span_s(raw: _Raw, device: int) -> tuple[float, float]:
    """A device's own interval, from its tick to its tick."""
    return raw.opened.device_time_s[device], raw.closed.device_time_s[device]


def _integrated_j(
    trace: Trace, powers: list[list[float | None]], device: int, start_s: float, end_s: float
) -> float | None:
    return integrate_j(trace.time_s, powers[device], start_s, end_s) if powers else None


def shifted(trace: Trace, zero_s: float) -> Trace:
    """`trace` with times relative to `zero_s`, rounded to what the instruments resolve."""
    return trace.model_copy(
        update={
            "time_s": [round(t - zero_s, 5) for t in trace.time_s],
            "slow_time_s": [round(t - zero_s, 5) for t in trace.slow_time_s],
        }
    )
