"""Replay: a recorded run takes the place of the machine, and the whole chain measures it again.

Clock, counter, sampler, CodeCarbon and engine are made from one record; everything else, from the
ticks at which a window opens to the warnings, runs as it did live. It tests the chain and measures
nothing: the energy method is ``replay``, which an archive refuses.

The counter is the recorded one: its trace, and the exact readings at the edges of intervals. A
trace shows a new value only at the next sample, so around an edge, where the run waits for a tick,
the recorded edge alone counts. The read after an edge returns when the recorded run went on, so
that work begins, and ends, when it did.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass

from inference_energy.config import Measurement, ResolvedCampaign
from inference_energy.design import Run
from inference_energy.errors import RecordError
from inference_energy.measure.devices import DeviceSet
from inference_energy.measure.engines import Generated, OutOfDeviceMemory
from inference_energy.measure.fakes import VirtualClock
from inference_energy.measure.meter import Clock, Reading
from inference_energy.measure.run import Bench, Origin, measure_run, n_requested
from inference_energy.measure.workload import prompts_for
from inference_energy.records import CodeCarbonEnergy, Phase, Record, Trace

#: Shortest read, in counter periods: a record may know its meter's latency as nought.
_LATENCY_MIN_PERIODS = 0.02
SAME_SETTINGS = "Give the replaying campaign the seed and the measurement settings of the recorded one"


def replay_record(source: Record, run: Run, resolved: ResolvedCampaign) -> Record:
    """Measure `run` again from what `source` recorded of it.

    Parameters
    ----------
    source : Record
        Of the same setting, from the campaign that ``measurement.replay_of`` names.
    run : Run
        Setting and cycle in the replaying campaign.
    resolved : ResolvedCampaign
        The replaying campaign; it must ask for the recorded run's windows and warm-up.

    Returns
    -------
    Record
        Measured by today's code, with the recorded times, machine, software and memory.

    Raises
    ------
    RecordError
        If `source` cannot be replayed, or the replay goes another way than the recorded run.
    """
    where = f"replay of {source.identity.campaign}: {source.run_id}"
    _require_replayable(source, run, where)
    clock = VirtualClock(source.monotonic_started_s + _begun_s(source))
    bench = _bench(source, clock, resolved.campaign.measurement, where)
    origin = Origin(
        launcher=source.launch.launcher,
        started_s=source.monotonic_started_s,
        parent_n_device_files=source.launch.parent_n_device_files,
        parent_cuda_initialised=source.launch.parent_cuda_initialised,
        replay_of=source.identity.campaign,
    )
    prompts = prompts_for(run.levels, resolved.models[run.levels.model], resolved.campaign.seed)
    record = measure_run(run, resolved, bench, origin, prompts, lambda: _Engine(source, clock, where))
    record = record.model_copy(
        update={
            "identity": record.identity.model_copy(
                update={
                    "started_at_utc": source.identity.started_at_utc,
                    "ended_at_utc": source.identity.ended_at_utc,
                }
            ),
            "software": source.software,
            "memory": source.memory,
        }
    )
    _require_same_way(source, record, where)
    return record


def _begun_s(source: Record) -> float:
    """When the recorded run first read its counter, as far as the record tells: a tick before the first edge."""
    first_s = source.intervals[0].opened_s if source.intervals else source.process_ended_s
    return max(0.0, first_s - source.meter.period_s)


def _require_replayable(source: Record, run: Run, where: str) -> None:
    if source.levels != run.levels:
        raise RecordError(where, f"is of setting {source.identity.setting}", run.setting, "Replay the same design")
    if not source.meter.tick_aligned:
        raise RecordError(
            where,
            f"its meter ({source.meter.energy_method}) shows no ticks",
            "a run that was measured on ticks of a counter",
            "Replay a campaign that was measured on a GPU",
        )
    readings = [source.counter_started_j, source.counter_ended_j]
    readings += [one for i in source.intervals for one in (i.counter_opened_j, i.counter_closed_j)]
    if any(value is None for reading in readings for value in reading):
        raise RecordError(where, "a reading of its counter is missing", "energy of every device at every edge")


def _require_same_way(source: Record, record: Record, where: str) -> None:
    """The replay must have gone the way of the recorded run, tick for tick."""
    known = source.workload is not None  # a record need not tell the prompts of a run that failed
    ways = itertools.zip_longest(_way(source, known), _way(record, known), fillvalue="nothing more")
    for recorded, replayed in ways:
        if replayed != recorded:
            raise RecordError(
                where,
                f"the replay went another way: {replayed}",
                f"as recorded: {recorded}",
                SAME_SETTINGS,
            )


def _way(record: Record, with_prompts: bool) -> list[str]:
    """Prompts, intervals and status in words."""
    prompts = [f"prompts {record.workload.token_ids_sha256[:12]}"] if with_prompts and record.workload else []
    intervals = [
        f"{i.phase} {i.index} of {len(i.iteration_duration_s)} iterations, counters from"
        f" {i.counter_opened_j} to {i.counter_closed_j} J"
        for i in record.intervals
    ]
    return [*prompts, *intervals, f"status {record.status}"]


def _bench(source: Record, clock: VirtualClock, measurement: Measurement, where: str) -> Bench:
    participates = [device.participates for device in source.hardware.devices]
    return Bench(
        clock=clock,
        counter=_Counter(source, clock, measurement, where),
        sampler=_Sampler(source),
        companion=_Companion(source),
        devices=DeviceSet(
            kind="gpu",
            names=[device.name for device in source.hardware.devices],
            uuids=[device.uuid_hash for device in source.hardware.devices],
            lead=participates.index(True),
            driver=source.software.driver,
        ),
        hardware=source.hardware,
        read_latency_s=source.meter.read_latency_s,
        sitting=source.identity.sitting,
        qualification=source.meter.qualification,
    )


# --- the counter ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tick:
    """A new value of the counter; at an edge, also when the run went on."""

    time_s: float
    energy_j: list[float]
    resumed_s: float | None = None


def _known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _resumed_s(source: Record, measurement: Measurement) -> dict[float, float]:
    """When the recorded run went on after an edge, by the edge's time, where the record tells."""
    first = source.intervals[0] if source.intervals else None
    bare_idle_s = first.closed_s - first.opened_s if first is not None else 0.0
    resumed = {}
    for interval in source.intervals:
        if interval.phase == "idle":
            resumed[interval.opened_s] = interval.work_ended_s - measurement.idle_s
        elif interval.phase == "idle_loaded":
            resumed[interval.opened_s] = interval.work_ended_s - measurement.idle_loaded_s
        elif interval.phase == "load":
            resumed[interval.opened_s] = source.launch.started_to_load_s + bare_idle_s
        elif interval.iteration_duration_s:
            resumed[interval.opened_s] = interval.work_ended_s - sum(interval.iteration_duration_s)
        elif source.launch.started_to_first_iteration_s is not None:
            resumed[interval.opened_s] = source.launch.started_to_first_iteration_s + bare_idle_s
    return resumed


