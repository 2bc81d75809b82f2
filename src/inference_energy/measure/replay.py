"""Replay: a recorded run takes the place of the machine, and the whole chain measures it again.

Clock, counter, sampler, CodeCarbon and engine are made from one record; everything else, from the
ticks at which a window opens to the warnings, runs as it did live. It tests the chain and measures
nothing: the energy method is ``replay``, which an archive refuses.

The counter is the recorded one: its ticks are the edges of the recorded intervals, with the exact
readings. Waiting for a tick returns when the recorded run went on, so that work begins, and ends,
when it did; work that ends after the recorded tick is refused. What only a driver can tell (rest at
the start, users of other GPUs) is taken from the record.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from inference_energy.config import Measurement, ResolvedCampaign
from inference_energy.design import Run
from inference_energy.errors import RecordError
from inference_energy.measure.audit import n_prompts_of
from inference_energy.measure.devices import DeviceSet
from inference_energy.measure.engines import Generated, OutOfDeviceMemory
from inference_energy.measure.fakes import VirtualClock
from inference_energy.measure.meter import Clock, Edge, Reading
from inference_energy.measure.run import Bench, Origin, measure_run
from inference_energy.measure.workload import prompts_for
from inference_energy.records import CodeCarbonEnergy, DeviceCheck, Interval, Phase, Record, Trace

#: Warnings on what a replay does not see again.
_NOT_REPLAYED = ("start_not_settled", "neighbour_seen", "attempts_failed")
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
            "n_attempts": source.n_attempts,
            "launch": source.launch,
            "device_checks": source.device_checks,
            "software": source.software,
            "memory": source.memory,
            "warnings": [*record.warnings, *(w for w in source.warnings if w.code in _NOT_REPLAYED)],
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
    levels = source.levels
    if levels.engine != "transformers" or levels.input_length_cv or levels.output_length_cv:
        found = f"engine {levels.engine!r}, lengths with CVs of {levels.input_length_cv} and {levels.output_length_cv}"
        raise RecordError(where, found, "transformers and one length: no more is replayed", "Leave out its study")
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
    working = [index for index, device in enumerate(source.hardware.devices) if device.participates]
    return Bench(
        clock=clock,
        counter=_Counter(source, clock, measurement, where),
        sampler=_Sampler(source),
        companion=_Companion(source),
        devices=DeviceSet(
            kind="gpu",
            names=[device.name for device in source.hardware.devices],
            uuids=[device.uuid_hash for device in source.hardware.devices],
            takes_part=tuple(working),
            driver=source.software.driver,
        ),
        hardware=source.hardware,
        read_latency_s=source.meter.read_latency_s,
        idle_power_w=None,
        sitting=source.identity.sitting,
        qualification=source.meter.qualification,
    )


# --- the counter ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _RecordedEdge:
    """An edge on the record's clock, and when the run went on after it, where the record tells."""

    edge: Edge
    resumed_s: float | None


def _known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _resumed_s(source: Record, measurement: Measurement) -> dict[float, float]:
    """When the recorded run went on after an edge, by the edge's time, where the record tells."""
    resumed = {}
    for interval in source.intervals:
        if interval.phase == "idle":
            resumed[interval.opened_s] = interval.work_ended_s - measurement.idle_s
        elif interval.phase == "idle_loaded":
            resumed[interval.opened_s] = interval.work_ended_s - measurement.idle_loaded_s
        elif interval.iteration_duration_s:
            resumed[interval.opened_s] = interval.work_ended_s - sum(interval.iteration_duration_s)
    return resumed


def _edges(source: Record, measurement: Measurement) -> list[_RecordedEdge]:
    """All edges in order."""
    resumed = _resumed_s(source, measurement)
    found = {}
    for i in source.intervals:
        found[i.opened_s] = _edge(source, i.opened_s, i.device_opened_s, _known(i.counter_opened_j))
        found[i.closed_s] = _edge(source, i.closed_s, i.device_closed_s, _known(i.counter_closed_j))
    return [_RecordedEdge(found[time_s], resumed.get(time_s)) for time_s in sorted(found)]


def _edge(source: Record, time_s: float, times_s: list[float] | None, energy_j: list[float]) -> Edge:
    """An edge with the blur that reading in turn gives: the k-th of n devices to tick was read every n - k reads."""
    latency_s, period_s, n = source.meter.read_latency_s, source.meter.period_s, len(energy_j)
    pause_s = period_s / 100 if latency_s < period_s / 100 else 0.0
    if times_s is None:  # version 1: the tick of the first device that takes part; that of the others is not known
        lead = next(i for i, device in enumerate(source.hardware.devices) if device.participates)
        return Edge([time_s] * n, [latency_s + pause_s if i == lead else period_s for i in range(n)], energy_j)
    n_before = [sum(other_s < own_s for other_s in times_s) for own_s in times_s]
    return Edge(times_s, [(n - k) * latency_s + pause_s for k in n_before], energy_j)


