"""A recorded run is measured again by the whole chain and comes out as it was.

The recorded runs are fakes; `test_the_replay_campaign…` looks at the campaign that replays real ones.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import synthetic
from fake_run import FakeRun

from inference_energy.config import ResolvedCampaign
from inference_energy.design import Run, expand
from inference_energy.errors import RecordError
from inference_energy.measure.replay import replay_record
from inference_energy.records import Interval, Record

RUNS = {
    "steady": {"durations_s": [2.1, 0.9, 0.72, 0.7, 0.71, *[0.7, 0.71] * 20]},
    "second device": {"takes_part": (1,)},
    "forward passes": {"levels": {"warmup": "forward_passes"}},
    "cold": {"levels": {"launcher": "cold"}, "begun_late_s": 9.7},
    "no codecarbon": {"has_codecarbon": False},
    "other processes": {"other_processes": 3},
    "instant reads": {"counter": {"latency_s": 0.0001}},
    "two side by side": {"takes_part": (0, 1), "levels": {"parallelism": "replicas", "n_gpus": 2}},
    "five devices": {"takes_part": (1,), "n_devices": 5},
    "traffic": {"levels": {"traffic": "constant", "delay_min_s": 0.1, "delay_max_s": 0.2}},
    "uneven passes": {"levels": {"n_prompts": 10}},
    "primed": {"measurement": {"warm_up": {"n_priming_tokens": 4}}},
    "slow reads": {"counter": {"latency_s": 0.02}},
}
FAILURES: dict[str, Any] = {f"out of memory at {at}": {"engine": {"out_of_memory_at": at}} for at in ("load", 1, 9)}


def _measured(arguments: dict[str, Any]) -> tuple[FakeRun, Record]:
    run = FakeRun(**{**arguments, "durations_s": iter(arguments.get("durations_s", itertools.repeat(0.7)))})
    return run, run.measured()


def _replayed(arguments: dict[str, Any]) -> tuple[Record, Record]:
    run, source = _measured(arguments)
    return source, replay_record(source, run.run, run.resolved)


def _energy_j(interval: Interval, device: int) -> float:
    opened, closed, tail = (
        interval.counter_opened_j[device],
        interval.counter_closed_j[device],
        interval.energy_tail_j[device],
    )
    assert opened is not None
    assert closed is not None
    assert tail is not None
    return closed - opened - tail


@pytest.mark.parametrize("arguments", [*RUNS.values(), *FAILURES.values()], ids=[*RUNS, *FAILURES])
def test_a_replay_gives_back_the_run(arguments: dict[str, Any]) -> None:
    source, replayed = _replayed(arguments)
    assert (replayed.status, replayed.status_detail) == (source.status, source.status_detail)
    assert [(i.phase, i.index, i.tokens) for i in replayed.intervals] == [
        (i.phase, i.index, i.tokens) for i in source.intervals
    ]
    for recorded, again in zip(source.intervals, replayed.intervals, strict=True):
        for moment in ("opened_s", "work_ended_s", "closed_s"):
            assert getattr(again, moment) == pytest.approx(getattr(recorded, moment), abs=1e-6)
        assert again.iteration_duration_s == pytest.approx(recorded.iteration_duration_s, abs=1e-9)
        assert again.counter_opened_j == recorded.counter_opened_j
        assert again.counter_closed_j == recorded.counter_closed_j
        assert again.codecarbon == recorded.codecarbon
        assert again.waited_s == recorded.waited_s
        for moments in ("device_opened_s", "device_closed_s"):
            assert getattr(again, moments) == pytest.approx(getattr(recorded, moments), abs=1e-6)
        for device in range(len(source.hardware.devices)):
            assert _energy_j(again, device) == pytest.approx(_energy_j(recorded, device), rel=1e-5)
    assert replayed.counter_started_j == source.counter_started_j
    assert replayed.counter_ended_j == source.counter_ended_j
    assert replayed.warnings == source.warnings
    assert replayed.trace == source.trace
    assert replayed.launch == source.launch


def _as_version_1(source: Record) -> Record:
    """As if only the lead's tick had been waited for, and the others read along with it."""
    intervals = [i.model_copy(update={"device_opened_s": None, "device_closed_s": None}) for i in source.intervals]
    return source.model_copy(update={"schema_version": 1, "intervals": intervals})