def _edges(source: Record, measurement: Measurement) -> list[_Tick]:
    resumed = _resumed_s(source, measurement)
    readings = {i.opened_s: i.counter_opened_j for i in source.intervals}
    readings |= {i.closed_s: i.counter_closed_j for i in source.intervals}
    if readings:  # the last read of the run follows the last edge
        last_s = max(readings)
        resumed[last_s] = (last_s + source.process_ended_s) / 2
    return [_Tick(time_s, _known(energy_j), resumed.get(time_s)) for time_s, energy_j in sorted(readings.items())]


def _ticks(source: Record, edges: list[_Tick]) -> list[_Tick]:
    """The staircase of the whole run: the edges, and the trace wherever the run did not wait for a tick."""
    trace = source.trace
    working = [(i.opened_s, i.work_ended_s) for i in source.intervals]
    if source.intervals:
        working.append((source.intervals[-1].closed_s, source.process_ended_s))
    samples = [
        _Tick(time_s, _known([series[i] for series in trace.counter_j]))
        for i, time_s in enumerate(trace.time_s)
        if any(opened_s < time_s < ended_s for opened_s, ended_s in working)
        and all(series[i] is not None for series in trace.counter_j)
    ]
    return sorted([_Tick(0.0, _known(source.counter_started_j)), *samples, *edges], key=lambda tick: tick.time_s)