class _Counter:
    """The recorded counter on the virtual clock: nothing but the readings that the run took."""

    method = "replay"
    ticks = True

    def __init__(self, source: Record, clock: VirtualClock, measurement: Measurement, where: str) -> None:
        self.clock: Clock = clock
        self._virtual = clock
        self.n_devices = len(source.hardware.devices)
        self.period_s, self.resolution_j = source.meter.period_s, source.meter.resolution_j
        self._source, self._zero_s, self._where = source, source.monotonic_started_s, where
        self._edges = _edges(source, measurement)
        self._is_read = False

    def read(self) -> Reading:
        """The first reading of the run, then the last."""
        energy_j = self._source.counter_ended_j if self._is_read else self._source.counter_started_j
        if self._is_read:
            self._virtual.until(self._zero_s + self._source.process_ended_s)
        self._is_read = True
        return Reading(self.clock.now(), self._source.meter.read_latency_s, _known(energy_j))

    def read_one(self, device: int) -> Reading:
        """One device of :meth:`read`."""
        reading = self.read()
        return Reading(reading.time_s, reading.latency_s, [reading.energy_j[device]])

    def next_edge(self) -> Edge:
        """The next recorded edge; returns when the recorded run went on.

        Raises
        ------
        RecordError
            If there is none, or it is past.
        """
        now_s = self.clock.now() - self._zero_s
        if not self._edges:
            raise _asks_for_more(self._where)
        recorded = self._edges.pop(0)
        edge = recorded.edge
        if now_s >= min(edge.device_time_s):
            raise RecordError(
                self._where,
                f"the replay waits for a tick at {now_s:.3f} s, which came at {edge.time_s:.3f} s",
                "work that ends as recorded",
                SAME_SETTINGS,
            )
        self._virtual.until(self._zero_s + max(edge.time_s, recorded.resumed_s or 0.0))
        return Edge([self._zero_s + time_s for time_s in edge.device_time_s], edge.blur_s, edge.energy_j)


def _asks_for_more(where: str) -> RecordError:
    return RecordError(
        where,
        "the replay asks for more than was recorded",
        "the windows and the warm-up of the recorded run",
        SAME_SETTINGS,
    )


# --- sampler, CodeCarbon, engine -----------------------------------------------------------------


class _Sampler:
    """Returns the recorded trace."""

    def __init__(self, source: Record) -> None:
        self._trace, self._zero_s = source.trace, source.monotonic_started_s

    def end(self) -> None:
        """Nothing to end."""

    def start(self) -> None:
        """Do nothing."""

    def checks(self) -> list[DeviceCheck]:
        """None: the record's own are kept."""
        return []

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

    def end(self) -> None:
        """Nothing to end."""

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


def _first_s(interval: Interval) -> Sequence[float | None]:
    return interval.iteration_first_token_s or [None] * len(interval.iteration_duration_s)


class _Engine:
    """Takes the recorded time for everything; where the recorded run's memory ran out, so does its own."""

    def __init__(self, source: Record, clock: VirtualClock, where: str) -> None:
        self._source, self._clock, self._where = source, clock, where
        # The record tells the waiting of an interval, not of each iteration: the first stands for all.
        self._iterations_s = iter(
            [
                (duration_s, (i.waited_s or 0.0) if number == 0 else 0.0, first_s)
                for i in source.intervals
                for number, (duration_s, first_s) in enumerate(zip(i.iteration_duration_s, _first_s(i), strict=True))
            ]
        )
        self._n_iterations = self._n_awaited = 0

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
        """Raise: memory ran out where nothing more was recorded, or the replay asks for more than was measured."""
        if self._source.status == "out_of_memory":
            raise OutOfDeviceMemory(self._source.status_detail or "")
        raise _asks_for_more(self._where)

    def load(self) -> None:
        """Until the recorded end of loading."""
        self._until_end_of("load")

    def forward_passes(self, n: int) -> None:  # noqa: ARG002 - their number is the recorded one
        """Until the recorded end of the warm-up."""
        self._until_end_of("warmup")

    def prime(self, n_tokens: int) -> None:
        """Nothing: the record's iterations come after it."""

    def iterate(self, *, waiting: bool) -> Generated:
        """As long as the next recorded iteration, its waiting included."""
        duration_s, waited_s, first_s = next(self._iterations_s, (None, 0.0, None))
        if duration_s is None:
            self._run_dry()
        else:
            self._clock.sleep(duration_s)
        number = self._n_awaited if waiting else self._n_iterations
        self._n_awaited, self._n_iterations = self._n_awaited + waiting, self._n_iterations + 1
        levels = self._source.levels
        n_tokens = n_prompts_of(levels, number) * levels.n_output_tokens
        return Generated(n_tokens, n_tokens, waited_s, first_s)

    def device_uuids(self) -> list[str]:
        """The recorded devices."""
        return [device.uuid_hash for device in self._source.hardware.devices if device.participates]

    def memory_peak_bytes(self) -> list[int]:
        """Nothing: the record's own are kept."""
        return []

    def close(self) -> None:
        """Nothing was started."""