def test_a_record_of_version_1_is_replayed_bit_by_bit() -> None:
    run, measured = _measured(RUNS["steady"])
    source = _as_version_1(measured)
    replayed = replay_record(source, run.run, run.resolved)
    for recorded, again in zip(source.intervals, replayed.intervals, strict=True):
        assert again.counter_opened_j == recorded.counter_opened_j
        assert again.counter_closed_j == recorded.counter_closed_j
        assert again.opened_s == pytest.approx(recorded.opened_s, abs=1e-9)
        assert again.device_closed_s == [again.closed_s] * 2
        idle_w, period_s = 80.0, 0.1  # the tick of a device that was read along may be a period away
        assert again.uncertainty_j[1] == pytest.approx(idle_w * period_s / 6**0.5, rel=0.02)


def test_what_only_a_driver_can_tell_is_kept() -> None:
    run, measured = _measured({})
    start = {"waited_s": 0.0, "settled": False, "power_w": [99.0], "temperature_c": [40.0], "power_max_w": 95.0}
    warning = {"code": "start_not_settled", "value": 4.0, "detail": "power"}
    check = {"moment": "before", "time_s": 0.5, "devices": []}
    source = synthetic.altered(
        measured,
        {
            "launch.start": start | {"temperature_max_c": 50.0},
            "warnings": [warning],
            "device_checks": [check],
            "n_attempts": 2,
        },
    )
    replayed = replay_record(source, run.run, run.resolved)
    for part in ("launch", "warnings", "device_checks", "n_attempts"):
        assert getattr(replayed, part) == getattr(source, part)


@pytest.mark.parametrize("name", ["steady", "slow reads"])
def test_the_uncertainty_is_of_the_recorded_size(name: str) -> None:
    source, replayed = _replayed(RUNS[name])
    for recorded, again in zip(source.intervals, replayed.intervals, strict=True):
        if recorded.phase == "window":
            assert again.uncertainty_j == pytest.approx(recorded.uncertainty_j, rel=0.5)


def test_a_replay_keeps_machine_and_times_and_says_what_it_is() -> None:
    run, measured = _measured(RUNS["cold"])
    elsewhere = {"software.driver": "another", "memory.host_peak_bytes": 7, "identity.started_at_utc": "2000-01-01"}
    source = synthetic.altered(measured, elsewhere)
    replayed = replay_record(source, run.run, run.resolved)
    for part in ("hardware", "software", "memory", "workload", "levels", "monotonic_started_s"):
        assert getattr(replayed, part) == getattr(source, part)
    assert replayed.identity == source.identity
    assert replayed.launch.launcher == "cold"
    assert replayed.launch.started_to_load_s == pytest.approx(source.launch.started_to_load_s, abs=1e-6)
    assert replayed.launch.started_to_first_iteration_s == pytest.approx(
        source.launch.started_to_first_iteration_s, abs=1e-6
    )
    assert replayed.meter.energy_method == "replay"
    assert replayed.provenance.replay_of == source.identity.campaign


def test_a_replay_of_a_replay_is_the_same() -> None:
    run, source = _measured(RUNS["steady"])
    once = replay_record(source, run.run, run.resolved)
    twice = replay_record(once, run.run, run.resolved)
    assert [i.counter_closed_j for i in twice.intervals] == [i.counter_closed_j for i in once.intervals]


# --- refusals ------------------------------------------------------------------------------------


TOO_LATE = r"waits for a tick at \d+\.\d+ s, which came at"