class _Counter:
    """The recorded counter on the virtual clock."""

    method = "replay"
    ticks = True

    def __init__(self, source: Record, clock: VirtualClock, measurement: Measurement, where: str) -> None:
        self.clock: Clock = clock
        self._virtual = clock
        self.period_s, self.resolution_j = source.meter.period_s, source.meter.resolution_j
        self._latency_s = max(source.meter.read_latency_s, _LATENCY_MIN_PERIODS * self.period_s)
        self._source, self._zero_s, self._where = source, source.monotonic_started_s, where
        self._edges = _edges(source, measurement)
        self._ticks = _ticks(source, self._edges)
        self._times_s = [tick.time_s for tick in self._ticks]
        self._half_s = 0.0  # half the read that ended on an edge; the next one mirrors it

    def read(self) -> Reading:
        """What the recorded counter showed; near an edge, one read ends on it and the next begins there."""
        now_s = self.clock.now() - self._zero_s
        if self._half_s:
            return self._read_after(self._edges.pop(0))
        if self._edges and self._edges[0].time_s - now_s <= 2 * self._latency_s:
            return self._read_before(self._edges[0], now_s)
        if not self._edges and now_s < self._source.process_ended_s:  # the last read of the run
            half_s = self._source.process_ended_s - now_s
            return self._reading(now_s + half_s, half_s, _known(self._source.counter_ended_j))
        return self._reading(now_s + self._latency_s / 2, self._latency_s / 2)

    def _read_before(self, edge: _Tick, now_s: float) -> Reading:
        if edge.time_s <= now_s:
            raise RecordError(
                self._where,
                f"the replay waits for a tick at {now_s:.3f} s, which came at {edge.time_s:.3f} s",
                "work that ends as recorded",
                SAME_SETTINGS,
            )
        resumed_s = edge.time_s + self._latency_s if edge.resumed_s is None else edge.resumed_s
        room_s = min(edge.time_s - now_s, resumed_s - edge.time_s, self._latency_s)
        self._half_s = max(room_s, 1e-6) / 2
        return self._reading(edge.time_s - self._half_s, self._half_s)

    def _read_after(self, edge: _Tick) -> Reading:
        reading = self._reading(edge.time_s + self._half_s, self._half_s, edge.energy_j)
        self._half_s = 0.0
        if edge.resumed_s is not None:
            self._virtual.until(self._zero_s + edge.resumed_s)
        return reading

    def _reading(self, middle_s: float, half_s: float, energy_j: list[float] | None = None) -> Reading:
        self._virtual.until(self._zero_s + middle_s + half_s)
        shown = self._ticks[max(0, bisect.bisect_right(self._times_s, middle_s) - 1)]
        # With its true length a short read would make the meter pause between two reads, past the edge.
        return Reading(self._zero_s + middle_s, self._latency_s, list(energy_j or shown.energy_j))


# --- sampler, CodeCarbon, engine -----------------------------------------------------------------


class _Sampler:
    """Returns the recorded trace."""

    def __init__(self, source: Record) -> None:
        self._trace, self._zero_s = source.trace, source.monotonic_started_s

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> Trace:
        """The trace, back on the monotonic clock."""
        return self._trace.model_copy(
            update={
                "time_s": [moment_s + self._zero_s for moment_s in self._trace.time_s],
                "slow_time_s": [moment_s + self._zero_s for moment_s in self._trace.slow_time_s],
            }
        )


class _Companion:
    """Returns CodeCarbon's recorded laps."""

    def __init__(self, source: Record) -> None:
        after = [i for i in source.intervals if i.phase in ("window", "idle_loaded")]
        self._followed = any(a.closed_s != b.opened_s for a, b in itertools.pairwise(source.intervals))
        self._laps = [None, *(interval.codecarbon for interval in after)]

    def start(self) -> None:
        """Do nothing."""

    def ready(self) -> bool:
        """Whether the recorded run was followed: then its windows open anew after the warm-up."""
        return self._followed

    def lap(self) -> None:
        """Do nothing."""

    def laps(self) -> list[CodeCarbonEnergy | None]:
        """Nothing before the first window, then one an interval."""
        return self._laps


class _Engine:
    """Takes the recorded time for everything; where the recorded run's memory ran out, so does its own."""

    def __init__(self, source: Record, clock: VirtualClock, where: str) -> None:
        self._source, self._clock, self._where = source, clock, where
        self._durations_s = iter([d for i in source.intervals for d in i.iteration_duration_s])

    def _end_s(self, phase: Phase) -> float | None:
        ends_s = [i.work_ended_s for i in self._source.intervals if i.phase == phase]
        return self._source.monotonic_started_s + ends_s[0] if ends_s else None

    def _until_end_of(self, phase: Phase) -> None:
        end_s = self._end_s(phase)
        if end_s is None:
            self._run_dry()
        else:
            self._clock.until(end_s)

    def _run_dry(self) -> None:
        """Nothing more was recorded: memory ran out, or the replay asks for more than was measured.

        Raises
        ------
        OutOfDeviceMemory, RecordError
            In these cases.
        """
        if self._source.status == "out_of_memory":
            raise OutOfDeviceMemory(self._source.status_detail or "")
        raise RecordError(
            self._where,
            "the replay asks for more than was recorded",
            "the windows and the warm-up of the recorded run",
            SAME_SETTINGS,
        )

    def load(self) -> None:
        """Until the recorded end of loading."""
        self._until_end_of("load")

    def forward_passes(self, n: int) -> None:  # noqa: ARG002 - their number is the recorded one
        """Until the recorded end of the warm-up."""
        self._until_end_of("warmup")

    def iterate(self) -> Generated:
        """As long as the next recorded iteration."""
        duration_s = next(self._durations_s, None)
        if duration_s is None:
            self._run_dry()
        else:
            self._clock.sleep(duration_s)
        n_tokens = n_requested(self._source.levels)
        return Generated(n_tokens, n_tokens)

    def device_uuid(self) -> str | None:
        """The recorded device."""
        return next(device.uuid_hash for device in self._source.hardware.devices if device.participates)

    def memory_peak_bytes(self) -> int | None:
        """The recorded peak."""
        return next((peak for peak in self._source.memory.device_peak_bytes if peak is not None), None)
