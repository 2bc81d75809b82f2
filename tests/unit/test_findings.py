"""Warnings: each is given when it should be, with its number, and not otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import synthetic

from inference_energy.measure.findings import warnings_of
from inference_energy.measure.sampler import empty_trace
from inference_energy.records import DeviceCheck, DeviceState, Record, RunWarning, Start

GPU = "nvml_total_energy"
RECORD = synthetic.campaign_records(synthetic.small_campaign(), energy_method=GPU)[0]
WINDOW = next(i for i, interval in enumerate(RECORD.intervals) if interval.phase == "window")
LAST = max(i for i, interval in enumerate(RECORD.intervals) if interval.phase == "window")
SPENT_J = RECORD.intervals[WINDOW].energy_power_instant_j[0]


def _found(record: Record, method: str = GPU, tolerance_fraction: float = 0.02) -> list[RunWarning]:
    return warnings_of(record.intervals, record.trace, 0, tolerance_fraction, method)


def _with(**changes: Any) -> Record:
    """The record with changes in its first window: ``name__device`` for a value of a list."""
    paths = {f"intervals.{WINDOW}.{name.replace('__', '.')}": value for name, value in changes.items()}
    return synthetic.altered(RECORD, paths)


def test_a_good_run_has_no_warning() -> None:
    assert _found(RECORD) == []


@pytest.mark.parametrize(
    ("factor", "code"), [(1.019, None), (1.03, "counter_power_disagree"), (0.97, "counter_power_disagree")]
)
def test_counter_against_power(factor: float, code: str | None) -> None:
    assert SPENT_J is not None
    found = _found(_with(energy_power_instant_j__0=SPENT_J / factor))
    assert [warning.code for warning in found] == ([code] if code else [])
    if code:
        assert found[0].value == pytest.approx(factor - 1)
        assert found[0].detail.startswith("window 0")


def test_the_tolerance_is_the_campaigns() -> None:
    assert SPENT_J is not None
    record = _with(energy_power_instant_j__0=SPENT_J / 1.03)
    assert _found(record, tolerance_fraction=0.05) == []


@pytest.mark.parametrize("missing", [None, 0.0])
def test_missing_power_is_said_where_power_was_to_be_had(missing: float | None) -> None:
    record = _with(energy_power_instant_j__0=missing)
    assert [warning.code for warning in _found(record)] == ["no_instant_power"]
    assert _found(record, method="rapl") == []


def test_a_counter_that_was_not_read() -> None:
    assert [w.code for w in _found(_with(counter_closed_j__0=None))] == ["counter_not_read"]


def test_codecarbon_missing_or_off() -> None:
    assert [w.code for w in _found(_with(codecarbon=None))] == ["no_codecarbon"]
    lap = RECORD.intervals[WINDOW].codecarbon
    assert lap is not None
    off = lap.model_copy(update={"gpu_energy_j": lap.gpu_energy_j * 0.9}).model_dump()
    (warning,) = _found(_with(codecarbon=off))
    assert warning.code == "codecarbon_disagree"
    assert warning.value == pytest.approx(1.01 * 0.9 - 1)  # the synthetic lap is 1 % high
    assert _found(_with(codecarbon=None), method="rapl") == []


def test_codecarbon_is_compared_by_power_as_its_laps_are_not_quite_the_windows() -> None:
    lap = RECORD.intervals[WINDOW].codecarbon
    assert lap is not None
    longer = {**lap.model_dump(), "duration_s": lap.duration_s * 1.2, "gpu_energy_j": lap.gpu_energy_j * 1.2}
    assert _found(_with(codecarbon=longer)) == []


def test_an_estimate_says_so() -> None:
    found = warnings_of(RECORD.intervals, empty_trace(), 0, 0.02, "codecarbon_estimate")
    assert [(warning.code, warning.value) for warning in found] == [("estimate_only", None)]


def _slow(name: str, inside: int, outside: int = 0) -> Record:
    """The record with a slow series that has other values within the windows."""
    opened_s, closed_s = RECORD.intervals[WINDOW].opened_s, RECORD.intervals[LAST].closed_s
    values = [inside if opened_s <= t <= closed_s else outside for t in RECORD.trace.slow_time_s]
    assert inside in values
    assert outside in values
    return synthetic.altered(RECORD, {f"trace.{name}.0": values})


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        (0x4, ["software power cap"]),
        (0x1, []),  # idle
        (0x2, []),  # clocks set by the user
        (0x4 | 0x40, ["software power cap", "hardware thermal slowdown"]),
        (0x80, ["hardware power brake"]),
    ],
)
def test_throttling_counts_by_its_reasons(reasons: int, words: list[str]) -> None:
    found = _found(_slow("throttle_reasons", reasons))
    assert [warning.detail.split(",")[0] for warning in found] == words
    assert {(warning.code, warning.value) for warning in found} <= {("throttled", 1.0)}


def test_throttling_outside_the_windows_does_not_count() -> None:
    assert _found(_slow("throttle_reasons", 0, outside=0x4)) == []


def test_other_processes_are_counted_inside_the_windows() -> None:
    (warning,) = _found(_slow("n_other_processes", 2))
    assert (warning.code, warning.value) == ("other_processes", 2.0)
    assert _found(_slow("n_other_processes", 0, outside=2)) == []


def test_a_trace_that_ends_early() -> None:
    ended_s = RECORD.intervals[LAST].work_ended_s - 0.2
    kept = [i for i, t in enumerate(RECORD.trace.time_s) if t < ended_s]
    changes: dict[str, Any] = {"trace.time_s": [RECORD.trace.time_s[i] for i in kept]}
    (warning,) = _found(synthetic.altered(RECORD, changes))
    assert warning.code == "short_trace"
    assert warning.value == RECORD.trace.time_s[kept[-1]]


# --- several devices ---------------------------------------------------------------------------------


def test_every_device_that_takes_part_is_looked_at_and_codecarbon_counts_all_of_them() -> None:
    window = RECORD.intervals[WINDOW]
    per_device = {
        name: value * 2
        for name, value in window
        if name.startswith(("counter_", "energy_", "uncertainty_")) and isinstance(value, list)
    }
    lap = window.codecarbon
    assert lap is not None
    both = lap.model_copy(update={"gpu_energy_j": 2 * lap.gpu_energy_j})
    two = window.model_copy(update={**per_device, "codecarbon": both})
    trace = RECORD.trace.model_copy(
        update={name: [series[0], series[0]] for name, series in RECORD.trace if series and isinstance(series[0], list)}
    )
    assert warnings_of([two], trace, 0, 0.02, GPU, takes_part=(0, 1)) == []
    (alone,) = warnings_of([two], trace, 0, 0.02, GPU)
    assert alone.code == "codecarbon_disagree"
    assert SPENT_J is not None
    off = two.model_copy(update={"energy_power_instant_j": [SPENT_J, SPENT_J / 1.1]})
    (second,) = warnings_of([off], trace, 0, 0.02, GPU, takes_part=(0, 1))
    assert second.value == pytest.approx(0.1)
    assert second.detail.endswith("less one (device 1)")


# --- start and neighbours ----------------------------------------------------------------------------


def _start(**changes: Any) -> Start:
    content = {"waited_s": 5.0, "settled": False, "power_w": [90.0, 120.0], "temperature_c": [40.0, None]}
    return Start.model_validate(content | {"power_max_w": 95.0, "temperature_max_c": 50.0} | changes)


def _codes(**given: Any) -> list[tuple[str, float | None]]:
    found = warnings_of(RECORD.intervals, RECORD.trace, 0, 0.02, GPU, **given)
    return [(warning.code, warning.value) for warning in found]


def test_a_start_that_did_not_settle() -> None:
    assert _codes(start=_start(settled=True)) == []
    assert _codes(start=_start()) == [("start_not_settled", 25.0)]
    hot = _start(power_w=[90.0, None], temperature_c=[53.0, 60.0])
    assert _codes(start=hot) == [("start_not_settled", 10.0)]
    assert _codes(start=_start(temperature_c=[53.0, 60.0])) == [
        ("start_not_settled", 25.0),
        ("start_not_settled", 10.0),
    ]
    assert _codes(start=_start(power_max_w=None, temperature_c=[51.0])) == [("start_not_settled", 1.0)]


def _check(*devices: tuple[bool, float | None, int | None]) -> DeviceCheck:
    states = [
        DeviceState(
            uuid_hash=f"{i}",
            metered=True,
            participates=participates,
            power_w=power_w,
            temperature_c=None,
            n_own_processes=None,
            n_other_processes=n_others,
        )
        for i, (participates, power_w, n_others) in enumerate(devices)
    ]
    return DeviceCheck(moment="during", time_s=1.0, devices=states)


def test_neighbours_of_a_run_that_was_to_be_alone() -> None:
    ours, rested = (True, 700.0, 1), (False, 109.0, 0)
    start = _start(settled=True)
    assert _codes(alone=True, start=start, checks=[_check(ours, rested)]) == []
    used, drawing = (False, 80.0, 1), (False, 111.0, 0)
    checks = [_check(ours, rested, used, rested), _check(ours, rested, used, drawing)]
    assert _codes(alone=True, start=start, checks=checks) == [("neighbour_seen", 2.0)]
    assert _codes(alone=True, checks=checks) == [("neighbour_seen", 1.0)]  # without a limit, processes alone tell
    assert _codes(alone=False, start=start, checks=checks) == []
    assert _codes(alone=True, start=start, checks=[_check(ours, (False, None, None))]) == []