def _with(resolved: ResolvedCampaign, **measurement: Any) -> ResolvedCampaign:
    content = resolved.model_dump()
    content["campaign"]["measurement"] |= measurement
    return ResolvedCampaign.model_validate(content)


@pytest.mark.parametrize(
    ("measurement", "words"),
    [
        ({"n_windows": 6}, "asks for more than was recorded"),
        ({"window_min_s": 10.0}, TOO_LATE),
        ({"window_min_s": 1.0}, "went another way: window 0 of 2 iterations"),
        ({"warm_up": {"n_agree": 2}}, "went another way: warmup 0 of 2 iterations"),
        ({"warm_up": {"n_agree": 9}}, TOO_LATE),
        ({"idle_s": 3.0}, TOO_LATE),
    ],
)
def test_other_measurement_settings_are_refused(measurement: dict[str, Any], words: str) -> None:
    run, source = _measured({})
    with pytest.raises(RecordError, match=words):
        replay_record(source, run.run, _with(run.resolved, **measurement))


def test_other_prompts_are_refused() -> None:
    run, source = _measured({})
    content = run.resolved.model_dump()
    content["campaign"]["seed"] = 2
    with pytest.raises(RecordError, match="went another way: prompts"):
        replay_record(source, run.run, ResolvedCampaign.model_validate(content))


def test_another_setting_is_refused() -> None:
    _, source = _measured({})
    other = FakeRun(levels={"batch_size": 8})
    with pytest.raises(RecordError, match="is of setting"):
        replay_record(source, other.run, other.resolved)


@pytest.mark.parametrize("levels", [{"engine": "vllm"}, {"input_length_cv": 0.5, "n_prompts": 8}])
def test_what_a_replay_does_not_know_is_refused(levels: dict[str, Any]) -> None:
    _, source = _measured({})
    other = FakeRun(levels=levels)
    source = source.model_copy(update={"levels": other.run.levels})
    with pytest.raises(RecordError, match="transformers and one length: no more is replayed"):
        replay_record(source, other.run, other.resolved)


def test_first_tokens_come_when_they_were_recorded() -> None:
    run, source = _measured({})
    firsts_s = [[0.1 + 0.01 * n for n in range(len(i.iteration_duration_s))] or None for i in source.intervals]
    intervals = [
        i.model_copy(update={"iteration_first_token_s": first_s})
        for i, first_s in zip(source.intervals, firsts_s, strict=True)
    ]
    replayed = replay_record(source.model_copy(update={"intervals": intervals}), run.run, run.resolved)
    assert [i.iteration_first_token_s for i in replayed.intervals] == firsts_s


def test_a_meter_without_ticks_is_refused() -> None:
    run, source = _measured({"counter": {"ticks": False}})
    with pytest.raises(RecordError, match="shows no ticks"):
        replay_record(source, run.run, run.resolved)


def test_a_missing_reading_is_refused() -> None:
    run, source = _measured({})
    damaged = synthetic.altered(source, {"intervals.3.counter_opened_j": [None, 1.0]})
    with pytest.raises(RecordError, match="a reading of its counter is missing"):
        replay_record(damaged, run.run, run.resolved)


def test_the_replay_campaign_asks_for_runs_of_the_pilot_as_they_were_measured() -> None:
    def ids(runs: list[Run]) -> set[str]:
        return {run.run_id for run in runs}

    replay, pilot = synthetic.resolved_campaign("replay"), synthetic.resolved_campaign("h200-pilot")
    assert replay.campaign.measurement.replay_of == pilot.campaign.name
    assert ids(expand(replay)) < ids(expand(pilot))
    assert replay.campaign.seed == pilot.campaign.seed
    for key in ("idle_s", "idle_loaded_s", "n_windows", "window_min_s", "warm_up"):
        assert getattr(replay.campaign.measurement, key) == getattr(pilot.campaign.measurement, key)
